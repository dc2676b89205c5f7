//! The spool's own thread: makes logs ahead, syncs them, decides when to seal, and has the child do it.
//!
//! The only one that waits for the disk. It never holds a record: it counts what the intakes wrote and
//! what the child says is sealed, and lets go of a log when all of it is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::{oneshot, watch};

use crate::clock::Reading;
use crate::disk;
use crate::ids::{Digest, StreamId};
use crate::spool::backlog::{Cursor, Unavailable, UsageFile};
use crate::spool::budget::Budget;
use crate::spool::due::{Due, Unsealed};
use crate::spool::held::Logs;
use crate::spool::intake::Batch;
use crate::spool::lane::{self, Lane, OpenLog, Sums, counts_files, left_logs};
use crate::spool::ledger::{BACKLOG_FULL, DISK_FULL};
use crate::spool::losses::Losses;
use crate::spool::record::{Gap, GapReason};
use crate::spool::runner::Runner;
use crate::spool::syncer::{Syncer, Watch};
use crate::spool::wire::{Reply, Report, Request, Seal, Seed, Setup};
use crate::spool::{Config, Error, Intake, Program, WhenFull};
use crate::telemetry::Heart;

/// How often it looks after things while records come, and while none do.
const TICK: Duration = Duration::from_millis(200);
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Refusals before authentication are told one by one only while less than this part of the backlog's limit is taken,
/// and in each open log less than this part of its own: nobody without a token pushes paid usage out.
const REFUSALS_SHARE: u64 = 4;

/// Commands that are done before it looks after things again.
const COMMANDS_LIMIT: u32 = 16;

/// How often the lock is tried, and the pause between: a second in all.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What the handle asks.
#[derive(Debug)]
pub(super) enum Command {
    Register { worker: u16, reply: Sender<Intake> },
    Oldest { after: Option<Cursor>, reply: oneshot::Sender<Result<Option<UsageFile>, Unavailable>> },
    Acknowledge { at: Cursor, digest: Digest, reply: oneshot::Sender<Result<(), Unavailable>> },
    SealNow { done: Option<oneshot::Sender<()>> },
    Watched(Heart),
    Stop,
}

/// What the handle and the thread share without a message.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub in_reach: AtomicBool,
    /// Manifest digest of the policy bundle in force.
    pub policy: Mutex<Option<Digest>>,
    pub watch: Arc<Watch>,
}

/// What the writer thread tells everybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting {
    /// The stream that files go into now; `None` before the child's first word.
    pub stream: Option<StreamId>,
    /// Sealed files that wait for a receipt.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// The disk that they take, by which the backlog is limited.
    pub disk_bytes: u64,
    /// Whether these are the child's last word: not before its first, and not while it fails.
    pub is_known: bool,
    /// Bytes of records that wait to be sealed.
    pub open_bytes: u64,
    /// The last thing that went wrong, until it works again.
    pub last_error: Option<String>,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    config: Config,
    folder: PathBuf,
    workers: u16,
    logs: Logs,
    runner: Runner,
    losses: Losses,
    /// What of them is in their file, and since when.
    losses_saved: Losses,
    losses_saved_at: Duration,
    /// Records lost in this run of losses, before this process.
    lost_before: u64,
    /// Bytes in logs of earlier runs.
    left_bytes: u64,
    due: Due,
    shared: Arc<Shared>,
    left_over: bool,
    /// The newest generation can give its disk back.
    is_spent: bool,
    /// What failed last, until it works again.
    failing: Option<&'static str>,
    syncer: Syncer,
    told: watch::Sender<Waiting>,
    heart: Option<Heart>,
    _lock: File,
}

