//! Proof by search: devices, a link and a hub that do what they do in any order, and books that must balance in the end.
//!
//! ```text
//! requests ─▶ open logs ─▶ files ─▶ link: lost, twice, late, cut off, turned round ─▶ ledger
//!                 ▲ kill, power cut, failed sync and opening        ▲ crash          │
//!                 └── receipts: lost, late, altered ◀────────────── link or stick ◀──┘
//! ```
//!
//! A seed gives the whole run, to the byte: `TIDEGATE_SIM_SEED=7 cargo test --lib sim::one_seed -- --nocapture` replays one,
//! and `TMPDIR=/dev/shm cargo test --lib sim::many_seeds -- --ignored --nocapture` looks through 10,000.

mod books;
mod random;
mod seen;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;

use self::random::Random;
use self::seen::{Seen, tell, total};
use super::super::*;
use super::scene::{self, Site};
use crate::ids::Digest;
use crate::keys::{seeded_tests, sha256};
use crate::spool::WhenFull;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::record::Row;
use crate::spool::segment::{self, Builder, Place, StandsFor, Unverified};
use crate::spool::sim_tests::{Device as Spool, Fault};

/// A defect that is planted, for the books to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// The hub adds up whatever comes.
    AddsUp,
    /// The device takes any answer for a receipt for what it sent last.
    BelievesAnything,
    /// A tombstone begins a number too low, where the hub has a file.
    TooWide,
}

/// What is in the air.
#[derive(Debug, Clone)]
enum Packet {
    File(usize, Vec<u8>),
    Receipt(usize, Vec<u8>),
}

struct World {
    random: Random,
    flaw: Flaw,
    site: Site,
    hub: Option<Ledger>,
    hub_ms: i64,
    spools: Vec<Spool>,
    folder: tempfile::TempDir,
    /// Every key that a device ever had.
    keys: Vec<PublicKey>,
    may_change_key: bool,
    air: Vec<Packet>,
    sticks: Vec<(usize, Vec<Vec<u8>>)>,
    /// Receipts on their way back by hand.
    by_hand: Vec<Packet>,
    sent: Vec<Option<(Cursor, Digest)>>,
    receipts: BTreeSet<Digest>,
    requests: u64,
    /// What a hub comes to that adds up whatever comes.
    added_up: u64,
    trace: String,
    seen: Seen,
}

impl World {
    fn new(seed: u64, flaw: Flaw) -> Self {
        seeded_tests::set(Some(seed << 32));
        let mut random = Random(seed);
        let folder = tempfile::tempdir().expect("a folder can be made");
        let site = Site::sqlite();
        let ways = [WhenFull::RollUp, WhenFull::DropOldest, WhenFull::DropNewest];
        let when_full = ways[random.below(3)];
        let is_tight = !random.one_in(3);
        let limit = if is_tight { (2 + random.below(6) as u64) << 19 } else { u64::MAX };
        let generation_size = [1, (1 << 19) + 1][random.below(2)];
        let spool = Spool::new(&folder.path().join("0"), 1, generation_size, limit, when_full);
        let mut world = Self {
            random,
            flaw,
            site,
            hub: None,
            hub_ms: 1_700_000_000_000,
            keys: vec![spool.key()],
            spools: vec![spool],
            folder,
            // Files by a former key that retention takes are told by the present one, also those that the hub has.
            may_change_key: !is_tight,
            air: Vec::new(),
            sticks: Vec::new(),
            by_hand: Vec::new(),
            sent: vec![None],
            receipts: BTreeSet::new(),
            requests: 0,
            added_up: 0,
            trace: String::new(),
            seen: Seen::default(),
        };
        world.hub = Some(world.site.ledger());
        world
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = self.trace.write_fmt(what);
        self.trace.push('\n');
    }

