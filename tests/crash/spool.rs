//! The spool, with the daemon's own child: sealed files, acknowledgements and synced records survive a cut, and of the rest a
//! gap says what may be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate::clock::Reading;
use tidegate::ids::{Digest, RequestId};
use tidegate::keys::{SigningKey, sha256};
use tidegate::spool::backlog::{Backlog as _, Cursor, UsageFile};
use tidegate::spool::record::{Client, Gap, Outcome, RollUp, Row, UsageRecord};
use tidegate::spool::{Config, Intake, Program, Spool, segment};
use tidegate::units::{Bytes, Span, TimeQuality};

use crate::cycles::{self, Book};
use crate::dice::Dice;
use crate::life::{Orders, Own, Task, folder};

const INTERVAL: Duration = Duration::from_millis(300);
/// What one round of syncs may take on a machine that does other things too.
const ROUND: Duration = Duration::from_secs(3);
/// Records that are told together.
const BATCH: u64 = 25;

type Place = (u64, u64);

#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// So many records are appended from `first` on, all at `at_ms`, and `summed` were only summed in this life.
    Appended { first: u64, at_ms: i64, boot: Duration, summed: u64 },
    /// The spool says that all below are synced.
    Synced { below: u64 },
    /// A file is there.
    Sealed(File),
    /// It is about to be acknowledged: the hub has it.
    Asked(Place),
    /// The acknowledgement returned `Ok`.
    Acknowledged(Place),
    /// Nothing more is there.
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    at: Place,
    digest: Digest,
    /// From and to, both included, in order.
    numbers: Vec<(u64, u64)>,
    summed: u64,
    gaps: Vec<Gap>,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Waiting,
    Asked,
    Acknowledged,
}

/// Records that must be there, or be covered.
#[derive(Debug)]
struct Batch {
    at_ms: i64,
    boot: Duration,
}

#[derive(Debug, Default)]
struct Usage {
    files: BTreeMap<Place, (File, Way)>,
    batches: BTreeMap<u64, Batch>,
    synced: u64,
    next: u64,
    cut: Duration,
    /// How many records all lives had only summed, and when.
    sums: Vec<(u64, Duration)>,
    /// How many of those were there at the last look.
    summed_before: u64,
    figures: Seen,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    appended: u64,
    sealed: u64,
    acknowledged: u64,
    gone: u64,
    gaps: u64,
    oldest: Duration,
}

impl Book for Usage {
    type Told = Told;
    const ENTRY: &str = "spool::entry";
    const CLAIMS: &[&str] = &["Sealed", "Acknowledged"];
    const WRITES: usize = 400;

    fn first(&self) -> u64 {
        self.next
    }

    fn enter(&mut self, told: Vec<Told>, cut: Duration) {
        self.cut = cut;
        for told in told {
            match told {
                Told::Appended { first, at_ms, boot, summed } => {
                    self.batches.insert(first, Batch { at_ms, boot });
                    self.sums.push((self.summed_before + summed, boot));
                    self.figures.appended += BATCH;
                    self.next = first + BATCH;
                }
                Told::Synced { below } => self.synced = self.synced.max(below),
                Told::Sealed(file) => {
                    self.figures.sealed += 1;
                    self.files.insert(file.at, (file, Way::Waiting));
                }
                Told::Asked(at) => self.goes(at, Way::Asked),
                Told::Acknowledged(at) => {
                    self.figures.acknowledged += 1;
                    self.goes(at, Way::Acknowledged);
                }
                Told::All => {}
            }
        }
        // What was appended and not told any more.
        self.next += BATCH;
    }

    fn judge(&mut self, told: Vec<Told>) -> Result<(), String> {
        if !matches!(told.last(), Some(Told::All)) {
            return Err("it did not come to its end".into());
        }
        let sealed = told.iter().filter_map(|told| if let Told::Sealed(file) = told { Some(file) } else { None });
        let found: BTreeMap<_, _> = sealed.map(|file| (file.at, file.clone())).collect();
        for (at, (file, way)) in &self.files {
            match (found.get(at), way) {
                (Some(is), _) if is != file => return Err(format!("file {at:?} is another than it was")),
                (None, Way::Waiting) => return Err(format!("file {at:?} was sealed, and is not there")),
                (Some(_), Way::Acknowledged) => {
                    return Err(format!("file {at:?} was acknowledged, and is there again"));
                }
                _ => {}
            }
        }
        for (at, file) in found {
            self.files.entry(at).or_insert((file, Way::Waiting));
        }
        for told in told {
            match told {
                Told::Asked(at) => self.goes(at, Way::Asked),
                Told::Acknowledged(at) => self.goes(at, Way::Acknowledged),
                _ => {}
            }
        }
        self.count()
    }