impl Writer {
    /// Takes the folder for this process, and sees what an earlier run left.
    pub(super) fn start(
        config: Config,
        folder: &Path,
        seed: [u8; 32],
        program: Program,
        workers: u16,
        told: watch::Sender<Waiting>,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let at_folder = |source| Error::Folder { path: folder.to_owned(), source };
        let open = folder.join("open");
        let made = fs::create_dir_all(&open).and_then(|()| disk::sync_folder(folder));
        made.and_then(|()| disk::sync_parent(folder)).map_err(at_folder)?;
        let lock = File::create(folder.join("lock")).map_err(at_folder)?;
        if !locked(&lock) {
            return Err(Error::Locked(folder.to_owned()));
        }
        let setup = Setup {
            folder: folder.to_owned(),
            seed: Seed(seed),
            generation_size: config.generation_size.0,
            backlog_limit: config.backlog_limit.0,
            when_full: config.when_full,
            free_floor: config.free_floor.0,
        };
        let (left_bytes, last) = left_logs(&open).map_err(at_folder)?;
        let has_generations = folder.join("generations").exists();
        let left_over = left_bytes > 0 || last > 0 || has_generations;
        told.send_modify(|told| told.is_known = !has_generations);
        let now = Reading::now();
        let losses = Losses::load(folder, now.wall_ms);
        let syncer = Syncer::start(Arc::clone(&shared.watch), config.sync_interval.0).map_err(Error::System)?;
        let logs = Logs::new(open, lane::boot_id(), last, config.sync_interval.0);
        let mut writer = Self {
            config,
            folder: folder.to_owned(),
            workers: workers.max(1),
            logs,
            runner: Runner::new(program, setup),
            lost_before: losses.count(),
            losses_saved: losses.clone(),
            losses_saved_at: now.boot,
            losses,
            left_bytes,
            due: Due::default(),
            shared,
            left_over,
            is_spent: false,
            failing: None,
            syncer,
            told,
            heart: None,
            _lock: lock,
        };
        // The sums of workers that there were once: nobody else would look at those.
        let mut former = counts_files(writer.logs.folder()).map_err(at_folder)?;
        former.retain(|worker| *worker >= writer.workers);
        former.into_iter().for_each(|worker| drop(writer.sums(worker)));
        Ok(writer)
    }

