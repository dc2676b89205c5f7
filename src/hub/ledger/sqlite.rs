//! The store `sqlite`: one file beside the hub, drawn in `schema.sql`.
//!
//! A batch is one transaction with all lines, rows and progress of its files, synced before anything is acknowledged.

mod daily;
mod from_2;
mod rows;
mod tally;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{By, Device, Enrolled, Error, Heard, Incoming, Judged, Store, int, is_apart, known};
use crate::ids::{DeviceId, Digest};
use crate::keys::{KeyAlg, PublicKey};
use crate::spool::backlog::Waits;
use crate::spool::chain::{self, Link, Verdict};
use crate::spool::segment::Header;

const SCHEMA: &str = include_str!("../schema.sql");
pub(super) const SCHEMA_VERSION: i64 = 4;
/// What follows in the schema is what version 3 had not.
const SINCE_4: &str = "-- Since version 4.\n";
/// "Tide" in SQLite's header, so that `file` and we know whose database it is.
pub(super) const APPLICATION_ID: i64 = 0x5469_6465;
pub(super) const BUSY: Duration = Duration::from_secs(10);
/// Forked files of one stream that are kept with their bytes; later ones are only counted.
const FORKS_KEPT: i64 = 16;
/// Pages of 4 KiB that SQLite keeps in memory, and after which it moves its log into the file: fewer syncs a file.
const PAGES: i64 = 4_096;

/// The open file.
#[derive(Debug)]
pub(super) struct Sqlite {
    db: Connection,
}

impl Sqlite {
    /// Opens or creates the database.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        // For the hub's eyes only; SQLite gives its other files the same mode. Where this fails it says why.
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        db.set_prepared_statement_cache_capacity(64);
        db.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: what was acknowledged is on the disk, a power cut included.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "cache_size", PAGES)?;
        db.pragma_update(None, "wal_autocheckpoint", PAGES)?;
        create(&mut db)?;
        Ok(Self { db })
    }

    #[cfg(test)]
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }
}

impl Store for Sqlite {
    fn take(&mut self, batch: &[Incoming<'_>], now_ms: i64) -> Result<Vec<Judged>, Error> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Where one fails, none is there.
        let judged: Result<Vec<_>, Error> =
            batch.iter().map(|incoming| take_one(&transaction, incoming, now_ms)).collect();
        let judged = judged?;
        transaction.commit()?;
        Ok(judged)
    }

    fn devices(&mut self) -> Result<Vec<Enrolled>, Error> {
        let mut query = self.db.prepare("SELECT key, name, enrolled_by, revoked_ms IS NOT NULL FROM devices")?;
        let mut rows = query.query([])?;
        let mut devices = Vec::new();
        while let Some(row) = rows.next()? {
            let (key, by): (Vec<u8>, String) = (row.get(0)?, row.get(2)?);
            let key = PublicKey::new(KeyAlg::Ed25519, &key).map_err(|_| Error::Damaged("devices.key"))?;
            let by = By::from_name(&by)?;
            let device = Device { key, name: row.get(1)?, came_by_itself: by == By::Any };
            devices.push(Enrolled { device, by, is_revoked: row.get(3)? });
        }
        Ok(devices)
    }

    fn enrol(&mut self, device: &Device, by: By, now_ms: i64) -> Result<(), Error> {
        write_device(&self.db, device, by, now_ms)?;
        if by == By::Command {
            let again = "UPDATE devices SET revoked_ms = NULL WHERE device = ?1 AND revoked_ms IS NOT NULL";
            self.db.execute(again, [device.id().0])?;
        }
        Ok(())
    }

    fn revoke(&mut self, device: DeviceId, now_ms: i64) -> Result<bool, Error> {
        let revoke = "UPDATE devices SET revoked_ms = coalesce(revoked_ms, ?2) WHERE device = ?1";
        Ok(self.db.execute(revoke, params![device.0, now_ms])? > 0)
    }

    fn changes(&mut self) -> Result<u64, Error> {
        let mut query = self.db.prepare_cached("SELECT devices FROM changes")?;
        query.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned).map_err(Error::from)
    }

