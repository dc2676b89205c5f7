//! The analytics store: puts the rows of one verified file into SQLite, inside the caller's transaction.
//!
//! A row's key is (file, position), and the ledger gives each (device, stream, seq) one file number, so
//! a row can exist once only. Called by [`super::ledger`] only; the tables are drawn in `schema.sql`.

use rusqlite::{CachedStatement, Connection, params};

use crate::spool::record::{Gap, RollUp, Row, UsageRecord};

/// Inserts all rows of the file that the ledger numbered `file`.
pub(super) fn insert<'a>(db: &Connection, file: i64, rows: impl Iterator<Item = Row<'a>>) -> rusqlite::Result<()> {
    let mut requests = db.prepare_cached(
        "INSERT INTO request_rows VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22)",
    )?;
    let mut roll_ups = db.prepare_cached("INSERT INTO roll_up_rows VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)")?;
    let mut gaps = db.prepare_cached("INSERT INTO gap_rows VALUES (?1,?2,?3,?4,?5,?6)")?;
    for (row, number) in rows.zip(0i64..) {
        match row {
            Row::Request(record) => insert_request(&mut requests, file, number, &record)?,
            Row::RollUp(RollUp { from_ms, to_ms, outcome, count, bytes_in, bytes_out, api, application }) => {
                let (count, bytes_in, bytes_out) = (int(count), int(bytes_in), int(bytes_out));
                let outcome = outcome.name();
                roll_ups.execute(params![
                    file,
                    number,
                    from_ms,
                    to_ms,
                    outcome,
                    count,
                    bytes_in,
                    bytes_out,
                    api,
                    application
                ])?;
            }
            Row::Gap(Gap { reason, from_ms, to_ms, count }) => {
                gaps.execute(params![file, number, reason.name(), from_ms, to_ms, count.map(int)])?;
            }
        }
    }
    Ok(())
}

fn insert_request(
    insert: &mut CachedStatement<'_>,
    file: i64,
    number: i64,
    record: &UsageRecord<'_>,
) -> rusqlite::Result<()> {
    insert.execute(params![
        file,
        number,
        record.at_ms,
        record.time.name(),
        record.request.0,
        record.api,
        record.version,
        record.route,
        record.method,
        record.status,
        record.outcome.name(),
        record.application,
        record.plan,
        record.principal,
        int(record.bytes_in),
        int(record.bytes_out),
        record.total_us,
        record.upstream_us,
        record.upstream,
        record.client.to_text(),
        record.consumer,
        record.issuer,
    ])?;
    Ok(())
}

/// SQLite's integers are signed; no count or size of this earth is beyond them.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
