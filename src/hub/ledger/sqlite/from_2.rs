//! From version 2, which kept every row with its texts, and version 1, which kept each receipt too and never read one.
//!
//! Each file's rows are read, written as version 3 has them, and gone, all in the caller's transaction: a failure leaves
//! the old database as it was. Takes as long as the first writing did, and no more memory than a file of usage.

use std::net::IpAddr;

use rusqlite::{Row as Line, Transaction, params};

use super::super::Error;
use super::rows;
use crate::ids::{RequestId, StreamId};
use crate::keys::SigningKey;
use crate::spool::record::{Client, Gap, GapReason, Outcome, RollUp, Row, UsageRecord};
use crate::spool::segment::{Builder, Place, Verified, open};
use crate::units::TimeQuality;

/// What is renamed, so that the new schema can be laid beside it.
const ASIDE: &str = "
DROP VIEW streams; DROP VIEW records; DROP VIEW roll_ups; DROP VIEW gaps;
ALTER TABLE devices RENAME TO devices_2;
ALTER TABLE files RENAME TO files_2;
ALTER TABLE chains RENAME TO chains_2;
ALTER TABLE forks RENAME TO forks_2;
ALTER TABLE request_rows RENAME TO request_rows_2;
ALTER TABLE roll_up_rows RENAME TO roll_up_rows_2;
ALTER TABLE gap_rows RENAME TO gap_rows_2;
";

/// All but the rows. Numbers of files stay.
const LINES: &str = "
INSERT INTO devices SELECT device, key, name, enrolled_by, enrolled_ms, NULL FROM devices_2;
INSERT INTO files SELECT file, device, stream, seq, digest, previous, policy, requests, others, first_ms, last_ms,
                         received_ms, bytes, 1, seq, digest, NULL FROM files_2;
INSERT INTO chains SELECT device, stream, contiguous, highest, contact_ms FROM chains_2;
INSERT INTO forks SELECT device, stream, seq, digest, reason, received_ms, times, bytes FROM forks_2;
";

const DROPPED: &str = "
DROP TABLE request_rows_2; DROP TABLE roll_up_rows_2; DROP TABLE gap_rows_2;
DROP TABLE files_2; DROP TABLE chains_2; DROP TABLE forks_2; DROP TABLE devices_2;
";

/// Brings a database of version 1 or 2 to version 3.
pub(super) fn bring_forward(db: &Transaction<'_>, schema: &str) -> Result<(), Error> {
    db.execute_batch(ASIDE)?;
    db.execute_batch(schema)?;
    db.execute_batch(LINES)?;
    let mut numbers = db.prepare("SELECT file FROM files ORDER BY file")?;
    let mut numbers = numbers.query([])?;
    while let Some(line) = numbers.next()? {
        let number = line.get(0)?;
        rows::insert(db, number, &read(db, number)?)?;
    }
    db.execute_batch(DROPPED)?;
    Ok(())
}

/// The rows of a file as a usage file again, signed by nobody: the form that version 3 writes from.
fn read(db: &Transaction<'_>, number: i64) -> Result<Verified, Error> {
    let mut builder = Builder::new();
    let mut query = db.prepare_cached("SELECT * FROM request_rows_2 WHERE file = ?1 ORDER BY row")?;
    let mut lines = query.query([number])?;
    while let Some(line) = lines.next()? {
        push(&mut builder, &Row::Request(request(line)?))?;
    }
    let mut query = db.prepare_cached(
        "SELECT row, from_ms, to_ms, outcome, count, bytes_in, bytes_out, api, application FROM roll_up_rows_2 WHERE file = ?1
         UNION ALL SELECT row, from_ms, to_ms, reason, count, NULL, NULL, '', '' FROM gap_rows_2 WHERE file = ?1
         ORDER BY row",
    )?;
    let mut lines = query.query(params![number])?;
    while let Some(line) = lines.next()? {
        push(&mut builder, &other(line)?)?;
    }
    let nobody = SigningKey::from_seed(&[0; 32]).ok_or(Error::Damaged("files"))?;
    let place = Place { stream: StreamId(0), seq: 1, previous: None, policy: None };
    let bytes = builder.seal(&place, &nobody).map_err(|_| Error::Damaged("files"))?;
    open(&bytes, &nobody.public()).map_err(|_| Error::Damaged("files"))
}

fn push(builder: &mut Builder, row: &Row<'_>) -> Result<(), Error> {
    builder.push(row).map_err(|_| Error::Damaged("request_rows"))
}

fn text<'a>(line: &'a Line<'_>, column: &str) -> Result<&'a str, Error> {
    line.get_ref(column)?.as_str().map_err(|_| Error::Damaged("request_rows"))
}

fn outcome(line: &Line<'_>) -> Result<Outcome, Error> {
    Outcome::from_name(text(line, "outcome")?).ok_or(Error::Damaged("outcome"))
}

fn unsigned(line: &Line<'_>, column: &str) -> Result<u64, Error> {
    Ok(line.get::<_, i64>(column)?.cast_unsigned())
}

fn request<'a>(line: &'a Line<'_>) -> Result<UsageRecord<'a>, Error> {
    let time = match text(line, "time")? {
        "synced" => TimeQuality::Synced,
        "floor" => TimeQuality::Floor,
        "lost" => TimeQuality::Lost,
        _ => return Err(Error::Damaged("request_rows.time")),
    };
    let client = line.get::<_, Option<String>>("client")?;
    let client = client.map(|client| client.parse::<IpAddr>()).transpose();
    Ok(UsageRecord {
        at_ms: line.get("at_ms")?,
        time,
        request: RequestId(line.get("request")?),
        api: text(line, "api")?,
        version: text(line, "version")?,
        route: text(line, "route")?,
        method: text(line, "method")?,
        status: line.get("status")?,
        outcome: outcome(line)?,
        application: text(line, "application")?,
        plan: text(line, "plan")?,
        principal: text(line, "principal")?,
        bytes_in: unsigned(line, "bytes_in")?,
        bytes_out: unsigned(line, "bytes_out")?,
        total_us: line.get("total_us")?,
        upstream_us: line.get("upstream_us")?,
        upstream: text(line, "upstream")?,
        client: client.map_err(|_| Error::Damaged("request_rows.client"))?.map_or(Client::Absent, Client::Whole),
        consumer: text(line, "consumer")?,
        issuer: text(line, "issuer")?,
    })
}

/// A roll-up, or a gap, which has no bytes.
fn other<'a>(line: &'a Line<'_>) -> Result<Row<'a>, Error> {
    let (from_ms, to_ms) = (line.get("from_ms")?, line.get("to_ms")?);
    if line.get::<_, Option<i64>>("bytes_in")?.is_none() {
        let named = |name: &str| GapReason::from_name(name).ok_or(Error::Damaged("gap_rows.reason"));
        let count = line.get::<_, Option<i64>>("count")?.map(i64::cast_unsigned);
        return Ok(Row::Gap(Gap { reason: named(text(line, "outcome")?)?, from_ms, to_ms, count }));
    }
    Ok(Row::RollUp(RollUp {
        from_ms,
        to_ms,
        outcome: outcome(line)?,
        count: unsigned(line, "count")?,
        bytes_in: unsigned(line, "bytes_in")?,
        bytes_out: unsigned(line, "bytes_out")?,
        api: text(line, "api")?,
        application: text(line, "application")?,
    }))
}
