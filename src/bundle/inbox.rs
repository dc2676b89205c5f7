//! The drop folder: which files are ready to be imported, and where they go afterwards.
//!
//! A file is ready when its writer closed it or it was moved in (inotify), or when a slow look finds it as
//! the look before did. The folder belongs to others: every name in it is hostile, counts are bounded,
//! nothing is followed. It never parses; the importer judges.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::error::Refused;
use super::importer::Imported;

/// Most bundles that one look takes from a folder.
pub const MAX_CANDIDATES: usize = 256;
/// Most refused files that are kept.
pub const MAX_REJECTED: usize = 16;
/// Most results that are kept.
pub const MAX_RESULTS: usize = 64;
/// Between two looks while a file is being watched for rest.
const SOON: Duration = Duration::from_secs(2);
/// Between two looks otherwise.
const SLOW: Duration = Duration::from_secs(60);
/// Most names of any kind that a look reads.
const MAX_NAMES: usize = 16_384;

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    /// Files to import, sorted by name.
    pub ready: Vec<PathBuf>,
    /// `TooManyCandidates`: the folder holds more than are looked at.
    pub refused: Option<Refused>,
}

/// A file as it was last seen: inode, size, and both times with their nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
    changed: [i64; 4],
}

/// The drop folder.
#[derive(Debug)]
pub struct Inbox {
    folder: PathBuf,
    events: OwnedFd,
    seen: BTreeMap<OsString, (Seen, bool)>,
    next_look: Instant,
}

impl Inbox {
    /// Watches `folder`, made if it is not there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let closed = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&events, folder, closed)?;
        Ok(Self { folder: folder.into(), events, seen: BTreeMap::new(), next_look: Instant::now() })
    }

    /// Waits up to `timeout` for files that are ready. Blocking; call it in a loop on a thread of its own.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Look> {
        let until_look = self.next_look.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(timeout.min(until_look)).unwrap_or_default();
        match poll(&mut [PollFd::new(&self.events, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let closed = self.closed()?;
        let mut look = if Instant::now() >= self.next_look { self.look()? } else { Look::default() };
        look.ready.extend(closed.into_iter().filter_map(|name| self.take(&name)));
        look.ready.sort_unstable();
        look.ready.dedup();
        Ok(look)
    }

    /// One slow look: files that rest since the last one are ready.
    pub fn look(&mut self) -> io::Result<Look> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)?.take(MAX_NAMES) {
            let name = entry?.file_name();
            if is_candidate(&name) {
                names.push(name);
            }
        }
        let mut look = Look::default();
        if names.len() > MAX_CANDIDATES {
            let detail = format!("more than {MAX_CANDIDATES} bundles in the folder");
            look.refused = Some(Refused::TooManyCandidates(detail));
            names.clear();
        }
        let before = std::mem::take(&mut self.seen);
        let mut waiting = false;
        for name in names {
            let Some(now) = self.stat(&name) else { continue };
            let (rests, done) = before.get(&name).map_or((false, false), |(seen, done)| (*seen == now, *done));
            if rests && !done {
                look.ready.push(self.folder.join(&name));
            }
            waiting |= !rests;
            self.seen.insert(name, (now, rests));
        }
        self.next_look = Instant::now() + if waiting { SOON } else { SLOW };
        Ok(look)
    }

    /// After an import: an accepted file goes, a refused one goes to `rejected/`, and one whose refusal is
    /// the moment's (no space, a copy under way) stays and is taken again once it changes.
    pub fn settle<T>(&mut self, path: &Path, result: &Imported<T>) -> io::Result<()> {
        let Some(name) = path.file_name().filter(|_| path.parent() == Some(&self.folder)) else { return Ok(()) };
        match result {
            Imported::Activated(_) | Imported::AlreadyInstalled => fs::remove_file(path)?,
            Imported::Refused(
                Refused::NoSpace(_) | Refused::SourceIo(_) | Refused::SourceChanged(_) | Refused::StateLost(_),
            ) => {}
            Imported::Refused(_) => {
                let rejected = self.folder.join("rejected");
                fs::create_dir_all(&rejected)?;
                prune(&rejected, MAX_REJECTED - 1, |_| true)?;
                fs::rename(path, rejected.join(name))?;
            }
        }
        prune(&self.folder, MAX_RESULTS, |name| name.as_bytes().ends_with(b".result.json"))
    }

    /// Names that inotify says are complete. An overflow only means that the slow look finds them.
    fn closed(&mut self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(&self.events, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    names.extend(name.filter(|name| is_candidate(name)));
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if names.len() >= MAX_CANDIDATES {
                break;
            }
        }
        Ok(names)
    }

    /// Marks a file as taken; gives its path if it was not taken before as it is now.
    fn take(&mut self, name: &OsStr) -> Option<PathBuf> {
        let now = self.stat(name)?;
        if self.seen.get(name) == Some(&(now, true)) {
            return None;
        }
        if self.seen.len() < MAX_CANDIDATES {
            self.seen.insert(name.to_owned(), (now, true));
        }
        Some(self.folder.join(name))
    }

    fn stat(&self, name: &OsStr) -> Option<Seen> {
        let meta = fs::symlink_metadata(self.folder.join(name)).ok()?;
        let changed = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Some(Seen { inode: meta.ino(), size: meta.size(), changed })
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// `*.tgb`, not hidden.
fn is_candidate(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".tgb") && !name.starts_with(b".")
}

/// Removes the oldest of the names that `counts`, until `most` are left.
fn prune(folder: &Path, most: usize, counts: impl Fn(&OsStr) -> bool) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)?.take(MAX_NAMES) {
        let entry = entry?;
        if counts(&entry.file_name()) {
            let meta = fs::symlink_metadata(entry.path())?;
            found.push(((meta.ctime(), meta.ctime_nsec()), meta.is_dir(), entry.path()));
        }
    }
    found.sort_unstable();
    let surplus = found.len().saturating_sub(most);
    for (_, is_folder, path) in found.into_iter().take(surplus) {
        if is_folder { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}