    /// Serves until it is told to stop. Whoever asks comes first: nothing is sealed while a command waits.
    pub(super) fn run(mut self, orders: &Receiver<Command>) {
        let mut patience = Duration::ZERO;
        while !self.syncer.has_ended() {
            for _ in 0..COMMANDS_LIMIT {
                match orders.recv_timeout(std::mem::take(&mut patience)) {
                    Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return self.stop(),
                    Ok(command) => self.obey(command),
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
            if !self.tick() {
                let is_busy = self.runner.is_running() || self.waits() != Unsealed::default();
                patience = if is_busy { TICK } else { IDLE_TICK };
            }
        }
        tracing::error!("nothing syncs the open logs any more");
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Register { worker, reply } => {
                let intake = self.register(worker);
                let _ = reply.send(intake); // who asked has gone: the intake closes its log
            }
            Command::Oldest { after, reply } => {
                let found = self.oldest(after).inspect(|_| self.mend("read"));
                let _ = reply.send(found.map_err(|error| self.fail("read", &error)));
            }
            Command::Acknowledge { at, digest, reply } => {
                let done = self.acknowledge(at, digest).inspect(|()| self.mend("acknowledge in"));
                let _ = reply.send(done.map_err(|error| self.fail("acknowledge in", &error)));
            }
            Command::SealNow { done } => {
                self.seal(Reading::now());
                done.map(|done| done.send(())); // who asked may have gone
            }
            Command::Watched(heart) => self.heart = Some(heart),
            Command::Stop => {}
        }
    }

    fn register(&mut self, worker: u16) -> Intake {
        let sums = self.sums(worker);
        let lane = Arc::new(Lane::default());
        if let Some(file) = sums.file.as_ref().and_then(|file| file.try_clone().ok()) {
            self.shared.watch.sums(Arc::clone(&lane), file);
        }
        let (index, spares) = self.logs.register(Arc::clone(&lane));
        let log = self.make_log(index);
        self.logs.begin(index, log.clone());
        self.watch_room();
        let budget = Budget::new(self.config.unauthenticated_records, self.workers);
        Intake { lane, log, spares, sums, budget, log_size: self.config.log_size.0, written: 0, held: Batch::default() }
    }

    /// The sums of a worker, ready to be added to.
    fn sums(&mut self, worker: u16) -> Sums {
        let (mut sums, is_damaged) = Sums::read(self.logs.folder(), worker);
        if is_damaged {
            let (reason, to_ms) = (GapReason::LogDamaged, Reading::now().wall_ms);
            self.losses.note(Gap { reason, from_ms: 0, to_ms, count: None });
            self.save_losses();
        }
        if let Err(error) = sums.make(self.logs.folder(), worker) {
            self.fail("make the counts of", &error);
        }
        sums
    }

    /// Keeps the losses that wait, so that they are told after the next start if need be.
    fn save_losses(&mut self) {
        let lost: u64 = self.logs.lanes().map(|lane| lane.lost.load(Ordering::Relaxed)).sum();
        self.losses.lost(self.lost_before.saturating_add(lost));
        if self.losses == self.losses_saved {
            return;
        }
        self.losses_saved_at = Reading::now().boot;
        match self.losses.save(&self.folder) {
            Ok(()) => {
                self.losses_saved = self.losses.clone();
                self.mend("keep the losses of");
            }
            Err(error) => drop(self.fail("keep the losses of", &error)),
        }
    }

    fn make_log(&mut self, worker: usize) -> Option<Arc<OpenLog>> {
        match self.logs.make(worker, Reading::now().wall_ms) {
            Ok(log) => {
                self.mend("make an open log for");
                self.shared.watch.log(Arc::clone(&log));
                Some(log)
            }
            Err(error) => {
                self.fail("make an open log for", &error);
                None
            }
        }
    }

    /// It lives: called wherever it may have waited for the disk or for the child.
    fn beat(&self) {
        beat(self.heart.as_ref());
    }

    /// Looks after things. Tells whether it has sealed something: then there may be more.
    fn tick(&mut self) -> bool {
        let now = Reading::now();
        self.beat();
        self.provide();
        self.watch_room();
        match self.shared.watch.news() {
            Some(Err(error)) => drop(self.fail("sync the open logs of", &error)),
            Some(Ok(())) => self.mend("sync the open logs of"),
            None => {}
        }
        if now.boot.saturating_sub(self.losses_saved_at) >= self.config.sync_interval.0 {
            self.save_losses();
        }
        let in_reach = self.shared.in_reach.load(Ordering::Relaxed);
        let after = if in_reach { self.config.seal_after } else { self.config.seal_after_offline };
        // The daemon is not ready before all of its workers are, and none of them waits for a seal.
        let is_manned = self.logs.workers() >= usize::from(self.workers);
        let is_due = is_manned && self.due.is_due(now.boot, &self.waits(), after.0);
        if is_due {
            self.seal(now);
            self.beat();
        }
        self.runner.tire(now.boot);
        let open_bytes = self.waits().bytes;
        self.told.send_if_modified(|told| {
            told.open_bytes = open_bytes;
            false
        });
        is_due
    }

    /// Gives each worker its next log before it needs one.
    fn provide(&mut self) {
        for worker in self.logs.wanting(self.config.log_size.0) {
            if let Some(log) = self.make_log(worker) {
                self.logs.give(worker, log);
            }
        }
    }

    /// Tells the intakes how much room they have.
    fn watch_room(&mut self) {
        let is_full = self.disk_is_full();
        let limit = self.config.open_limit.0.saturating_sub(self.left_bytes) / u64::from(self.workers);
        let has_share = self.told.borrow().disk_bytes < self.config.backlog_limit.0 / REFUSALS_SHARE;
        for lane in self.logs.lanes() {
            lane.disk_full.store(is_full, Ordering::Relaxed);
            lane.limit.store(limit, Ordering::Relaxed);
            lane.refusals_limit.store(if has_share { limit / REFUSALS_SHARE } else { 0 }, Ordering::Relaxed);
        }
    }

    fn disk_is_full(&self) -> bool {
        disk::free_bytes(&self.folder).unwrap_or(u64::MAX) < self.config.free_floor.0
    }

    /// Why nothing can be sealed, if that is known.
    fn no_room(&self) -> Option<&'static str> {
        let told = self.told.borrow();
        let stays_full = self.config.when_full == WhenFull::DropNewest && !self.is_spent;
        let is_over = told.is_known && stays_full && told.disk_bytes >= self.config.backlog_limit.0;
        is_over.then_some(BACKLOG_FULL).or_else(|| self.disk_is_full().then_some(DISK_FULL))
    }

    /// What there is to seal.
    fn waits(&self) -> Unsealed {
        Unsealed { left_over: self.left_over || !self.losses.is_empty(), ..self.logs.waits() }
    }

