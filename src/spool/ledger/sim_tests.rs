//! The device's half of the simulation in `hub::ledger::tests::sim`, and what `model_tests` tries: a real intake, real
//! open logs and sums, the real ledger, on a disk that loses what was not synced when the power goes, and in a process
//! that dies at any step.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::*;
use crate::ids::{Digest, RequestId};
use crate::keys::PublicKey;
use crate::spool::WhenFull;
use crate::spool::backlog::Stock;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::budget::Budget;
use crate::spool::counts::{self, SLOT, Sum};
use crate::spool::intake::{Batch, Intake};
use crate::spool::lane::{Lane, OpenLog, Sums};
use crate::spool::log::{self, Found, PREAMBLE, Preamble};
use crate::spool::losses::Losses;
use crate::spool::record::{Gap, GapReason, SAMPLE, UsageRecord};
use crate::spool::wire::Seed;

/// Size at which a log is followed by the next: a few requests.
const LOG_SIZE: u64 = 2_000;

/// What fails next, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This sync from now finds the disk full: the process gives up, and its commit is in the page cache.
    SyncFull(u32),
    /// This sync from now fails as a disk does that dies: the generation is written again.
    SyncFails(u32),
    /// The power goes before the first sync, and with it the commit; with `true` the last removal of a generation too.
    CommitLost(bool),
    /// This opening from now fails.
    OpenFails(u32),
}

#[derive(Debug, Default)]
struct Faults {
    syncs: AtomicU32,
    opens: AtomicU32,
    /// The disk dies, and not the process.
    disk_fails: AtomicBool,
    hit: AtomicBool,
    /// The process has died of it: it does nothing more.
    is_dead: AtomicBool,
    at: Mutex<Option<PathBuf>>,
}

impl Faults {
    /// Counts one down; whether it is this one's turn.
    fn is_due(&self, count: &AtomicU32) -> bool {
        let left = count.load(Ordering::Relaxed);
        count.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.hit.store(true, Ordering::Relaxed);
        }
        left == 1
    }

    fn disarm(&self) {
        self.is_dead.store(false, Ordering::Relaxed);
        self.syncs.store(0, Ordering::Relaxed);
        self.opens.store(0, Ordering::Relaxed);
    }

    fn sync(&self, file: &Path) -> io::Result<()> {
        if self.is_due(&self.syncs) {
            *self.at.lock().expect("one thread") = file.parent().map(Path::to_owned);
            let disk_fails = self.disk_fails.load(Ordering::Relaxed);
            self.is_dead.store(!disk_fails, Ordering::Relaxed);
            return Err(if disk_fails {
                io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
            } else {
                io::ErrorKind::StorageFull.into()
            });
        }
        fs::File::open(file)?.sync_data()
    }
}

/// What a power cut left of a log.
#[derive(Debug, Clone, Copy)]
struct Torn {
    id: u64,
    written: u32,
    kept: u32,
}

/// A device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(super) setup: Setup,
    pub(super) boot: BootId,
    pub(crate) now_ms: i64,
    pub(super) ledger: Option<Ledger>,
    pub(super) intake: Option<(Intake, Sender<Arc<OpenLog>>)>,
    /// Logs of this run, with what of them is synced.
    logs: Vec<(Arc<OpenLog>, u64)>,
    next_log: u32,
    counts_synced: Option<Vec<u8>>,
    pub(super) losses: Losses,
    faults: Arc<Faults>,
    left: Vec<(u32, Stock)>,
    unsynced: Option<u32>,
    torn: Vec<Torn>,
    /// Requests that a power cut took, and how many cuts there were.
    pub(crate) lost: u64,
    pub(crate) cuts: u32,
    /// Requests that only a count of the daemon tells.
    pub(crate) uncounted: u64,
    /// Somebody else has taken the disk's room.
    pub(super) is_disk_full: bool,
    /// Something planted has damaged what is on the disk.
    pub(super) is_damaged: bool,
}

impl Device {
    pub(crate) fn new(folder: &Path, seed: u8, generation_size: u64, backlog_limit: u64, when_full: WhenFull) -> Self {
        fs::create_dir_all(folder.join("open")).expect("a folder");
        let folder = folder.to_owned();
        let setup = Setup { folder, seed: Seed([seed; 32]), generation_size, backlog_limit, when_full, free_floor: 0 };
        let mut device = Self {
            setup,
            boot: [1; 16],
            now_ms: 1_700_000_000_000,
            ledger: None,
            intake: None,
            logs: Vec::new(),
            next_log: 1,
            counts_synced: None,
            losses: Losses::default(),
            faults: Arc::default(),
            left: Vec::new(),
            unsynced: None,
            torn: Vec::new(),
            lost: 0,
            cuts: 0,
            uncounted: 0,
            is_disk_full: false,
            is_damaged: false,
        };
        device.start();
        device
    }

