//! The ledger: which usage files the hub has, so that every record counts exactly once.
//!
//! A file's line, its rows and the chain's progress are one SQLite transaction, synced before a receipt is
//! given. So a crash anywhere leaves either nothing, and the device sends again, or everything, and a
//! repeat gets a receipt of the same moment, signed anew. Owned by the thread in [`super::writer`].

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::config::Config;
use super::sink::{self, int};
use crate::ids::{DeviceId, Digest};
use crate::keys::{KeyAlg, PublicKey, SigningKey};
use crate::spool::chain::{self, Known, Link, Verdict};
use crate::spool::receipt::{self, Receipt};
use crate::spool::segment::{Header, Verified};

const SCHEMA: &str = include_str!("schema.sql");
/// Counts what happened to devices, whoever did it, so that a running hub sees it at little cost.
const CHANGES: &str = "
CREATE TABLE changes (devices INTEGER NOT NULL) STRICT;
INSERT INTO changes VALUES (1);
CREATE TRIGGER device_added AFTER INSERT ON devices BEGIN UPDATE changes SET devices = devices + 1; END;
CREATE TRIGGER device_changed AFTER UPDATE ON devices BEGIN UPDATE changes SET devices = devices + 1; END;
CREATE TRIGGER device_removed AFTER DELETE ON devices BEGIN UPDATE changes SET devices = devices + 1; END;";
const SCHEMA_VERSION: i64 = 3;
/// From version 1, which kept each receipt and never read one.
const FROM_1: &str = "ALTER TABLE files DROP COLUMN receipt";
/// From version 2, which revoked no device.
const FROM_2: &str = "ALTER TABLE devices ADD COLUMN revoked_ms INTEGER";
/// "Tide" in SQLite's header, so that `file` and we know whose database it is.
const APPLICATION_ID: i64 = 0x5469_6465;
const BUSY: Duration = Duration::from_secs(10);
/// Forked files of one stream that are kept with their bytes; later ones are only counted.
const FORKS_KEPT: i64 = 16;

/// Why the ledger cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite failed: see its reason (disk full, permissions, damage). Nothing was acknowledged.
    #[error("the hub's database")]
    Database(#[from] rusqlite::Error),
    /// The file is another program's database: name another one.
    #[error("the database is not a Tidegate hub's")]
    Foreign,
    /// A newer hub wrote it: update this program.
    #[error("the database has schema version {0}, and this program knows {SCHEMA_VERSION}")]
    NewerSchema(i64),
    /// A device's stored key cannot be read: the database is damaged, restore it.
    #[error("a stored device key is damaged")]
    StoredKey,
}

/// A device as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its Ed25519 key.
    pub key: PublicKey,
    /// For people.
    pub name: String,
    /// Whether it came by `enrol = "any"`, not by the configuration.
    pub came_by_itself: bool,
}

impl Device {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.key.id().into()
    }
}

/// Who enrolled a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The configuration lists it.
    Config,
    /// It came, where the hub enrols whoever comes.
    Any,
    /// A person, by `tidegate-hub device add`.
    Command,
}

impl By {
    const ALL: [Self; 3] = [Self::Config, Self::Any, Self::Command];

    /// The word in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Any => "any",
            Self::Command => "command",
        }
    }
}

/// A device that was enrolled once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Which.
    pub device: Device,
    /// By whom.
    pub by: By,
    /// Whether a person has revoked it since.
    pub is_revoked: bool,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// The hub has it for good, now or since before.
    Kept {
        /// The signed receipt: the same for the same file, as long as the hub's key is.
        receipt: Vec<u8>,
        /// `Contiguous`, `Ahead` or `Repeat`.
        verdict: Verdict,
    },
    /// It contradicts the chain and was kept apart: `ChainFork` or `PreviousMismatch`.
    Apart(Verdict),
}

/// The database and the key that signs receipts.
#[derive(Debug)]
pub(super) struct Ledger {
    db: Connection,
    key: SigningKey,
}

impl Ledger {
    /// Opens or creates the store that the configuration names.
    pub(super) fn open(config: &Config, key: SigningKey) -> Result<Self, Error> {
        Self::open_file(&config.database, key)
    }

    fn open_file(path: &Path, key: SigningKey) -> Result<Self, Error> {
        // For the hub's eyes only; SQLite gives its other files the same mode. Where this fails it says why.
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: what was acknowledged is on the disk, a power cut included.
        db.pragma_update(None, "synchronous", "FULL")?;
        create(&mut db)?;
        Ok(Self { db, key })
    }

