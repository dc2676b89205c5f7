//! A disk in memory that loses power at a chosen step, for tests of what must survive a power cut.
//!
//! Every file has the content that a reader sees and the content that is durable; every folder likewise
//! has names that are seen and names that are durable. A power cut keeps what is durable, and of the rest
//! whatever the seed says: the old, the new, or a torn front part of the new, each thing for itself, as
//! real disks do. Paths are absolute; modes are not modelled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Disk;

/// The disk. Shared by reference; a power cut is seen by all.
#[derive(Debug, Default)]
pub struct CrashDisk(Mutex<Inside>);

#[derive(Debug, Clone, Default)]
struct Inside {
    files: Vec<Content>,
    seen: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    steps: u64,
    power_until: Option<u64>,
    ignores_folders: bool,
    free: Option<u64>,
    room: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Cut since it was last durable: only then can less survive than was durable.
    truncated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

impl CrashDisk {
    /// An empty disk that never loses power.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Steps taken so far: every change that a power cut can fall between is one.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.inside().steps
    }

    /// Lets the power go after `steps` more steps; from then on every call fails.
    pub fn cut_after(&self, steps: u64) {
        let mut inside = self.inside();
        inside.power_until = Some(inside.steps.saturating_add(steps));
    }

    /// From now on folder syncs do nothing and say they did: the negative control.
    pub fn ignore_folder_syncs(&self) {
        self.inside().ignores_folders = true;
    }

    /// Sets what [`Disk::free_bytes`] answers.
    pub fn set_free_bytes(&self, free: u64) {
        self.inside().free = Some(free);
    }

    /// Lets writes take so many more bytes and then fail as on a full disk, with what fitted in the file; names of files
    /// find room. `None`: no end of it.
    pub fn set_room(&self, room: Option<usize>) {
        self.inside().room = room;
    }

    /// Flips one bit of a file, durably: what flash does in time.
    pub fn rot(&self, path: &Path, byte: usize) {
        let mut inside = self.inside();
        let Some(Node::File(id)) = inside.seen.get(path).copied() else { return };
        let Some(content) = inside.files.get_mut(id) else { return };
        for bytes in [&mut content.seen, &mut content.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1;
            }
        }
    }

    /// The disk after the power came back. Seed 0 keeps nothing that was not durable, seed 1 all of it,
    /// any other one some of it.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let old = self.inside().clone();
        let mut dice = Dice(seed);
        let mut new = Inside { free: old.free, ..Inside::default() };
        let paths: BTreeSet<&PathBuf> = old.seen.keys().chain(old.durable.keys()).collect();
        for path in paths {
            let (seen, durable) = (old.seen.get(path), old.durable.get(path));
            let kept = if seen == durable || !dice.keeps_new() { durable } else { seen };
            let Some(node) = kept.copied() else { continue };
            // Sorted order brings a folder before what is in it; without it, its content is out of reach.
            let has_folder = path.parent().is_none_or(|above| above.parent().is_none() || new.seen.contains_key(above));
            if has_folder {
                new.seen.insert(path.clone(), node);
            }
        }
        new.files = old.files.iter().map(|content| dice.survives(content)).collect();
        new.durable = new.seen.clone();
        Self(Mutex::new(new))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn truncate(&mut self, length: usize) {
        self.seen.truncate(length);
        self.truncated = true;
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.seen);
        self.truncated = false;
    }
}

/// Choices from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn keeps_new(&mut self) -> bool {
        match self.0 {
            0 | 1 => self.0 == 1,
            _ => self.next().is_multiple_of(2),
        }
    }

    fn survives(&mut self, content: &Content) -> Content {
        let bytes = match self.0 {
            _ if content.seen == content.durable => &content.seen[..],
            0 => &content.durable,
            1 => &content.seen,
            _ => match self.next() % 3 {
                0 => &content.durable,
                1 => &content.seen,
                _ => {
                    let least = if content.truncated { 0 } else { content.durable.len() };
                    let torn = usize::try_from(self.next()).unwrap_or(0) % (content.seen.len() - least + 1);
                    &content.seen[..least + torn]
                }
            },
        };
        Content { seen: bytes.to_vec(), durable: bytes.to_vec(), truncated: false }
    }
}

impl Inside {
    fn step(&mut self) -> io::Result<()> {
        if self.power_until.is_some_and(|until| self.steps >= until) {
            return Err(io::Error::other("the power is off"));
        }
        self.steps += 1;
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.seen.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file_or_new(&mut self, path: &Path) -> io::Result<usize> {
        match self.file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
                if self.seen.get(folder) != Some(&Node::Folder) {
                    return Err(error);
                }
                self.files.push(Content::default());
                let id = self.files.len() - 1;
                self.seen.insert(path.to_owned(), Node::File(id));
                Ok(id)
            }
            other => other,
        }
    }

    /// Adds to what is seen of a file as far as there is room.
    fn extend(&mut self, id: usize, bytes: &[u8]) -> io::Result<()> {
        let fits = self.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        self.room = self.room.map(|room| room - fits);
        self.content(id).seen.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn content(&mut self, id: usize) -> &mut Content {
        self.files.get_mut(id).expect("every node points at a file that is kept for ever")
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let mut inside = self.inside();
        let id = inside.file(path)?;
        let bytes = inside.content(id).seen.clone();
        let length = bytes.len() as u64;
        Ok((Box::new(Cursor::new(bytes)), length))
    }

    fn write(&self, path: &Path, bytes: &[u8], _mode: u32) -> io::Result<()> {
        let mut inside = self.inside();
        inside.step()?;
        let id = inside.file_or_new(path)?;
        inside.content(id).truncate(0);
        inside.step()?;
        inside.extend(id, bytes)?;
        inside.step()?;
        inside.content(id).sync();
        Ok(())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inside = self.inside();
        inside.step()?;
        let id = inside.file_or_new(path)?;
        inside.extend(id, bytes)?;
        inside.step()?;
        inside.content(id).sync();
        Ok(())
    }

    fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut inside = self.inside();
        inside.step()?;
        let id = inside.file(path)?;
        inside.content(id).truncate(usize::try_from(length).unwrap_or(usize::MAX));
        inside.step()?;
        inside.content(id).sync();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.step()?;
        let node = Node::File(inside.file(from)?);
        inside.seen.remove(from);
        inside.seen.insert(to.to_owned(), node);
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.step()?;
        let mut folder = Some(path);
        while let Some(each) = folder.filter(|each| each.parent().is_some()) {
            inside.seen.entry(each.to_owned()).or_insert(Node::Folder);
            folder = each.parent();
        }
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        let inner: Vec<PathBuf> = inside.seen.keys().filter(|each| each.starts_with(path)).cloned().collect();
        // The deepest first, as the system does.
        for each in inner.into_iter().rev() {
            inside.step()?;
            inside.seen.remove(&each);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.step()?;
        inside.seen.remove(path);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inside = self.inside();
        if inside.seen.get(path) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let children = inside.seen.keys().filter(|each| each.parent() == Some(path));
        Ok(children.filter_map(|each| each.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.step()?;
        if inside.ignores_folders {
            return Ok(());
        }
        let child = |each: &PathBuf| each.parent() == Some(path);
        inside.durable.retain(|each, _| !child(each));
        let seen: Vec<_> = inside.seen.iter().filter(|(each, _)| child(each)).map(|(p, n)| (p.clone(), *n)).collect();
        inside.durable.extend(seen);
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.inside().free.unwrap_or(u64::MAX))
    }
}