    pub(crate) fn key(&self) -> PublicKey {
        SigningKey::from_seed(&self.setup.seed.0).expect("a seed makes a key").public()
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.setup.seed.0).expect("a seed makes a key")
    }

    /// The daemon starts: what the last run left is told, and there is a new log.
    pub(crate) fn start(&mut self) {
        let open = self.setup.folder.join("open");
        fs::create_dir_all(&open).expect("a folder");
        self.losses = Losses::load(&self.setup.folder, self.now_ms);
        self.child();
        let (_, last) = lane::left_logs(&open).expect("it lists");
        self.next_log = last + 1;
        self.logs.clear();
        let (mut sums, is_damaged) = Sums::read(&open, 0);
        if is_damaged {
            // As the writer does.
            assert!(self.is_damaged, "a power cut of this disk damages no sums");
            let (reason, to_ms) = (GapReason::LogDamaged, self.now_ms);
            self.losses.note(Gap { reason, from_ms: 0, to_ms, count: None });
            self.losses.save(&self.setup.folder).expect("it writes");
        }
        sums.make(&open, 0).expect("it writes");
        self.counts_synced = fs::read(self.counts()).ok();
        let lane = Lane::default();
        lane.limit.store(u64::MAX, Ordering::Relaxed);
        lane.refusals_limit.store(u64::MAX, Ordering::Relaxed);
        lane.disk_full.store(self.is_disk_full, Ordering::Relaxed);
        let (sender, spares) = channel();
        let log = Some(self.make_log());
        let (budget, held) = (Budget::new(0, 1), Batch::default());
        let intake = Intake { lane: Arc::new(lane), log, spares, sums, budget, log_size: LOG_SIZE, written: 0, held };
        self.intake = Some((intake, sender));
    }

    fn counts(&self) -> PathBuf {
        self.setup.folder.join("open").join(counts::file_name(0))
    }

    fn make_log(&mut self) -> Arc<OpenLog> {
        let id = u64::from_be_bytes(keys::random().expect("random numbers"));
        let name = log::Name { number: self.next_log, id };
        self.next_log += 1;
        let preamble = Preamble { boot: self.boot, made_ms: self.now_ms, sync: 50 };
        let log = OpenLog::make(&self.setup.folder.join("open"), name, preamble).expect("it is made");
        let log = Arc::new(log);
        self.logs.push((Arc::clone(&log), PREAMBLE as u64));
        log
    }

    /// A child of the daemon opens the ledger, if it can.
    fn child(&mut self) {
        if self.ledger.is_some() {
            return;
        }
        for _ in 0..4 {
            let faults = Arc::clone(&self.faults);
            let opener = Opener::new(move |_, folder| {
                if faults.is_due(&faults.opens) {
                    return Err(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()).into());
                }
                let faults = Arc::clone(&faults);
                Generation::open_with(folder, Box::new(move |file| faults.sync(file)))
            });
            let known = Known { left: self.left.clone(), condemned: None, unsynced: self.unsynced };
            match Ledger::open(self.setup.clone(), &known, opener, self.now_ms) {
                Ok(mut ledger) => {
                    ledger.boot = self.boot;
                    self.unsynced = None;
                    self.ledger = Some(ledger);
                    self.count_torn();
                    return;
                }
                Err(error) => self.failed(&error),
            }
        }
        panic!("the ledger does not open");
    }

    /// What the cut took: rows that are neither in their log nor in a file.
    fn count_torn(&mut self) {
        let cursors = &self.ledger.as_ref().expect("it is open").state.cursors;
        for Torn { id, written, kept } in self.torn.drain(..) {
            let sealed = cursors.iter().find(|cursor| cursor.id == id).map_or(0, |cursor| cursor.rows);
            self.lost += u64::from(written.saturating_sub(kept.max(sealed)));
        }
    }

    /// An error that nothing planted is a defect.
    fn failed(&mut self, error: &Error) {
        assert!(self.faults.hit.load(Ordering::Relaxed), "out of nothing: {error:?}");
        if let Error::Store(generation::Error::NotDurable(_)) = error {
            self.unsynced = self.ledger.as_ref().and_then(|ledger| Some(ledger.at?.number));
        }
        self.ledger = None;
    }

    fn ask<T>(&mut self, ask: impl FnOnce(&mut Ledger, i64) -> Result<T>) -> Option<T> {
        if self.faults.is_dead.load(Ordering::Relaxed) {
            return None;
        }
        self.child();
        let done = ask(self.ledger.as_mut()?, self.now_ms);
        match done {
            Ok(done) => {
                self.left = self.ledger.as_ref()?.left.iter().map(|(number, left)| (*number, *left)).collect();
                Some(done)
            }
            Err(Error::Refused(BACKLOG_FULL)) => {
                self.ledger = None;
                None
            }
            Err(Error::Refused(DISK_FULL)) if self.is_disk_full => None,
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// Answers a request. One of whom nobody was known is only counted.
    pub(crate) fn request(&mut self, id: u64, is_known: bool) {
        let mut request = RequestId([0; 16]);
        request.0[8..].copy_from_slice(&id.to_be_bytes());
        let record = UsageRecord { at_ms: self.now_ms, request, bytes_in: 1, ..SAMPLE };
        let is_full = self.intake.as_ref().is_some_and(|(intake, _)| {
            intake.log.as_ref().is_some_and(|log| log.end.load(Ordering::Relaxed) >= LOG_SIZE)
        });
        let spare = is_full.then(|| self.make_log());
        let (intake, spares) = self.intake.as_mut().expect("it runs");
        if let Some(spare) = spare {
            spares.send(spare).expect("the intake is there");
        }
        if is_known {
            intake.append(&record);
        } else {
            intake.append_unauthenticated(&record, Duration::ZERO);
        }
    }

    /// A record of which nothing could be kept.
    pub(crate) fn lose_a_record(&mut self) {
        self.uncounted += 1;
        self.losses.lost(self.losses.count() + 1);
        self.losses.save(&self.setup.folder).expect("it writes");
    }

    /// The writer thread's sync.
    pub(crate) fn sync(&mut self) {
        for (log, synced) in &mut self.logs {
            *synced = log.end.load(Ordering::Relaxed);
        }
        self.counts_synced = fs::read(self.counts()).ok();
    }

    /// Rows that were sealed.
    pub(crate) fn seal(&mut self) -> Option<u32> {
        let is_live = |log: &&(Arc<OpenLog>, u64)| self.intake.is_some() && !log.0.closed.load(Ordering::Acquire);
        let live = self.logs.iter().filter(is_live);
        let live = live.map(|(log, _)| (log.name.id, log.end.load(Ordering::Acquire))).collect();
        let losses = self.losses.clone();
        let seal = Seal { live, losses: losses.clone(), around: false, policy: None, now_ms: self.now_ms };
        let report = self.ask(|ledger, _| ledger.seal(&seal));
        self.counts_synced = fs::read(self.counts()).ok(); // the seal may have synced it
        let report = report?;
        self.losses.are_told(&losses, self.now_ms);
        self.losses.save(&self.setup.folder).expect("it writes");
        let done = |id: u64| report.sealed.iter().any(|(log, offset, _)| *log == id && *offset == DONE);
        self.logs.retain(|(log, _)| !done(log.name.id));
        Some(report.rows)
    }

    pub(crate) fn oldest(&mut self, after: Option<Cursor>) -> Option<UsageFile> {
        self.ask(|ledger, now_ms| ledger.oldest(after, now_ms)).flatten()
    }

    pub(crate) fn acknowledge(&mut self, at: Cursor, digest: &Digest) {
        self.ask(|ledger, now_ms| ledger.acknowledge(at, digest, now_ms));
    }

    /// Files that wait, and whether more is left to seal.
    pub(crate) fn waiting(&mut self) -> (u64, bool) {
        self.ask(|ledger, _| ledger.report()).map_or((u64::MAX, true), |report| (report.files, report.left_over))
    }

    /// Numbers that the oldest tombstone stands for.
    pub(crate) fn tombstones(&self) -> Vec<(u64, u64)> {
        let ledger = self.ledger.as_ref();
        ledger.map_or(Vec::new(), |ledger| ledger.tombstones.list().map(|name| (name.first, name.seq)).collect())
    }

    /// Does something while something fails, and dies of it; whether it did fail.
    pub(crate) fn during(&mut self, fault: Fault, cut: u64, act: impl FnOnce(&mut Self)) -> bool {
        self.child();
        self.faults.hit.store(false, Ordering::Relaxed);
        self.faults.disk_fails.store(matches!(fault, Fault::SyncFails(_)), Ordering::Relaxed);
        let generations = self.setup.folder.join("generations");
        let before = self.setup.folder.with_extension("before");
        match fault {
            Fault::SyncFull(at) | Fault::SyncFails(at) => self.faults.syncs.store(at, Ordering::Relaxed),
            Fault::CommitLost(_) => {
                copy(&generations, &before);
                self.faults.syncs.store(1, Ordering::Relaxed);
            }
            Fault::OpenFails(at) => {
                self.ledger.as_mut().expect("it is open").open = None;
                self.faults.opens.store(at, Ordering::Relaxed);
            }
        }
        act(self);
        self.faults.disarm();
        let was_hit = self.faults.hit.swap(false, Ordering::Relaxed);
        match fault {
            Fault::SyncFails(_) | Fault::OpenFails(_) => {}
            Fault::SyncFull(_) if was_hit => self.kill(),
            Fault::CommitLost(removal) if was_hit => {
                self.kill();
                let at = self.faults.at.lock().expect("one thread").take().expect("a sync failed");
                undo(&before, &at, removal.then_some(&*generations));
                self.cut_power(cut);
            }
            _ => {}
        }
        let _ = fs::remove_dir_all(&before);
        if self.intake.is_none() {
            self.start();
        }
        was_hit
    }

    /// The process is killed: nothing is closed in order.
    pub(crate) fn kill(&mut self) {
        self.ledger = None;
        if let Some((mut intake, _)) = self.intake.take() {
            intake.log = None;
        }
    }

    /// The process ends in order.
    pub(crate) fn stop(&mut self) {
        self.intake = None;
    }

    /// The power goes: of what was not synced, a part is gone. The process is killed.
    pub(crate) fn cut_power(&mut self, random: u64) {
        self.kill();
        self.cuts += 1;
        self.boot[8..].copy_from_slice(&u64::from(self.cuts).to_be_bytes());
        let open = self.setup.folder.join("open");
        for (at, (log, synced)) in (0u32..).zip(&self.logs) {
            let path = open.join(log.name.file_name());
            let Ok(bytes) = fs::read(&path) else { continue };
            let unsynced = bytes.len() as u64 - synced;
            let keep = synced + if unsynced == 0 { 0 } else { random.rotate_left(at * 7) % (unsynced + 1) };
            let keep = usize::try_from(keep).expect("a short file");
            self.torn.push(Torn { id: log.name.id, written: rows(&bytes), kept: rows(&bytes[..keep]) });
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(keep as u64))
                .expect("it is cut");
        }
        if let Some(counts) = self.counts_synced.take().filter(|_| random & 1 == 1) {
            let now = fs::read(self.counts()).expect("it is there");
            self.lost += counted(&now) - counted(&counts);
            fs::write(self.counts(), counts).expect("it writes");
        }
        if random & 2 == 2 {
            let _ = fs::remove_file(self.setup.folder.join("mark"));
        }
    }

    /// Another key from now on. The process is restarted.
    pub(crate) fn change_key(&mut self, seed: u8) {
        self.kill();
        self.setup.seed = Seed([seed; 32]);
        self.start();
    }

    /// Another limit from now on.
    pub(crate) fn change_limit(&mut self, limit: u64, when_full: WhenFull) {
        self.kill();
        (self.setup.backlog_limit, self.setup.when_full) = (limit, when_full);
        self.start();
    }

    /// The card is copied while the device is off; the copy is renewed, and never forgets.
    pub(crate) fn copy(&mut self, to: &Path) -> Self {
        self.kill();
        copy(&self.setup.folder, to);
        renew::renew(to).expect("it is renewed");
        let Setup { generation_size, seed, .. } = self.setup.clone();
        let mut copy = Self::new(to, seed.0[0], generation_size, u64::MAX, WhenFull::DropNewest);
        copy.now_ms = self.now_ms;
        self.start();
        copy
    }
}