    /// All devices that were ever enrolled.
    pub(super) fn devices(&mut self) -> Result<Vec<Enrolled>, Error> {
        let mut query = self.db.prepare("SELECT key, name, enrolled_by, revoked_ms IS NOT NULL FROM devices")?;
        let rows = query
            .query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?)))?;
        rows.map(|row| {
            let (key, name, by, is_revoked) = row?;
            let key = PublicKey::new(KeyAlg::Ed25519, &key).map_err(|_| Error::StoredKey)?;
            let by = By::ALL.into_iter().find(|one| one.name() == by).ok_or(Error::StoredKey)?;
            Ok(Enrolled { device: Device { key, name, came_by_itself: by == By::Any }, by, is_revoked })
        })
        .collect()
    }

    /// Writes a device down, or its new name. Only [`By::Command`] takes a revocation back.
    pub(super) fn enrol(&mut self, device: &Device, by: By, now_ms: i64) -> Result<(), Error> {
        write_device(&self.db, device, by, now_ms)?;
        if by == By::Command {
            let again = "UPDATE devices SET revoked_ms = NULL WHERE device = ?1 AND revoked_ms IS NOT NULL";
            self.db.execute(again, [device.id().0])?;
        }
        Ok(())
    }

    /// `false` if there is no such device.
    pub(super) fn revoke(&mut self, device: DeviceId, now_ms: i64) -> Result<bool, Error> {
        let revoke = "UPDATE devices SET revoked_ms = coalesce(revoked_ms, ?2) WHERE device = ?1";
        Ok(self.db.execute(revoke, params![device.0, now_ms])? > 0)
    }

    /// Another number whenever devices have changed, whoever changed them.
    pub(super) fn changes(&mut self) -> Result<u64, Error> {
        let mut query = self.db.prepare_cached("SELECT devices FROM changes")?;
        Ok(query.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)?)
    }

    /// Takes a verified file of `device`; `bytes` are the whole file's. `now_ms` goes into the receipt.
    pub(super) fn take(&mut self, device: &Device, file: &Verified, bytes: &[u8], now_ms: i64) -> Result<Taken, Error> {
        let Self { db, key } = self;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let header = file.header();
        let known = known(&transaction, header)?;
        let verdict = chain::judge(&Link::of(header, file.digest()), &known);
        let taken = match verdict {
            Verdict::Contiguous | Verdict::Ahead { .. } => {
                let by = if device.came_by_itself { By::Any } else { By::Config };
                write_device(&transaction, device, by, now_ms)?;
                let receipt = sign_receipt(file, key, now_ms);
                write_file(&transaction, file, bytes.len(), now_ms)?;
                Taken::Kept { receipt: receipt.to_vec(), verdict }
            }
            // The same moment gives the same receipt; under a new key of the hub, one that is believed again.
            Verdict::Repeat | Verdict::Covered => {
                let receipt = sign_receipt(file, key, received_ms(&transaction, header)?);
                Taken::Kept { receipt: receipt.to_vec(), verdict }
            }
            Verdict::ChainFork | Verdict::PreviousMismatch => {
                write_fork(&transaction, file, bytes, verdict, now_ms)?;
                Taken::Apart(verdict)
            }
        };
        touch_chain(&transaction, header, &known, &taken, now_ms)?;
        transaction.commit()?;
        Ok(taken)
    }
}

fn create(db: &mut Connection) -> Result<(), Error> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute_batch(CHANGES)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    } else if application != APPLICATION_ID {
        return Err(Error::Foreign);
    } else if version > SCHEMA_VERSION {
        return Err(Error::NewerSchema(version));
    } else if version < SCHEMA_VERSION {
        if version < 2 {
            transaction.execute_batch(FROM_1)?;
        }
        transaction.execute_batch(FROM_2)?;
        transaction.execute_batch(CHANGES)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
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

/// The key of a file's stream and number, as columns.
fn columns(header: &Header) -> ([u8; 16], [u8; 8], i64) {
    (header.device().0, header.stream.0.to_be_bytes(), int(header.seq))
}

fn known(db: &Connection, header: &Header) -> Result<Known, Error> {
    let (device, stream, seq) = columns(header);
    let mut neighbour =
        db.prepare_cached("SELECT digest, previous FROM files WHERE device=?1 AND stream=?2 AND seq=?3")?;
    let mut digests = |seq: i64| {
        let row = neighbour.query_row(params![device, stream, seq], |row| Ok((row.get(0)?, row.get(1)?)));
        row.optional().map(|row: Option<([u8; 32], Option<[u8; 32]>)>| row.unzip())
    };
    let (same, previous) = digests(seq)?;
    let (before, _) = digests(seq - 1)?;
    let (_, after_expects) = digests(seq + 1)?;
    let contiguous: Option<i64> = db
        .prepare_cached("SELECT contiguous FROM chains WHERE device=?1 AND stream=?2")?
        .query_row(params![device, stream], |row| row.get(0))
        .optional()?;
    Ok(Known {
        contiguous: contiguous.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0),
        same: same
            .map(|digest| Link {
                first: header.seq,
                seq: header.seq,
                is_tombstone: false,
                digest: Digest(digest),
                previous: previous.flatten().map(Digest),
                chain_digest: Digest(digest),
            })
            .into_iter()
            .collect(),
        before: before.map(Digest),
        after_expects: after_expects.flatten().map(Digest),
    })
}

