//! The ledger: which usage files the hub has, so that every record counts exactly once.
//!
//! What counts is a pure function of the set of files that is held (`spool::chain`), and that set only grows. A receipt
//! is given only after the file's line and rows are durable in the store: a crash anywhere leaves either nothing that
//! counts, and the device sends again, or everything, and a repeat gets a receipt of the same moment, signed anew.
//! Owned by the thread in [`super::writer`], so all here is synchronous.
//!
//! Two stores keep it: [`sqlite`], a file beside the hub, and [`clickhouse`], a server that several hubs share.

pub(super) mod clickhouse;
pub(super) mod reader;
mod sqlite;

use super::config::Config;
use crate::ids::DeviceId;
use crate::keys::{PublicKey, SigningKey};
use crate::spool::backlog::Waits;
use crate::spool::chain::{Known, Link, Verdict};
use crate::spool::receipt::Receipt;
use crate::spool::segment::Verified;

/// Why the ledger cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite failed: see its reason (disk full, permissions, damage). Nothing was acknowledged.
    #[error("the hub's database")]
    Database(#[from] rusqlite::Error),
    /// See [`clickhouse::Error`]. Nothing was acknowledged.
    #[error(transparent)]
    ClickHouse(#[from] clickhouse::Error),
    /// The file is another program's database: name another one.
    #[error("the database is not a Tidegate hub's")]
    Foreign,
    /// A newer hub wrote it: update this program.
    #[error("the database has schema version {0}, and this program knows {known}", known = sqlite::SCHEMA_VERSION)]
    NewerSchema(i64),
    /// An older hub wrote it, and it is only to be read: start this version's hub once, which brings it forward.
    #[error("the database has schema version {0}: start the hub once, which makes it {known}", known = sqlite::SCHEMA_VERSION)]
    OlderSchema(i64),
    /// A row of the database is not what the hub writes: the database is damaged, restore it.
    #[error("a stored row is damaged: {0}")]
    Damaged(&'static str),
}

impl Error {
    /// Whether only a person can help.
    pub(super) fn is_configuration(&self) -> bool {
        matches!(self, Self::Foreign | Self::NewerSchema(_) | Self::OlderSchema(_))
    }
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

    fn from_name(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|by| by.name() == name).ok_or(Error::Damaged("devices.enrolled_by"))
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

/// A device that was heard of beside its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) device: DeviceId,
    /// What it told of its backlog last, and when that was, in milliseconds since the Unix epoch.
    pub(super) waits: Option<(Waits, i64)>,
}

/// A verified file of `device`, with all its bytes.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) device: &'a Device,
    pub(super) file: &'a Verified,
    pub(super) bytes: &'a [u8],
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// The hub has it for good, now or since before.
    Kept {
        /// The signed receipt: the same for the same file, as long as the hub's key is.
        receipt: Vec<u8>,
        /// `Contiguous`, `Ahead`, `Covered` or `Repeat`.
        verdict: Verdict,
    },
    /// It contradicts the chain and was kept apart: `ChainFork` or `PreviousMismatch`.
    Apart(Verdict),
}

/// What a store says of a file that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judged {
    verdict: Verdict,
    /// When it came first; for what is apart, when it came now.
    received_ms: i64,
}

/// Where ledger and rows are kept. A store answers only for what is durable.
trait Store: std::fmt::Debug + Send {
    /// Takes files in the order given; in the same order what became of each.
    fn take(&mut self, batch: &[Incoming<'_>], now_ms: i64) -> Result<Vec<Judged>, Error>;

    /// All devices that were ever enrolled.
    fn devices(&mut self) -> Result<Vec<Enrolled>, Error>;

    /// Writes a device down, or its new name. Only [`By::Command`] takes a revocation back.
    fn enrol(&mut self, device: &Device, by: By, now_ms: i64) -> Result<(), Error>;

    /// `false` if there is no such device.
    fn revoke(&mut self, device: DeviceId, now_ms: i64) -> Result<bool, Error>;

    /// Another number whenever devices have changed, whoever changed them.
    fn changes(&mut self) -> Result<u64, Error>;

    /// These devices were heard of. What one told earlier stands where it tells nothing now.
    fn touch(&mut self, heard: &[Heard], now_ms: i64) -> Result<(), Error>;
}

/// The store and the key that signs receipts.
#[derive(Debug)]
pub(super) struct Ledger {
    store: Box<dyn Store>,
    key: SigningKey,
}

impl Ledger {
    /// Opens or creates the store that the configuration names.
    pub(super) fn open(config: &Config, key: SigningKey) -> Result<Self, Error> {
        let store: Box<dyn Store> = match &config.clickhouse {
            None => Box::new(sqlite::Sqlite::open(&config.database)?),
            Some(clickhouse) => Box::new(clickhouse::ClickHouse::open(clickhouse)?),
        };
        Ok(Self { store, key })
    }

    /// Takes files in the order given; in the same order what became of each. On an error nothing is acknowledged.
    pub(super) fn take(&mut self, batch: &[Incoming<'_>], now_ms: i64) -> Result<Vec<Taken>, Error> {
        let judged = self.store.take(batch, now_ms)?;
        let taken = batch.iter().zip(judged).map(|(incoming, Judged { verdict, received_ms })| {
            if is_apart(verdict) {
                return Taken::Apart(verdict);
            }
            // The same moment gives the same receipt; under a new key of the hub, one that is believed again.
            let receipt = sign_receipt(incoming.file, &self.key, received_ms);
            Taken::Kept { receipt, verdict }
        });
        Ok(taken.collect())
    }

    /// See [`Store::devices`].
    pub(super) fn devices(&mut self) -> Result<Vec<Enrolled>, Error> {
        self.store.devices()
    }

    /// See [`Store::enrol`].
    pub(super) fn enrol(&mut self, device: &Device, by: By, now_ms: i64) -> Result<(), Error> {
        self.store.enrol(device, by, now_ms)
    }

    /// See [`Store::revoke`].
    pub(super) fn revoke(&mut self, device: DeviceId, now_ms: i64) -> Result<bool, Error> {
        self.store.revoke(device, now_ms)
    }

    /// See [`Store::changes`].
    pub(super) fn changes(&mut self) -> Result<u64, Error> {
        self.store.changes()
    }

    /// See [`Store::touch`].
    pub(super) fn touch(&mut self, heard: &[Heard], now_ms: i64) -> Result<(), Error> {
        self.store.touch(heard, now_ms)
    }
}

/// What `chain::judge` wants to know, out of the lines that touch or overlap the file. Those strictly inside of a tombstone
/// say nothing of it.
fn known<'a>(link: &Link, near: impl Iterator<Item = &'a Link>, contiguous: u64) -> Known {
    let mut known = Known { contiguous, ..Known::default() };
    for held in near {
        if held.seq.saturating_add(1) == link.first {
            known.before = Some(held.chain_digest);
        } else if link.seq.saturating_add(1) == held.first {
            known.after_expects = held.previous;
        } else {
            known.same.push(*held);
        }
    }
    known
}

/// Whether the file contradicts what is there.
fn is_apart(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::ChainFork | Verdict::PreviousMismatch)
}

fn sign_receipt(file: &Verified, key: &SigningKey, at_ms: i64) -> Vec<u8> {
    let header = file.header();
    let (stream, seq, digest) = (header.stream, header.seq, file.digest());
    Receipt { device: header.device(), stream, seq, digest, at_ms }.sign(key).to_vec()
}

/// SQLite's integers are signed, and so are ours everywhere; no count or size of this earth is beyond them.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
