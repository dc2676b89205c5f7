//! One small sled folder, and the only way to sled.
//!
//! sled's own `flush()` survives a killed process but not a power cut: on Linux it neither flushes
//! the device's cache nor the file's length, and values that grow large go to files which nothing
//! syncs. So a commit here is one batch, `flush()`, then fdatasync of the `db` file, with values of
//! at most [`VALUE_LIMIT`]; that was seen to survive 360 of 360 simulated power cuts. sled may panic
//! on damaged files; every call is caught and becomes [`Error::Damaged`].
//!
//! Never iterates over values and never counts: both read everything into memory, for good.
//! Invariant: after [`Generation::commit`] is `Ok`, its changes are all on the device; after an `Err`
//! nobody knows, so the generation must be dropped and opened again; after [`Error::NotDurable`] that
//! is not enough, see there. Called by `spool::ledger`, which runs in the spool's child process.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::disk;

/// Longest value, in bytes: 17 of them, which share a node, stay under a quarter of a segment, and so
/// out of sled's unsynced `blobs/`.
pub const VALUE_LIMIT: usize = 7 << 10;
/// sled's unit of writing, in bytes.
pub const SEGMENT: u64 = 512 << 10;

const CACHE: u64 = 1 << 20;
const FLUSH_MS: u64 = 500;
/// How long another holder of a generation may take to let go.
const LET_GO: Duration = Duration::from_secs(5);

/// Why a generation could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full: free space, or let the backlog drain.
    #[error("no space left for the spool")]
    Full,
    /// sled cannot make sense of its files: the generation is set aside and what it held is a gap.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A sector cannot be read, or the file system says that it is damaged: the disk is failing.
    #[error("cannot be read back")]
    Unreadable(#[source] io::Error),
    /// A write or a sync failed. Linux then takes the pages for clean, so that the file reads back as if all were
    /// well, and another sync is `Ok`: what was committed must be written once more, into other files.
    #[error("cannot be made durable")]
    NotDurable(#[source] io::Error),
    /// Another process has it open: stop the other one.
    #[error("in use by another process")]
    Busy,
    /// The system refused: see the message.
    #[error("cannot use the generation")]
    Io(#[from] io::Error),
    /// A value is longer than [`VALUE_LIMIT`]: a defect of Tidegate.
    #[error("a value is longer than its limit")]
    ValueTooLong,
}

/// Where a value stands: `seq` first, then `part`, both big-endian, so that order is upload order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Which usage file; 0 for the spool's own state.
    pub seq: u64,
    /// Which part of it.
    pub part: u16,
}

impl Key {
    fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..].copy_from_slice(&self.part.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (seq, part) = bytes.split_first_chunk().ok_or_else(|| Error::Damaged("a short key".into()))?;
        let part = part.try_into().map_err(|_| Error::Damaged("a key of a wrong length".into()))?;
        Ok(Self { seq: u64::from_be_bytes(*seq), part: u16::from_be_bytes(part) })
    }
}

/// Changes that become durable together or not at all.
#[derive(Debug, Default)]
pub struct Changes(sled::Batch);

impl Changes {
    /// Sets a value of at most [`VALUE_LIMIT`] bytes.
    pub fn put(&mut self, key: Key, value: &[u8]) -> Result<(), Error> {
        if value.len() > VALUE_LIMIT {
            return Err(Error::ValueTooLong);
        }
        self.0.insert(&key.to_bytes(), value);
        Ok(())
    }

    /// Removes a value, if it is there.
    pub fn remove(&mut self, key: Key) {
        self.0.remove(&key.to_bytes());
    }
}

/// Makes a file's content durable: fdatasync, or a test's double of it.
pub type Sync = Box<dyn Fn(&Path) -> io::Result<()> + Send>;

/// One open sled folder.
pub struct Generation {
    db: sled::Db,
    file: PathBuf,
    sync: Sync,
}

impl Generation {
    /// Opens the folder, or makes it; its name is then durable in its parent.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Self::open_with(folder, Box::new(|file| File::open(file)?.sync_data()))
    }

    /// As [`Generation::open`], with another way to make a commit durable.
    pub fn open_with(folder: &Path, sync: Sync) -> Result<Self, Error> {
        let is_new = !folder.exists();
        remove_unfinished(folder)?;
        let config = sled::Config::new()
            .path(folder)
            .use_compression(false)
            .cache_capacity(CACHE)
            .flush_every_ms(Some(FLUSH_MS));
        // sled's own threads hold the lock for a moment after a generation was let go by this very process.
        let patience = Instant::now() + LET_GO;
        let db = loop {
            match caught(|| config.open()) {
                Err(Error::Busy) if Instant::now() < patience => std::thread::sleep(LET_GO / 1000),
                opened => break opened?,
            }
        };
        if is_new {
            disk::sync_folder(folder)?;
            disk::sync_parent(folder)?;
        }
        Ok(Self { db, file: folder.join("db"), sync })
    }

    /// Lets go of one that is damaged: sled's own way down may panic or hang then, so it is not gone.
    pub fn abandon(self) {
        std::mem::forget(self.db);
    }

    /// Makes all changes, durably.
    pub fn commit(&self, changes: Changes) -> Result<(), Error> {
        caught(|| self.db.apply_batch(changes.0)).map_err(not_durable)?;
        caught(|| self.db.flush()).map_err(not_durable)?;
        (self.sync)(&self.file).map_err(|error| not_durable(from_io(error)))
    }

    /// The value at `key`.
    pub fn read(&self, key: Key) -> Result<Option<impl AsRef<[u8]> + use<>>, Error> {
        caught(|| self.db.get(key.to_bytes()))
    }

    /// The first key after `key`.
    pub fn key_after(&self, key: Key) -> Result<Option<Key>, Error> {
        let found = caught(|| self.db.get_gt(key.to_bytes()))?;
        found.map(|(key, _)| Key::from_bytes(&key)).transpose()
    }

    /// Bytes of its log: they only grow, whatever is removed.
    pub fn disk_bytes(&self) -> Result<u64, Error> {
        Ok(fs::metadata(&self.file).map_err(from_io)?.len())
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Generation").field(&self.file).finish()
    }
}

