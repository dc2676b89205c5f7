//! A reference model of the spool, and whatever may happen to a spool in any order: what is told must be what was counted.
//!
//! ```text
//! operations ─▶ Device: real logs, sums and ledger ─ files ─▶ Hub: a list, and the rule for what counts in it
//!      └──────▶ Model: how many requests, how many since the last sync, was anything damaged
//! ```
//!
//! `TIDEGATE_MODEL_CASES=5000 TMPDIR=/dev/shm cargo test --lib model_tests` tries more. A failure is made as short as it goes,
//! printed, and tried first from then on.

mod hub;

pub(super) use hub::Hub;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use super::sim_tests::{Device, Fault};
use super::*;
use crate::ids::Digest;
use crate::keys::seeded_tests;
use crate::spool::WhenFull;
use crate::spool::backlog::Cursor;

/// The disk of a generation that was opened twice: sled writes what is free in it.
const GENERATION: u64 = (1 << 19) + (8 << 10);
/// Generations that a backlog has room for at least, as the configuration asks: the newest, one that is being read, and one
/// that was damaged and is kept for whoever looks into it.
const LEAST: u8 = 3;
/// What a backlog may take over its limit: a generation more, for it is full only when that is seen, and some tombstones.
const OVER: u64 = 3 * GENERATION / 2;

/// What may happen.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// So many requests are answered; of all but some somebody is known.
    Requests(u8, bool),
    /// A record of which nothing can be kept.
    Uncounted,
    Sync,
    Seal,
    /// The same while the backlog's limit is so many times 16 KiB.
    Squeezed(u8),
    /// The oldest file goes to the hub, or with `true` the one after the last that went.
    Upload(bool),
    /// So many of the oldest go onto a stick, and by it to the hub.
    Export(u8),
    /// One of all receipts that the hub ever gave comes: in any order, again and again.
    Receipt(Index),
    /// A receipt for other bytes, or with `true` for a file that there never was.
    Forged(Index, bool),
    /// The process stops in order, and seals what waits.
    Stop,
    Kill,
    /// The power goes, and some of what was not synced.
    Cut(u64),
    /// Somebody else takes all of the disk, or gives it back.
    DiskFull(bool),
    Clock(i64),
    /// While this fails: a seal, or with `true` a receipt.
    Fault(Fault, u64, bool),
    /// One byte of one file is another.
    Corrupt(Index, Index),
}

/// A defect that is planted, for the model to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// One record of several is dropped in silence.
    CountsLess,
    /// What was sealed of the logs is not written down, and a power cut brings them back.
    ForgetsCursors,
    /// A commit is said to be on the disk, and is not.
    SyncLies,
}

/// A case: how many generations fill the backlog, whether each file has its own generation, and what happens.
type Case = (Option<u8>, bool, Vec<Op>);

fn cases(length: usize) -> impl Strategy<Value = Case> {
    let fault = prop_oneof![
        (1..4_u32).prop_map(Fault::SyncFull),
        (1..4_u32).prop_map(Fault::SyncFails),
        (1..3_u32).prop_map(Fault::OpenFails),
        any::<bool>().prop_map(Fault::CommitLost),
    ];
    let jump = prop_oneof![Just(-86_400_000), Just(-5_000), Just(3_600_000), Just(86_400_000 * 400)];
    let op = prop_oneof![
        12 => (1..20_u8, prop::bool::weighted(0.8)).prop_map(|(n, is_known)| Op::Requests(n, is_known)),
        1 => Just(Op::Uncounted),
        4 => Just(Op::Sync),
        10 => Just(Op::Seal),
        2 => (0..8_u8).prop_map(Op::Squeezed),
        5 => any::<bool>().prop_map(Op::Upload),
        2 => (1..5_u8).prop_map(Op::Export),
        7 => any::<Index>().prop_map(Op::Receipt),
        1 => any::<(Index, bool)>().prop_map(|(which, is_strange)| Op::Forged(which, is_strange)),
        2 => Just(Op::Stop),
        2 => Just(Op::Kill),
        2 => any::<u64>().prop_map(Op::Cut),
        2 => any::<bool>().prop_map(Op::DiskFull),
        1 => jump.prop_map(Op::Clock),
        2 => (fault, any::<u64>(), any::<bool>()).prop_map(|(fault, cut, receipt)| Op::Fault(fault, cut, receipt)),
        1 => any::<(Index, Index)>().prop_map(|(file, at)| Op::Corrupt(file, at)),
    ];
    (prop::option::weighted(0.75, LEAST..6), any::<bool>(), prop::collection::vec(op, 1..length))
}

