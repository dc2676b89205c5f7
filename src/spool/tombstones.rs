//! The folder of tombstones: what retention left of the oldest files, each a small signed file of its own.
//!
//! ```text
//! retired/{order:010}-{stream:016x}-{first}-{seq}-{count}-{from_ms:016x}-{to_ms:016x}.tgu
//! order: they leave in this order, before any generation; count: requests that it tells; from, to: when those were
//! ```
//!
//! They are not in sled, because a folder of sled takes half a megabyte and a tombstone a kilobyte. One is written whole
//! and synced before what it stands for is removed. A crash in between leaves both, and the tombstone is the one that
//! counts: whoever reads a file asks [`Tombstones::cover`] first, and of two tombstones the wider one stays. What a
//! damaged one told is in its name.

use std::collections::BinaryHeap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::spool::backlog::Stock;
use crate::spool::segment::FILE_LIMIT;

/// One tombstone, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub order: u32,
    pub stream: u64,
    /// The numbers that it stands for.
    pub first: u64,
    pub seq: u64,
    pub count: u64,
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Name {
    fn file_name(self) -> String {
        let Self { order, stream, first, seq, count, from_ms, to_ms } = self;
        format!("{order:010}-{stream:016x}-{first}-{seq}-{count}-{from_ms:016x}-{to_ms:016x}.tgu")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_suffix(".tgu")?.split('-');
        let mut next = || parts.next();
        let time = |text| u64::from_str_radix(text, 16).ok().map(u64::cast_signed);
        let name = Self {
            order: next()?.parse().ok()?,
            stream: u64::from_str_radix(next()?, 16).ok()?,
            first: next()?.parse().ok()?,
            seq: next()?.parse().ok()?,
            count: next()?.parse().ok()?,
            from_ms: next().and_then(time)?,
            to_ms: next().and_then(time)?,
        };
        (name.file_name() == text).then_some(name)
    }

    fn covers(&self, stream: u64, first: u64, seq: u64) -> bool {
        self.stream == stream && self.first <= first && seq <= self.seq
    }
}

/// All that there are, in their order.
#[derive(Debug)]
pub(super) struct Tombstones {
    folder: PathBuf,
    kept: Vec<(Name, u64)>,
}

