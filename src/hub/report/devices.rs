//! Devices: when each was last heard of, which bundle it runs and which it should, and what of its usage is missing.
//!
//! Which bundle runs is what its newest usage file says: the one in force when that was sealed. Which it should run is
//! told out of the folder of bundles, as the hub would answer it now. How much still waits on a device nobody has told
//! the hub; `missing` are files between those that came, which it should have sent before.

use std::collections::HashMap;
use std::io::Write;

use super::condition;
use super::sheet::{Cell, Sheet};
use super::{Error, Lost, Query};
use crate::hub::bundles::List;
use crate::hub::config::Config;
use crate::hub::ledger::reader::{Dialect, Reader};
use crate::ids::{DeviceId, Digest};

const COLUMNS: [&str; 13] = [
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
];

/// What is known of a device.
#[derive(Debug, Default)]
struct Known {
    name: String,
    standing: &'static str,
    /// 0: never.
    contact_ms: i64,
    /// The manifest's digest that its newest file names, and when the file's stream was last heard of.
    bundle: Option<(i64, Option<Digest>)>,
    /// Numbers of files between those that came.
    missing: u64,
    lost: Lost,
    forks: u64,
}

pub(super) fn write(
    reader: &mut Reader,
    config: &Config,
    query: &Query,
    now_ms: i64,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let devices = read(reader, query)?;
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
        let runs = known.bundle.and_then(|(_, digest)| digest);
        let newest = bundles.as_ref().zip(device.parse::<DeviceId>().ok()).and_then(|(list, id)| list.policy(id));
        let number = runs.and_then(|digest| bundles.as_ref()?.policy_number(&digest));
        sheet.line(&[
            Cell::Text(device.clone()),
            Cell::some(&known.name),
            Cell::Text(known.standing.into()),
            heard.map_or(Cell::Nothing, Cell::Time),
            silent_ms.map_or(Cell::Nothing, |silent| Cell::Seconds(silent / 1_000)),
            match (number, runs) {
                (Some(number), _) => Cell::Text(number.to_string()),
                (None, Some(digest)) => Cell::Text(digest.to_string()),
                (None, None) => Cell::Nothing,
            },
            newest.map_or(Cell::Nothing, |(number, _)| Cell::Text(number.to_string())),
            newest.zip(known.bundle).map_or(Cell::Nothing, |((_, digest), _)| Cell::YesNo(runs != Some(digest))),
            Cell::Number(known.missing),
            Cell::Number(known.lost.counted),
            Cell::Number(known.lost.records),
            Cell::Number(known.lost.unknown),
            Cell::Number(known.forks),
        ])?;
    }
    Ok(sheet.finish(None)?)
}

/// All devices, which a hub holds in memory too.
fn read(reader: &mut Reader, query: &Query) -> Result<HashMap<String, Known>, Error> {
    let which = condition(Vec::new(), query.device);
    let mut devices: HashMap<String, Known> = HashMap::new();
    let fleet = format!("SELECT device, name, enrolled_by, coalesce(revoked_ms, 0), contact_ms FROM fleet {which}");
    reader.rows(&fleet, |row| -> Result<(), Error> {
        let standing = match (row.text(2), row.number(3)?) {
            ("any", 0) => "came by itself",
            (_, 0) => "enrolled",
            _ => "revoked",
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
    let lost = format!("SELECT device, {} FROM gaps {which} GROUP BY device", Lost::sql(dialect));
    reader.rows(&lost, |row| -> Result<(), Error> {
        at(&mut devices, row.text(0)).lost = Lost::read(row, 1)?;
        Ok(())
    })?;
    reader.rows(&format!("SELECT * FROM ({}) AS told {which}", forks(dialect)), |row| -> Result<(), Error> {
        at(&mut devices, row.text(0)).forks = row.count(1)?;
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
             FROM files f JOIN chains c USING (device, stream)
             WHERE f.covered IS NULL AND f.seq > c.contiguous GROUP BY f.device, f.stream"
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

fn forks(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "SELECT lower(hex(device)) AS device, count(*) FROM forks GROUP BY forks.device",
        Dialect::ClickHouse => "SELECT device, count() FROM forks GROUP BY device",
    }
}
