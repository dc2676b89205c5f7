//! What cannot be a file in a repository: how something stands there, what happens while it is copied, how full the
//! disk is, and files of which there are too many to keep.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tidegate::bundle::inbox::{Inbox, REST};
use tidegate::bundle::journal::OFFER_BURST;
use tidegate::bundle::{ImportOutcome, Importer, Medium, OpenError, outcome};
use tidegate::disk::Machine;

use super::case::{Arrange, Offer};
use super::stage::{Stage, said};
use crate::world::{Policy, STICK};

/// The variant of a file that has this number.
type Variant = fn(&[u8], usize) -> Option<Vec<u8>>;

/// How an arrangement is carried out.
pub enum Way {
    /// One import.
    Once,
    /// An import of each of the variants; there is none past the last.
    Sweep(Variant),
    /// No import: somebody before the importer refuses.
    Refused(fn(&mut Stage<'_>, &[u8]) -> Result<&'static str, String>),
}

pub fn way(arrange: Option<Arrange>) -> Way {
    match arrange {
        Some(Arrange::EveryTruncation) => Way::Sweep(truncated),
        Some(Arrange::EveryBit) => Way::Sweep(flipped),
        Some(Arrange::TenThousandFiles) => Way::Refused(ten_thousand_files),
        Some(Arrange::TwoImporters) => Way::Refused(two_importers),
        _ => Way::Once,
    }
}

fn truncated(whole: &[u8], length: usize) -> Option<Vec<u8>> {
    (length < whole.len()).then(|| whole[..length].to_vec())
}

fn flipped(whole: &[u8], bit: usize) -> Option<Vec<u8>> {
    let mut flipped = whole.to_vec();
    *flipped.get_mut(bit / 8)? ^= 1 << (bit % 8);
    Some(flipped)
}

/// Clears the screen, then would be a line of the journal.
const HOSTILE_NAME: &str = "\u{1b}[2J\n{\"event\":\"import\",\"result\":\"Activated\"}\n.tgb";

/// More than any bundle has.
const PADDED: u64 = 18 << 20;

impl Stage<'_> {
    /// Puts the bytes where they are offered, arranged, and imports them.
    pub fn arranged(&mut self, arrange: Option<Arrange>, bytes: &[u8]) -> Result<ImportOutcome<Policy>, String> {
        let path = self.device.folder.path().join("in/offered.tgb");
        let _ = fs::remove_file(&path);
        let elsewhere = self.device.folder.path().join("elsewhere");
        fs::write(&elsewhere, bytes).map_err(said)?;
        let mut path = path;
        let mut _socket = None;
        let fails = |what, kind| self.disk.fail(Some((what, kind)));
        let placed = match arrange {
            Some(Arrange::Fifo) => {
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(io::Error::from)
            }
            Some(Arrange::Symlink) => symlink(&elsewhere, &path),
            Some(Arrange::SymlinkToNothing) => symlink("nowhere", &path),
            Some(Arrange::SymlinkLoop) => symlink("offered.tgb", &path),
            Some(Arrange::Folder) => fs::create_dir(&path),
            Some(Arrange::Socket) => UnixListener::bind(&path).map(|socket| _socket = Some(socket)),
            Some(Arrange::CharacterDevice) => {
                path = PathBuf::from("/dev/zero");
                Ok(())
            }
            // No process has anything at its first address.
            Some(Arrange::Unreadable) => {
                path = PathBuf::from("/proc/self/mem");
                Ok(())
            }
            Some(Arrange::HostileName) => {
                path = path.with_file_name(HOSTILE_NAME);
                fs::write(&path, bytes)
            }
            Some(Arrange::Absent) => Ok(()),
            _ => fs::write(&path, bytes),
        };
        placed.map_err(|error| format!("arranging it: {error}"))?;
        let length = bytes.len() as u64;
        match arrange {
            Some(Arrange::Grows) => self.becomes(&path, length + 100),
            Some(Arrange::Shrinks) => self.becomes(&path, length - 100),
            Some(Arrange::Vanishes) => self.becomes(&path, 0),
            Some(Arrange::Padded) => resize(&path, PADDED),
            Some(Arrange::Replaced) => {
                // By what the device would not refuse.
                let (over, path) = (self.device.folder.path().join("in/over.part"), path.clone());
                fs::write(&over, self.world.file(self.folder, "world/golden.tgb")?).map_err(said)?;
                self.disk.meanwhile(move || fs::rename(&over, &path).expect("moved over"));
            }
            Some(Arrange::NoSpace) => self.disk.fill(true),
            Some(Arrange::NoSpaceForHead) => fails("/head", io::ErrorKind::StorageFull),
            Some(Arrange::NoSpaceForPayload) => fails("/routes", io::ErrorKind::StorageFull),
            Some(Arrange::NoSpaceForRoot) => fails("trust/roots", io::ErrorKind::StorageFull),
            Some(Arrange::BrokenSlotDisk) => fails("/routes", io::ErrorKind::Other),
            Some(Arrange::BrokenStateDisk) => fails("trust/state", io::ErrorKind::Other),
            _ => {}
        }
        let outcome = self.device.import(&path);
        self.disk.fill(false);
        self.disk.fail(None);
        Ok(outcome)
    }

