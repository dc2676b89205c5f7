//! The data plane: one HTTP request, in order.
//!
//! ```text
//! listener ─▶ worker ─▶ pipeline: admit ─▶ throttle ─▶ forward ─▶ meter
//!   accepts    one thread,   │                            │          │
//!   and hands  one runtime   └── reply (refusals) ──┐     pool       └─▶ turn: one record a request to the Intake,
//!   over                                            ▼                      then the answers' last bytes
//!                                              downstream
//! ```
//!
//! A worker is a current-thread runtime that owns its connections, its upstream pool, its verified tokens and its
//! intake; workers share the policy, the throttle and the counters, and nothing of them is locked across a wait.
//! It must never touch a disk (its one write is the intake's), wait for anything but its two peers, or forward a
//! request without a [`throttle::Permit`](crate::throttle::Permit).
//!
//! Invariant: every request that hyper hands over ends in exactly one usage record, a refused or broken one too; what
//! hyper refuses by itself, before there is a request, is a counter. Called by the daemon, through [`Gateway::start`].

mod body;
mod counters;
mod discretion;
mod drain;
mod fields;
mod forward;
mod head;
mod listener;
mod lookup;
mod meter;
mod pipeline;
mod pool;
mod reply;
mod seldom;
mod time;
mod tls;
mod turn;
mod wire;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::keys::MacKey;
use crate::policy::Snapshot;
use crate::telemetry::Heartbeats;
use crate::throttle::Throttle;
use crate::units::{Bytes, Span, Unfit, within};

pub use counters::{ConnectionEnd, Counters};
pub use drain::{Drained, Running};
pub use listener::{Listener, bind};
pub use meter::Intake;
pub use time::TimeState;
pub use tls::{asking_server_config, server_config};

/// Most workers: beyond it one thread that accepts is what limits, and the systemd unit has no tasks for them.
pub const WORKERS_LIMIT: u16 = 32;
/// The purpose of the device's key that [`Shared::pseudonyms`] is.
pub const PSEUDONYMS: &str = "tidegate/v1/pseudonyms";

/// Settings of the data plane, section `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many threads serve connections, at most [`WORKERS_LIMIT`]; 0 is one for each processor, up to there.
    pub workers: u16,
    /// Memory for verified tokens, for each worker.
    pub token_cache: Bytes,
    /// What is too much.
    pub limits: Limits,
    /// What takes too long.
    pub timeouts: Timeouts,
    /// Where requests come in. Sockets that systemd passes are matched by address, else by port, else by order.
    pub listeners: Vec<ListenerConfig>,
}

/// What is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections from downstream at a time; more wait in the kernel's queue.
    pub connections: u32,
    /// Request line and header fields together; beyond it 431. At least 8 KiB.
    pub head: Bytes,
    /// Idle connections kept to one endpoint, for each worker.
    pub idle_upstream: u32,
}

/// What takes too long. The time to connect to an upstream and the time that its answer may take are the policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// From a connection's start, or from the end of an answer, until the next request's head is complete: a client
    /// that idles or drips a head is closed after it.
    pub head: Span,
    /// Without a single byte of a body from downstream or upstream, or with no byte taken by either.
    pub body: Span,
    /// For the TLS handshake.
    pub handshake: Span,
    /// How long an idle connection to an upstream is kept.
    pub idle_upstream: Span,
    /// How long requests in flight may take to end when the daemon stops.
    pub drain: Span,
}

/// One address that requests come in by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerConfig {
    /// Address and port.
    pub address: SocketAddr,
    /// PEM certificate chain; with it the listener speaks TLS only.
    pub certificate: Option<PathBuf>,
    /// PEM private key of the certificate.
    pub key: Option<PathBuf>,
    /// Callers are asked for a certificate. Any is taken, and none too: it counts only for a token that is bound to it.
    pub ask_certificate: bool,
    /// Every peer of this listener is a proxy of ours: its `Forwarded` and `X-Forwarded-*` are kept and added to, and
    /// its `X-Real-IP` is kept. Of any other peer none of them reaches an upstream.
    pub trust_forwarded: bool,
    /// Likewise, its `X-Request-Id` of 32 lower-case hex digits is taken over.
    pub trust_request_id: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 0,
            token_cache: Bytes(1 << 20),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            listeners: vec![ListenerConfig::default()],
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1_024, head: Bytes(32 << 10), idle_upstream: 64 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Span::secs(30),
            body: Span::secs(30),
            handshake: Span::secs(10),
            idle_upstream: Span::secs(60),
            drain: Span::secs(10),
        }
    }
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 8080)),
            certificate: None,
            key: None,
            trust_forwarded: false,
            trust_request_id: false,
            ask_certificate: false,
        }
    }
}

