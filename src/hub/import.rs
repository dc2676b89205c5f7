//! `tidegate-hub import`: usage files that a stick brings, by the same checks and the same ledger as uploads.
//!
//! Beside a hub that runs: the ledger keeps the two apart. In any order, as often as one likes: a file counts once, and a
//! repeat gets the receipt that it had. Receipts go onto the stick; nothing is deleted from it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::HeaderMap;

use super::bundles::Bundles;
use super::config::{self, Config, Enrol, read_key};
use super::devices::Devices;
use super::ledger::{self, Device, Incoming, Ledger, Taken};
use super::refusal::Refusal;
use crate::clock::Reading;
use crate::disk;
use crate::ids::{DeviceId, Digest};
use crate::spool::chain::Verdict;
use crate::spool::segment::{self, FILE_LIMIT, Unverified, Verified};
use crate::stick::folder::Folder;
use crate::stick::key::SecretKey;
use crate::stick::manifest::Manifest;
use crate::stick::seal::{self, SEALED_LIMIT};
use crate::stick::{Form, Item, Name, RECEIPTS, Strange, walk};

/// Files that the ledger gets at once: each in memory with all its rows, at most 4.2 MB; one sync is shared by all.
const BATCH: usize = 16;

/// Why an import ended early. What was taken until then has its receipt, or gets it the next time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`config::Error`].
    #[error(transparent)]
    Config(#[from] config::Error),
    /// See [`ledger::Error`].
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The stick cannot be read: it was pulled out, or is not the folder that was meant.
    #[error("{0}")]
    Stick(PathBuf, #[source] io::Error),
    /// The key that sealed files are opened with cannot be read: the message says why.
    #[error("the usage key")]
    UsageKey(#[source] io::Error),
}

/// What became of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The hub has it for good.
    Kept(Verdict),
    /// It contradicts the chain and was kept apart.
    Apart(Verdict),
    /// The device is not enrolled here.
    UnknownDevice,
    /// The device was revoked.
    DeviceRevoked,
    /// It is not the file that its place on the stick says.
    Misplaced,
    /// It is refused.
    File(segment::Error),
    /// Its seal does not open.
    Seal(seal::Error),
    /// It is sealed, and this hub has no usage key.
    NoUsageKey,
    /// It cannot be read, or is no regular file.
    Unreadable(io::ErrorKind),
}

impl Outcome {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept(Verdict::Repeat) => "Repeat",
            Self::Kept(Verdict::Covered) => "Covered",
            Self::Kept(Verdict::Ahead { .. }) => "Ahead",
            Self::Kept(_) => "Taken",
            Self::Apart(Verdict::ChainFork) => "ChainFork",
            Self::Apart(_) => "PreviousMismatch",
            Self::UnknownDevice => "UnknownDevice",
            Self::DeviceRevoked => "DeviceRevoked",
            Self::Misplaced => "Misplaced",
            Self::File(error) => error.name(),
            Self::Seal(error) => error.name(),
            Self::NoUsageKey => "NoUsageKey",
            Self::Unreadable(io::ErrorKind::InvalidInput) => "NotRegular",
            Self::Unreadable(io::ErrorKind::FileTooLarge) => "FileTooLarge",
            Self::Unreadable(_) => "Unreadable",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    /// Files that the hub has now.
    pub kept: u64,
    /// Files that it does not take.
    pub refused: u64,
    /// Receipts that could not be written onto the stick; the next import gives them again.
    pub no_receipt: u64,
    /// What is among the files and none of ours.
    pub strange: Vec<Strange>,
    /// Where the manifest and the stick differ.
    pub manifest: Vec<String>,
}

/// Imports what is on the stick at `folder`; `told` hears of each file, and why its receipt is not on the stick.
pub fn import(
    config: &Config,
    folder: &Path,
    mut told: impl FnMut(&Item, Outcome, Option<io::Error>),
) -> Result<Imported, Error> {
    let stick = |error| Error::Stick(folder.into(), error);
    let root = Folder::open(folder).map_err(stick)?;
    let (items, strange) = walk(&root).map_err(stick)?;
    let usage_key = match SecretKey::open(&SecretKey::beside(&config.key_file)) {
        Ok(key) => Some(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::UsageKey(error)),
    };
    let mut books = Books::open(config, usage_key)?;
    let manifest = manifests(&root, &items);
    let mut imported = Imported { strange, manifest, ..Imported::default() };
    let mut batch = Vec::new();
    for item in items {
        match books.judge(&root, &item) {
            Ok(sound) => batch.push((item, sound)),
            Err(outcome) => {
                imported.refused += 1;
                told(&item, outcome, None);
            }
        }
        if batch.len() >= BATCH {
            books.take(&root, std::mem::take(&mut batch), &mut imported, &mut told)?;
        }
    }
    books.take(&root, batch, &mut imported, &mut told)?;
    Ok(imported)
}

/// Writes the document that names this hub's usage key, which is made where there is none; gives the key's id.
pub fn usage_key(config: &Config, out: &Path) -> Result<Digest, Error> {
    let signer = read_key(&config.key_file)?;
    let key = SecretKey::open_or_make(&SecretKey::beside(&config.key_file)).map_err(Error::UsageKey)?.public();
    let now = Reading::now().wall_ms.div_euclid(1000);
    let document = key.document(&signer, now).map_err(|refused| Error::UsageKey(io::Error::other(refused)))?;
    disk::replace(out, &document, 0o644).map_err(|error| Error::Stick(out.into(), error))?;
    Ok(key.id())
}

/// A file of an enrolled device that passed every check but the chain's.
struct Sound {
    device: Arc<Device>,
    file: Verified,
    bytes: Vec<u8>,
}

/// Where files go.
struct Books {
    devices: Devices,
    /// The folder of bundles, whose enrolments count where the root vouches for them.
    bundles: Option<Bundles>,
    ledger: Ledger,
    usage_key: Option<SecretKey>,
}

impl Books {
    fn open(config: &Config, usage_key: Option<SecretKey>) -> Result<Self, Error> {
        let mut ledger = Ledger::open(config, read_key(&config.key_file)?)?;
        // Nobody shows a key by a stick, so no guest comes that way who was not one before.
        let devices = Devices::new(config.devices()?, config.enrol == Enrol::Any);
        devices.renew(ledger.devices()?);
        let bundles = config.bundles.clone().map(|folder| Bundles::open(folder, config.root.clone()));
        Ok(Self { devices, bundles, ledger, usage_key })
    }

    fn device(&self, id: DeviceId) -> Result<Arc<Device>, Outcome> {
        let list = self.bundles.as_ref().map(Bundles::list);
        self.devices.find(id, &HeaderMap::new(), list.as_deref()).map_err(|refusal| match refusal {
            Refusal::DeviceRevoked => Outcome::DeviceRevoked,
            _ => Outcome::UnknownDevice,
        })
    }

    /// Every check that needs no ledger.
    fn judge(&self, root: &Folder, item: &Item) -> Result<Sound, Outcome> {
        let device = self.device(item.device.ok_or(Outcome::UnknownDevice)?)?;
        let limit = if item.name.form == Form::Sealed { SEALED_LIMIT } else { FILE_LIMIT };
        let bytes = item.read(root, limit).map_err(|error| Outcome::Unreadable(error.kind()))?;
        let bytes = match item.name.form {
            Form::Sealed => {
                let key = self.usage_key.as_ref().ok_or(Outcome::NoUsageKey)?;
                key.open_file(&bytes, device.id(), item.name.at()).map_err(Outcome::Seal)?
            }
            _ => bytes,
        };
        let unverified = Unverified::parse(&bytes).map_err(Outcome::File)?;
        let named = Name::of(unverified.claimed(), item.name.form);
        let verified = unverified.verify(&device.key).map_err(Outcome::File)?;
        // It would be taken for what it is, but its receipt would lie at another's place.
        if named != item.name {
            return Err(Outcome::Misplaced);
        }
        Ok(Sound { device, file: verified, bytes })
    }

    /// Gives files to the ledger, and their receipts to the stick.
    fn take(
        &mut self,
        root: &Folder,
        batch: Vec<(Item, Sound)>,
        imported: &mut Imported,
        told: &mut impl FnMut(&Item, Outcome, Option<io::Error>),
    ) -> Result<(), ledger::Error> {
        let incoming: Vec<Incoming<'_>> = batch
            .iter()
            .map(|(_, Sound { device, file, bytes })| Incoming { device: device.as_ref(), file, bytes })
            .collect();
        let taken =
            if incoming.is_empty() { Vec::new() } else { self.ledger.take(&incoming, Reading::now().wall_ms)? };
        for ((item, _), taken) in batch.iter().zip(taken) {
            let (outcome, no_receipt) = match taken {
                Taken::Kept { receipt, verdict } => {
                    imported.kept += 1;
                    (Outcome::Kept(verdict), put_receipt(root, item.name.receipt(), &receipt).err())
                }
                Taken::Apart(verdict) => {
                    imported.refused += 1;
                    (Outcome::Apart(verdict), None)
                }
            };
            imported.no_receipt += u64::from(no_receipt.is_some());
            told(item, outcome, no_receipt);
        }
        Ok(())
    }
}

/// Writes a receipt, unless it is there.
fn put_receipt(root: &Folder, name: Name, receipt: &[u8]) -> io::Result<()> {
    let folder = root.made(RECEIPTS)?.made(&name.stream.to_string())?;
    let file_name = name.file_name();
    let is_there = folder.read(&file_name, receipt.len()).is_ok_and(|there| there == receipt);
    if is_there { Ok(()) } else { folder.write(&file_name, receipt) }
}

/// Where the manifests and the stick differ, for people: an export that did not end, or files that were moved.
fn manifests(root: &Folder, items: &[Item]) -> Vec<String> {
    let devices: BTreeSet<DeviceId> = items.iter().filter_map(|item| item.device).collect();
    let mut differences = Vec::new();
    for device in devices {
        let manifest = root.folder(&device.to_string()).ok().and_then(|folder| Manifest::read(&folder, device));
        let Some(manifest) = manifest else {
            differences.push(format!("{device}: no manifest: the export did not come to its end"));
            continue;
        };
        let there: BTreeSet<String> = items
            .iter()
            .filter(|item| item.device == Some(device))
            .map(|item| format!("{}/{}", item.name.stream, item.name.file_name()))
            .collect();
        let listed: BTreeSet<String> = manifest.files.into_keys().collect();
        differences.extend(listed.difference(&there).map(|path| format!("{device}/{path}: listed, and not there")));
        differences.extend(there.difference(&listed).map(|path| format!("{device}/{path}: there, and not listed")));
    }
    differences
}
