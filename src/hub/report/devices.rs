//! Devices: when each was last heard of, which bundle it runs and which it should, and what of its usage is missing.
//!
//! Which bundle runs is what its newest usage file says: the one in force when that was sealed. Which it should run is
//! told out of the folder of bundles, as the hub would answer it now. What still waits on a device is what it told last,
//! a hint; `missing` are files between those that came, which it should have sent before.

use std::collections::HashMap;
use std::io::Write;

use super::condition;
use super::sheet::{Cell, Sheet};
use super::{Error, Lost, Query};
use crate::hub::bundles::List;
use crate::hub::config::Config;
use crate::hub::ledger::reader::{Dialect, Reader, exact_sum};
use crate::ids::{DeviceId, Digest};

const COLUMNS: [&str; 17] = [
    "device",
    "name",
    "standing",
    "last_contact",
    "silent",
    "bundle",
    "newest",
    "behind",
    "missing",
    "gaps",
    "lost",
    "unknown",
    "forks",
    "waiting",
    "waiting_bytes",
    "waiting_for",
    "told",
];

const REVOKED: &str = "revoked";

/// What is known of a device.
#[derive(Debug, Default)]
pub(in crate::hub) struct Known {
    pub(in crate::hub) name: String,
    pub(in crate::hub) standing: &'static str,
    /// 0: never.
    pub(in crate::hub) contact_ms: i64,
    /// The manifest's digest that its newest file names, and when the file's stream was last heard of.
    bundle: Option<(i64, Option<Digest>)>,
    /// Numbers of files between those that came.
    pub(in crate::hub) missing: u64,
    pub(in crate::hub) lost: Lost,
    pub(in crate::hub) forks: u64,
    /// What it told last of its backlog.
    pub(in crate::hub) waits: Option<Told>,
    /// All that count, where they were asked for.
    pub(in crate::hub) requests: u64,
}

/// A device's bundle, against the one that the hub has for it.
#[derive(Debug)]
pub(in crate::hub) struct Bundle {
    /// The number of the policy that was in force; its digest where the folder no longer has it.
    pub(in crate::hub) runs: Option<String>,
    pub(in crate::hub) newest: Option<u64>,
    /// Whether they differ; `None` where one of them is not known.
    pub(in crate::hub) behind: Option<bool>,
}

impl Known {
    /// `list` is what lies in the folder of bundles.
    pub(in crate::hub) fn bundle(&self, device: &str, list: Option<&List>) -> Bundle {
        let runs = self.bundle.and_then(|(_, digest)| digest);
        let newest = list.zip(device.parse::<DeviceId>().ok()).and_then(|(list, id)| list.policy(id));
        let number = runs.and_then(|digest| list?.policy_number(&digest));
        Bundle {
            runs: number.map(|number| number.to_string()).or_else(|| runs.map(|digest| digest.to_string())),
            newest: newest.map(|(number, _)| number),
            behind: newest.zip(self.bundle).map(|((_, digest), _)| runs != Some(digest)),
        }
    }

    pub(in crate::hub) fn is_revoked(&self) -> bool {
        self.standing == REVOKED
    }
}

/// What a device told of its backlog, and when.
#[derive(Debug, Clone, Copy)]
pub(in crate::hub) struct Told {
    pub(in crate::hub) at_ms: i64,
    pub(in crate::hub) files: u64,
    pub(in crate::hub) bytes: u64,
    /// Nothing is older, by the device's clock.
    pub(in crate::hub) oldest: Option<i64>,
}