/// What cases have met, so that a search that searches nothing shows.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    tombstones: usize,
    covered: usize,
    summed: u64,
    lost: u64,
    damaged: u64,
    missing: u64,
    refused: u64,
    /// The most that the disk had over its limit.
    over: u64,
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            tombstones: self.tombstones + other.tombstones,
            covered: self.covered + other.covered,
            summed: self.summed + other.summed,
            lost: self.lost + other.lost,
            damaged: self.damaged + other.damaged,
            missing: self.missing + other.missing,
            refused: self.refused + other.refused,
            over: self.over.max(other.over),
        }
    }
}

struct Model {
    spool: Device,
    flaw: Flaw,
    limit: u64,
    hub: Hub,
    receipts: Vec<(Cursor, Digest)>,
    sent: Option<Cursor>,
    /// Requests that were answered, and those of them that no sync and no restart came after.
    counted: u64,
    unsynced: u64,
    seen: Seen,
    _folder: tempfile::TempDir,
}

impl Model {
    fn new(limit: Option<u8>, alone: bool, when_full: WhenFull, flaw: Flaw) -> Self {
        seeded_tests::set(Some(7 << 32));
        let folder = tempfile::tempdir().expect("a folder");
        let limit = limit.map_or(u64::MAX, |limit| u64::from(limit) * GENERATION);
        let generation_size = if alone { 1 } else { (1 << 19) + 1 };
        let spool = Device::new(&folder.path().join("spool"), 1, generation_size, limit, when_full);
        let (hub, receipts, seen) = (Hub::default(), Vec::new(), Seen::default());
        Self { spool, flaw, limit, hub, receipts, sent: None, counted: 0, unsynced: 0, seen, _folder: folder }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Requests(n, is_known) => {
                for at in 0..n {
                    self.counted += 1;
                    self.unsynced += 1;
                    self.spool.now_ms += 10;
                    if self.flaw != Flaw::CountsLess || at != 3 {
                        self.spool.request(self.counted, is_known);
                    }
                }
            }
            Op::Uncounted => self.spool.lose_a_record(),
            Op::Sync => {
                self.spool.sync();
                self.unsynced = 0;
            }
            Op::Seal => self.seal(),
            Op::Squeezed(limit) => {
                self.limit_backlog(u64::from(limit) << 14);
                self.seal();
                self.limit_backlog(self.limit);
            }
            Op::Upload(next) => {
                let after = self.sent.filter(|_| next);
                self.upload(after);
            }
            Op::Export(n) => {
                let mut after = None;
                for _ in 0..n {
                    after = self.upload(after);
                    if after.is_none() {
                        break;
                    }
                }
            }
            Op::Receipt(which) if !self.receipts.is_empty() => {
                let (at, digest) = *which.get(&self.receipts);
                self.spool.acknowledge(at, &digest);
            }
            Op::Forged(which, is_strange) if !self.receipts.is_empty() => self.forge(which, is_strange),
            Op::Receipt(_) | Op::Forged(..) => {}
            Op::Stop => {
                self.spool.stop();
                self.seal();
                self.spool.kill();
                self.restart();
            }
            Op::Kill => {
                self.spool.kill();
                self.restart();
            }
            Op::Cut(random) => {
                let lost = self.spool.lost;
                self.spool.cut_power(random);
                if self.flaw == Flaw::SyncLies {
                    self.set_back();
                }
                self.lost_at_most(lost);
            }
            Op::DiskFull(is_full) => self.disk_full(is_full),
            Op::Clock(jump) => self.spool.now_ms += jump,
            Op::Fault(fault, cut, is_receipt) => {
                let (lost, receipt) = (self.spool.lost, self.receipts.last().copied());
                self.spool.during(fault, cut, |spool| match receipt.filter(|_| is_receipt) {
                    Some((at, digest)) => spool.acknowledge(at, &digest),
                    None => drop(spool.seal()),
                });
                assert!(self.spool.lost - lost <= self.unsynced, "a power cut took what was synced");
            }
            Op::Corrupt(file, at) => self.corrupt(file, at),
        }
        self.holds();
    }

    /// What must hold after each step.
    fn holds(&mut self) {
        let (requests, summed, unknown) = self.hub.told();
        let counted = self.counted + self.spool.uncounted;
        assert!(requests + summed <= counted, "{requests} and {summed} are told of {counted}");
        if self.spool.is_damaged {
            return;
        }
        assert!(unknown == 0 || self.spool.cuts > 0, "nobody knows, and the power never went");
        if let Some(ledger) = &self.spool.ledger {
            let taken = ledger.disk_bytes().expect("it is counted");
            assert!(taken <= self.limit.saturating_add(OVER), "{taken} bytes, and the limit is {}", self.limit);
            self.seen.over = self.seen.over.max(taken.saturating_sub(self.limit));
        }
    }

    fn restart(&mut self) {
        self.spool.start();
        self.unsynced = 0;
    }

    fn lost_at_most(&mut self, before: u64) {
        self.spool.start();
        let lost = self.spool.lost - before;
        assert!(lost <= self.unsynced, "a power cut took {lost}, and {} were not synced", self.unsynced);
        self.unsynced = 0;
    }

    /// Sends a file; where it was.
    fn upload(&mut self, after: Option<Cursor>) -> Option<Cursor> {
        let file = self.spool.oldest(after)?;
        self.hub.take(&file, &self.spool.key());
        self.receipts.push((file.at, file.digest));
        self.sent = Some(file.at);
        self.sent
    }

    fn forge(&mut self, which: Index, is_strange: bool) {
        let (mut at, mut digest) = *which.get(&self.receipts);
        if is_strange {
            at.seq += 1 << 40;
        } else {
            digest.0[0] ^= 1;
        }
        let now_ms = self.spool.now_ms;
        let Some(ledger) = &mut self.spool.ledger else { return };
        let before = ledger.report().map(|report| report.files).ok();
        match ledger.acknowledge(at, &digest, now_ms) {
            Ok(report) => assert!(self.spool.is_damaged || Some(report.files) <= before),
            Err(Error::DigestMismatch) => assert!(!is_strange),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn limit_backlog(&mut self, limit: u64) {
        self.spool.setup.backlog_limit = limit;
        if let Some(ledger) = &mut self.spool.ledger {
            ledger.setup.backlog_limit = limit;
        }
    }

    fn disk_full(&mut self, is_full: bool) {
        self.spool.is_disk_full = is_full;
        let floor = if is_full { u64::MAX } else { 0 };
        self.spool.setup.free_floor = floor;
        if let Some(ledger) = &mut self.spool.ledger {
            ledger.setup.free_floor = floor;
        }
        if let Some((intake, _)) = &self.spool.intake {
            intake.lane.disk_full.store(is_full, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// One bit of some byte that says something.
    fn corrupt(&mut self, file: Index, at: Index) {
        self.spool.kill();
        let mut files = Vec::new();
        list(&self.spool.setup.folder, &mut files);
        files.retain(|path| !path.ends_with("ballast"));
        files.sort();
        if let Some(path) = files.get(file.index(files.len().max(1))) {
            let mut bytes = fs::read(path).expect("it reads");
            let telling: Vec<_> = bytes.iter_mut().filter(|byte| **byte != 0).collect();
            let len = telling.len();
            if let Some(byte) = telling.into_iter().nth(at.index(len.max(1))) {
                *byte ^= 0x10;
                self.spool.is_damaged = true;
            }
            fs::write(path, bytes).expect("it writes");
        }
        self.restart();
    }

    fn seal(&mut self) {
        let folder = self.spool.setup.folder.clone();
        match self.flaw {
            Flaw::ForgetsCursors => {
                let open = folder.join("open");
                let logs: Vec<_> = fs::read_dir(&open).expect("it lists").flatten().map(|entry| entry.path()).collect();
                let logs = logs.into_iter().filter(|path| path.extension().is_some_and(|end| end == "log"));
                let logs: Vec<_> = logs.map(|path| (fs::read(&path).expect("it reads"), path)).collect();
                self.spool.seal();
                if let Some(ledger) = &mut self.spool.ledger {
                    ledger.state.cursors.clear();
                }
                let gone = logs.into_iter().filter(|(_, path)| !path.exists());
                gone.for_each(|(bytes, path)| fs::write(path, bytes).expect("it writes"));
            }
            Flaw::SyncLies => {
                let before = folder.with_extension("unsynced");
                let _ = fs::remove_dir_all(&before);
                super::sim_tests::copy(&folder.join("generations"), &before);
                self.spool.seal();
            }
            _ => self.seen.refused += u64::from(self.spool.seal().is_none()),
        }
    }

    fn set_back(&self) {
        let folder = &self.spool.setup.folder;
        let before = folder.with_extension("unsynced");
        if before.exists() {
            fs::remove_dir_all(folder.join("generations")).expect("removed");
            fs::rename(before, folder.join("generations")).expect("it is as it was");
            let _ = fs::remove_file(folder.join("mark"));
        }
    }

    /// Everything comes in, and the books balance.
    fn end(mut self) -> Seen {
        self.disk_full(false);
        self.spool.stop();
        drain(&mut self.spool, &mut self.hub);
        self.holds();
        let (requests, summed, unknown) = self.hub.told();
        let (lost, cuts) = (self.spool.lost, self.spool.cuts);
        let told = requests + summed;
        let counted = self.counted + self.spool.uncounted;
        self.seen.tombstones = self.hub.0.iter().filter(|held| held.is_tombstone()).count();
        self.seen.covered = self.hub.0.len() - self.hub.counting().count();
        (self.seen.summed, self.seen.lost) = (summed, lost);
        self.seen.damaged = u64::from(self.spool.is_damaged);
        let books = format!("{requests} told, {summed} in sums and gaps, {lost} lost by {cuts} cuts, of {counted}");
        assert!(self.hub.requests().iter().all(|id| (1..=self.counted).contains(id)));
        if self.spool.is_damaged {
            assert!(told + lost <= counted, "{books}");
            assert!(told + lost == counted || unknown > 0, "{books}, and nothing says that some are missing");
            self.seen.missing = counted - told - lost;
            return self.seen;
        }
        assert_eq!(told + lost, counted, "{books}");
        assert!(lost == 0 || unknown > 0, "{books}, and nothing says so");
        self.hub.is_whole();
        self.seen
    }
}

/// Takes all out of a device whose intake has stopped.
pub(super) fn drain(spool: &mut Device, hub: &mut Hub) {
    for round in 0.. {
        assert!(round < 200, "it never ends");
        let rows = spool.seal();
        match spool.oldest(None) {
            Some(file) => {
                hub.take(&file, &spool.key());
                spool.acknowledge(file.at, &file.digest);
            }
            None if rows == Some(0) && spool.waiting() == (0, false) => return,
            None => {}
        }
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it lists").flatten() {
        match entry.path() {
            path if path.is_dir() => list(&path, files),
            path => files.push(path),
        }
    }
}

fn live((limit, alone, ops): Case, when_full: WhenFull, flaw: Flaw) -> Seen {
    let mut model = Model::new(limit, alone, when_full, flaw);
    ops.into_iter().for_each(|op| model.step(op));
    model.end()
}

fn config() -> ProptestConfig {
    let all: u32 = std::env::var("TIDEGATE_MODEL_CASES").map_or(258, |text| text.parse().expect("a number"));
    ProptestConfig { cases: all / 3, max_shrink_iters: 200, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_rolls_up_when_full_tells_what_was_counted(case in cases(24)) {
        live(case, WhenFull::RollUp, Flaw::None);
    }

    #[test]
    fn what_drops_the_oldest_when_full_tells_what_was_counted(case in cases(24)) {
        live(case, WhenFull::DropOldest, Flaw::None);
    }

    #[test]
    fn what_drops_the_newest_when_full_tells_what_was_counted(case in cases(24)) {
        live(case, WhenFull::DropNewest, Flaw::None);
    }
}

#[test]
fn the_cases_meet_all_there_is_to_meet() {
    let seen = std::cell::Cell::new(Seen::default());
    for when_full in [WhenFull::RollUp, WhenFull::DropOldest] {
        let config = ProptestConfig { cases: 40, failure_persistence: None, ..config() };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let all = TestRunner::new_with_rng(config, rng).run(&cases(60), |case| {
            seen.set(seen.get().and(live(case, when_full, Flaw::None)));
            Ok(())
        });
        all.expect("it tells what was counted");
    }
    let seen = seen.get();
    println!("{seen:?}");
    let Seen { tombstones, covered, summed, lost, damaged, missing, refused, over } = seen;
    assert!(tombstones > 0 && covered > 0 && summed > 0 && lost > 0, "{seen:?}");
    assert!(damaged > 0 && missing > 0 && refused > 0 && over <= OVER, "{seen:?}");
}

#[test]
fn negative_control_each_planted_defect_is_found_and_told_in_a_few_steps() {
    for flaw in [Flaw::CountsLess, Flaw::ForgetsCursors, Flaw::SyncLies] {
        let config = ProptestConfig { cases: 200, max_shrink_iters: 60, failure_persistence: None, ..config() };
        // The same cases each time: luck may not decide whether a control is found out.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let found = TestRunner::new_with_rng(config, rng).run(&cases(24), |case| {
            live(case, WhenFull::RollUp, flaw);
            Ok(())
        });
        let Err(TestError::Fail(_, (_, _, ops))) = found else { panic!("{flaw:?}, and nobody saw: {found:?}") };
        assert!(ops.len() <= 12, "{flaw:?} is told in {} steps", ops.len());
    }
}
