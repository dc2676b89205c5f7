//! Makes the open logs and the sums durable at a steady pace, whatever the writer thread is waiting for.
//!
//! The writer thread may wait minutes for its child or for the disk; what a power cut costs must not
//! grow with that. So this is a thread of its own, which only ever syncs. Its bound is the interval and
//! the time that one round of fdatasync takes. Started and stopped by the writer thread.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::spool::lane::{Lane, OpenLog};

/// Something that is to be synced.
#[derive(Debug, Clone)]
enum Watched {
    Log(Arc<OpenLog>),
    Sums(Arc<Lane>, Arc<File>),
}

/// What is synced, and how that went.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watched: Mutex<Vec<Watched>>,
    /// The first failure, or the first success after one, until it is taken.
    news: Mutex<Option<io::Result<()>>>,
    is_failing: AtomicBool,
    is_over: AtomicBool,
}

impl Watch {
    /// Watches a log until it is closed and synced.
    pub(super) fn log(&self, log: Arc<OpenLog>) {
        self.list().push(Watched::Log(log));
    }

    /// Watches the sums of a lane for good.
    pub(super) fn sums(&self, lane: Arc<Lane>, file: File) {
        self.list().push(Watched::Sums(lane, Arc::new(file)));
    }

    /// Bytes of records that a power cut would take now.
    pub(super) fn unsynced(&self) -> u64 {
        let behind = |watched: &Watched| match watched {
            Watched::Log(log) => log.end.load(Ordering::Acquire) - log.synced.load(Ordering::Acquire),
            Watched::Sums(..) => 0,
        };
        self.list().iter().map(behind).sum()
    }

    /// What has changed since it was asked last.
    pub(super) fn news(&self) -> Option<io::Result<()>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One round. Holds no lock while it syncs.
    fn sync(&self) {
        let watched = self.list().clone();
        let mut failed = None;
        for watched in &watched {
            if let Err(error) = watched.sync() {
                failed = Some(error);
            }
        }
        drop(watched);
        self.list().retain(|watched| !watched.is_done());
        if self.is_failing.swap(failed.is_some(), Ordering::Relaxed) != failed.is_some() {
            *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed.map_or(Ok(()), Err));
        }
    }
}

impl Watched {
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Log(log) => {
                let end = log.end.load(Ordering::Acquire);
                if end > log.synced.load(Ordering::Acquire) {
                    log.file.sync_data()?;
                    log.synced.store(end, Ordering::Release);
                }
            }
            Self::Sums(lane, file) => {
                if lane.counted.swap(false, Ordering::Acquire)
                    && let Err(error) = file.sync_data()
                {
                    lane.counted.store(true, Ordering::Release); // so that it is tried again
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Nothing will be written to it any more, or everybody else has let it go.
    fn is_done(&self) -> bool {
        let Self::Log(log) = self else { return false };
        let is_closed = log.closed.load(Ordering::Acquire);
        let is_synced = log.end.load(Ordering::Acquire) == log.synced.load(Ordering::Acquire);
        (is_closed && is_synced) || Arc::strong_count(log) == 1
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Syncer {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts it.
    pub(super) fn start(watch: Arc<Watch>, interval: Duration) -> io::Result<Self> {
        let ours = Arc::clone(&watch);
        let work = move || {
            while !ours.is_over.load(Ordering::Acquire) {
                let begun = Instant::now();
                ours.sync();
                while !ours.is_over.load(Ordering::Acquire)
                    && let Some(rest) = interval.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero())
                {
                    std::thread::park_timeout(rest);
                }
            }
        };
        let thread = std::thread::Builder::new().name("spool-sync".into()).spawn(work)?;
        Ok(Self { watch, thread: Some(thread) })
    }

    /// Whether it has ended by itself, which only a defect makes it do.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, and syncs a last time.
    pub(super) fn stop(mut self) {
        self.end();
        self.watch.sync();
    }

    fn end(&mut self) {
        self.watch.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // a panic of it is told by `has_ended`
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::spool::log::{Name, Preamble};

    /// A file that cannot be synced.
    fn pipe() -> File {
        let (_, end) = rustix::pipe::pipe().expect("a pipe");
        File::from(end)
    }

    #[test]
    fn a_log_is_synced_once_for_what_came_and_let_go_when_it_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let preamble = Preamble { boot: [1; 16], made_ms: 0, sync: 0 };
        let log = Arc::new(OpenLog::make(folder.path(), Name { number: 1, id: 1 }, preamble).expect("it is made"));
        let watch = Watch::default();
        watch.log(Arc::clone(&log));
        let end = log.end.load(Ordering::Acquire);
        log.file.write_at(&[1; 100], end).expect("it writes");
        log.end.store(end + 100, Ordering::Release);
        assert_eq!(watch.unsynced(), 100);
        watch.sync();
        assert_eq!((watch.unsynced(), watch.list().len()), (0, 1));
        log.closed.store(true, Ordering::Release);
        watch.sync();
        assert!(watch.list().is_empty() && watch.news().is_none());
    }

    #[test]
    fn sums_whose_sync_failed_are_synced_again() {
        let (watch, lane) = (Watch::default(), Arc::new(Lane::default()));
        watch.sums(Arc::clone(&lane), pipe());
        lane.counted.store(true, Ordering::Release);
        for round in 0..2 {
            watch.sync();
            assert!(lane.counted.load(Ordering::Acquire), "it is still to be done");
            assert_eq!(watch.news().is_some_and(|news| news.is_err()), round == 0, "told once");
        }
        let folder = tempfile::tempdir().expect("a folder");
        *watch.list() =
            vec![Watched::Sums(Arc::clone(&lane), Arc::new(File::create(folder.path().join("f")).expect("it opens")))];
        watch.sync();
        assert!(!lane.counted.load(Ordering::Acquire));
        assert!(watch.news().is_some_and(|news| news.is_ok()));
    }
}
