//! The drop folder: which files are ready to be imported, and where they go afterwards.
//!
//! A file is ready when its writer closed it or it was moved in (inotify), or when slow looks find it
//! unchanged for long enough; one that only the moment refused is ready again later. The folder belongs to
//! others: every name in it is hostile and may stand for another file at any moment, counts are bounded, nothing
//! is followed, and no folder is gone into. What was refused is kept outside, where nobody else can put things in
//! its way. It never parses; the importer judges.

use std::collections::{BTreeMap, BinaryHeap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::container::MAX_FILE;
use super::error::Refused;
use super::outcome::{ImportOutcome, Imported};
use super::staging::{Identity, RESERVE, open_regular};
use crate::disk;
use crate::units::UnixSeconds;

/// Most bundles that one look takes from a folder.
pub const MAX_CANDIDATES: usize = 256;
/// Most refused files that are kept.
pub const MAX_REJECTED: usize = 16;
/// Most results that are kept.
pub const MAX_RESULTS: usize = 64;
/// Most copies that were cut off that are kept: a stick was pulled out, or a connection ended. The newest may be under way.
pub const MAX_PARTS: usize = 4;
/// How long a file must lie unchanged before a slow look takes it for complete. Whoever closes a file or moves it in
/// is seen and waits for nothing; this is for files from before the start, and for lost events. An upload over a bad
/// link falls silent for tens of seconds and goes on: taken earlier, its half would be refused as `Truncated` and moved
/// from under the writer. Counted on the monotonic clock from when the change was seen: the wall clock may be set
/// meanwhile, and `scp -p` gives a new file an old mtime. Only the rest before the start is read off the file's ctime.
pub const REST: Duration = Duration::from_secs(60);
/// The longest that a file waits which only the moment refused. Each wait is twice the one before it, from [`REST`]; what the
/// hub or a stick brought long ago nobody offers again, and a disk that stays full must not be written to all day.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Between two slow looks, if no file is due before.
const SLOW: Duration = Duration::from_secs(60);
/// Most files among which the oldest are looked for.
const MAX_FOUND: usize = 16_384;

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    /// Files to import, sorted by name.
    pub ready: Vec<PathBuf>,
    /// `TooManyCandidates`: the folder holds more than are looked at, and did not at the look before.
    pub refused: Option<Refused>,
}

/// A file as it was last seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    identity: Identity,
    /// When it is ready, unless it was taken.
    due: Instant,
    taken: bool,
    /// How long it waits after a refusal of the moment.
    wait: Duration,
}

/// The drop folder.
#[derive(Debug)]
pub struct Inbox {
    folder: PathBuf,
    rejected: PathBuf,
    events: OwnedFd,
    seen: BTreeMap<OsString, Seen>,
    crowded: bool,
    next_look: Instant,
    /// The wall clock at the start, until the first look.
    opened_at: Option<UnixSeconds>,
}