fn sign_receipt(file: &Verified, key: &SigningKey, at_ms: i64) -> [u8; receipt::LEN] {
    let header = file.header();
    let (stream, seq, digest) = (header.stream, header.seq, file.digest());
    Receipt { device: header.device(), stream, seq, digest, at_ms }.sign(key)
}

fn received_ms(db: &Connection, header: &Header) -> Result<i64, Error> {
    let (device, stream, seq) = columns(header);
    let mut query = db.prepare_cached("SELECT received_ms FROM files WHERE device=?1 AND stream=?2 AND seq=?3")?;
    Ok(query.query_row(params![device, stream, seq], |row| row.get(0))?)
}

fn write_file(db: &Transaction<'_>, file: &Verified, len: usize, now_ms: i64) -> Result<(), Error> {
    let header = file.header();
    let (device, stream, seq) = columns(header);
    db.prepare_cached(
        "INSERT INTO files (device, stream, seq, digest, previous, policy, requests, others, first_ms, last_ms,
                            received_ms, bytes) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)",
    )?
    .execute(params![
        device,
        stream,
        seq,
        file.digest().0,
        header.previous.map(|digest| digest.0),
        header.policy.map(|digest| digest.0),
        header.requests,
        header.others,
        header.first_ms,
        header.last_ms,
        now_ms,
        int(len as u64),
    ])?;
    sink::insert(db, db.last_insert_rowid(), file.rows())?;
    Ok(())
}

fn write_fork(db: &Connection, file: &Verified, bytes: &[u8], verdict: Verdict, now_ms: i64) -> Result<(), Error> {
    let (device, stream, seq) = columns(file.header());
    let reason = if verdict == Verdict::ChainFork { "ChainFork" } else { "PreviousMismatch" };
    let kept: i64 = db
        .prepare_cached("SELECT count(*) FROM forks WHERE device=?1 AND stream=?2 AND bytes IS NOT NULL")?
        .query_row(params![device, stream], |row| row.get(0))?;
    let bytes = (kept < FORKS_KEPT).then_some(bytes);
    db.prepare_cached(
        "INSERT INTO forks VALUES (?1,?2,?3,?4,?5,?6,1,?7)
         ON CONFLICT DO UPDATE SET times = times + 1",
    )?
    .execute(params![device, stream, seq, file.digest().0, reason, now_ms, bytes])?;
    Ok(())
}

/// Moves the stream's line on: how far it has come without a hole, and that the device was heard of.
fn touch_chain(db: &Connection, header: &Header, known: &Known, taken: &Taken, now_ms: i64) -> Result<(), Error> {
    let (device, stream, seq) = columns(header);
    let mut contiguous = int(known.contiguous);
    if matches!(taken, Taken::Kept { verdict: Verdict::Contiguous, .. }) {
        let mut exists = db.prepare_cached("SELECT 1 FROM files WHERE device=?1 AND stream=?2 AND seq=?3")?;
        while exists.exists(params![device, stream, contiguous + 1])? {
            contiguous += 1;
        }
    }
    let highest = if matches!(taken, Taken::Kept { .. }) { seq } else { 0 };
    db.prepare_cached(
        "INSERT INTO chains VALUES (?1,?2,?3,?4,?5)
         ON CONFLICT DO UPDATE SET contiguous = excluded.contiguous, highest = max(highest, excluded.highest),
                                   contact_ms = excluded.contact_ms",
    )?
    .execute(params![device, stream, contiguous, highest, now_ms])?;
    Ok(())
}

#[cfg(test)]
mod tests;