    fn seen(&self) -> String {
        let Seen { appended, sealed, acknowledged, gone, gaps, oldest } = &self.figures;
        format!(
            "{appended} records, {sealed} files seen sealed, {acknowledged} acknowledged; {gone} records that were not synced \
             are gone, the oldest {:.0} ms old, in {gaps} gaps",
            oldest.as_secs_f64() * 1e3
        )
    }

    fn add(&mut self, other: &Self) {
        let (ours, theirs) = (&mut self.figures, &other.figures);
        ours.appended += theirs.appended;
        ours.sealed += theirs.sealed;
        ours.acknowledged += theirs.acknowledged;
        ours.gone += theirs.gone;
        ours.gaps += theirs.gaps;
        ours.oldest = ours.oldest.max(theirs.oldest);
    }
}

impl Usage {
    fn goes(&mut self, at: Place, way: Way) {
        if let Some((_, now)) = self.files.get_mut(&at) {
            *now = way;
        }
    }

    /// Each record that was told is in one file, or was not synced and a gap covers it.
    fn count(&mut self) -> Result<(), String> {
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut gaps, mut summed) = (Vec::<Gap>::new(), 0);
        for (file, _) in self.files.values() {
            for number in file.numbers.iter().flat_map(|(from, to)| *from..=*to) {
                *times.entry(number).or_default() += 1;
            }
            gaps.extend(&file.gaps);
            summed += file.summed;
        }
        if let Some((number, times)) = times.iter().find(|(_, times)| **times > 1) {
            return Err(format!("record {number} is there {times} times"));
        }
        let cut = self.cut;
        let covers = |at_ms: i64| gaps.iter().any(|gap| (gap.from_ms..=gap.to_ms).contains(&at_ms));
        for (first, Batch { at_ms, boot }) in std::mem::take(&mut self.batches) {
            let gone: Vec<_> = (first..first + BATCH).filter(|number| !times.contains_key(number)).collect();
            let Some(number) = gone.first() else { continue };
            let age = cut.saturating_sub(boot);
            if *number < self.synced {
                return Err(format!("record {number} was synced and is gone; gaps: {gaps:?}"));
            }
            if age > INTERVAL + ROUND {
                return Err(format!("record {number} was {age:?} old and is gone; gaps: {gaps:?}"));
            }
            if !covers(at_ms) {
                return Err(format!("record {number} of {at_ms} is gone, and no gap says so: {gaps:?}"));
            }
            self.figures.gone += gone.len() as u64;
            self.figures.oldest = self.figures.oldest.max(age);
        }
        self.figures.gaps = gaps.len() as u64;
        let told = self.sums.last().map_or(self.summed_before, |(summed, _)| *summed);
        let old = self.sums.iter().rfind(|(_, boot)| cut.saturating_sub(*boot) > INTERVAL + ROUND);
        let least = old.map_or(self.summed_before, |(summed, _)| *summed);
        if summed < least || summed > told + BATCH {
            return Err(format!("{summed} are summed, of {least} to {told}; gaps: {gaps:?}"));
        }
        (self.summed_before, self.sums) = (summed, Vec::new());
        Ok(())
    }
}

#[test]
fn what_was_sealed_acknowledged_or_synced_survives_a_power_cut_and_a_gap_covers_the_rest() {
    cycles::run::<Usage>("spool");
}

#[test]
fn entry() {
    let Some(mut own) = Own::take() else { return };
    let Orders { task, ref root, seed, first } = own.orders;
    let config = Config {
        sync_interval: Span(INTERVAL),
        seal_after_offline: Span::millis(if task == Task::Work { 400 } else { 3_600_000 }),
        generation_size: Bytes(512 << 10),
        log_size: Bytes(64 << 10),
        free_floor: Bytes(2 << 20),
        unauthenticated_records: 0,
        ..Config::default()
    };
    let key = SigningKey::from_seed(&[7; 32]).expect("a seed makes a key");
    let program = Program { path: env!("CARGO_BIN_EXE_tidegated").into(), arguments: vec!["spool-child".into()] };
    let spool = Spool::start(&config, &folder(root, "spool"), &key, program, 1).expect("it starts");
    let mut intake = spool.intake(0);
    match task {
        Task::Work => work(&mut own, &spool, &mut intake, Dice(seed), first),
        Task::Tell => tell(&mut own, &spool, Dice(seed)),
    }
    drop(intake);
    spool.stop();
}