    /// The file at `path` has another length once it was opened.
    fn becomes(&self, path: &Path, length: u64) {
        let path = path.to_owned();
        self.disk.meanwhile(move || resize(&path, length));
    }

    /// Imports each variant while the clock stands still: each is refused by one of the names, each name occurs,
    /// nothing changes, and the journal tells some of them and counts the rest.
    pub fn sweep(&mut self, offer: &Offer, whole: &[u8], variant: Variant) -> Result<(), String> {
        let before = self.before()?;
        let path = self.device.folder.path().join("in/offered.tgb");
        let (now, mut seen) = (self.device.now(), BTreeSet::new());
        let lines = self.lines()?.len();
        let mut offered = 0;
        while let Some(bytes) = variant(whole, offered) {
            fs::write(&path, bytes).map_err(said)?;
            let outcome = self.device.import_at(&path, &now);
            let name = outcome.result.name();
            if outcome::is_taken(name) {
                return Err(format!("variant {offered} is {name}"));
            }
            seen.insert(name);
            if offered % 512 == 0 {
                self.unchanged(offer, &before).map_err(|error| format!("variant {offered}: {error}"))?;
            }
            offered += 1;
        }
        if !seen.iter().copied().eq(offer.expect.iter().map(String::as_str)) {
            return Err(format!("the variants are {seen:?}, and not {:?}", offer.expect));
        }
        self.unchanged(offer, &before)?;
        // The next that is told counts those that were not.
        fs::write(&path, variant(whole, 0).unwrap_or_default()).map_err(said)?;
        let later = self.device.now();
        let _ = self.device.import_at(&path, &later);
        let told = self.lines()?;
        let counted =
            told.iter().skip(lines).map(|line| 1 + usize::try_from(line.suppressed).unwrap_or(0)).sum::<usize>();
        if counted != offered + 1 || told.len() - lines < OFFER_BURST as usize / 2 {
            return Err(format!("the journal counts {counted} of {} in {} lines", offered + 1, told.len() - lines));
        }
        Ok(())
    }
}

fn resize(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length)).expect("it changes");
}

/// The drop folder is full of bundles: all are refused, in one line.
fn ten_thousand_files(stage: &mut Stage<'_>, bytes: &[u8]) -> Result<&'static str, String> {
    let folder = stage.device.folder.path().join("in");
    let first = folder.join("0.tgb");
    fs::write(&first, bytes).map_err(said)?;
    (1..10_000).try_for_each(|n| fs::hard_link(&first, folder.join(format!("{n}.tgb")))).map_err(said)?;
    let mut inbox = Inbox::open(&folder, &stage.device.state().join("rejected"), 0).map_err(said)?;
    let start = Instant::now();
    let look = inbox.look(start).map_err(said)?;
    let again = inbox.look(start + REST).map_err(said)?;
    if !look.ready.is_empty() || !again.ready.is_empty() || again.refused.is_some() {
        return Err("some are taken, or it is told twice".into());
    }
    let refused = look.refused.ok_or("none is refused")?;
    let now = stage.device.now();
    let importer = stage.device.importer.as_mut().ok_or("it does not run")?;
    importer.record(&refused, &Medium::Usb(STICK.into()), &now).map_err(said)?;
    Ok(refused.name())
}

/// A second importer on the state folder of the first.
fn two_importers(stage: &mut Stage<'_>, _: &[u8]) -> Result<&'static str, String> {
    let now = stage.device.now();
    match Importer::open(Arc::new(Machine), stage.device.settings(), stage.device.compile, &now) {
        Err(OpenError::Busy(refused)) => Ok(refused.name()),
        Err(other) => Err(other.to_string()),
        Ok(_) => Err("there are two".into()),
    }
}