    fn seal(&mut self, now: Reading) {
        if let Some(why) = self.no_room() {
            return self.give_up(now, &io::Error::other(why)); // as the child would, which costs a generation's opening
        }
        self.save_losses();
        let (summed, live) = (self.logs.summed(), self.logs.live());
        let losses = self.losses.clone();
        let around = self.runner.gives_up_logs();
        let policy = *self.shared.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let request = Request::Seal(Seal { live, losses: losses.clone(), around, policy, now_ms: now.wall_ms });
        match self.ask(&request) {
            Ok(Reply::Done(report)) => {
                self.losses.are_told(&losses, now.wall_ms);
                if !losses.is_empty() {
                    self.save_losses();
                }
                self.logs.sums_are_told(summed);
                self.due.sealed();
                if report.rows == 0 && report.left_over {
                    self.due.failed(now.boot); // it came no further, so there is no hurry
                }
                self.runner.sealed();
                self.logs.let_go();
                self.mend("seal into");
                if self.left_bytes > 0 {
                    self.left_bytes = self.logs.foreign_bytes();
                }
            }
            Ok(_) => self.give_up(now, &io::ErrorKind::InvalidData.into()),
            Err(error) => self.give_up(now, &error),
        }
    }

    fn give_up(&mut self, now: Reading, error: &io::Error) {
        self.due.failed(now.boot);
        self.fail("seal into", error);
    }

    fn oldest(&mut self, after: Option<Cursor>) -> io::Result<Option<UsageFile>> {
        if self.has_none() {
            return Ok(None); // a child writes half a megabyte to find that out
        }
        let after = after.map(|after| (after.stream.0, after.seq));
        match self.ask(&Request::Oldest { after, now_ms: Reading::now().wall_ms })? {
            Reply::File { stream, seq, digest, .. } => {
                let (at, heart) = (Cursor { stream: StreamId(stream), seq }, self.heart.as_ref());
                Ok(Some(UsageFile { at, digest, bytes: self.runner.bytes(&|| beat(heart))? }))
            }
            Reply::NoFile(_) => Ok(None),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn acknowledge(&mut self, at: Cursor, digest: Digest) -> io::Result<()> {
        let now_ms = Reading::now().wall_ms;
        match self.ask(&Request::Acknowledge { stream: at.stream.0, seq: at.seq, digest, now_ms })? {
            Reply::Done(_) => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Whether it is known that no file waits.
    fn has_none(&self) -> bool {
        let told = self.told.borrow();
        told.is_known && told.files == 0
    }

    /// Has the child do something, and takes to heart what it reports.
    fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        let heart = self.heart.as_ref();
        let reply = self.runner.ask(request, &|| beat(heart));
        for report in self.runner.heard() {
            self.apply(&report);
        }
        if reply.is_err() {
            self.told.send_if_modified(|told| {
                told.is_known = false;
                false // nobody need wake up for that
            });
        }
        reply
    }

    fn apply(&mut self, report: &Report) {
        for note in &report.notes {
            tracing::warn!(note, "the spool's files");
        }
        for (id, offset, rows) in &report.sealed {
            self.logs.sealed(*id, *offset, *rows);
        }
        (self.left_over, self.is_spent) = (report.left_over, report.is_spent);
        let Report { files, bytes, disk_bytes, .. } = *report;
        let stream = StreamId(report.stream);
        self.told.send_if_modified(|told| {
            told.stream = Some(stream);
            let differs = (told.files, told.bytes, told.is_known) != (files, bytes, true);
            (told.files, told.bytes, told.disk_bytes, told.is_known) = (files, bytes, disk_bytes, true);
            differs
        });
    }

    /// What failed before works again.
    fn mend(&mut self, what: &str) {
        if self.failing == Some(what) {
            self.failing = None;
            self.told.send_modify(|told| told.last_error = None);
        }
    }

    fn fail(&mut self, what: &'static str, error: &io::Error) -> Unavailable {
        tracing::error!(%error, what, "the spool fails");
        self.failing = Some(what);
        let text = format!("cannot {what} the spool: {error}");
        self.told.send_modify(|told| told.last_error = Some(text));
        Unavailable
    }

    fn stop(mut self) {
        self.runner.release();
        self.save_losses();
        self.syncer.stop();
        self.logs.remove_unused();
        if let Some(heart) = self.heart {
            heart.retire();
        }
    }
}

fn beat(heart: Option<&Heart>) {
    if let Some(heart) = heart {
        heart.beat(Instant::now());
    }
}

/// Takes the lock. A process that is just being started by the holder has its descriptors until it is another
/// program, so a lock that was let go can be held for a moment yet.
fn locked(lock: &File) -> bool {
    let free = || flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    (0..LOCK_TRIES).any(|tried| {
        if tried > 0 {
            std::thread::sleep(LOCK_PAUSE);
        }
        free()
    })
}
