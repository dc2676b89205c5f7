//! Releases on their way from the daemon to the installer, which is root's and believes nothing of this.
//!
//! ```text
//! STATE/release/release.tgb   what the daemon has judged last, for the installer to judge again
//! STATE/release/permit.tgb    likewise a permit that leads away from the release that is installed
//! STATE-release/seen          the installer's, readable by all: the body of its state record (`state`)
//! ```
//!
//! The daemon keeps no number of a release itself: what has been seen stands in `seen`, so that the two cannot disagree.
//! Where that file is not there no installer ever ran, and a release is refused: nothing would come of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::container::Head;
use super::error::Refused;
use super::manifest::{Entry, EntryKind, Manifest};
use super::root::RootDocument;
use super::staging::Staged;
use super::state::State;
use super::trust::{History, Trust};
use super::verify::Verified;
use crate::disk::Disk;
use crate::ids::Digest;
use crate::keys::sha256;
use crate::store::pair::MAX_BODY;

/// The folder in the daemon's state folder.
pub const FOLDER: &str = "release";
/// The release in it.
pub const RELEASE: &str = "release.tgb";
/// The permit in it.
pub const PERMIT: &str = "permit.tgb";
/// What the installer tells of what it has seen.
pub const SEEN: &str = "seen";

/// The two folders.
#[derive(Debug)]
pub(super) struct Handover {
    folder: PathBuf,
    seen: PathBuf,
}

impl Handover {
    /// Of the daemon whose state folder this is. The installer's stands beside it: the daemon cannot write there.
    pub(super) fn of(state: &Path) -> Self {
        let mut beside = OsString::from(state);
        beside.push("-release");
        Self { folder: state.join(FOLDER), seen: PathBuf::from(beside).join(SEEN) }
    }

    /// What the installer has seen, under `root`, and the permit that it has not taken yet. What cannot be read says
    /// nothing: the installer judges by its own record.
    pub(super) fn history(&self, root: &RootDocument, disk: &dyn Disk) -> History {
        let seen = disk.read(&self.seen, MAX_BODY as u64).ok();
        let state = seen.and_then(|body| State::from_bytes(&body)).unwrap_or_default();
        let mut history = state.under(root).history(state.active.map(|active| active.digest), None);
        let permit = self.waiting(PERMIT, disk).and_then(|(manifest, _)| manifest.permit());
        history.pending = permit.or(history.pending);
        history
    }

    /// Whether a release that came through every step may go to the installer.
    pub(super) fn is_due(&self, release: &Verified<Vec<Entry>>, trust: &Trust, disk: &dyn Disk) -> Result<(), Refused> {
        if !release.policy().iter().any(|entry| Some(entry.kind) == EntryKind::OWN_PACKAGE) {
            return Err(Refused::NotForThisDevice("it has no package for this architecture".into()));
        }
        if disk.open(&self.seen).is_err() {
            return Err(Refused::NoInstaller("nothing here installs releases".into()));
        }
        let place = |manifest: &Manifest| (manifest.epoch(), manifest.seq());
        let permitted = trust.releases.pending.is_some_and(|permit| permit.to == release.digest());
        let waiting = self.waiting(RELEASE, disk).filter(|(waiting, digest)| {
            !permitted && *digest != release.digest() && place(waiting) >= place(release.manifest())
        });
        match waiting {
            Some(_) => Err(Refused::Rollback("a release of a higher number waits for the installer".into())),
            None => Ok(()),
        }
    }

    /// Gives the private copy to the installer as `name`: whole and durable before it has that name.
    pub(super) fn give(&self, staged: Option<Staged>, name: &str, disk: &dyn Disk) -> Result<(), Refused> {
        let staged = staged.ok_or_else(|| Refused::SourceIo("the private copy is gone".into()))?;
        let given = disk.create_folder(&self.folder).and_then(|()| staged.keep(&self.folder.join(name)));
        given.map_err(|error| Refused::SourceIo(format!("handing it to the installer: {error}")))
    }

    /// What waits for the installer. The daemon judged it before it put it there.
    fn waiting(&self, name: &str, disk: &dyn Disk) -> Option<(Manifest, Digest)> {
        let (mut file, length) = disk.open(&self.folder.join(name)).ok()?;
        let head = Head::read(&mut *file, length).ok()?;
        let manifest = Manifest::parse(head.manifest(), head.preamble().bundle_type).ok()?;
        Some((manifest, sha256(head.manifest())))
    }
}
