//! The rows of one file into SQLite, inside the caller's transaction.
//!
//! A row's key begins with the number of its file's line, and no number is used twice, so a row can exist once only. The
//! dictionaries of the usage file become rows as they are, so a request costs a row of small integers at the end of a
//! table, and nothing is looked up.

use rusqlite::{CachedStatement, Connection, params};

use super::super::int;
use super::daily::{Daily, Sum};
use crate::spool::record::{Gap, RollUp, Row};
use crate::spool::segment::{Dictionaries, Indexed, Verified};

/// Bits of a row's id that are its position in the file: more than `ROWS_LIMIT`.
const POSITION_BITS: u32 = 14;

/// Inserts all rows of the file whose line has this number, and what they add to each day.
pub(super) fn insert(db: &Connection, number: i64, file: &Verified) -> rusqlite::Result<()> {
    let base = number << POSITION_BITS;
    let (dictionaries, requests) = file.indexed();
    insert_dictionaries(db, base, &dictionaries)?;
    let mut daily = Daily::new(&dictionaries);
    let mut insert = db.prepare_cached("INSERT INTO requests VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)")?;
    for (row, id) in requests.zip(base..) {
        daily.add(&row);
        insert_request(&mut insert, id, &row)?;
    }
    insert_others(db, number, file, &mut daily)?;
    let mut insert = db.prepare_cached("INSERT INTO sums VALUES (?1,?2,?3,?4,?5,?6,?7,?8)")?;
    for ((day, api, application, outcome), Sum { requests, bytes_in, bytes_out }) in daily.sums() {
        let (requests, bytes_in, bytes_out) = (int(requests), int(bytes_in), int(bytes_out));
        insert.execute(params![number, day, api, application, outcome.name(), requests, bytes_in, bytes_out])?;
    }
    Ok(())
}

fn insert_dictionaries(db: &Connection, base: i64, dictionaries: &Dictionaries<'_>) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached("INSERT INTO endpoints VALUES (?1,?2,?3,?4,?5,?6)")?;
    for ([api, version, route, method, upstream], id) in dictionaries.endpoints.iter().zip(base..) {
        insert.execute(params![id, api, version, route, method, upstream])?;
    }
    let mut insert = db.prepare_cached("INSERT INTO callers VALUES (?1,?2,?3,?4,?5)")?;
    for ([application, plan, consumer, issuer], id) in dictionaries.callers.iter().zip(base..) {
        insert.execute(params![id, application, plan, consumer, issuer])?;
    }
    let mut insert = db.prepare_cached("INSERT INTO principals VALUES (?1,?2)")?;
    for (principal, id) in dictionaries.principals.iter().zip(base..) {
        insert.execute(params![id, principal])?;
    }
    let mut insert = db.prepare_cached("INSERT INTO clients VALUES (?1,?2)")?;
    for (client, id) in dictionaries.clients.iter().zip(base..) {
        insert.execute(params![id, client.to_text()])?;
    }
    let mut insert = db.prepare_cached("INSERT INTO endings VALUES (?1,?2,?3,?4)")?;
    for ((status, outcome, time), id) in dictionaries.endings.iter().zip(base..) {
        insert.execute(params![id, status, outcome.name(), time.name()])?;
    }
    Ok(())
}

/// The row as integers and nothing else: what a blob or a text costs SQLite more is half of the whole.
fn insert_request(insert: &mut CachedStatement<'_>, id: i64, row: &Indexed) -> rusqlite::Result<()> {
    let Indexed { at_ms, request, endpoint, caller, principal, client, ending, .. } = *row;
    let request = u128::from_be_bytes(request.0);
    let values = [
        id,
        at_ms,
        int(endpoint as u64),
        int(caller as u64),
        int(principal as u64),
        int(client as u64),
        int(ending as u64),
        (request >> 64) as i64,
        request as i64,
        int(row.bytes_in),
        int(row.bytes_out),
        row.total_us.into(),
        row.upstream_us.into(),
    ];
    for (value, place) in values.into_iter().zip(1..) {
        insert.raw_bind_parameter::<usize, _>(place, value)?;
    }
    insert.raw_execute()?;
    Ok(())
}

fn insert_others<'a>(db: &Connection, number: i64, file: &'a Verified, daily: &mut Daily<'a>) -> rusqlite::Result<()> {
    let mut roll_ups = db.prepare_cached("INSERT INTO roll_up_rows VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)")?;
    let mut gaps = db.prepare_cached("INSERT INTO gap_rows VALUES (?1,?2,?3,?4,?5,?6)")?;
    for (row, position) in file.others().zip(file.header().requests..) {
        match row {
            Row::Request(_) => {}
            Row::RollUp(sum) => {
                daily.add_sum(&sum);
                let RollUp { from_ms, to_ms, outcome, count, bytes_in, bytes_out, api, application } = sum;
                let (count, bytes_in, bytes_out) = (int(count), int(bytes_in), int(bytes_out));
                let outcome = outcome.name();
                roll_ups.execute(params![
                    number,
                    position,
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
                gaps.execute(params![number, position, reason.name(), from_ms, to_ms, count.map(int)])?;
            }
        }
    }
    Ok(())
}
