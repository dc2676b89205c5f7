//! Durable store-and-forward of usage: from a request's last byte to the hub's receipt.
//!
//! ```text
//!  worker ──▶ intake ── one write(2) ─▶ open log ─┐   (sums, where a record cannot be kept)
//!  worker ──▶ intake ── one write(2) ─▶ open log ─┤
//!                                                 ▼ in a child process, only while there is work
//!  writer thread: when to seal (another one syncs) ──▶ gather ─▶ segment ─▶ ledger (generations of sled)
//!                                                                     │ oldest, acknowledge
//!                                             upload ◀── Spool ◀──────┘
//! ```
//!
//! The open log *is* the queue: a record lies in exactly one place at every moment, and one atomic
//! commit moves it from there into a sealed file. So ordinary running and recovery after a kill are
//! the same code. sled's memory never comes back to its process, so all of sled, sealing and reading
//! back runs in a short-lived child of the same binary (`docs/spool-measurements.md`).
//!
//! It must never block or fail a request, never lose a record silently, never grow with the backlog.
//! What cannot be told is a roll-up or a gap, and those are rows too. Called by the gateway (intake),
//! upload and the admin socket (handle), the daemon (start, stop, and the child's entry).

pub mod backlog;
pub mod chain;
pub mod child;
pub mod protocol;
pub mod receipt;
pub mod record;
pub mod segment;
pub mod timestamp;

mod budget;
mod columns;
mod counts;
mod due;
mod gather;
mod generations;
mod handle;
mod held;
mod intake;
mod lane;
pub mod lease;
mod ledger;
mod log;
mod losses;
mod renew;
mod runner;
mod state;
mod summary;
mod suspects;
mod syncer;
mod tombstones;
mod wire;
mod writer;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use handle::{Program, Spool, Status, Waiting};
pub use intake::Intake;
#[cfg(all(test, feature = "hub"))]
pub(crate) use ledger::sim_tests;
pub use renew::renew;

use crate::units::{Bytes, Span, Unfit, within};

/// Why the spool does not start. Nothing that is on the disk already can cause it but the first two.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be made or written: check its owner, and that the disk is not read-only.
    #[error("cannot use the spool folder {path}")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon uses this spool: stop it first.
    #[error("another process uses the spool in {0}")]
    Locked(PathBuf),
    /// The system's random source failed, or no thread could be made: look at the system's log.
    #[error("the system cannot start the spool")]
    System(#[source] io::Error),
}

/// Settings of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A power cut costs at most this much of the last traffic, and what comes while one sync lasts. Shorter
    /// writes more flash.
    pub sync_interval: Span,
    /// Seal at the latest after this, while the hub is in reach.
    pub seal_after: Span,
    /// Seal at the latest after this, while it is not: larger files are smaller per record.
    pub seal_after_offline: Span,
    /// Full records a second for refusals before authentication; the rest is only counted, and so are all of them
    /// while a quarter of the backlog's or of the open limit is taken.
    pub unauthenticated_records: u32,
    /// Most bytes of records that wait to be sealed; above it they are only counted.
    pub open_limit: Bytes,
    /// Most disk that sealed files take, some three times their own bytes. At least three generations and a file.
    pub backlog_limit: Bytes,
    /// What becomes of usage when that is taken.
    pub when_full: WhenFull,
    /// Free space that the spool leaves to others: below it nothing is written but counts.
    pub free_floor: Bytes,
    /// Size at which an open log is followed by the next.
    pub log_size: Bytes,
    /// Size at which a generation is followed by the next. Each opening of one writes what is free in it.
    pub generation_size: Bytes,
}

/// What becomes of usage when the backlog has reached its limit. Every way counts; they differ in what else is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The oldest files become sums by hour, API, application and outcome.
    #[default]
    RollUp,
    /// Of the oldest files their number of requests is left.
    DropOldest,
    /// Nothing more is sealed, and so in the end the newest requests become sums by outcome.
    DropNewest,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sync_interval: Span::secs(5),
            seal_after: Span::secs(60),
            seal_after_offline: Span::secs(600),
            unauthenticated_records: 10,
            open_limit: Bytes(64 << 20),
            backlog_limit: Bytes(1 << 30),
            when_full: WhenFull::RollUp,
            free_floor: Bytes(32 << 20),
            log_size: Bytes(4 << 20),
            generation_size: Bytes(512 << 10),
        }
    }
}

impl Config {
    /// What of it could be read but not used.
    #[must_use]
    pub fn check(&self) -> Vec<Unfit> {
        const MIB: u64 = 1 << 20;
        let least = self.generation_size.0.saturating_mul(3).saturating_add(segment::FILE_LIMIT as u64);
        let sizes = |low, high| Bytes(low)..=Bytes(high);
        let (soon, day) = (Span::millis(100), Span::hours(24));
        let sealing = "less makes a file of each request, more keeps usage from the hub";
        [
            within(
                "sync_interval",
                self.sync_interval,
                soon..=Span::secs(600),
                "less wears the flash, more loses more",
            ),
            within("seal_after", self.seal_after, soon..=day, sealing),
            within("seal_after_offline", self.seal_after_offline, soon..=day, sealing),
            within("unauthenticated_records", self.unauthenticated_records, 0..=1_000_000, "anybody can cause them"),
            within("open_limit", self.open_limit, sizes(MIB, 16 << 30), "with less all usage is only counted"),
            within(
                "backlog_limit",
                self.backlog_limit,
                sizes(least, 1 << 40),
                "less than three generations and a file fill up with what has left already, and with a damaged one that is kept",
            ),
            within("free_floor", self.free_floor, sizes(0, 1 << 40), "no disk has so much"),
            within("log_size", self.log_size, sizes(64 << 10, 256 * MIB), "less makes a file of each request"),
            within("generation_size", self.generation_size, sizes(256 << 10, 1 << 30), "space is freed by generations"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests;
