//! The row of sled folders: their names, setting one aside, removing one.
//!
//! ```text
//! generations/{number:010}-{stream:016x}-{first_seq}-{first_ms:016x}     the newest, which takes files
//!             …-{files}-{bytes}    closed: how many files it held, and their bytes together
//!             …/used               its first commit is done: from then on an empty one is a damaged one
//!             ….part               being written again; whole if the one without `.part` is not there
//!             ….gone               being removed: what is left of it is swept at the next start
//!             ….lost-{ms}          damaged, and not told yet
//!             ….bad-{ms}           damaged, and told as a gap; the latest one is kept for whoever looks into it
//! first_seq: nothing in it has a lower number; first_ms: nothing in it is older; ms: when the damage was seen
//! ```
//!
//! sled cuts a log at the first message that it cannot read, and says nothing. So what a generation
//! held stands outside of it, in its name. Setting one aside is one rename, and a crash on the way from
//! `.lost` to `.bad` finds the same name again, and so the same gap.

use std::cell::RefCell;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::disk;
use crate::spool::backlog::Stock;

/// A generation's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub number: u32,
    pub stream: u64,
    pub first_seq: u64,
    pub first_ms: i64,
    /// What it held when it was closed.
    pub held: Option<Stock>,
}

impl Name {
    fn folder_name(self) -> String {
        let Self { number, stream, first_seq, first_ms, held } = self;
        let held = held.map_or_else(String::new, |held| format!("-{}-{}", held.files, held.bytes));
        format!("{number:010}-{stream:016x}-{first_seq}-{first_ms:016x}{held}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let number = parts.next()?.parse().ok()?;
        let stream = u64::from_str_radix(parts.next()?, 16).ok()?;
        let first_seq = parts.next()?.parse().ok()?;
        let first_ms = u64::from_str_radix(parts.next()?, 16).ok()?.cast_signed();
        let held = match parts.next() {
            Some(files) => Some(Stock { files: files.parse().ok()?, bytes: parts.next()?.parse().ok()? }),
            None => None,
        };
        let name = Self { number, stream, first_seq, first_ms, held };
        (name.folder_name() == text).then_some(name)
    }
}

/// The folder that holds them. A backlog of months is thousands of them, so what was seen is remembered.
#[derive(Debug)]
pub(super) struct Generations {
    root: PathBuf,
    /// The disk of each that is closed, as long as nobody opened it since.
    sizes: RefCell<BTreeMap<u32, u64>>,
    /// Those that can be used, while none was made, renamed or removed; and the disk that all the rest takes.
    names: RefCell<Option<(Rc<[Name]>, u64)>>,
}

impl Generations {
    /// Makes the folder where it is missing, and sweeps what an interrupted removal left.
    pub(super) fn open(spool: &Path) -> io::Result<Self> {
        let root = spool.join("generations");
        if !root.exists() {
            fs::create_dir(&root)?;
            disk::sync_folder(spool)?;
        }
        for path in entries(&root)?.filter(|path| path.extension().is_some_and(|end| end == "part")) {
            let whole = path.with_extension("");
            if whole.exists() { sweep(&path) } else { fs::rename(&path, whole)? }
        }
        for path in entries(&root)?.filter(|path| path.extension().is_some_and(|end| end == "gone")) {
            sweep(&path);
        }
        Ok(Self { root, sizes: RefCell::default(), names: RefCell::default() })
    }

    /// All that can be used, the oldest first.
    pub(super) fn list(&self) -> io::Result<Rc<[Name]>> {
        Ok(self.seen()?.0)
    }

    /// The same, and the disk that what is set aside takes.
    fn seen(&self) -> io::Result<(Rc<[Name]>, u64)> {
        if let Some(seen) = &*self.names.borrow() {
            return Ok(seen.clone());
        }
        let (mut names, mut aside) = (BinaryHeap::new(), 0);
        for path in entries(&self.root)? {
            match path.file_name().and_then(|name| Name::parse(name.to_str()?)) {
                Some(name) => names.push(name),
                None => aside += taken(&path).unwrap_or(0), // one that is just being swept
            }
        }
        let seen = (Rc::from(names.into_sorted_vec()), aside);
        *self.names.borrow_mut() = Some(seen.clone());
        Ok(seen)
    }