    fn touch(&mut self, heard: &[Heard], now_ms: i64) -> Result<(), Error> {
        let contact = "INSERT INTO contacts VALUES (?1,?2)
                       ON CONFLICT DO UPDATE SET contact_ms = max(contact_ms, excluded.contact_ms)";
        let backlog = "INSERT INTO backlogs VALUES (?1,?2,?3,?4,?5)
                       ON CONFLICT DO UPDATE SET told_ms = excluded.told_ms, files = excluded.files,
                                                 bytes = excluded.bytes, oldest_s = excluded.oldest_s
                       WHERE told_ms <= excluded.told_ms";
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for Heard { device, waits } in heard {
            transaction.prepare_cached(contact)?.execute(params![device.0, now_ms])?;
            if let Some((Waits { stock, oldest }, told_ms)) = waits {
                let (files, bytes) = (int(stock.files), int(stock.bytes));
                transaction.prepare_cached(backlog)?.execute(params![device.0, told_ms, files, bytes, oldest])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn create(db: &mut Connection) -> Result<(), Error> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    } else if application != APPLICATION_ID {
        return Err(Error::Foreign);
    } else if version > SCHEMA_VERSION {
        return Err(Error::NewerSchema(version));
    } else if version < SCHEMA_VERSION {
        let (_, since_4) = SCHEMA.split_once(SINCE_4).ok_or(Error::Damaged("schema"))?;
        match version {
            3 => transaction.execute_batch(since_4)?,
            _ => from_2::bring_forward(&transaction, SCHEMA)?,
        }
        tally::fill(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(transaction.commit()?)
}

fn write_device(db: &Connection, device: &Device, by: By, now_ms: i64) -> Result<(), Error> {
    // Whom a person enrolled stays so, whatever the configuration lists.
    db.prepare_cached(
        "INSERT INTO devices VALUES (?1,?2,?3,?4,?5,NULL)
         ON CONFLICT (device) DO UPDATE SET name = excluded.name, enrolled_by = excluded.enrolled_by
         WHERE (name <> excluded.name OR enrolled_by <> excluded.enrolled_by)
           AND (enrolled_by <> 'command' OR excluded.enrolled_by = 'command')",
    )?
    .execute(params![device.id().0, device.key.raw(), device.name, by.name(), now_ms])?;
    Ok(())
}

fn take_one(db: &Transaction<'_>, incoming: &Incoming<'_>, now_ms: i64) -> Result<Judged, Error> {
    let Incoming { device, file, bytes } = incoming;
    let header = file.header();
    let link = Link::of(header, file.digest());
    let near = near(db, header, &link)?;
    let contiguous = contiguous(db, header)?;
    let verdict = chain::judge(&link, &known(&link, near.iter().map(|held| &held.link), contiguous));
    let mut received_ms = now_ms;
    match verdict {
        Verdict::Contiguous | Verdict::Ahead { .. } | Verdict::Covered => {
            let by = if device.came_by_itself { By::Any } else { By::Config };
            write_device(db, device, by, now_ms)?;
            let file_number = write_line(db, incoming, &link, now_ms)?;
            if verdict == Verdict::Covered {
                let by = near.iter().find(|held| held.link.covers(&link)).map(|held| held.number);
                db.prepare_cached("UPDATE files SET covered = ?2 WHERE file = ?1")?
                    .execute(params![file_number, by])?;
            } else {
                cover(db, header, &link, file_number)?;
                rows::insert(db, file_number, file)?;
                tally::add(db, file_number)?;
            }
        }
        Verdict::Repeat => {
            let held = near.iter().find(|held| held.link.digest == link.digest);
            received_ms = held.map_or(now_ms, |held| held.received_ms);
        }
        Verdict::ChainFork | Verdict::PreviousMismatch => write_fork(db, header, &link, bytes, verdict, now_ms)?,
    }
    touch_chain(db, header, &link, contiguous, verdict, now_ms)?;
    Ok(Judged { verdict, received_ms })
}

/// The key of a file's stream, as columns.
fn columns(header: &Header) -> ([u8; 16], [u8; 8]) {
    (header.device().0, header.stream.0.to_be_bytes())
}

/// A line that is in the database.
#[derive(Debug, Clone, Copy)]
struct Held {
    number: i64,
    received_ms: i64,
    link: Link,
}

/// The lines that touch or overlap it, without those strictly inside of it.
fn near(db: &Connection, header: &Header, link: &Link) -> Result<Vec<Held>, Error> {
    let (device, stream) = columns(header);
    let (first, seq) = (int(link.first), int(link.seq));
    let mut near = Vec::new();
    let mut read = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<(), Error> {
        let mut query = db.prepare_cached(sql)?;
        let mut rows = query.query(params)?;
        while let Some(row) = rows.next()? {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let link = Link {
                first: number(2)?,
                seq: number(3)?,
                is_tombstone: row.get::<_, i64>(4)? == 2,
                digest: Digest(row.get(5)?),
                previous: row.get::<_, Option<[u8; 32]>>(6)?.map(Digest),
                chain_digest: Digest(row.get(7)?),
            };
            near.push(Held { number: row.get(0)?, received_ms: row.get(1)?, link });
        }
        Ok(())
    };
    read(
        "SELECT file, received_ms, first_seq, seq, kind, digest, previous, chain_digest FROM files
         WHERE device=?1 AND stream=?2 AND seq IN (?3-1, ?3, ?4, ?4+1) AND kind = 1",
        params![device, stream, first, seq],
    )?;
    read(
        "SELECT file, received_ms, first_seq, seq, kind, digest, previous, chain_digest FROM files
         WHERE device=?1 AND stream=?2 AND kind = 2 AND seq >= ?3-1 AND first_seq <= ?4+1
           AND NOT (first_seq > ?3 AND seq < ?4)",
        params![device, stream, first, seq],
    )?;
    Ok(near)
}

fn contiguous(db: &Connection, header: &Header) -> Result<u64, Error> {
    let (device, stream) = columns(header);
    let mut query = db.prepare_cached("SELECT contiguous FROM chains WHERE device=?1 AND stream=?2")?;
    let contiguous = query.query_row(params![device, stream], |row| row.get::<_, i64>(0)).optional()?;
    Ok(contiguous.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0))
}

fn write_line(db: &Connection, incoming: &Incoming<'_>, link: &Link, now_ms: i64) -> Result<i64, Error> {
    let header = incoming.file.header();
    let (device, stream) = columns(header);
    db.prepare_cached(
        "INSERT INTO files (device, stream, seq, digest, previous, policy, requests, others, first_ms, last_ms,
                            received_ms, bytes, kind, first_seq, chain_digest)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
    )?
    .execute(params![
        device,
        stream,
        int(link.seq),
        link.digest.0,
        link.previous.map(|digest| digest.0),
        header.policy.map(|digest| digest.0),
        header.requests,
        header.others,
        header.first_ms,
        header.last_ms,
        now_ms,
        int(incoming.bytes.len() as u64),
        if link.is_tombstone { 2 } else { 1 },
        int(link.first),
        link.chain_digest.0,
    ])?;
    Ok(db.last_insert_rowid())
}

/// Writes down what counts no more because of the new line: `Link::covers`, in SQL.
fn cover(db: &Connection, header: &Header, link: &Link, number: i64) -> Result<(), Error> {
    let (device, stream) = columns(header);
    let (first, seq) = (int(link.first), int(link.seq));
    if link.is_tombstone {
        db.prepare_cached(
            "UPDATE files SET covered = ?5 WHERE device=?1 AND stream=?2 AND seq BETWEEN ?3 AND ?4 AND first_seq >= ?3
             AND covered IS NULL AND file <> ?5 AND NOT (first_seq = ?3 AND seq = ?4)",
        )?
        .execute(params![device, stream, first, seq, number])?;
    } else {
        db.prepare_cached(
            "UPDATE files SET covered = ?4 WHERE device=?1 AND stream=?2 AND seq = ?3 AND first_seq = ?3 AND kind = 2
             AND covered IS NULL",
        )?
        .execute(params![device, stream, seq, number])?;
    }
    // What this line covers lies within its numbers.
    let mut covered = db.prepare_cached(
        "SELECT file FROM files WHERE device=?1 AND stream=?2 AND seq BETWEEN ?3 AND ?4 AND covered = ?5",
    )?;
    let mut covered = covered.query(params![device, stream, first, seq, number])?;
    while let Some(line) = covered.next()? {
        tally::take_away(db, line.get(0)?)?;
    }
    Ok(())
}

fn write_fork(
    db: &Connection,
    header: &Header,
    link: &Link,
    bytes: &[u8],
    verdict: Verdict,
    now_ms: i64,
) -> Result<(), Error> {
    let (device, stream) = columns(header);
    let reason = if verdict == Verdict::ChainFork { "ChainFork" } else { "PreviousMismatch" };
    let kept: i64 = db
        .prepare_cached("SELECT count(*) FROM forks WHERE device=?1 AND stream=?2 AND bytes IS NOT NULL")?
        .query_row(params![device, stream], |row| row.get(0))?;
    let bytes = (kept < FORKS_KEPT).then_some(bytes);
    db.prepare_cached(
        "INSERT INTO forks VALUES (?1,?2,?3,?4,?5,?6,1,?7)
         ON CONFLICT DO UPDATE SET times = times + 1",
    )?
    .execute(params![device, stream, int(link.seq), link.digest.0, reason, now_ms, bytes])?;
    Ok(())
}

/// Moves the stream's line on: how far it has come without a hole, and that the device was heard of.
fn touch_chain(
    db: &Connection,
    header: &Header,
    link: &Link,
    mut contiguous: u64,
    verdict: Verdict,
    now_ms: i64,
) -> Result<(), Error> {
    let (device, stream) = columns(header);
    if link.first <= contiguous.saturating_add(1) && !is_apart(verdict) {
        let mut onward = db.prepare_cached(
            "SELECT max(coalesce((SELECT max(seq) FROM files
                                  WHERE device=?1 AND stream=?2 AND kind = 1 AND seq = ?3+1), 0),
                        coalesce((SELECT max(seq) FROM files
                                  WHERE device=?1 AND stream=?2 AND kind = 2 AND seq > ?3 AND first_seq <= ?3+1), 0))",
        )?;
        contiguous = contiguous.max(link.seq);
        loop {
            let next: i64 = onward.query_row(params![device, stream, int(contiguous)], |row| row.get(0))?;
            match u64::try_from(next) {
                Ok(next) if next > contiguous => contiguous = next,
                _ => break,
            }
        }
    }
    let highest = if is_apart(verdict) { 0 } else { link.seq };
    db.prepare_cached(
        "INSERT INTO chains VALUES (?1,?2,?3,?4,?5)
         ON CONFLICT DO UPDATE SET contiguous = excluded.contiguous, highest = max(highest, excluded.highest),
                                   contact_ms = excluded.contact_ms",
    )?
    .execute(params![device, stream, int(contiguous), int(highest), now_ms])?;
    Ok(())
}
