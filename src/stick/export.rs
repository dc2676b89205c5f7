//! Usage files onto a stick, oldest first, while the spool goes on.
//!
//! Nothing leaves the spool by it: that takes a receipt. A file that is uploaded meanwhile is simply in both places, and
//! the hub counts it once. What is on the stick already, by the manifest and its own bytes, is not written again.

use std::io;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::key::UsageKey;
use super::manifest::{Listed, Manifest};
use super::seal::{self, SEALED_LIMIT};
use super::{Form, Name, Source, SourceFailed};
use crate::ids::{DeviceId, Digest, StreamId};
use crate::keys::sha256;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::segment::Unverified;
use crate::units::UnixSeconds;

/// What is to be exported, and how.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// The stick, or a folder on it; it must be there.
    pub folder: &'a Path,
    /// Only files from this number on; of the stream, or of each.
    pub since: Option<(Option<StreamId>, u64)>,
    /// Most bytes to write.
    pub limit: Option<u64>,
    /// The hub's key to seal to; in clear where `None`.
    pub seal: Option<UsageKey>,
    /// The machine's wall clock, for the manifest.
    pub now: UnixSeconds,
}

/// Why an export ended early. What was written until then is good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stick cannot be written: it is read-only, was pulled out, or has something else in the place of a folder.
    #[error("{path}")]
    Stick {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// See [`SourceFailed`].
    #[error(transparent)]
    Source(#[from] SourceFailed),
    /// The key that was given cannot be sealed to: ask for another `usage-key.tgd`.
    #[error(transparent)]
    Seal(#[from] seal::Error),
}

/// Why it stopped before the last file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The next file would have gone over `limit`.
    Limit,
    /// The stick has no room for the next file: take another one as well.
    StickFull,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// Files that were written, and their bytes on the stick.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Files that were there already.
    pub there: u64,
    /// Files of a form that this version does not know; they stay in the spool.
    pub unknown: u64,
    /// Why there may be more in the spool.
    pub stopped: Option<Stopped>,
    /// Why there is no manifest, where there is none: a full stick, mostly.
    pub no_manifest: Option<String>,
}

/// What a person may be told as it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which device's file.
    pub device: DeviceId,
    /// Which.
    pub name: Name,
    /// Its bytes on the stick.
    pub bytes: u64,
    /// Whether it was there already.
    pub was_there: bool,
}

/// Exports what `order` says from `source`; `told` hears of each file.
pub async fn export(source: &impl Source, order: &Order<'_>, mut told: impl FnMut(Step)) -> Result<Exported, Error> {
    let stick = |source| Error::Stick { path: order.folder.into(), source };
    let root = Folder::open(order.folder).map_err(stick)?;
    let (mut exported, mut shelves) = (Exported::default(), Vec::<Shelf>::new());
    let outcome = fill(source, order, &root, &mut shelves, &mut exported, &mut told).await;
    // Last, and also where something went wrong: what is there is then told.
    for shelf in shelves {
        let Shelf { folder, mut manifest } = shelf;
        manifest.made_at = order.now;
        if let Err(error) = manifest.write(&folder) {
            exported.no_manifest = Some(error.to_string());
        }
    }
    outcome.map(|()| exported)
}

/// A device's folder on the stick. Files that a copied card brought along are another device's.
struct Shelf {
    folder: Folder,
    manifest: Manifest,
}

async fn fill(
    source: &impl Source,
    order: &Order<'_>,
    root: &Folder,
    shelves: &mut Vec<Shelf>,
    exported: &mut Exported,
    told: &mut impl FnMut(Step),
) -> Result<(), Error> {
    let mut after = match order.since {
        Some((Some(stream), seq)) => Some(Cursor { stream, seq: seq.saturating_sub(1) }),
        _ => None,
    };
    while let Some(file) = source.next(after).await? {
        if after == Some(file.at) {
            break; // it would not come to an end
        }
        after = Some(file.at);
        let Ok(header) = Unverified::parse(&file.bytes).map(|unverified| *unverified.claimed()) else {
            exported.unknown += 1;
            continue;
        };
        if order.since.is_some_and(|(stream, seq)| stream.is_none_or(|of| of == header.stream) && header.seq < seq) {
            continue;
        }
        let device = header.device();
        let name = Name::of(&header, if order.seal.is_some() { Form::Sealed } else { Form::Clear });
        let shelf = shelf(order, root, shelves, device)?;
        if let Some(bytes) = is_there(shelf, name, file.digest, order.seal.as_ref()) {
            exported.there += 1;
            told(Step { device, name, bytes, was_there: true });
            continue;
        }
        let UsageFile { at, digest, bytes } = file;
        let bytes = match &order.seal {
            Some(key) => key.seal(&bytes, device, at)?,
            None => bytes,
        };
        let len = bytes.len() as u64;
        if order.limit.is_some_and(|limit| exported.bytes.saturating_add(len) > limit) {
            exported.stopped = Some(Stopped::Limit);
            break;
        }
        let (stream, file_name) = (name.stream.to_string(), name.file_name());
        match shelf.folder.made(&stream).and_then(|folder| folder.write(&file_name, &bytes)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                exported.stopped = Some(Stopped::StickFull);
                break;
            }
            Err(source) => {
                let path = order.folder.join(device.to_string()).join(stream).join(file_name);
                return Err(Error::Stick { path, source });
            }
        }
        let listed = Listed { usage: digest, sha256: sha256(&bytes), bytes: len };
        shelf.manifest.files.insert(format!("{stream}/{file_name}"), listed);
        exported.files += 1;
        exported.bytes += len;
        told(Step { device, name, bytes: len, was_there: false });
    }
    Ok(())
}

fn shelf<'a>(
    order: &Order<'_>,
    root: &Folder,
    shelves: &'a mut Vec<Shelf>,
    device: DeviceId,
) -> Result<&'a mut Shelf, Error> {
    let at = match shelves.iter().position(|shelf| shelf.manifest.device == device) {
        Some(at) => at,
        None => {
            let path = order.folder.join(device.to_string());
            let folder = root.made(&device.to_string()).map_err(|source| Error::Stick { path, source })?;
            let manifest = Manifest::read(&folder, device).unwrap_or_else(|| Manifest::new(device));
            shelves.push(Shelf { folder, manifest });
            shelves.len() - 1
        }
    };
    Ok(shelves.get_mut(at).expect("it was found or pushed"))
}

/// The length of the file on the stick, if it is there: by its digest, and where it is sealed by the manifest and its key.
fn is_there(shelf: &Shelf, name: Name, usage: Digest, seal: Option<&UsageKey>) -> Option<u64> {
    let (stream, file_name) = (name.stream.to_string(), name.file_name());
    let listed = shelf.manifest.files.get(&format!("{stream}/{file_name}")).filter(|listed| listed.usage == usage)?;
    let bytes = shelf.folder.folder(&stream).and_then(|folder| folder.read(&file_name, SEALED_LIMIT)).ok()?;
    let digest = sha256(&bytes);
    let is_that = match seal {
        Some(key) => digest == listed.sha256 && seal::key_id(&bytes) == Ok(key.id()),
        None => digest == usage,
    };
    is_that.then_some(bytes.len() as u64)
}

#[cfg(test)]
#[path = "export_tests.rs"]
pub(in crate::stick) mod tests;