/// Removes the snapshot that an opening had begun when the disk was full or the power went. sled takes it for its
/// newest one, and for damaged; the log and the snapshot before hold all of it.
fn remove_unfinished(folder: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(from_io(error)),
    };
    for entry in entries {
        let path = entry.map_err(from_io)?.path();
        if path.extension().is_some_and(|ending| ending == "generating") {
            fs::remove_file(&path).map_err(from_io)?;
        }
    }
    Ok(())
}

/// Runs one call of sled; a panic is damage.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(from_io(error)),
        Ok(Err(error)) => Err(Error::Damaged(error.to_string())),
        Err(_) => Err(Error::Damaged("sled panicked".into())),
    }
}

fn from_io(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::StorageFull {
        Error::Full
    } else if error.to_string().contains("could not acquire lock") {
        Error::Busy
    } else if error.raw_os_error().is_none() {
        Error::Damaged(error.to_string()) // made by sled: a short read, an impossible length
    } else if is_unreadable(&error) {
        Error::Unreadable(error)
    } else {
        Error::Io(error)
    }
}

/// What a failed commit comes to.
fn not_durable(error: Error) -> Error {
    match error {
        Error::Unreadable(error) | Error::Io(error) => Error::NotDurable(error),
        error => error,
    }
}

/// Whether a read failed because the disk, or the file system on it, is damaged in that place.
#[must_use]
pub fn is_unreadable(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // The last one is ext4's and XFS's "structure needs cleaning".
    [Errno::IO, Errno::BADMSG, Errno::UCLEAN].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_after_opening_again_and_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("g");
        let generation = Generation::open(&path).expect("it opens");
        let mut changes = Changes::default();
        for (seq, part) in [(256, 0), (1, 1), (1, 0), (2, 0)] {
            changes.put(Key { seq, part }, &[7; VALUE_LIMIT]).expect("within the limit");
        }
        generation.commit(changes).expect("it commits");
        let mut changes = Changes::default();
        changes.remove(Key { seq: 2, part: 0 });
        generation.commit(changes).expect("it commits");
        drop(generation);

        let generation = Generation::open(&path).expect("it opens");
        let mut key = Key { seq: 0, part: 0 };
        let mut seen = Vec::new();
        while let Some(next) = generation.key_after(key).expect("it reads") {
            seen.push((next.seq, next.part));
            key = next;
        }
        assert_eq!(seen, [(1, 0), (1, 1), (256, 0)]);
        let value = generation.read(key).expect("it reads").expect("it is there");
        assert_eq!(value.as_ref(), [7; VALUE_LIMIT]);
        assert!(fs::read_dir(path.join("blobs")).map_or(0, Iterator::count) == 0, "nothing may go to blobs/");
    }

    #[test]
    fn a_snapshot_that_a_full_disk_cut_off_makes_no_generation_unreadable() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, key) = (folder.path().join("g"), Key { seq: 1, part: 0 });
        let mut changes = Changes::default();
        changes.put(key, b"usage").expect("within the limit");
        Generation::open(&path).and_then(|generation| generation.commit(changes)).expect("it commits");
        for cut in [&b""[..], b"half of one, or less"] {
            fs::write(path.join("snap.7FFFFFFFFFFFFFFF.generating"), cut).expect("written");
            // The control: sled alone cannot open it any more.
            let config = sled::Config::new().path(&path).use_compression(false);
            assert!(matches!(caught(|| config.open()), Err(Error::Damaged(_))));
            let value = Generation::open(&path).and_then(|generation| generation.read(key)).expect("it reads");
            assert_eq!(value.expect("it is there").as_ref(), b"usage");
        }
    }

    #[test]
    fn a_value_that_sled_would_put_into_an_unsynced_blob_is_refused() {
        let refused = Changes::default().put(Key { seq: 1, part: 0 }, &[0; VALUE_LIMIT + 1]);
        assert!(matches!(refused, Err(Error::ValueTooLong)));
    }

    #[test]
    fn a_generation_that_is_open_elsewhere_is_busy_and_not_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("g");
        let _first = Generation::open(&path).expect("it opens");
        assert!(matches!(Generation::open(&path), Err(Error::Busy)));
    }
}
