//! The small records: pair, time floor, journal and device key.
//!
//! What a call returned `Ok` for is there; what was under way is there or not, and nothing else ever is.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate::bundle::journal::{self, Event, Journal, Line};
use tidegate::clock::{BootId, Reading};
use tidegate::disk::{Disk, Machine};
use tidegate::store::device_key;
use tidegate::store::pair::{Found, Pair};
use tidegate::store::time::{BUILD_TIME, Known, TimeFile};
use tidegate::units::{TimeBounds, TimeQuality};

use crate::cycles::{self, Book};
use crate::dice::Dice;
use crate::life::{Orders, Own, Task, folder};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Record {
    Pair,
    Floor,
    Journal,
}

#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// A write of this number begins.
    Begun(Record, u64),
    /// It returned `Ok`.
    Done(Record, u64),
    /// The newest number that is there; of the floor in seconds after the build.
    Is(Record, Option<u64>),
    Key(String),
}

/// What one record is known to hold.
#[derive(Debug, Default)]
struct Claims {
    done: Option<u64>,
    begun: Option<u64>,
}

#[derive(Debug, Default)]
struct Records {
    records: [Claims; 3],
    key: Option<String>,
    next: u64,
    done: u64,
    old: u64,
    new: u64,
}

impl Book for Records {
    type Told = Told;
    const ENTRY: &str = "store::entry";
    const CLAIMS: &[&str] = &["Done"];
    const WRITES: usize = 150;

    fn first(&self) -> u64 {
        self.next.max(1)
    }

    fn enter(&mut self, told: Vec<Told>, _: Duration) {
        for told in told {
            match told {
                Told::Begun(record, number) => {
                    self.records[record as usize].begun = Some(number);
                    self.next = self.next.max(number + 1);
                }
                Told::Done(record, number) => {
                    self.records[record as usize].done = Some(number);
                    self.done += 1;
                }
                Told::Is(..) => {}
                Told::Key(key) => drop(self.key.get_or_insert(key)),
            }
        }
    }

    fn judge(&mut self, told: Vec<Told>) -> Result<(), String> {
        let mut found = 0;
        for told in told {
            match told {
                Told::Is(record, is) => {
                    found += 1;
                    let known = &mut self.records[record as usize];
                    if is != known.done && is != known.begun {
                        return Err(format!("{record:?} is {is:?}, and {known:?} was told"));
                    }
                    if known.begun != known.done {
                        if is == known.begun { self.new += 1 } else { self.old += 1 }
                    }
                    // From now on it is what it is.
                    (known.done, known.begun) = (is, is);
                }
                Told::Key(key) => {
                    if self.key.get_or_insert_with(|| key.clone()) != &key {
                        return Err("it has become another device".into());
                    }
                }
                Told::Begun(..) | Told::Done(..) => {}
            }
        }
        if found == 3 { Ok(()) } else { Err(format!("{found} of 3 records were told")) }
    }

    fn seen(&self) -> String {
        let Self { done, old, new, .. } = self;
        format!("{done} writes acknowledged; of those under way {old} were gone and {new} there")
    }

    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.old += other.old;
        self.new += other.new;
    }
}

#[test]
fn what_the_store_said_is_written_is_there_after_a_power_cut() {
    cycles::run::<Records>("store");
}

#[test]
fn entry() {
    let Some(mut own) = Own::take() else { return };
    let Orders { task, ref root, seed, first } = own.orders;
    // A machine that was switched on with this process.
    let begun = Instant::now();
    let now = || Reading { wall_ms: 0, boot: begun.elapsed() };
    let folder = folder(root, "state");
    let disk: Arc<dyn Disk> = Arc::new(Machine);
    let key = device_key::open(&folder, None).expect("there is a key");
    own.tell(&Told::Key(format!("{:?}", key.public())));
    let (mut pair, found) = Pair::open(Arc::clone(&disk), &folder, "s");
    let known = Known { build: BUILD_TIME, signed: BUILD_TIME, used: false, epoch: 1 };
    let (time, written) = TimeFile::open(Arc::clone(&disk), &folder, BootId::now(), &now(), known);
    written.expect("the floor is written");
    let lines = folder.join("journal");
    std::fs::create_dir_all(&lines).and_then(|()| disk.sync_folder(&folder)).expect("a folder");
    let mut journal = Journal::open(Arc::clone(&disk), &lines);
    assert!(journal.broken().is_none(), "{:?}", journal.broken());

    if task == Task::Tell {
        let number = |body: &[u8]| u64::from_be_bytes(body[..8].try_into().expect("eight bytes"));
        let whole = |body: &[u8]| assert!(body[8..].iter().all(|byte| *byte == body[7]), "two writes are mixed");
        found.body().inspect(|body| whole(body));
        assert_ne!(found, Found::Lost);
        own.tell(&Told::Is(Record::Pair, found.body().map(number)));
        let bounds = time.floor().bounds(&now(), false);
        assert_eq!(bounds.quality, TimeQuality::Floor, "a floor that was written is not lost");
        let floor = u64::try_from(bounds.lower - BUILD_TIME).expect("not before the build");
        own.tell(&Told::Is(Record::Floor, (floor >= FLOOR_STEP).then_some(floor / FLOOR_STEP)));
        own.tell(&Told::Is(Record::Journal, last_line(&*disk, &lines)));
        return;
    }
    let mut dice = Dice(seed);
    for number in first.. {
        let record = [Record::Pair, Record::Floor, Record::Journal][dice.roll(3)];
        own.tell(&Told::Begun(record, number));
        let done = match record {
            Record::Pair => {
                let body = [&number.to_be_bytes()[..], &vec![number.to_be_bytes()[7]; dice.roll(20_000)]].concat();
                pair.write(&body)
            }
            Record::Floor => time.raise(BUILD_TIME + i64::try_from(number * FLOOR_STEP).expect("small"), &now()),
            Record::Journal => journal.append(line(number)),
        };
        if done.is_err() {
            break; // the power is gone
        }
        own.tell(&Told::Done(record, number));
    }
    std::thread::park(); // until it is killed
}

/// So many seconds of the floor are one number: more than pass while a card is in use.
const FLOOR_STEP: u64 = 86_400;

fn line(number: u64) -> Line {
    let now = TimeBounds { lower: BUILD_TIME, upper: None, quality: TimeQuality::Floor };
    Line::new(Event::Import, "Activated", now).saying(&number.to_string())
}

/// The number of the last line, of a chain that holds.
fn last_line(disk: &dyn Disk, folder: &Path) -> Option<u64> {
    let lines = journal::read(disk, folder).expect("the chain holds");
    let numbers: Vec<u64> = lines.iter().map(|line| line.detail.parse().expect("a number")).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    numbers.last().copied()
}