impl Config {
    /// How many workers there will be on this machine.
    #[must_use]
    pub fn worker_count(&self) -> u16 {
        self.workers_on(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    fn workers_on(&self, processors: usize) -> u16 {
        match self.workers {
            0 => u16::try_from(processors).unwrap_or(u16::MAX).min(WORKERS_LIMIT),
            workers => workers,
        }
    }

    /// What of it could be read but not used.
    #[must_use]
    pub fn check(&self) -> Vec<Unfit> {
        let Limits { connections, head, idle_upstream } = self.limits;
        let times = &self.timeouts;
        let (short, long) = (Span::millis(100), Span::hours(1));
        let too_soon = "less breaks off peers that do nothing wrong, more keeps dead ones";
        [
            within("workers", self.workers, 0..=WORKERS_LIMIT, "each is a thread, with memory of its own"),
            within("token_cache", self.token_cache, Bytes(0)..=Bytes(256 << 20), "each worker takes so much"),
            within("limits.connections", connections, 1..=65_536, "none could be served, or memory runs out"),
            within("limits.head", head, Bytes(8 << 10)..=Bytes(1 << 20), "each connection may take so much"),
            within("limits.idle_upstream", idle_upstream, 0..=65_536, "each is a descriptor"),
            within("timeouts.head", times.head, short..=long, too_soon),
            within("timeouts.body", times.body, short..=long, too_soon),
            within("timeouts.handshake", times.handshake, short..=long, too_soon),
            within("timeouts.idle_upstream", times.idle_upstream, Span::secs(0)..=Span::hours(24), "it is never right"),
            within("timeouts.drain", times.drain, Span::secs(0)..=Span::secs(600), "whoever stops it waits so long"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not this machine's: stop the other program, or correct `gateway.listeners`.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
    /// The certificate or key of a listener cannot be used: check the files that it names.
    #[error("cannot use the certificate and key: {0}")]
    Tls(String),
    /// The system gives no more threads or descriptors: raise its limits.
    #[error("cannot start a worker")]
    Thread(#[source] std::io::Error),
    /// There is nothing to serve with: a defect of the caller.
    #[error("no intake was given, so there is no worker")]
    NoWorker,
}

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The policy in force; read once for each request.
    pub policy: Arc<ArcSwap<Snapshot>>,
    /// All rate and quota counters.
    pub throttle: Arc<Throttle>,
    /// What the time is worth; the daemon refreshes it.
    pub time: Arc<ArcSwap<TimeState>>,
    /// What happened so far.
    pub counters: Arc<Counters>,
    /// From when the throttle counts its monotonic time.
    pub origin: Instant,
    /// The device's key for [`PSEUDONYMS`]: what usage records have in place of persons and addresses is made with it.
    pub pseudonyms: Arc<MacKey>,
    /// Where each thread shows that it lives: `accept`, and `gateway-N` for worker N.
    pub hearts: Heartbeats,
}

/// The data plane.
#[derive(Debug)]
pub struct Gateway;

impl Gateway {
    /// Starts one worker for each intake, and accepts connections from then on.
    ///
    /// Errors: [`Error::Thread`] and [`Error::NoWorker`].
    pub fn start(
        config: &Config,
        listeners: Vec<Listener>,
        shared: &Shared,
        intakes: Vec<Box<dyn Intake>>,
    ) -> Result<Running, Error> {
        if intakes.is_empty() {
            return Err(Error::NoWorker);
        }
        drain::start(config, listeners, shared, intakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_machine_gets_no_more_workers_than_the_unit_has_tasks_for() {
        let workers = |workers, processors| Config { workers, ..Config::default() }.workers_on(processors);
        assert_eq!([workers(0, 1), workers(0, 4), workers(0, 64), workers(0, 100_000)], [1, 4, 32, 32]);
        assert_eq!([workers(2, 64), workers(32, 1)], [2, 32], "what is said is done");
    }
}