    fn step(&mut self) {
        let at = self.random.below(self.spools.len());
        match self.random.below(100) {
            0..25 => self.answer(at),
            25..30 => self.spools[at].sync(),
            30..44 => self.seal(at),
            44..54 => self.upload(at),
            54..70 => self.deliver(),
            70..73 => self.export(at),
            73..76 => self.import(),
            76..79 => {
                if let Some(packet) = self.random.take(&mut self.by_hand) {
                    self.arrive(packet);
                }
            }
            79..82 => {
                self.say(format_args!("kill {at}"));
                self.spools[at].kill();
                self.spools[at].start();
            }
            82..84 => {
                self.say(format_args!("stop {at}"));
                self.spools[at].stop();
                self.seal(at);
                self.spools[at].kill();
                self.spools[at].start();
            }
            84..86 => {
                let random = self.random.next();
                self.spools[at].cut_power(random);
                self.spools[at].start();
                let lost = self.spools[at].lost;
                self.say(format_args!("power cut {at}: {lost} lost by now"));
            }
            86..92 => self.fault(at),
            92..94 => {
                self.say(format_args!("the hub restarts"));
                self.hub = None;
                self.hub = Some(self.site.ledger());
            }
            94..96 => self.clocks(at),
            96 => self.spools[at].lose_a_record(),
            97 if self.may_change_key && self.keys.len() < 4 => {
                let seed = u8::try_from(self.keys.len() + 1).expect("few keys");
                self.spools[at].change_key(seed);
                self.keys.push(self.spools[at].key());
                self.seen.keys += 1;
                self.say(format_args!("key {seed} for {at}"));
            }
            98 if self.spools.len() < 2 => {
                let to = self.folder.path().join("1");
                let copy = self.spools[at].copy(&to);
                self.spools.push(copy);
                self.sent.push(None);
                self.seen.copies += 1;
                self.say(format_args!("a copy"));
            }
            99 if at == 0 && !self.may_change_key => {
                let limit = (2 + self.random.below(6) as u64) << 19;
                let way = [WhenFull::RollUp, WhenFull::DropOldest][self.random.below(2)];
                self.spools[0].change_limit(limit, way);
                self.say(format_args!("limit {limit}"));
            }
            _ => {}
        }
    }

    fn answer(&mut self, at: usize) {
        for _ in 0..=self.random.below(20) {
            self.requests += 1;
            let is_known = !self.random.one_in(8);
            self.spools[at].now_ms += 10;
            self.spools[at].request(self.requests, is_known);
        }
    }

    fn seal(&mut self, at: usize) {
        let rows = self.spools[at].seal();
        let tombstones = self.spools[at].tombstones();
        self.say(format_args!("seal {at}: {rows:?} {tombstones:?}"));
    }

    fn upload(&mut self, at: usize) {
        // Mostly the oldest; past those that a hub refused, the next.
        let after = self.sent[at].map(|(after, _)| after).filter(|_| self.random.one_in(3));
        let Some(file) = self.spools[at].oldest(after) else { return };
        self.say(format_args!("upload {at}: {} {} {}", file.at.stream, file.at.seq, file.digest));
        self.sent[at] = Some((file.at, file.digest));
        let bytes = self.as_sent(file);
        self.air.push(Packet::File(at, bytes));
    }

    /// The file; a device with a defect makes another one of a tombstone.
    fn as_sent(&self, file: UsageFile) -> Vec<u8> {
        let header = *Unverified::parse(&file.bytes).expect("it is one").claimed();
        let Some(stands_for) = header.stands_for.filter(|to| self.flaw == Flaw::TooWide && to.first > 1) else {
            return file.bytes;
        };
        let (mut builder, key) = (Builder::new(), self.spools[0].signing_key());
        let opened = segment::open(&file.bytes, &key.public()).expect("it opens");
        opened.rows().for_each(|row| builder.push(&row).expect("there is room"));
        let place = Place { previous: None, ..header.place() };
        builder.bury(&place, StandsFor { first: 1, ..stands_for }, &key).expect("it seals")
    }

    fn deliver(&mut self) {
        let Some(packet) = self.random.take(&mut self.air) else { return };
        match self.random.below(10) {
            0 => self.say(format_args!("a packet is lost")),
            1 => {
                self.air.push(packet.clone());
                self.arrive(packet);
            }
            2 => {
                let cut = |bytes: &[u8], at| bytes[..at].to_vec();
                let cut_off = match &packet {
                    Packet::File(from, bytes) => Packet::File(*from, cut(bytes, self.random.below(bytes.len()))),
                    Packet::Receipt(to, bytes) => Packet::Receipt(*to, cut(bytes, self.random.below(bytes.len()))),
                };
                self.arrive(cut_off);
            }
            3 => {
                let mut altered = packet;
                let (Packet::File(_, bytes) | Packet::Receipt(_, bytes)) = &mut altered;
                let at = self.random.below(bytes.len());
                bytes[at] ^= 1 << self.random.below(8);
                self.arrive(altered);
            }
            _ => self.arrive(packet),
        }
    }

    fn arrive(&mut self, packet: Packet) {
        match packet {
            Packet::File(from, bytes) => match self.take(vec![bytes]).pop() {
                Some(receipt) => self.air.push(Packet::Receipt(from, receipt)),
                None => self.receive(from, b"refused"),
            },
            Packet::Receipt(to, bytes) => self.receive(to, &bytes),
        }
    }

