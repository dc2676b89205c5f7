//! The open logs that are not wholly sealed yet, and the workers that write them. Owned by the writer thread.
//!
//! Each worker has a log that it writes and, before it needs it, the next one: so no worker ever makes a file.
//! A log stays here until the child has sealed all of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::keys;
use crate::spool::due::Unsealed;
use crate::spool::lane::{Lane, OpenLog, left_logs};
use crate::spool::log::{BootId, Name, PREAMBLE, Preamble};

/// A log that is not wholly sealed yet.
#[derive(Debug)]
struct Held {
    log: Arc<OpenLog>,
    /// Position of the worker that writes it.
    worker: usize,
    /// What of it is sealed.
    offset: u64,
    rows: u32,
}

/// One registered worker.
#[derive(Debug)]
struct Worker {
    lane: Arc<Lane>,
    spares: SyncSender<Arc<OpenLog>>,
    /// The log that it writes, and the one that it will go on to.
    current: Option<Arc<OpenLog>>,
    spare: Option<Arc<OpenLog>>,
    /// How many of its sums were told to the child.
    summed_told: u64,
}

/// The logs of this run.
#[derive(Debug)]
pub(super) struct Logs {
    folder: PathBuf,
    boot: BootId,
    /// How often they are synced, in tenths of a second.
    sync: u16,
    next_number: u32,
    held: Vec<Held>,
    workers: Vec<Worker>,
}

impl Logs {
    /// Logs will be made in `folder`, in the machine's boot `boot`, with numbers after `last`, and synced so often.
    pub(super) fn new(folder: PathBuf, boot: BootId, last: u32, sync: Duration) -> Self {
        let sync = u16::try_from(sync.as_millis().div_ceil(100)).unwrap_or(u16::MAX);
        let next_number = last.saturating_add(1); // at the limit only the order is lost, and the ids still differ
        Self { folder, boot, sync, next_number, held: Vec::new(), workers: Vec::new() }
    }

    /// Where the logs are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A worker more: its position, and where its next logs will come.
    pub(super) fn register(&mut self, lane: Arc<Lane>) -> (usize, Receiver<Arc<OpenLog>>) {
        let (sender, spares) = sync_channel(1);
        self.workers.push(Worker { lane, spares: sender, current: None, spare: None, summed_told: 0 });
        (self.workers.len() - 1, spares)
    }

    /// Makes a log for a worker.
    pub(super) fn make(&mut self, worker: usize, made_ms: i64) -> io::Result<Arc<OpenLog>> {
        let random = keys::random().ok_or_else(|| io::Error::other("the system gives no random numbers"))?;
        let name = Name { number: self.next_number, id: u64::from_be_bytes(random) };
        let log = Arc::new(OpenLog::make(&self.folder, name, Preamble { boot: self.boot, made_ms, sync: self.sync })?);
        self.next_number = self.next_number.saturating_add(1);
        self.held.push(Held { log: Arc::clone(&log), worker, offset: PREAMBLE as u64, rows: 0 });
        Ok(log)
    }