    /// This one is being opened: it may be made by that, and will grow.
    pub(super) fn touch(&self, name: Name) {
        self.sizes.borrow_mut().remove(&name.number);
        let is_known = self.names.borrow().as_ref().is_some_and(|(names, _)| names.contains(&name));
        if !is_known {
            self.forget();
        }
    }

    /// Something was made, renamed or removed.
    fn forget(&self) {
        *self.names.borrow_mut() = None;
    }

    /// Those that are damaged and not told yet, each with when that was seen.
    pub(super) fn lost(&self) -> io::Result<Vec<(Name, i64)>> {
        let lost = |path: PathBuf| {
            let (name, at_ms) = path.file_name()?.to_str()?.split_once(".lost-")?;
            Some((Name::parse(name)?, at_ms.parse().ok()?))
        };
        Ok(entries(&self.root)?.filter_map(lost).collect())
    }

    /// The number after all that were ever used and are still to be seen.
    pub(super) fn next_number(&self) -> io::Result<u32> {
        let number = |path: PathBuf| path.file_name()?.to_str()?.split('-').next()?.parse::<u32>().ok();
        let last = entries(&self.root)?.filter_map(number).max().unwrap_or(0);
        last.checked_add(1).ok_or_else(|| io::Error::other("the numbers of the generations are used up"))
    }

    pub(super) fn path(&self, name: Name) -> PathBuf {
        self.root.join(name.folder_name())
    }

    /// Writes down what a generation held, now that it takes no more; nobody may have it open.
    pub(super) fn close(&self, name: Name, held: Stock) -> io::Result<Name> {
        let closed = Name { held: Some(held), ..name };
        self.forget();
        fs::rename(self.path(name), self.path(closed))?;
        disk::sync_folder(&self.root)?;
        Ok(closed)
    }

    /// The disk that all of it takes, with what is set aside. `open` is the one that is in use.
    pub(super) fn disk_bytes(&self, open: Option<Name>) -> io::Result<u64> {
        let (names, mut bytes) = self.seen()?;
        let mut sizes = self.sizes.borrow_mut();
        for name in names.iter() {
            let is_still = name.held.is_some() && open.is_none_or(|open| open.number != name.number);
            bytes += match sizes.get(&name.number) {
                Some(size) if is_still => *size,
                _ => {
                    let size = taken(&self.path(*name))?;
                    if is_still {
                        sizes.insert(name.number, size);
                    }
                    size
                }
            };
        }
        Ok(bytes)
    }

    /// Whether its first commit is done.
    pub(super) fn is_used(&self, name: Name) -> bool {
        self.path(name).join("used").exists()
    }

    /// Says that its first commit is done.
    pub(super) fn mark_used(&self, name: Name) -> io::Result<()> {
        File::create(self.path(name).join("used"))?;
        disk::sync_folder(&self.path(name))
    }

    /// Writes a generation once more, into other files: what a failed sync leaves can be read, but nobody knows
    /// whether it is on the disk. Nobody may have it open.
    pub(super) fn rewrite(&self, name: Name) -> io::Result<()> {
        let path = self.path(name);
        let (part, gone) = (path.with_extension("part"), path.with_extension("gone"));
        self.touch(name);
        sweep(&part);
        sweep(&gone);
        write_again(&path, &part)?;
        fs::rename(&path, &gone)?;
        fs::rename(&part, &path)?;
        disk::sync_folder(&self.root)?;
        sweep(&gone);
        Ok(())
    }

    /// Removes a generation; a crash on the way leaves no half of it to be opened.
    pub(super) fn remove(&self, name: Name) -> io::Result<()> {
        let gone = self.path(name).with_extension("gone");
        self.forget();
        fs::rename(self.path(name), &gone)?;
        disk::sync_folder(&self.root)?;
        sweep(&gone);
        self.forget();
        Ok(())
    }