    /// What the hub gives for these files, together in one batch.
    fn take(&mut self, files: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let open = |bytes: Vec<u8>| {
            let maker = Unverified::parse(&bytes).ok()?.claimed().key;
            let key = self.keys.iter().find(|key| key.id() == maker)?.clone();
            let file = segment::open(&bytes, &key).ok()?;
            Some((Device { key, name: "till".into(), came_by_itself: false }, file, bytes))
        };
        let opened: Vec<_> = files.into_iter().filter_map(open).collect();
        let batch: Vec<_> = opened.iter().map(|(device, file, bytes)| Incoming { device, file, bytes }).collect();
        let taken = self.hub.as_mut().expect("it runs").take(&batch, self.hub_ms).expect("the ledger writes");
        let mut receipts = Vec::new();
        for ((_, file, _), taken) in opened.iter().zip(taken) {
            let header = file.header();
            for row in file.rows() {
                self.added_up += match row {
                    Row::Request(_) => 1,
                    Row::RollUp(sum) => sum.count,
                    Row::Gap(gap) => gap.count.unwrap_or(0),
                };
            }
            let (first, seq) = (header.first(), header.seq);
            let (requests, others) = (header.requests, header.others);
            match taken {
                Taken::Kept { receipt, verdict } => {
                    self.say(format_args!("hub: {} {first}-{seq} {verdict:?} {requests}+{others}", header.stream));
                    self.receipts.insert(file.digest());
                    self.seen.files += 1;
                    self.seen.tombstones += u64::from(header.stands_for.is_some());
                    self.seen.covered += u64::from(verdict == Verdict::Covered);
                    self.seen.repeats += u64::from(verdict == Verdict::Repeat);
                    self.seen.ahead += u64::from(matches!(verdict, Verdict::Ahead { .. }));
                    receipts.push(receipt);
                }
                Taken::Apart(verdict) => panic!("stream {} {first}-{seq}: {verdict:?}", header.stream),
            }
        }
        receipts
    }

    fn receive(&mut self, at: usize, bytes: &[u8]) {
        let receipt = Receipt::verify(bytes, &[scene::key(9).public()]);
        let own = |receipt: &Receipt| self.keys.iter().any(|key| DeviceId::from(key.id()) == receipt.device);
        let (cursor, digest) = match receipt.ok().filter(own) {
            Some(Receipt { stream, seq, digest, .. }) => (Cursor { stream, seq }, digest),
            None if self.flaw == Flaw::BelievesAnything => match self.sent[at] {
                Some(sent) => sent,
                None => return,
            },
            None => return,
        };
        self.say(format_args!("receipt for {at}: {} {}", cursor.stream, cursor.seq));
        self.spools[at].acknowledge(cursor, &digest);
    }

    /// A stick is filled with what waits.
    fn export(&mut self, at: usize) {
        let (mut files, mut after) = (Vec::new(), None);
        for _ in 0..=self.random.below(6) {
            let Some(file) = self.spools[at].oldest(after) else { break };
            after = Some(file.at);
            files.push(self.as_sent(file));
        }
        self.say(format_args!("stick of {at}: {}", files.len()));
        self.sticks.push((at, files));
    }

    /// A stick comes to the hub, whenever, and its receipts go back another day.
    fn import(&mut self) {
        let Some((at, mut files)) = self.random.take(&mut self.sticks) else { return };
        if self.random.one_in(4) {
            self.sticks.push((at, files.clone()));
        }
        let mut batch = Vec::new();
        while let Some(file) = self.random.take(&mut files) {
            batch.push(file);
        }
        for receipt in self.take(batch) {
            if !self.random.one_in(4) {
                self.by_hand.push(Packet::Receipt(at, receipt));
            }
        }
    }

    fn fault(&mut self, at: usize) {
        let (which, step, cut) = (self.random.below(6), 1 + self.random.next() as u32 % 4, self.random.next());
        let fault = match which {
            0 => Fault::SyncFull(step),
            1 => Fault::SyncFails(step),
            2 => Fault::OpenFails(step),
            3 => Fault::CommitLost(false),
            _ => Fault::CommitLost(true),
        };
        let sent = self.sent[at];
        let what = self.random.below(4);
        let receipts = self.by_hand.iter().chain(&self.air).filter_map(|packet| match packet {
            Packet::Receipt(to, bytes) if *to == at => Receipt::verify(bytes, &[scene::key(9).public()]).ok(),
            _ => None,
        });
        let receipts: Vec<_> = receipts.collect();
        let hit = self.spools[at].during(fault, cut, |spool| match what {
            0 => drop(spool.oldest(sent.map(|(after, _)| after))),
            1 => {
                for Receipt { stream, seq, digest, .. } in receipts {
                    spool.acknowledge(Cursor { stream, seq }, &digest);
                }
            }
            _ => drop(spool.seal()),
        });
        self.seen.faults += u64::from(hit);
        self.say(format_args!("{fault:?} in {what} of {at}: {hit}"));
    }