    /// This is the log that a worker begins with.
    pub(super) fn begin(&mut self, worker: usize, log: Option<Arc<OpenLog>>) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.current = log;
        }
    }

    /// The workers that want their next log: those whose log is half full, or that have none.
    pub(super) fn wanting(&mut self, log_size: u64) -> Vec<usize> {
        let is_done = |log: &Arc<OpenLog>| log.closed.load(Ordering::Acquire);
        let is_begun = |log: &Arc<OpenLog>| log.rows.load(Ordering::Relaxed) > 0;
        let is_full = |log: &Arc<OpenLog>| log.end.load(Ordering::Relaxed) >= log_size / 2;
        let wants = |worker: &mut Worker| {
            if worker.current.as_ref().is_none_or(is_done) && worker.spare.as_ref().is_some_and(is_begun) {
                worker.current = worker.spare.take();
            }
            worker.spare.is_none() && worker.current.as_ref().is_none_or(is_full)
        };
        self.workers.iter_mut().enumerate().filter_map(|(index, worker)| wants(worker).then_some(index)).collect()
    }

    /// Gives a worker its next log.
    pub(super) fn give(&mut self, worker: usize, log: Arc<OpenLog>) {
        if let Some(worker) = self.workers.get_mut(worker) {
            let _ = worker.spares.try_send(Arc::clone(&log)); // the worker has gone: it stays unused
            worker.spare = Some(log);
        }
    }

    /// How many workers have registered.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What each worker shares with the writer.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.workers.iter().map(|worker| &*worker.lane)
    }

    /// What there is to seal of them.
    pub(super) fn waits(&self) -> Unsealed {
        let mut waits = Unsealed::default();
        for held in &self.held {
            waits.rows += u64::from(held.log.rows.load(Ordering::Relaxed).saturating_sub(held.rows));
            waits.bytes += held.log.end.load(Ordering::Relaxed).saturating_sub(held.offset);
        }
        for worker in &self.workers {
            waits.rows += u64::from(worker.lane.rolled_up.load(Ordering::Relaxed) > worker.summed_told);
        }
        waits
    }

    /// Id and end of each log that is still written.
    pub(super) fn live(&self) -> Vec<(u64, u64)> {
        let live = self.held.iter().filter(|held| !held.log.closed.load(Ordering::Acquire));
        live.map(|held| (held.log.name.id, held.log.end.load(Ordering::Acquire))).collect()
    }

    /// How much each worker has summed up so far.
    pub(super) fn summed(&self) -> Vec<u64> {
        self.lanes().map(|lane| lane.rolled_up.load(Ordering::Relaxed)).collect()
    }

    /// The child has been told so much of each worker's sums.
    pub(super) fn sums_are_told(&mut self, summed: Vec<u64>) {
        for (worker, summed) in self.workers.iter_mut().zip(summed) {
            worker.summed_told = summed;
        }
    }

    /// The child has sealed the log `id` up to `offset`, and so many rows; all of it is `u64::MAX`.
    pub(super) fn sealed(&mut self, id: u64, offset: u64, rows: u32) {
        let Some(index) = self.held.iter().position(|held| held.log.name.id == id) else { return };
        let Some(held) = self.held.get_mut(index) else { return };
        let sealed = offset.min(held.log.end.load(Ordering::Acquire));
        if let Some(worker) = self.workers.get(held.worker) {
            worker.lane.sealed_bytes.fetch_add(sealed.saturating_sub(held.offset), Ordering::Relaxed);
        }
        (held.offset, held.rows) = (sealed, rows);
        if offset == u64::MAX {
            self.held.swap_remove(index);
        }
    }

    /// Lets go of logs that are gone: the answer that said so may never have come.
    pub(super) fn let_go(&mut self) {
        let Self { held, workers, folder, .. } = self;
        held.retain(|held| {
            let is_there = !held.log.closed.load(Ordering::Acquire) || folder.join(held.log.name.file_name()).exists();
            if !is_there && let Some(worker) = workers.get(held.worker) {
                let rest = held.log.end.load(Ordering::Acquire).saturating_sub(held.offset);
                worker.lane.sealed_bytes.fetch_add(rest, Ordering::Relaxed);
            }
            is_there
        });
    }

    /// Bytes in logs that no intake of this run holds.
    pub(super) fn foreign_bytes(&self) -> u64 {
        let own: u64 = self.held.iter().map(|held| held.log.end.load(Ordering::Relaxed)).sum();
        left_logs(&self.folder).map_or(0, |(all, _)| all.saturating_sub(own))
    }

    /// Removes the logs that no worker has begun: the next start need not wonder about them.
    pub(super) fn remove_unused(&self) {
        let spares = self.workers.iter().filter_map(|worker| worker.spare.as_ref());
        for spare in spares.filter(|spare| spare.rows.load(Ordering::Acquire) == 0) {
            let _ = fs::remove_file(self.folder.join(spare.name.file_name())); // it holds nothing
        }
    }
}
