//! Cycles of work, a cut, a look at what is left, and a second look; the same for every subject.
//!
//! A card lives for [`CARD`] cycles, each of which goes on with what the one before left; then comes a new one, and a control:
//! the same on a disk whose flush lies, which must be found out each time.

use std::fmt::Debug;
use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tidegate::clock::Reading;

use crate::card::{Card, formatted, lacks};
use crate::dice::Dice;
use crate::life::{Life, Orders, Task};
use crate::platter::Image;

/// Cycles on one card.
const CARD: u64 = 10;
/// In an ordinary test run.
const CYCLES: u64 = 20;
/// How long a life may work before the power goes whatever it wrote.
const LONG: Duration = Duration::from_secs(10);
/// Claims that a control makes on a disk that lies; one of them may be under way when that begins.
const FALSE_CLAIMS: u64 = 4;

/// Writes that no life makes.
const NEVER: u64 = 1 << 40;

/// What a test knows of one card: what its lives claimed, and what must therefore be there.
pub(crate) trait Book: Default {
    /// What a life tells.
    type Told: DeserializeOwned + Debug;
    /// The name of the hidden entry.
    const ENTRY: &str;
    /// What a line begins with that claims something durable.
    const CLAIMS: &[&str];
    /// Most writes of the disk before the power goes.
    const WRITES: usize;

    /// The first number that the next life may use.
    fn first(&self) -> u64;
    /// Enters what a life told that worked until the power went at `cut`, by CLOCK_BOOTTIME.
    fn enter(&mut self, told: Vec<Self::Told>, cut: Duration);
    /// Holds what is there after a start against what was claimed.
    fn judge(&mut self, told: Vec<Self::Told>) -> Result<(), String>;
    /// What it has seen, in a few words.
    fn seen(&self) -> String;
    /// Takes the figures of another card's book.
    fn add(&mut self, other: &Self);
}

/// Whether there can be no such disk here; says so, where a passing test's output is seen.
pub(crate) fn skips() -> bool {
    let why = lacks();
    if let Some(why) = why {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
    }
    why.is_some()
}

/// What became of a run.
#[derive(Debug, Default)]
struct Figures {
    cycles: u64,
    failures: Vec<String>,
    controls: u64,
    /// Controls that were not found out.
    controls_passed: u64,
    working: Duration,
}

/// Runs the cycles of one subject, as many as the environment says.
pub(crate) fn run<B: Book>(subject: &str) {
    if skips() {
        return;
    }
    let number = |name: &str, otherwise| {
        std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let (cycles, seed) = (number("TIDEGATE_CRASH_CYCLES", CYCLES), number("TIDEGATE_CRASH_SEED", 1));
    let say = |text: String| drop(writeln!(std::io::stderr(), "{subject}: {text}"));
    let (empty, mut figures, mut all) = (formatted(), Figures::default(), B::default());
    let mut card: Option<(Card, B)> = None;
    for cycle in 0..cycles {
        let seed = seed + cycle;
        if cycle % CARD == 0 {
            card.take().inspect(|(_, book)| all.add(book));
            figures.controls += 1;
            match control::<B>(&empty, seed) {
                Err(found) => say(format!("control {seed}: {found}")),
                Ok(()) => {
                    figures.controls_passed += 1;
                    say(format!("control {seed} lost nothing"));
                }
            }
        }
        let begun = Instant::now();
        let (mounted, mut book) =
            card.take().unwrap_or_else(|| (Card::mount(empty.clone()).expect("new"), B::default()));
        match once(mounted, &mut book, seed, false) {
            Ok(mounted) => card = Some((mounted, book)),
            Err(failure) => {
                say(format!("cycle {cycle}, seed {seed}: {failure}"));
                figures.failures.push(failure);
                all.add(&book);
            }
        }
        figures.cycles += 1;
        figures.working += begun.elapsed();
    }
    card.take().inspect(|(_, book)| all.add(book));
    let Figures { cycles, failures, controls, controls_passed, working } = figures;
    let each = working.as_secs_f64() / cycles.max(1) as f64;
    say(format!(
        "{cycles} cycles, {} failed; {controls} controls, {controls_passed} passed; {each:.2} s a cycle; {}",
        failures.len(),
        all.seen()
    ));
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(controls_passed, 0, "a disk that lies was not found out: then the cycles prove nothing");
}

fn control<B: Book>(empty: &Image, seed: u64) -> Result<(), String> {
    let card = Card::mount(empty.clone()).expect("a new one");
    once(card, &mut B::default(), seed, true).map(drop)
}

/// One cycle, on a card that is mounted; it is again afterwards.
fn once<B: Book>(card: Card, book: &mut B, seed: u64, lies: bool) -> Result<Card, String> {
    let mut dice = Dice(seed);
    dice.roll(2);
    let orders = |task, card: &Card, book: &B| Orders { task, root: card.root(), seed, first: book.first() };
    // Some cuts come while it starts, some in the midst of a write while it works, and some right after a claim.
    let (is_early, writes) = (dice.happens(15), 1 + dice.roll(B::WRITES) as u64);
    let after = (lies || dice.happens(50)).then(|| if lies { FALSE_CLAIMS } else { 1 + dice.roll(12) as u64 });
    let writes = if after.is_some() { NEVER } else { writes };
    card.cut_after(if is_early && !lies { writes } else { NEVER }, seed);
    let mut life = Life::start(B::ENTRY, B::CLAIMS, &orders(Task::Work, &card, book));
    if lies || !is_early {
        life.until_claims(1);
        card.cut_after(writes, seed);
    }
    if lies {
        card.lie();
    }
    let before = life.claims();
    let went = card.until_cut(LONG, || after.is_some_and(|after| life.claims() >= before + after));
    let cut = Reading::now().boot;
    if let Some(said) = life.has_ended().filter(|_| !went) {
        assert!(!lies, "a control shows nothing that ended by itself, {said}");
        return Err(format!("it ended while there was power, {said}"));
    }
    book.enter(life.kill(), cut);
    let card = Card::mount(card.take_out()).map_err(|error| format!("it does not mount: {error}"))?;
    for start in ["first", "second"] {
        let life = Life::start(B::ENTRY, B::CLAIMS, &orders(Task::Tell, &card, book));
        let told = life.end().map_err(|error| format!("{start} start: {error}"))?;
        book.judge(told).map_err(|error| format!("{start} start: {error}"))?;
    }
    Ok(card)
}