    fn clocks(&mut self, at: usize) {
        let jump = [-86_400_000, 3_600_000, 86_400_000 * 400, -5_000][self.random.below(4)];
        let is_lost = self.random.one_in(4);
        if self.random.one_in(3) {
            self.hub_ms = self.hub_ms.saturating_add(jump);
        } else {
            let now = &mut self.spools[at].now_ms;
            *now = if is_lost { 0 } else { *now + jump };
        }
    }
}

/// The whole life of one seed: the digest of all that happened, and what was met.
fn live(seed: u64, flaw: Flaw) -> (Digest, Seen) {
    let mut world = World::new(seed, flaw);
    let run = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..150 {
            world.step();
        }
        world.drain();
        world.balance();
    }));
    seeded_tests::set(None);
    if std::env::var_os("TIDEGATE_SIM_SEED").is_some() {
        print!("{}", world.trace);
    }
    if let Err(broken) = run {
        eprintln!("seed {seed} fails: TIDEGATE_SIM_SEED={seed} cargo test --lib sim::one_seed -- --nocapture");
        std::panic::resume_unwind(broken);
    }
    (sha256(world.trace.as_bytes()), world.seen)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Lives through seeds on both cores; the seeds that fail.
fn search(seeds: std::ops::Range<u64>, flaw: Flaw) -> (Vec<u64>, Vec<Seen>) {
    const WORKERS: u64 = 2;
    let worker = |first: u64| {
        let (mut failed, mut seen) = (Vec::new(), Vec::new());
        for seed in seeds.clone().filter(|seed| seed % WORKERS == first) {
            match catch_unwind(|| live(seed, flaw)) {
                Ok((_, met)) => seen.push(met),
                Err(_) => failed.push(seed),
            }
        }
        (failed, seen)
    };
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|first| scope.spawn(move || worker(first))).collect();
        workers.into_iter().map(|worker| worker.join().expect("it ends")).collect::<Vec<_>>()
    });
    let (mut failed, mut seen) = (Vec::new(), Vec::new());
    for part in parts {
        failed.extend(part.0);
        seen.extend(part.1);
    }
    (failed, seen)
}

#[test]
fn one_seed_lives_and_its_books_balance() {
    live(number("TIDEGATE_SIM_SEED", 1), Flaw::None);
}

#[test]
fn some_seeds_balance_to_the_record_and_meet_all_there_is_to_meet() {
    let (failed, seen) = search(0..50, Flaw::None);
    assert!(failed.is_empty(), "seeds {failed:?}");
    println!("{}", tell(&seen));
    let met: [fn(&Seen) -> u64; 9] = [
        |seen| seen.tombstones,
        |seen| seen.covered,
        |seen| seen.repeats,
        |seen| seen.ahead,
        |seen| seen.cuts,
        |seen| seen.lost,
        |seen| seen.faults,
        |seen| seen.copies,
        |seen| seen.keys,
    ];
    assert!(met.iter().all(|what| total(&seen, what) > 0), "{}", tell(&seen));
}

#[test]
#[ignore = "the long search: TIDEGATE_SIM_SEEDS of them, 10,000 where nothing is said, from TIDEGATE_SIM_FIRST on"]
fn many_seeds_balance_to_the_record() {
    let first = number("TIDEGATE_SIM_FIRST", 0);
    let begun = std::time::Instant::now();
    let (failed, seen) = search(first..first + number("TIDEGATE_SIM_SEEDS", 10_000), Flaw::None);
    println!("{}; {} s", tell(&seen), begun.elapsed().as_secs());
    assert!(failed.is_empty(), "{} seeds: {failed:?}", failed.len());
}

#[test]
fn a_seed_gives_the_same_life_to_the_byte() {
    for seed in 0..4 {
        assert_eq!(live(seed, Flaw::None).0, live(seed, Flaw::None).0, "seed {seed}");
    }
    assert_ne!(live(0, Flaw::None).0, live(1, Flaw::None).0);
}

#[test]
fn negative_control_each_planted_defect_breaks_the_books() {
    for flaw in [Flaw::AddsUp, Flaw::BelievesAnything, Flaw::TooWide] {
        let (failed, _) = search(0..10, flaw);
        assert!(!failed.is_empty(), "{flaw:?} and nobody saw");
    }
}
