//! Steps 0a to 0c: a file that anybody may still write becomes a private copy that nobody else can.
//!
//! The source is opened once, never followed through a link, read once, and never looked at again. What
//! was opened has an [`Identity`], so that whoever tidies up afterwards touches that file and no other.
//! Nothing of its content is parsed here.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustix::fs::OFlags;

use super::container::MAX_FILE;
use super::error::Refused;
use crate::disk::{self, Disk};
use crate::ids::Digest;
use crate::units::UnixSeconds;

/// What must stay free beside the copy and the slot, in bytes: state records, journal, a usage file.
pub const RESERVE: u64 = 1 << 20;

/// The private copy; removed when it is dropped.
#[derive(Debug)]
pub struct Staged {
    /// Open for reading, from wherever.
    pub file: File,
    /// SHA-256 of the whole.
    pub sha256: Digest,
    path: PathBuf,
}

impl Staged {
    /// Moves the copy to `place`, on the same file system; durable, its name included.
    pub(super) fn keep(self, place: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, place)?;
        disk::sync_parent(place)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is written over by the next copy.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Which file, and as of which change: device, inode, size, and both times with their nanoseconds. A file that
/// was written to, renamed or replaced has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: [i64; 4],
}

impl Identity {
    /// Of the file that `meta` is of.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        let changed = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed }
    }

    /// When the file was last written to or renamed, by the machine's wall clock.
    #[must_use]
    pub fn changed_at(&self) -> UnixSeconds {
        self.changed[2]
    }
}

/// A regular file, opened and not yet read.
#[derive(Debug)]
pub struct Offered {
    pub(super) file: File,
    identity: Identity,
}

impl Offered {
    /// `SourceNotRegular` where it is open on anything but a file.
    pub(super) fn of(file: File) -> Result<Self, Refused> {
        let meta = file.metadata().map_err(|error| Refused::SourceIo(format!("opening the source: {error}")))?;
        if !meta.is_file() {
            return Err(Refused::SourceNotRegular("a folder, pipe or device".into()));
        }
        Ok(Self { identity: Identity::of(&meta), file })
    }

    /// The file as it was when it was opened.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }
}

impl Offered {
    /// The file, and its length in bytes when it was opened.
    #[must_use]
    pub fn into_file(self) -> (File, u64) {
        (self.file, self.identity.size)
    }
}

/// Copies the bundle at its source to `candidate` in the private folder `staging`.
pub fn stage(source: Offered, staging: &Path, disk: &dyn Disk) -> Result<Staged, Refused> {
    // 0a (its rest) a sane size, room on disk
    let Offered { file: mut from, identity: Identity { size: length, .. } } = source;
    let unread = |error: io::Error| Refused::SourceIo(format!("reading the source: {error}"));
    if length > MAX_FILE {
        return Err(Refused::SectionTooLarge(format!("{length} bytes; a bundle has at most {MAX_FILE}")));
    }
    let unkept = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::NoSpace(format!("copying: {error}")),
        _ => Refused::SourceIo(format!("copying: {error}")),
    };
    let free = disk.free_bytes(staging).map_err(unkept)?;
    let needed = length.saturating_mul(2).saturating_add(RESERVE);
    if free < needed {
        return Err(Refused::NoSpace(format!("{free} bytes are free; the copy and the slot need {needed}")));
    }

    // 0b copy once into private staging, hashing
    let path = staging.join("candidate");
    let _ = std::fs::remove_file(&path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(unkept)?;
    let mut staged = Staged { file, sha256: Digest([0; 32]), path };
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0_u64;
    loop {
        let part = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(error)),
        };
        copied = copied.saturating_add(part.len() as u64);
        if copied > length {
            return Err(Refused::SourceChanged(format!("it grew past its {length} bytes while it was copied")));
        }
        hash.update(part);
        staged.file.write_all(part).map_err(unkept)?;
    }
    if copied < length {
        return Err(Refused::SourceChanged(format!("it shrank from {length} to {copied} bytes while it was copied")));
    }
    staged.sha256.0.copy_from_slice(hash.finish().as_ref());
    // 0c never look at the source again
    Ok(staged)
}

/// 0a: opens a regular file; a link, folder, pipe or device is `SourceNotRegular`, and none of them blocks.
pub fn open_regular(source: &Path) -> Result<Offered, Refused> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).expect("open flags fit a C int");
    let file = OpenOptions::new().read(true).custom_flags(flags).open(source).map_err(|error| {
        let not_regular = [rustix::io::Errno::LOOP, rustix::io::Errno::NXIO].map(|errno| Some(errno.raw_os_error()));
        if not_regular.contains(&error.raw_os_error()) {
            Refused::SourceNotRegular("a link or a socket".into())
        } else {
            Refused::SourceIo(format!("opening the source: {error}"))
        }
    })?;
    Offered::of(file)
}
