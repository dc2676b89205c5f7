//! What one worker's intake and the writer thread share: the open logs and their counters.
//!
//! The intake writes, the writer thread makes new logs, syncs and lets go of them. Only atomics and
//! one-way channels cross, so neither ever waits for the other.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::clock;
use crate::disk;
use crate::keys;
use crate::spool::counts::{self, SLOT, SLOTS, Sum};
use crate::spool::log::{BootId, Name, PREAMBLE, Preamble};

/// One open log.
#[derive(Debug)]
pub(super) struct OpenLog {
    pub name: Name,
    pub file: File,
    /// Where the next row goes; rows before it are whole.
    pub end: AtomicU64,
    /// What of it is on the device.
    pub synced: AtomicU64,
    /// How many rows it has.
    pub rows: AtomicU32,
    /// Nothing more will be written to it.
    pub closed: AtomicBool,
}

impl OpenLog {
    /// Makes a log whose name is durable before it holds anything. It has its name only once its preamble is whole, so
    /// that one that is shorter is a damaged one, and never one that a killed process was just making.
    pub(super) fn make(folder: &Path, name: Name, preamble: Preamble) -> io::Result<Self> {
        let part = folder.join("log.part"); // what a kill leaves of it is written over by the next
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        let path = folder.join(name.file_name());
        let ready = file
            .write_all_at(&preamble.to_bytes(), 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&part, &path))
            .and_then(|()| disk::sync_folder(folder));
        if let Err(error) = ready {
            let _ = fs::remove_file(&part).or_else(|_| fs::remove_file(&path)); // empty; the next start would remove it
            return Err(error);
        }
        Ok(Self::of(name, file))
    }

    pub(super) fn of(name: Name, file: File) -> Self {
        let [end, synced] = [(); 2].map(|()| AtomicU64::new(PREAMBLE as u64));
        Self { name, file, end, synced, rows: AtomicU32::new(0), closed: AtomicBool::new(false) }
    }
}

/// What the intake tells and heeds.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Records that went into a log.
    pub appended: AtomicU64,
    /// Records that went into a sum.
    pub rolled_up: AtomicU64,
    /// Records for which even the sum could not be written.
    pub lost: AtomicU64,
    /// Bytes of this lane's logs that are sealed.
    pub sealed_bytes: AtomicU64,
    /// Bytes that may wait to be sealed.
    pub limit: AtomicU64,
    /// The same for what anybody can send, refusals before authentication and open routes: a part of it.
    pub refusals_limit: AtomicU64,
    /// The disk is nearly full: only count.
    pub disk_full: AtomicBool,
    /// A sum was written since the last sync.
    pub counted: AtomicBool,
}

/// The sums of one worker, as they are on the disk.
#[derive(Debug)]
pub(super) struct Sums {
    pub file: Option<File>,
    slots: Box<[Sum; SLOTS]>,
}

impl Sums {
    /// Reads the worker's file, and tells whether it is damaged. Changes nothing on the disk: that is to be told
    /// before [`Sums::make`] makes it good, or a crash in between would hide it.
    pub(super) fn read(folder: &Path, worker: u16) -> (Self, bool) {
        let mut sums = Self::none();
        let file = match OpenOptions::new().read(true).write(true).open(folder.join(counts::file_name(worker))) {
            Ok(file) => file,
            Err(error) => return (sums, error.kind() != io::ErrorKind::NotFound),
        };
        let mut is_damaged = file.metadata().map_or(true, |metadata| metadata.len() != counts::FILE as u64);
        for (slot, offset) in sums.slots.iter_mut().zip((0..).step_by(SLOT)) {
            let mut bytes = [0; SLOT];
            match file.read_exact_at(&mut bytes, offset).ok().and_then(|()| Sum::parse(&bytes)) {
                Some(sum) => *slot = sum,
                None => is_damaged = true,
            }
        }
        sums.file = Some(file).filter(|_| !is_damaged);
        (sums, is_damaged)
    }

    /// Makes the file where it is missing or damaged; without one every record for the sums is lost.
    pub(super) fn make(&mut self, folder: &Path, worker: u16) -> io::Result<()> {
        if self.file.is_none() {
            let path = folder.join(counts::file_name(worker));
            let bytes: Vec<u8> = self.slots.iter().flat_map(|sum| sum.to_bytes()).collect();
            disk::replace(&path, &bytes, 0o600)?;
            self.file = Some(OpenOptions::new().read(true).write(true).open(&path)?);
        }
        Ok(())
    }

    /// None at all: every record for them is lost, and counted as that.
    pub(super) fn none() -> Self {
        Self { file: None, slots: Box::new([Sum::default(); SLOTS]) }
    }

    /// Adds a request to the sum at `offset`, on the disk too; on an error the sum is as before.
    pub(super) fn add(&mut self, offset: u64, at_ms: i64, bytes_in: u64, bytes_out: u64) -> io::Result<()> {
        let index = usize::try_from(offset).unwrap_or(usize::MAX) / SLOT;
        let (Some(file), Some(slot)) = (&self.file, self.slots.get_mut(index)) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut sum = *slot;
        if sum.epoch == 0 {
            sum.epoch = u64::from_be_bytes(keys::random::<8>().unwrap_or([1; 8])) | 1;
        }
        sum.add(at_ms, bytes_in, bytes_out);
        file.write_all_at(&sum.to_bytes(), offset)?;
        *slot = sum;
        Ok(())
    }
}

/// The machine's boot. Where Linux does not tell, no two processes have the same.
pub(super) fn boot_id() -> BootId {
    clock::BootId::now().0
}

/// Counts one up.
pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The workers whose sums are in a folder.
pub(super) fn counts_files(open: &Path) -> io::Result<Vec<u16>> {
    let worker = |entry: io::Result<fs::DirEntry>| counts::worker_of(entry.ok()?.file_name().to_str()?);
    Ok(fs::read_dir(open)?.filter_map(worker).collect())
}

/// Bytes of the logs in a folder, and the highest number among them.
pub(super) fn left_logs(open: &Path) -> io::Result<(u64, u32)> {
    let (mut bytes, mut last) = (0, 0);
    for entry in fs::read_dir(open)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(Name::parse) {
            bytes += entry.metadata()?.len();
            last = last.max(name.number);
        }
    }
    Ok((bytes, last))
}