impl Inbox {
    /// Watches `folder`; what was refused is kept in `rejected`, which nobody else may write to. Both are made if they
    /// are not there. `now` is the wall clock's.
    pub fn open(folder: &Path, rejected: &Path, now: UnixSeconds) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(rejected)?;
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let closed = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&events, folder, closed)?;
        Ok(Self {
            folder: folder.into(),
            rejected: rejected.into(),
            events,
            seen: BTreeMap::new(),
            crowded: false,
            next_look: Instant::now(),
            opened_at: Some(now),
        })
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
        let now = Instant::now();
        let mut look = if now >= self.next_look { self.look(now)? } else { Look::default() };
        look.ready.extend(closed.into_iter().filter_map(|name| self.take(&name, now)));
        look.ready = BinaryHeap::from(look.ready).into_sorted_vec();
        look.ready.dedup();
        Ok(look)
    }

    /// One slow look: files that have rested for [`REST`] are ready, and those whose wait is over.
    pub fn look(&mut self, now: Instant) -> io::Result<Look> {
        prune(&self.folder, MAX_PARTS, |name| name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(b".part"));
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if is_candidate(&name) {
                names.push(name);
            }
            if names.len() > MAX_CANDIDATES {
                break;
            }
        }
        let mut look = Look::default();
        let was_crowded = std::mem::replace(&mut self.crowded, names.len() > MAX_CANDIDATES);
        if self.crowded {
            let detail = format!("more than {MAX_CANDIDATES} bundles in the folder");
            look.refused = (!was_crowded).then_some(Refused::TooManyCandidates(detail));
            names.clear();
        }
        let before = std::mem::take(&mut self.seen);
        let opened_at = self.opened_at.take();
        self.next_look = now + SLOW;
        for name in names {
            let Some(identity) = self.stat(&name) else { continue };
            let as_before = before.get(&name).copied().filter(|seen| seen.identity == identity);
            let mut seen = as_before.unwrap_or_else(|| {
                let rested = opened_at.map(|at| at.saturating_sub(identity.changed_at()));
                let rested = Duration::from_secs(rested.and_then(|s| u64::try_from(s).ok()).unwrap_or(0)).min(REST);
                Seen { identity, due: now + (REST - rested), taken: false, wait: REST }
            });
            if !seen.taken && seen.due <= now {
                seen.taken = true;
                look.ready.push(self.folder.join(&name));
            } else if !seen.taken {
                self.next_look = self.next_look.min(seen.due);
            }
            self.seen.insert(name, seen);
        }
        look.ready = BinaryHeap::from(look.ready).into_sorted_vec();
        Ok(look)
    }

    /// After an import: an accepted file goes, a refused one is moved to the rejected, and one whose refusal is the
    /// moment's (no space, a copy under way) stays and is ready again after a wait, or once it changes. Only the very file
    /// that was judged: another one that has its name now waits for its own judgement, and what is no file is left to its
    /// owner.
    pub fn settle<T>(&mut self, path: &Path, outcome: &ImportOutcome<T>, now: Instant) -> io::Result<()> {
        let Some(name) = path.file_name().filter(|_| path.parent() == Some(&self.folder)) else { return Ok(()) };
        let judged = outcome.judged.filter(|judged| self.stat(name) == Some(*judged));
        let settled = match (judged, &outcome.result) {
            // What could not even be opened, too.
            (_, Imported::Refused(refused)) if refused.is_of_the_moment() => {
                self.postpone(name, now);
                Ok(())
            }
            (None, _) => Ok(()),
            (
                Some(_),
                Imported::Activated(_)
                | Imported::Revoked(_)
                | Imported::Permitted(_)
                | Imported::HandedOver { .. }
                | Imported::TimeReset { .. }
                | Imported::Enrolled(_)
                | Imported::UsageMayLeave { .. }
                | Imported::AlreadyInstalled,
            ) => fs::remove_file(path),
            (Some(judged), Imported::Refused(_) | Imported::Defect(_)) => self.reject(path, name, judged),
        };
        prune(&self.folder, MAX_RESULTS, |name| name.as_bytes().ends_with(b".result.json"));
        settled
    }

    fn postpone(&mut self, name: &OsStr, now: Instant) {
        if let Some(seen) = self.seen.get_mut(name) {
            (seen.due, seen.taken) = (now + seen.wait, false);
            seen.wait = (seen.wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Moves a refused file out, by a copy where the inbox is on another file system.
    fn reject(&self, path: &Path, name: &OsStr, judged: Identity) -> io::Result<()> {
        prune(&self.rejected, MAX_REJECTED - 1, |_| true);
        let kept = self.rejected.join(name);
        match fs::rename(path, &kept) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            other => return other,
        }
        let part = self.rejected.join(".part");
        let copied = copy(path, &part, judged).and_then(|()| fs::rename(&part, kept));
        if copied.is_err() {
            let _ = fs::remove_file(&part);
        }
        copied?;
        if self.stat(name) == Some(judged) { fs::remove_file(path) } else { Ok(()) }
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
    fn take(&mut self, name: &OsStr, now: Instant) -> Option<PathBuf> {
        let identity = self.stat(name)?;
        if self.seen.get(name).is_some_and(|seen| seen.taken && seen.identity == identity) {
            return None;
        }
        if self.seen.len() < MAX_CANDIDATES {
            self.seen.insert(name.to_owned(), Seen { identity, due: now, taken: true, wait: REST });
        }
        Some(self.folder.join(name))
    }

    fn stat(&self, name: &OsStr) -> Option<Identity> {
        fs::symlink_metadata(self.folder.join(name)).ok().map(|meta| Identity::of(&meta))
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// `*.tgb` or `*.tgd`, not hidden.
pub(super) fn is_candidate(name: &OsStr) -> bool {
    let name = name.as_bytes();
    (name.ends_with(b".tgb") || name.ends_with(b".tgd")) && !name.starts_with(b".")
}

/// Copies the file that was judged. What is longer than any bundle is cut: it is kept to be looked at.
fn copy(from: &Path, to: &Path, judged: Identity) -> io::Result<()> {
    let offered = open_regular(from).map_err(|refused| io::Error::other(refused.to_string()))?;
    if offered.identity() != judged {
        return Err(io::Error::other("it was replaced"));
    }
    if disk::free_bytes(to.parent().unwrap_or(to))? < MAX_FILE + RESERVE {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let _ = fs::remove_file(to); // of a copy that was cut off
    let mut copy = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut offered.file.take(MAX_FILE), &mut copy).map(|_| ())
}

/// Removes the oldest of the files that `counts`, until `most` are left, as far as they can be removed: one that
/// stays must not keep others from their place. Folders are not counted and not touched: no folder here is ours.
fn prune(folder: &Path, most: usize, counts: impl Fn(&OsStr) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let files = entries.map_while(Result::ok).filter(|entry| counts(&entry.file_name())).filter_map(|entry| {
        let meta = entry.metadata().ok().filter(|meta| !meta.is_dir())?;
        Some(((meta.ctime(), meta.ctime_nsec()), entry.path()))
    });
    let found: BinaryHeap<_> = files.take(MAX_FOUND).collect();
    let surplus = found.len().saturating_sub(most);
    for (_, path) in found.into_sorted_vec().into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}