pub(super) fn write(
    reader: &mut Reader,
    config: &Config,
    query: &Query,
    now_ms: i64,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let devices = read(reader, query.device, false)?;
    let bundles = config.bundles.as_deref().map(|folder| List::of(folder, config.root.as_deref()));
    let mut order: Vec<(&String, &Known)> = devices.iter().collect();
    order.sort_unstable_by_key(|(device, known)| (&known.name, *device));
    let mut sheet = Sheet::new(query.format, COLUMNS.to_vec(), out)?;
    for (device, known) in order {
        let heard = (known.contact_ms > 0).then_some(known.contact_ms);
        let silent_ms = heard.map(|at_ms| u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0));
        // Who was never heard of is silent for as long as anybody asks.
        let is_silent = |asked_ms| silent_ms.is_none_or(|silent| u128::from(silent) >= asked_ms);
        if query.silent.is_some_and(|asked| !is_silent(asked.0.as_millis())) {
            continue;
        }
        let bundle = known.bundle(device, bundles.as_ref());
        sheet.line(&[
            Cell::Text(device.clone()),
            Cell::some(&known.name),
            Cell::Text(known.standing.into()),
            heard.map_or(Cell::Nothing, Cell::Time),
            silent_ms.map_or(Cell::Nothing, |silent| Cell::Seconds(silent / 1_000)),
            bundle.runs.map_or(Cell::Nothing, Cell::Text),
            bundle.newest.map_or(Cell::Nothing, |number| Cell::Text(number.to_string())),
            bundle.behind.map_or(Cell::Nothing, Cell::YesNo),
            Cell::Number(known.missing),
            Cell::Number(known.lost.counted),
            Cell::Number(known.lost.records),
            Cell::Number(known.lost.unknown),
            Cell::Number(known.forks),
            known.waits.map_or(Cell::Nothing, |told| Cell::Number(told.files)),
            known.waits.map_or(Cell::Nothing, |told| Cell::Number(told.bytes)),
            known.waits.and_then(|told| told.oldest).map_or(Cell::Nothing, |oldest| {
                Cell::Seconds(u64::try_from(now_ms.div_euclid(1_000).saturating_sub(oldest)).unwrap_or(0))
            }),
            known.waits.map_or(Cell::Nothing, |told| Cell::Time(told.at_ms)),
        ])?;
    }
    Ok(sheet.finish(None)?)
}

/// All devices, which a hub holds in memory too, or one; with how many requests of theirs count, if that is asked for.
pub(in crate::hub) fn read(
    reader: &mut Reader,
    device: Option<DeviceId>,
    with_requests: bool,
) -> Result<HashMap<String, Known>, Error> {
    let which = condition(Vec::new(), device);
    let mut devices: HashMap<String, Known> = HashMap::new();
    let fleet = format!("SELECT device, name, enrolled_by, coalesce(revoked_ms, 0), contact_ms FROM fleet {which}");
    reader.rows(&fleet, |row| -> Result<(), Error> {
        let standing = match (row.text(2), row.number(3)?) {
            ("any", 0) => "came by itself",
            (_, 0) => "enrolled",
            _ => REVOKED,
        };
        let known = Known { name: row.text(1).into(), standing, contact_ms: row.number(4)?, ..Known::default() };
        devices.insert(row.text(0).into(), known);
        Ok(())
    })?;
    let dialect = reader.dialect();
    reader.rows(&format!("SELECT * FROM ({}) AS told {which}", streams(dialect)), |row| -> Result<(), Error> {
        let known = at(&mut devices, row.text(0));
        let contact_ms = row.number(1)?;
        known.contact_ms = known.contact_ms.max(contact_ms);
        // Of several streams the one that was heard of last is the device's spool of now.
        if known.bundle.is_none_or(|(before_ms, _)| before_ms <= contact_ms) {
            known.bundle = Some((contact_ms, row.text(2).parse().ok()));
        }
        known.missing = known.missing.saturating_add(row.count(3)?);
        Ok(())
    })?;
    reader.rows(&format!("SELECT * FROM ({}) AS told {which}", beyond(dialect)), |row| -> Result<(), Error> {
        let known = at(&mut devices, row.text(0));
        known.missing = known.missing.saturating_sub(row.count(1)?);
        Ok(())
    })?;
    let lost = format!("SELECT * FROM ({}) AS told {which}", lost(dialect));
    reader.rows(&lost, |row| -> Result<(), Error> {
        at(&mut devices, row.text(0)).lost = Lost::read(row, 1)?;
        Ok(())
    })?;
    if with_requests {
        let requests = format!("SELECT * FROM ({}) AS told {which}", requests(dialect));
        reader.rows(&requests, |row| -> Result<(), Error> {
            at(&mut devices, row.text(0)).requests = row.sum(1)?;
            Ok(())
        })?;
    }
    reader.rows(&format!("SELECT * FROM ({}) AS told {which}", forks(dialect)), |row| -> Result<(), Error> {
        at(&mut devices, row.text(0)).forks = row.count(1)?;
        Ok(())
    })?;
    let waiting = format!("SELECT device, told_ms, files, bytes, oldest_s FROM waiting {which}");
    reader.rows(&waiting, |row| -> Result<(), Error> {
        let oldest = if row.text(4).is_empty() { None } else { Some(row.number(4)?) };
        let told = Told { at_ms: row.number(1)?, files: row.count(2)?, bytes: row.count(3)?, oldest };
        at(&mut devices, row.text(0)).waits = Some(told);
        Ok(())
    })?;
    Ok(devices)
}