/// The requests of a log.
fn rows(bytes: &[u8]) -> u32 {
    let (mut at, mut rows) = (PREAMBLE, 0);
    while let Some(Found::Row { len, .. }) = bytes.get(at..).map(log::look) {
        (at, rows) = (at + len, rows + 1);
    }
    rows
}

fn counted(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<SLOT>().0.iter().filter_map(Sum::parse).map(|sum| sum.count).sum()
}

/// The disk is as it was before the commit of the generation `at`, and before the last removal among `generations`.
fn undo(before: &Path, at: &Path, generations: Option<&Path>) {
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.get(..10)?.parse::<u32>().ok());
    let list = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).expect("it lists").map(|entry| entry.expect("an entry").path()).collect()
    };
    let old = list(before);
    fs::remove_dir_all(at).expect("it is removed");
    match old.iter().find(|path| number(path) == number(at)) {
        Some(old) => copy(old, at),
        None => fs::create_dir(at).expect("its name is durable"),
    }
    let Some(generations) = generations else { return };
    let now: BTreeSet<_> = list(generations).iter().filter_map(|path| number(path)).collect();
    let gone = old.iter().filter(|path| number(path).is_some_and(|number| !now.contains(&number))).max();
    if let Some(gone) = gone {
        copy(gone, &generations.join(gone.file_name().expect("a name")));
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("it lists") {
        let path = entry.expect("an entry").path();
        let copied = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, copied).expect("it is copied");
        }
    }
}