fn work(own: &mut Own, spool: &Spool, intake: &mut Intake, mut dice: Dice, first: u64) {
    let (mut last, mut summed) = (None, 0);
    let mut waiting: Vec<UsageFile> = Vec::new();
    for first in (first..).step_by(usize::try_from(BATCH).expect("small")) {
        let Reading { wall_ms: at_ms, boot } = Reading::now();
        (first..first + BATCH).for_each(|number| append(intake, number, at_ms));
        if dice.roll(4) == 0 {
            intake.append_unauthenticated(&record(first, at_ms), Duration::ZERO);
            summed += 1;
        }
        own.tell(&Told::Appended { first, at_ms, boot, summed });
        if spool.status().unsynced_bytes == 0 {
            own.tell(&Told::Synced { below: first + BATCH });
        }
        if dice.roll(8) == 0 {
            if dice.roll(3) == 0 {
                spool.seal_now();
            }
            if let Ok(Some(file)) = wait(spool.oldest(last)) {
                last = Some(file.at);
                own.tell(&Told::Sealed(read(&file)));
                waiting.push(file);
            }
            if dice.roll(2) == 0 && !waiting.is_empty() {
                let file = waiting.remove(0);
                own.tell(&Told::Asked(place(file.at)));
                if wait(spool.acknowledge(file.at, &file.digest)).is_ok() {
                    own.tell(&Told::Acknowledged(place(file.at)));
                }
            }
        }
        std::thread::sleep(Duration::from_micros(500)); // a busy gateway, not a flood
    }
}

/// Tells all that is there, sealed or not; now and then the hub takes some of it.
fn tell(own: &mut Own, spool: &Spool, mut dice: Dice) {
    let mut last = None;
    let mut files = Vec::new();
    loop {
        wait(spool.sealed());
        let before = files.len();
        while let Some(file) = wait(spool.oldest(last)).expect("the spool answers") {
            last = Some(file.at);
            own.tell(&Told::Sealed(read(&file)));
            files.push(file);
        }
        let status = spool.status();
        if files.len() == before && status.open_bytes == 0 {
            break;
        }
    }
    let taken = if dice.roll(2) == 0 { dice.roll(files.len() + 1) } else { 0 };
    for file in &files[..taken] {
        own.tell(&Told::Asked(place(file.at)));
        wait(spool.acknowledge(file.at, &file.digest)).expect("the spool answers");
        own.tell(&Told::Acknowledged(place(file.at)));
    }
    own.tell(&Told::All);
}

fn place(at: Cursor) -> Place {
    (at.stream.0, at.seq)
}

/// What a file holds, after its signature was checked.
fn read(file: &UsageFile) -> File {
    let key = SigningKey::from_seed(&[7; 32]).expect("a seed makes a key");
    let verified = segment::open(&file.bytes, &key.public()).expect("what the spool gives verifies");
    let (mut numbers, mut summed, mut gaps) = (Vec::new(), 0, Vec::new());
    for row in verified.rows() {
        match row {
            Row::Request(record) => {
                numbers.push(u64::from_be_bytes(record.request.0[8..].try_into().expect("eight bytes")));
            }
            Row::RollUp(RollUp { count, .. }) => summed += count,
            Row::Gap(gap) => gaps.push(gap),
        }
    }
    numbers.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == number => *to = number,
            _ => ranges.push((number, number)),
        }
    }
    File { at: place(file.at), digest: file.digest, numbers: ranges, summed, gaps }
}

fn append(intake: &mut Intake, number: u64, at_ms: i64) {
    // It does not compress, so that few of them fill a generation.
    let noise = sha256(&number.to_be_bytes()).to_string();
    intake.append(&UsageRecord { principal: &noise, ..record(number, at_ms) });
}

fn record<'a>(number: u64, at_ms: i64) -> UsageRecord<'a> {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    UsageRecord {
        at_ms,
        time: TimeQuality::Synced,
        request: RequestId(id),
        api: "petstore",
        version: "1.0",
        route: "/pets/{id}",
        method: "GET",
        status: 200,
        outcome: Outcome::Admitted,
        application: "till",
        plan: "gold",
        principal: "someone",
        bytes_in: 10,
        bytes_out: 512,
        total_us: 900,
        upstream_us: 800,
        upstream: "127.0.0.1:9000",
        client: Client::Absent,
        consumer: "shop",
        issuer: "https://idp.example",
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute") })
}