impl Tombstones {
    /// Looks through the folder, and removes what a crash left of narrower ones.
    pub(super) fn open(spool: &Path) -> io::Result<Self> {
        let folder = spool.join("retired");
        let mut kept = BinaryHeap::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { folder, kept: Vec::new() }),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_str().and_then(Name::parse);
            match name {
                Some(name) => kept.push((name, entry.metadata()?.len())),
                None => drop(fs::remove_file(entry.path())), // half of one that was never whole
            }
        }
        let kept = kept.into_sorted_vec();
        let is_covered = |at: usize, name: Name| {
            let others = kept.iter().enumerate().filter(|(other, _)| *other != at);
            // Of two that are as wide the last one stays.
            let mut wider = others.filter(|(_, (wide, _))| wide.covers(name.stream, name.first, name.seq));
            wider.any(|(other, (wide, _))| other > at || (wide.first, wide.seq) != (name.first, name.seq))
        };
        let mut tombstones = Self { folder, kept: Vec::new() };
        for (at, (name, len)) in kept.iter().enumerate() {
            if is_covered(at, *name) {
                fs::remove_file(tombstones.path(*name))?;
            } else {
                tombstones.kept.push((*name, *len));
            }
        }
        Ok(tombstones)
    }

    /// All of them, the oldest first.
    pub(super) fn list(&self) -> impl DoubleEndedIterator<Item = Name> + ExactSizeIterator + '_ {
        self.kept.iter().map(|(name, _)| *name)
    }

    /// The oldest one that is longer than `len` bytes, and the one before it.
    pub(super) fn longer_than(&self, len: u64) -> Option<(Option<Name>, Name)> {
        let at = self.kept.iter().position(|(_, own)| *own > len)?;
        Some((at.checked_sub(1).and_then(|before| Some(self.kept.get(before)?.0)), self.kept.get(at)?.0))
    }

    /// Whether one of them stands for this file.
    pub(super) fn cover(&self, stream: u64, seq: u64) -> bool {
        self.kept.iter().any(|(name, _)| name.covers(stream, seq, seq))
    }

    /// The order of the next one.
    pub(super) fn next_order(&self) -> u32 {
        self.kept.last().map_or(1, |(name, _)| name.order.saturating_add(1))
    }

    /// How many, and their bytes together.
    pub(super) fn stock(&self) -> Stock {
        Stock { files: self.kept.len() as u64, bytes: self.kept.iter().map(|(_, len)| len).sum() }
    }

    /// The disk that they take, to the block.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.kept.iter().map(|(_, len)| len.next_multiple_of(4096)).sum()
    }

    /// The bytes of one; `None` where they cannot be read back.
    pub(super) fn read(&self, name: Name) -> Option<Vec<u8>> {
        disk::read_limited(&self.path(name), FILE_LIMIT as u64).ok()
    }

    /// Keeps one, durably, and then removes those of its order that it covers.
    pub(super) fn put(&mut self, name: Name, bytes: &[u8]) -> io::Result<()> {
        if !self.folder.exists() {
            fs::create_dir(&self.folder)?;
            disk::sync_parent(&self.folder)?;
        }
        disk::replace(&self.path(name), bytes, 0o600)?;
        let narrower = |(other, _): &(Name, u64)| *other != name && name.covers(other.stream, other.first, other.seq);
        let gone: Vec<Name> = self.kept.iter().filter(|kept| narrower(kept)).map(|(name, _)| *name).collect();
        self.kept.retain(|kept| kept.0 != name && !narrower(kept));
        self.kept.push((name, bytes.len() as u64));
        self.kept = BinaryHeap::from(std::mem::take(&mut self.kept)).into_sorted_vec();
        gone.into_iter().try_for_each(|name| fs::remove_file(self.path(name)))
    }

    /// Removes one, durably.
    pub(super) fn remove(&mut self, name: Name) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.kept.retain(|(kept, _)| *kept != name),
        }
        disk::sync_folder(&self.folder)
    }

    fn path(&self, name: Name) -> PathBuf {
        self.folder.join(name.file_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(order: u32, first: u64, seq: u64) -> Name {
        Name { order, stream: 7, first, seq, count: 5, from_ms: -1, to_ms: 9 }
    }

    #[test]
    fn the_wider_one_takes_the_place_of_the_narrower_whenever_the_crash_came() {
        let spool = tempfile::tempdir().expect("a folder");
        let mut tombstones = Tombstones::open(spool.path()).expect("it opens");
        tombstones.put(name(1, 1, 3), b"one").expect("it is kept");
        tombstones.put(name(2, 5, 5), b"two").expect("it is kept");
        tombstones.put(name(1, 1, 4), b"wider").expect("it is kept");
        assert_eq!(tombstones.list().collect::<Vec<_>>(), [name(1, 1, 4), name(2, 5, 5)]);
        fs::write(spool.path().join("retired").join(name(1, 1, 3).file_name()), b"one").expect("the crash undid it");
        fs::write(spool.path().join("retired/0000000009-half"), b"o").expect("it writes");
        let mut tombstones = Tombstones::open(spool.path()).expect("it opens");
        assert_eq!(tombstones.list().collect::<Vec<_>>(), [name(1, 1, 4), name(2, 5, 5)]);
        assert_eq!(fs::read_dir(spool.path().join("retired")).expect("it lists").count(), 2);
        assert!(tombstones.cover(7, 4) && !tombstones.cover(7, 6) && !tombstones.cover(8, 4));
        assert_eq!((tombstones.next_order(), tombstones.stock().files), (3, 2));
        assert_eq!(tombstones.read(name(1, 1, 4)), Some(b"wider".to_vec()));
        tombstones.remove(name(1, 1, 4)).expect("it is removed");
        tombstones.remove(name(1, 1, 4)).expect("it is gone");
        assert_eq!(tombstones.list().collect::<Vec<_>>(), [name(2, 5, 5)]);
    }
}