    /// Puts a damaged generation out of the way, to be told.
    pub(super) fn condemn(&self, name: Name, now_ms: i64) -> io::Result<()> {
        self.forget();
        fs::rename(self.path(name), self.lost_path(name, now_ms))?;
        disk::sync_folder(&self.root)
    }

    /// Keeps a condemned generation that is told, and deletes the one kept before.
    pub(super) fn set_aside(&self, name: Name, at_ms: i64) -> io::Result<()> {
        let is_bad = |path: &PathBuf| path.to_string_lossy().contains(".bad-");
        let before: Vec<PathBuf> = entries(&self.root)?.filter(is_bad).collect();
        let bad = self.path(name).with_extension(format!("bad-{at_ms}"));
        fs::rename(self.lost_path(name, at_ms), bad)?;
        disk::sync_folder(&self.root)?;
        before.iter().for_each(|path| sweep(path));
        self.forget();
        Ok(())
    }

    fn lost_path(&self, name: Name, at_ms: i64) -> PathBuf {
        self.path(name).with_extension(format!("lost-{at_ms}"))
    }
}

/// The disk that a folder and all in it takes.
fn taken(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { taken(&entry.path())? } else { metadata.blocks().saturating_mul(512) };
    }
    Ok(bytes)
}

/// Copies a folder, durably. By hand: the system's way to copy a file may share its blocks.
fn write_again(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let mut buffer = vec![0; 64 << 10];
    for path in entries(from)? {
        let copy = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            write_again(&path, &copy)?;
            continue;
        }
        let (mut old, mut new) = (File::open(&path)?, File::create(&copy)?);
        loop {
            let read = old.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            new.write_all(buffer.get(..read).unwrap_or_default())?;
        }
        new.sync_all()?;
    }
    disk::sync_folder(to)
}

/// Deletes what nobody needs. On a disk that cannot even do that it stays, and the work goes on.
fn sweep(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

fn entries(folder: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    Ok(fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(generations: &Generations, number: u32) -> Name {
        let name = Name { number, stream: u64::MAX, first_seq: 7, first_ms: -1, held: None };
        generations.touch(name);
        fs::create_dir(generations.path(name)).expect("a folder");
        name
    }

    #[test]
    fn one_bad_generation_is_kept_and_a_half_removed_one_is_swept() {
        let spool = tempfile::tempdir().expect("a folder");
        let generations = Generations::open(spool.path()).expect("it opens");
        let names = [1, 2, 3, 4].map(|number| made(&generations, number));
        assert_eq!(*generations.list().expect("it lists"), names);
        for (name, at_ms) in [(names[0], 10), (names[1], -20)] {
            generations.condemn(name, at_ms).expect("condemned");
            assert_eq!(generations.lost().expect("it lists"), [(name, at_ms)]);
            generations.set_aside(name, at_ms).expect("set aside");
            assert_eq!(generations.lost().expect("it lists"), []);
        }
        generations.remove(names[2]).expect("removed");
        fs::create_dir(generations.path(names[2]).with_extension("gone")).expect("a folder");
        let generations = Generations::open(spool.path()).expect("it opens");
        assert_eq!(*generations.list().expect("it lists"), names[3..]);
        assert_eq!(entries(&spool.path().join("generations")).expect("it lists").count(), 2);
    }

    #[test]
    fn a_closed_generation_tells_what_it_held_and_no_number_comes_again_while_one_is_kept() {
        let spool = tempfile::tempdir().expect("a folder");
        let generations = Generations::open(spool.path()).expect("it opens");
        assert_eq!(generations.next_number().expect("it counts"), 1);
        let name = made(&generations, 3);
        let held = Stock { files: 12, bytes: 1 << 40 };
        let closed = generations.close(name, held).expect("it closes");
        assert_eq!(*generations.list().expect("it lists"), [Name { held: Some(held), ..name }]);
        generations.condemn(closed, 5).expect("condemned");
        assert_eq!(generations.next_number().expect("it counts"), 4);
        assert!(!generations.is_used(made(&generations, 4)));
    }
}
