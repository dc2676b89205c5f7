//! Power cuts, simulated: what was committed is there afterwards, whatever was on its way to the disk.
//!
//! A first, small version without a file system of its own. The device is a double behind the generation's
//! seam: what it holds for sure is what the `db` file was when it was last synced. A cut leaves that, and of what
//! was written since a random choice of 4 KiB pieces, some of them torn. What sled syncs by itself (its
//! configuration and snapshots, and the log when it opens) is taken as synced.
//!
//! A run without syncs is the control: it must lose something, or the test proves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tidegate::store::generation::{Changes, Generation, Key, Sync, VALUE_LIMIT};

const PIECE: usize = 4 << 10;
const CYCLES: u64 = 150;

/// What the device holds for sure.
#[derive(Clone, Default)]
struct Device {
    durable: Arc<Mutex<Vec<u8>>>,
    /// The power fails within the next sync.
    fails: Arc<AtomicBool>,
}

impl Device {
    fn take(&self, file: &Path) -> io::Result<()> {
        *self.durable.lock().expect("no test panics with it") = fs::read(file)?;
        Ok(())
    }

    /// fdatasync as it is, or one that only says so.
    fn sync(&self, is_honest: bool) -> Sync {
        let device = self.clone();
        Box::new(move |file| match (device.fails.load(Ordering::Relaxed), is_honest) {
            (true, _) => Err(io::ErrorKind::Interrupted.into()),
            (false, true) => device.take(file),
            (false, false) => Ok(()),
        })
    }

    /// What is found after a power cut, of a file that was `written`.
    fn after_cut(&self, written: &[u8], dice: &mut Dice) -> Vec<u8> {
        let mut found = self.durable.lock().expect("no test panics with it").clone();
        // The file's length is made durable with its content, or has got to the disk by itself.
        if written.len() > found.len() && dice.roll(2) == 0 {
            found.resize(written.len(), 0);
        }
        for (index, piece) in written.chunks(PIECE).enumerate() {
            let Some(place) = found.get_mut(index * PIECE..) else { break };
            let len = piece.len().min(place.len());
            let arrived = match dice.roll(4) {
                0 | 1 => 0,
                2 => len,
                _ => dice.roll(8) * len / 8, // torn
            };
            place[..arrived].copy_from_slice(&piece[..arrived]);
        }
        found
    }
}

/// A row of numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}

type Values = BTreeMap<(u64, u16), Vec<u8>>;

/// A usage file's worth of values, or the removal of an older one; into `changes` and into `values`.
fn change(seq: u64, values: &mut Values, dice: &mut Dice) -> Changes {
    let mut changes = Changes::default();
    if seq > 3 && dice.roll(3) == 0 {
        let gone = 1 + u64::try_from(dice.roll(usize::try_from(seq - 1).expect("small"))).expect("small");
        let keys: Vec<_> = values.range((gone, 0)..=(gone, u16::MAX)).map(|(key, _)| *key).collect();
        for (seq, part) in keys {
            changes.remove(Key { seq, part });
            values.remove(&(seq, part));
        }
    }
    for part in 0..1 + u16::try_from(dice.roll(24)).expect("small") {
        let value: Vec<u8> =
            (0..dice.roll(VALUE_LIMIT)).map(|_| u8::try_from(dice.roll(256)).expect("a byte")).collect();
        changes.put(Key { seq, part }, &value).expect("within the limit");
        values.insert((seq, part), value);
    }
    // The state: one value that each commit replaces.
    let state = seq.to_be_bytes().repeat(100);
    changes.put(Key { seq: 0, part: 0 }, &state).expect("within the limit");
    values.insert((0, 0), state);
    changes
}

fn all(generation: &Generation) -> Values {
    let mut values = Values::new();
    let first = generation.read(Key { seq: 0, part: 0 }).expect("it reads");
    values.extend(first.map(|value| ((0, 0), value.as_ref().to_vec())));
    let mut key = Key { seq: 0, part: 0 };
    while let Some(next) = generation.key_after(key).expect("it reads") {
        let value = generation.read(next).expect("it reads").expect("it is there");
        values.insert((next.seq, next.part), value.as_ref().to_vec());
        key = next;
    }
    values
}

/// Some commits, a power cut, and what is wrong afterwards.
fn cycle(seed: u64, is_honest: bool) -> Result<(), String> {
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let [before, after] = ["before", "after"].map(|name| folder.path().join(name));
    let device = Device::default();
    let open = || {
        let generation = Generation::open_with(&before, device.sync(is_honest)).expect("it opens");
        device.take(&before.join("db")).expect("it reads");
        generation
    };
    let mut generation = open();
    let (mut acknowledged, mut attempted) = (Values::new(), Values::new());
    let commits = 2 + u64::try_from(dice.roll(8)).expect("small");
    for seq in 1..=commits {
        // Some cuts come between two commits, some in the middle of one.
        device.fails.store(seq == commits && dice.roll(2) == 0, Ordering::Relaxed);
        let changes = change(seq, &mut attempted, &mut dice);
        if generation.commit(changes).is_ok() {
            acknowledged.clone_from(&attempted);
        }
        if seq < commits && dice.roll(5) == 0 {
            drop(generation);
            generation = open();
        }
    }
    let written = fs::read(before.join("db")).expect("it reads");
    fs::create_dir(&after).expect("a folder");
    for entry in fs::read_dir(&before).expect("it lists") {
        let path = entry.expect("it lists").path();
        if path.is_file() {
            fs::copy(&path, after.join(path.file_name().expect("it has a name"))).expect("it copies");
        }
    }
    fs::write(after.join("db"), device.after_cut(&written, &mut dice)).expect("it writes");
    drop(generation);

    let found = Generation::open(&after).map_err(|error| error.to_string())?;
    let found = all(&found);
    if found == acknowledged || found == attempted {
        return Ok(());
    }
    let lost = acknowledged.iter().filter(|(key, value)| found.get(key) != Some(value)).count();
    Err(format!("{lost} of {} values are lost, {} found", acknowledged.len(), found.len()))
}

/// The seeds that lost something, and how.
fn losses(is_honest: bool) -> Vec<(u64, String)> {
    (1..=CYCLES).filter_map(|seed| Some((seed, cycle(seed, is_honest).err()?))).collect()
}

#[test]
fn a_commit_that_was_acknowledged_survives_a_power_cut_and_one_that_was_not_is_whole_or_not_there() {
    let lost = losses(true);
    assert!(lost.is_empty(), "of {CYCLES} cycles: {lost:?}");
}

#[test]
fn negative_control_without_fdatasync_acknowledged_commits_are_lost() {
    let lost = losses(false);
    println!("{} of {CYCLES} cycles lost something", lost.len());
    assert!(lost.len() > usize::try_from(CYCLES / 4).expect("small"), "then the test above proves nothing: {lost:?}");
}
