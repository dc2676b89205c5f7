//! The row of sled folders: their names, setting one aside, removing one.
//!
//! ```text
//! generations/{number:010}-{stream:016x}-{first_ms:016x}   first_ms: nothing in it is older
//!             ….gone        being removed: what is left of it is swept at the next start
//!             ….bad-{ms}    could not be opened; the latest one is kept for whoever looks into it
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;

/// A generation's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub number: u32,
    pub stream: u64,
    pub first_ms: i64,
}

impl Name {
    fn folder_name(self) -> String {
        format!("{:010}-{:016x}-{:016x}", self.number, self.stream, self.first_ms)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let number = parts.next()?.parse().ok()?;
        let stream = u64::from_str_radix(parts.next()?, 16).ok()?;
        let first_ms = u64::from_str_radix(parts.next()?, 16).ok()?.cast_signed();
        let name = Self { number, stream, first_ms };
        (name.folder_name() == text).then_some(name)
    }
}

/// The folder that holds them.
#[derive(Debug)]
pub(super) struct Generations {
    root: PathBuf,
}

impl Generations {
    /// Makes the folder where it is missing, and sweeps what an interrupted removal left.
    pub(super) fn open(spool: &Path) -> io::Result<Self> {
        let root = spool.join("generations");
        if !root.exists() {
            fs::create_dir(&root)?;
            disk::sync_folder(spool)?;
        }
        for path in entries(&root)?.filter(|path| path.extension().is_some_and(|end| end == "gone")) {
            fs::remove_dir_all(path)?;
        }
        Ok(Self { root })
    }

    /// All that can be used, the oldest first.
    pub(super) fn list(&self) -> io::Result<Vec<Name>> {
        let mut names: Vec<Name> =
            entries(&self.root)?.filter_map(|path| Name::parse(path.file_name()?.to_str()?)).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn path(&self, name: Name) -> PathBuf {
        self.root.join(name.folder_name())
    }

    /// Removes a generation; a crash on the way leaves no half of it to be opened.
    pub(super) fn remove(&self, name: Name) -> io::Result<()> {
        let gone = self.path(name).with_extension("gone");
        fs::rename(self.path(name), &gone)?;
        disk::sync_folder(&self.root)?;
        fs::remove_dir_all(gone)
    }

    /// Puts a generation out of the way that cannot be opened, and deletes the one put there before.
    pub(super) fn set_aside(&self, name: Name, now_ms: i64) -> io::Result<()> {
        let is_bad = |path: &PathBuf| path.to_string_lossy().contains(".bad-");
        let before: Vec<PathBuf> = entries(&self.root)?.filter(is_bad).collect();
        fs::rename(self.path(name), self.path(name).with_extension(format!("bad-{now_ms}")))?;
        disk::sync_folder(&self.root)?;
        before.iter().try_for_each(fs::remove_dir_all)
    }
}

fn entries(folder: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    Ok(fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_generation_is_kept_and_a_half_removed_one_is_swept() {
        let spool = tempfile::tempdir().expect("a folder");
        let generations = Generations::open(spool.path()).expect("it opens");
        let names = [1, 2, 3, 4].map(|number| Name { number, stream: u64::MAX, first_ms: -1 });
        for name in names {
            fs::create_dir(generations.path(name)).expect("a folder");
        }
        assert_eq!(generations.list().expect("it lists"), names);
        generations.set_aside(names[0], 10).expect("set aside");
        generations.set_aside(names[1], 20).expect("set aside");
        generations.remove(names[2]).expect("removed");
        fs::create_dir(generations.path(names[2]).with_extension("gone")).expect("a folder");
        let generations = Generations::open(spool.path()).expect("it opens");
        assert_eq!(generations.list().expect("it lists"), names[3..]);
        assert_eq!(entries(&spool.path().join("generations")).expect("it lists").count(), 2);
    }
}
