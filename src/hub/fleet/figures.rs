//! The page's figures, as JSON: totals of all devices, a line for each, and requests by day and group of outcomes.
//!
//! In one pass, over what stores keep by device and by day. SQLite keeps sums up with each file, so nothing grows with
//! what was used; ClickHouse sums its records.

use std::collections::HashMap;

use serde::Serialize;
use time::format_description::well_known::Iso8601;
use time::{Duration, OffsetDateTime};

use crate::hub::bundles::List;
use crate::hub::config::Config;
use crate::hub::ledger::reader::{Dialect, Reader, exact_sum};
use crate::hub::report::Error;
use crate::hub::report::devices::{self, Known};
use crate::spool::record::Outcome;

/// Most devices that have a line; the totals are of all.
const DEVICES: usize = 20_000;
/// How many days are told, this one too.
const DAYS: usize = 30;
const HOUR_MS: i64 = 3_600_000;
/// After so long without a word a device is silent.
const SILENT_MS: i64 = 24 * HOUR_MS;

/// What outcomes are told together, in the order of the bars.
const GROUPS: [&str; 7] = ["answered", "token", "policy", "throttled", "client", "upstream", "gateway"];

#[derive(Debug, Serialize)]
struct Figures {
    version: &'static str,
    /// When they were read, in milliseconds since the Unix epoch.
    at: i64,
    totals: Totals,
    devices: Vec<Line>,
    /// Devices that have no line.
    more: usize,
    groups: [&'static str; GROUPS.len()],
    /// The first of them, and requests by group for each.
    first_day: String,
    days: Vec<[u64; GROUPS.len()]>,
    /// Hints of a backlog that could not be read since the hub's start.
    unread: u64,
}

/// Of all devices that are not revoked.
#[derive(Debug, Default, Serialize)]
struct Totals {
    devices: usize,
    revoked: usize,
    hour: usize,
    day: usize,
    silent: usize,
    behind: usize,
    /// With gaps, unknown intervals, or files that contradict.
    gaps: usize,
    backlog: usize,
    files: u64,
    bytes: u64,
    oldest: Option<i64>,
    requests: u64,
}

/// A device: what `page.html` calls `FIELDS`, in that order.
#[derive(Debug, Serialize)]
struct Line(
    String,         // id
    String,         // name
    &'static str,   // standing
    i64,            // contact, 0: never
    Option<String>, // bundle
    Option<u64>,    // newest
    Option<bool>,   // behind
    u64,            // missing
    u64,            // gaps
    u64,            // lost
    u64,            // unknown
    u64,            // forks
    Option<u64>,    // files
    Option<u64>,    // bytes
    Option<i64>,    // oldest
    Option<i64>,    // told
    u64,            // requests
);

/// Reads them as of `now_ms`. Blocks for the store.
pub(in crate::hub) fn read(config: &Config, list: Option<&List>, unread: u64, now_ms: i64) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::open(config)?;
    let known = devices::read(&mut reader, None, true)?;
    let mut totals = Totals::default();
    for device in known.values() {
        totals.requests = totals.requests.saturating_add(device.requests);
    }
    let mut order: Vec<(String, Known)> = known.into_iter().collect();
    order.sort_unstable_by(|(a, left), (b, right)| (&left.name, a).cmp(&(&right.name, b)));
    let more = order.len().saturating_sub(DEVICES);
    let mut lines = Vec::with_capacity(order.len().min(DEVICES));
    for (id, device) in order {
        let bundle = device.bundle(&id, list);
        totals.add(&device, bundle.behind == Some(true), now_ms);
        if lines.len() < DEVICES {
            let (lost, told) = (device.lost, device.waits);
            lines.push(Line(
                id,
                device.name,
                device.standing,
                device.contact_ms,
                bundle.runs,
                bundle.newest,
                bundle.behind,
                device.missing,
                lost.counted,
                lost.records,
                lost.unknown,
                device.forks,
                told.map(|told| told.files),
                told.map(|told| told.bytes),
                told.and_then(|told| told.oldest),
                told.map(|told| told.at_ms),
                device.requests,
            ));
        }
    }
    let (first_day, days) = days(&mut reader, now_ms)?;
    let version = env!("CARGO_PKG_VERSION");
    let figures =
        Figures { version, at: now_ms, totals, devices: lines, more, groups: GROUPS, first_day, days, unread };
    Ok(serde_json::to_vec(&figures).map_err(std::io::Error::from)?)
}