/// One that no line of the ledger enrols, as those for whom only a document in the folder of bundles vouches.
fn at<'a>(devices: &'a mut HashMap<String, Known>, device: &str) -> &'a mut Known {
    devices.entry(device.into()).or_insert_with(|| Known { standing: "by document", ..Known::default() })
}

/// Device, contact, the bundle that its newest file names, and how many numbers lie between the first hole and the last
/// file.
fn streams(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "SELECT lower(hex(c.device)) AS device, c.contact_ms,
                    (SELECT lower(hex(f.policy)) FROM files f
                     WHERE f.device = c.device AND f.stream = c.stream AND f.seq = c.highest ORDER BY f.kind LIMIT 1),
                    max(c.highest - c.contiguous, 0)
             FROM chains c"
        }
        Dialect::ClickHouse => {
            "SELECT device, contact_ms, lower(hex(policy)), if(highest > contiguous, highest - contiguous, 0)
             FROM streams
             ANY LEFT JOIN (
                 SELECT lower(hex(d)) AS device, lower(hex(s)) AS stream, policy
                 FROM (SELECT device AS d, stream AS s, argMax(policy, seq) AS policy
                       FROM claims FINAL WHERE withdrawn = 0 GROUP BY d, s)
             ) AS claimed USING (device, stream)"
        }
    }
}

/// Device and, stream by stream, for how many of those numbers something came. What counts never overlaps.
fn beyond(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "SELECT lower(hex(f.device)) AS device, sum(f.seq - f.first_seq + 1)
             FROM chains c CROSS JOIN files f ON f.device = c.device AND f.stream = c.stream AND f.seq > c.contiguous
             WHERE f.covered IS NULL GROUP BY f.device, f.stream"
        }
        Dialect::ClickHouse => {
            "SELECT device, sum(seq - first_seq + 1)
             FROM (
                 SELECT lower(hex(d)) AS device, lower(hex(s)) AS stream, seq, first_seq
                 FROM (SELECT device AS d, stream AS s, seq, first_seq FROM counted)
             )
             ANY LEFT JOIN (SELECT device, stream, contiguous FROM streams) AS told USING (device, stream)
             WHERE seq > contiguous GROUP BY device, stream"
        }
    }
}

/// Device and what is lost of its usage. SQLite keeps that up with each file.
fn lost(dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => "SELECT lower(hex(device)) AS device, gaps, lost / 4294967296, lost % 4294967296, unknown \
                            FROM tallies WHERE gaps + unknown > 0"
            .into(),
        Dialect::ClickHouse => format!("SELECT device, {} FROM gaps GROUP BY device", Lost::sql(dialect)),
    }
}

/// Device and its requests that count. So too.
fn requests(dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => {
            "SELECT lower(hex(device)) AS device, requests / 4294967296, requests % 4294967296 FROM tallies".into()
        }
        Dialect::ClickHouse => {
            format!("SELECT device, {} FROM daily GROUP BY device", exact_sum(dialect, "requests"))
        }
    }
}

fn forks(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "SELECT lower(hex(device)) AS device, count(*) FROM forks GROUP BY forks.device",
        Dialect::ClickHouse => "SELECT device, count() FROM forks GROUP BY device",
    }
}
