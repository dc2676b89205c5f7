//! Bundles through the importer: after a cut the device serves the old policy or the new one, and the next start the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate::bundle::{Imported, Importer, Medium, Moment, Opened, Settings, journal};
use tidegate::clock::Reading;
use tidegate::disk::Machine;

use crate::cycles::{self, Book};
use crate::dice::Dice;
use crate::life::{Orders, Own, Task, folder};
use crate::world::{GOLDEN_SEQ, bundle, compile, device_facts, root};

const TRIAL: Duration = Duration::from_secs(600);

#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// The bundle of this number is offered.
    Begun(u64),
    /// It is in force.
    Done(u64),
    /// It has passed its trial.
    Passed(u64),
    /// What serves after a start, and what the journal knows.
    Serves { number: Option<u64>, origin: String, journal: Journal },
}

/// How often the journal tells of each bundle that it is in force.
type Journal = BTreeMap<u64, u64>;

#[derive(Debug, Default)]
struct Policies {
    done: Option<u64>,
    begun: Option<u64>,
    next: u64,
    /// Those of which the journal must tell.
    recorded: Vec<u64>,
    activated: u64,
    passed: u64,
    old: u64,
    new: u64,
}

impl Book for Policies {
    type Told = Told;
    const ENTRY: &str = "activation::entry";
    const CLAIMS: &[&str] = &["Done"];
    const WRITES: usize = 250;

    fn first(&self) -> u64 {
        self.next.max(GOLDEN_SEQ)
    }

    fn enter(&mut self, told: Vec<Told>, _: Duration) {
        for told in told {
            match told {
                Told::Begun(number) => {
                    self.begun = Some(number);
                    self.next = number + 1;
                }
                Told::Done(number) => {
                    self.done = Some(number);
                    self.recorded.push(number);
                    self.activated += 1;
                }
                Told::Passed(_) => self.passed += 1,
                Told::Serves { .. } => {}
            }
        }
    }

    fn judge(&mut self, told: Vec<Told>) -> Result<(), String> {
        let [Told::Serves { number, origin, journal }] = &told[..] else { return Err(format!("it told {told:?}")) };
        let known = format!("{:?} in force and {:?} under way", self.done, self.begun);
        if *number != self.done && *number != self.begun {
            return Err(format!("{number:?} serves ({origin}), with {known}"));
        }
        let is_plain = ["Active", "Fresh"].contains(&&**origin);
        if !is_plain {
            return Err(format!("{number:?} serves by a fall-back ({origin}), with {known}"));
        }
        if let Some(number) = self.recorded.iter().find(|number| journal.get(number) != Some(&1)) {
            return Err(format!("the journal tells of bundle {number} {:?} times", journal.get(number)));
        }
        if self.begun != self.done {
            if *number == self.begun { self.new += 1 } else { self.old += 1 }
        }
        // Whatever it is, the next start finds it again.
        (self.done, self.begun) = (*number, *number);
        Ok(())
    }

    fn seen(&self) -> String {
        let Self { activated, passed, old, new, .. } = self;
        format!(
            "{activated} bundles in force, {passed} passed their trial; of those under way {old} were gone and {new} there"
        )
    }

    fn add(&mut self, other: &Self) {
        self.activated += other.activated;
        self.passed += other.passed;
        self.old += other.old;
        self.new += other.new;
    }
}

#[test]
fn after_a_power_cut_the_old_policy_serves_or_the_new_one_and_the_next_start_agrees() {
    cycles::run::<Policies>("activation");
}

#[test]
fn entry() {
    let Some(mut own) = Own::take() else { return };
    let Orders { task, root: ref card, seed, first } = own.orders;
    let [state, drop] = ["state", "in"].map(|name| folder(card, name));
    let placed = card.join("root.json");
    if !placed.exists() {
        std::fs::write(&placed, root().bytes()).expect("the operator's file is placed");
        tidegate::disk::replace(&placed, root().bytes(), 0o600).expect("and durable");
    }
    // A machine that was switched on with this process; trials pass sooner than they would.
    let (begun, mut skipped) = (Instant::now(), Duration::ZERO);
    let now = |skipped| Moment { reading: Reading { wall_ms: 0, boot: begun.elapsed() + skipped }, trusted: false };
    let settings = Settings { state: state.clone(), root: placed, device: device_facts(), trial: TRIAL };
    let opened = Importer::open(Arc::new(Machine), settings, compile, &now(skipped)).expect("it starts");
    let Opened { mut importer, serving, origin, unrecorded, .. } = opened;
    assert!(unrecorded.is_none(), "{unrecorded:?}");
    let number = |policy: &str| policy.split(' ').next().expect("a word").parse::<u64>().expect("a number");
    if task == Task::Tell {
        let lines = journal::read(&Machine, &state.join("journal")).expect("the chain holds");
        let mut told = Journal::new();
        let seqs = lines.iter().filter(|line| line.result == "Activated").filter_map(|line| line.seq);
        seqs.for_each(|seq| *told.entry(seq).or_default() += 1);
        let number = serving.map(|active| number(&active.policy));
        own.tell(&Told::Serves { number, origin: format!("{origin:?}"), journal: told });
        return;
    }
    let mut dice = Dice(seed);
    for seq in first.. {
        let offered = drop.join("offered.tgb");
        let noise: String =
            (0..dice.roll(60_000)).map(|_| char::from(b'a' + u8::try_from(dice.roll(26)).expect("a letter"))).collect();
        if std::fs::write(&offered, bundle(seq, &format!("{seq} {noise}"))).is_err() {
            break; // the power is gone
        }
        own.tell(&Told::Begun(seq));
        let outcome = importer.import(&offered, &Medium::Usb("0781:5567/4C53".into()), &now(skipped));
        match (outcome.result, outcome.unrecorded) {
            (Imported::Activated(active), None) => {
                assert_eq!(number(&active.policy), seq);
                own.tell(&Told::Done(seq));
            }
            _ => break,
        }
        if dice.roll(3) == 0 {
            let _ = importer.attend(&now(skipped), true); // the trial begins
            skipped += TRIAL;
            match importer.attend(&now(skipped), true) {
                Ok(Some(_)) => own.tell(&Told::Passed(seq)),
                _ => break,
            }
        }
    }
    std::thread::park(); // until it is killed
}