impl Totals {
    fn add(&mut self, device: &Known, is_behind: bool, now_ms: i64) {
        if device.is_revoked() {
            self.revoked += 1;
            return;
        }
        let silence = now_ms.saturating_sub(device.contact_ms);
        let lost = device.lost;
        self.devices += 1;
        self.hour += usize::from(silence < HOUR_MS);
        self.day += usize::from(silence < SILENT_MS);
        self.silent += usize::from(silence >= SILENT_MS);
        self.behind += usize::from(is_behind);
        self.gaps += usize::from(lost.counted > 0 || lost.unknown > 0 || device.forks > 0);
        if let Some(told) = device.waits.filter(|told| told.files > 0) {
            self.backlog += 1;
            self.files = self.files.saturating_add(told.files);
            self.bytes = self.bytes.saturating_add(told.bytes);
            self.oldest = self.oldest.into_iter().chain(told.oldest).min();
        }
    }
}

/// The last days in UTC, and requests by group for each.
fn days(reader: &mut Reader, now_ms: i64) -> Result<(String, Vec<[u64; GROUPS.len()]>), Error> {
    let today = OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1_000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let back = |days: usize| today.checked_sub(Duration::days(i64::try_from(days).unwrap_or(0))).unwrap_or(today);
    let name = |days: usize| back(days).date().format(&Iso8601::DATE).unwrap_or_default();
    let names: HashMap<String, usize> = (0..DAYS).map(|ago| (name(ago), DAYS - 1 - ago)).collect();
    let first = name(DAYS - 1);
    let dialect = reader.dialect();
    let sums = exact_sum(dialect, "requests");
    let sql = match dialect {
        Dialect::Sqlite => format!(
            "SELECT date(day * 86400, 'unixepoch'), outcome, {sums} FROM outcomes
             WHERE day >= {} GROUP BY day, outcome",
            back(DAYS - 1).unix_timestamp().div_euclid(86_400)
        ),
        Dialect::ClickHouse => {
            format!("SELECT day, outcome, {sums} FROM daily WHERE day >= '{first}' GROUP BY day, outcome")
        }
    };
    let mut days = vec![[0_u64; GROUPS.len()]; DAYS];
    reader.rows(&sql, |row| -> Result<(), Error> {
        // What a clock that ran ahead put into the future has no bar.
        let day = names.get(row.text(0)).and_then(|at| days.get_mut(*at));
        let sum = day.zip(Outcome::from_name(row.text(1))).and_then(|(day, outcome)| day.get_mut(group(outcome)));
        if let Some(sum) = sum {
            *sum = sum.saturating_add(row.sum(2)?);
        }
        Ok(())
    })?;
    Ok((first, days))
}

/// Where an outcome belongs in [`GROUPS`].
fn group(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Admitted => 0,
        Outcome::RateLimited | Outcome::QuotaExceeded => 3,
        Outcome::BodyTooLarge | Outcome::HeaderTooLarge | Outcome::BadRequest | Outcome::DownstreamAborted => 4,
        Outcome::UpstreamConnect | Outcome::UpstreamTimeout | Outcome::UpstreamClosed | Outcome::UpstreamProtocol => 5,
        Outcome::Overloaded | Outcome::Internal => 6,
        other if other.number() < 60 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_group() {
        let of = |group_name: &str| {
            let is_in = |outcome: &&Outcome| GROUPS[group(**outcome)] == group_name;
            Outcome::ALL.iter().filter(is_in).map(|outcome| outcome.number()).collect::<Vec<_>>()
        };
        assert_eq!(of("answered"), [0]);
        assert_eq!(of("token"), (10..=38).collect::<Vec<_>>());
        assert_eq!(of("policy"), [60, 61, 62, 63, 64, 65, 68]);
        assert_eq!(of("throttled"), [66, 67]);
        assert_eq!(of("client"), [80, 81, 82, 104]);
        assert_eq!(of("upstream"), [100, 101, 102, 103]);
        assert_eq!(of("gateway"), [105, 106]);
    }
}
