//! Usage in the file forms of others, for who still feeds their analytics.
//!
//! One pass over the view `records`; a file is in memory until it is full, and is then there as a whole. Its name is made
//! of its content, so an export that is made again replaces its files by the same ones. Called by `tidegate-hub export`.

mod wso2;
mod zip;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use wso2::Streams;

use super::config::Config;
use super::ledger;
use super::ledger::reader::{Dialect, Fields, Reader, exact_sum};
use super::report::{Period, condition};
use crate::disk;
use crate::ids::{DeviceId, hex};
use crate::keys::sha256;

/// Bytes of events in a file; a little more, by one event.
const FILE: usize = 8 << 20;
/// Readable by whoever is to take the files on; what records keep of persons is the policy's to say.
const MODE: u32 = 0o640;

/// Why an export did not come to its end. Files that are there are whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`ledger::Error`].
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The folder, or a file in it, cannot be written: see the system's reason.
    #[error("{path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// More than a container holds: a defect of Tidegate.
    #[error("a file is over its limit")]
    TooLong,
}

impl Error {
    /// Whether only a person can help.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Ledger(error) if error.is_configuration())
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Export {
    /// In which version of the event streams.
    pub streams: Streams,
    /// Of which days.
    pub period: Period,
    /// Of one device.
    pub device: Option<DeviceId>,
    /// Where the files are to be.
    pub folder: PathBuf,
}

/// What was written, and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files that were written.
    pub files: u64,
    /// Events of requests that reached their upstream.
    pub requests: u64,
    /// Events of requests that failed on the way.
    pub faults: u64,
    /// Events of requests over a limit.
    pub throttled: u64,
    /// Requests that were refused before: the form has no event for them.
    pub refused: u64,
    /// Requests that are told as sums only.
    pub summed: u64,
    /// Requests that are lost for certain.
    pub lost: u64,
    /// Intervals in which nobody can know what is lost.
    pub unknown: u64,
    /// Texts in which a separator of the form was replaced.
    pub altered: u64,
}

/// The records' columns that an event is made of, in the order of [`Record`].
const COLUMNS: &str = "at_ms, device, request_id, api, version, route, method, status, outcome, application, plan, principal, \
                       bytes_out, total_us, upstream_us, upstream, client, consumer";

/// A record, as the store tells it.
#[derive(Debug, Clone, Copy)]
struct Record<'a> {
    at_ms: i64,
    device: &'a str,
    request_id: &'a str,
    api: &'a str,
    version: &'a str,
    route: &'a str,
    method: &'a str,
    status: i64,
    outcome: &'a str,
    application: &'a str,
    plan: &'a str,
    principal: &'a str,
    bytes_out: u64,
    total_us: u64,
    upstream_us: u64,
    upstream: &'a str,
    client: &'a str,
    consumer: &'a str,
}

impl<'a> Record<'a> {
    fn of(row: &'a Fields) -> Result<Self, ledger::Error> {
        Ok(Self {
            at_ms: row.number(0)?,
            device: row.text(1),
            request_id: row.text(2),
            api: row.text(3),
            version: row.text(4),
            route: row.text(5),
            method: row.text(6),
            status: row.number(7)?,
            outcome: row.text(8),
            application: row.text(9),
            plan: row.text(10),
            principal: row.text(11),
            bytes_out: row.count(12)?,
            total_us: row.count(13)?,
            upstream_us: row.count(14)?,
            upstream: row.text(15),
            client: row.text(16),
            consumer: row.text(17),
        })
    }
}

/// Writes WSO2's usage files into a folder, which is made if it is missing.
pub fn export_wso2(config: &Config, export: &Export) -> Result<Exported, Error> {
    let folder = &export.folder;
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
    let mut reader = Reader::open(config)?;
    let which = condition(export.period.of_interval("at_ms", "at_ms"), export.device);
    // SQLite's own order is always the same, and costs nothing.
    let order = match reader.dialect() {
        Dialect::Sqlite => "",
        Dialect::ClickHouse => "ORDER BY device, stream, seq, row",
    };
    let mut exported = Exported::default();
    let (mut events, mut last_ms) = (Vec::new(), 0);
    reader.rows(&format!("SELECT {COLUMNS} FROM records {which} {order}"), |row| {
        let record = Record::of(row)?;
        wso2::event(export.streams, &record, &mut events, &mut exported);
        last_ms = record.at_ms;
        if events.len() >= FILE {
            write(folder, &std::mem::take(&mut events), last_ms, &mut exported)?;
        }
        Ok::<(), Error>(())
    })?;
    if !events.is_empty() {
        write(folder, &events, last_ms, &mut exported)?;
    }
    left_out(&mut reader, export, &mut exported)?;
    Ok(exported)
}

fn write(folder: &Path, events: &[u8], last_ms: i64, exported: &mut Exported) -> Result<(), Error> {
    let container = zip::stored(wso2::FILE_NAME, events).ok_or(Error::TooLong)?;
    let path = folder.join(wso2::container_name(last_ms, &identifier(events)));
    disk::replace(&path, &container, MODE).map_err(|source| Error::Write { path, source })?;
    exported.files += 1;
    Ok(())
}

/// A UUID that the content makes (RFC 9562, version 8).
fn identifier(content: &[u8]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha256(content).0[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// What no event can tell.
fn left_out(reader: &mut Reader, export: &Export, exported: &mut Exported) -> Result<(), Error> {
    let dialect = reader.dialect();
    let counts = exact_sum(dialect, "count");
    let which = condition(export.period.of_interval("from_ms", "to_ms"), export.device);
    reader.rows(&format!("SELECT {counts} FROM roll_ups {which}"), |row| {
        exported.summed = row.sum(0)?;
        Ok::<(), Error>(())
    })?;
    let counts = exact_sum(dialect, "coalesce(count, 0)");
    reader.rows(&format!("SELECT {counts}, sum(count IS NULL) FROM gaps {which}"), |row| {
        (exported.lost, exported.unknown) = (row.sum(0)?, row.count(2)?);
        Ok::<(), Error>(())
    })
}
