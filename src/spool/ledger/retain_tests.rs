use std::collections::BTreeMap;

use super::tests::{open_with, seal, setup, write_log};
use super::*;
use crate::ids::Digest;
use crate::keys::PublicKey;
use crate::spool::WhenFull;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::chain::Link;
use crate::spool::record::Row;
use crate::spool::wire::Seed;

const ROWS: u32 = 3000;

fn tight(folder: &Path, when_full: WhenFull) -> Setup {
    Setup { generation_size: 256 << 10, backlog_limit: 4 << 20, when_full, ..setup(folder) }
}

/// What a hub counts of the files that it has: the same whichever came first and however often.
#[derive(Default)]
struct Centre {
    files: BTreeMap<Digest, (Cursor, Link, u64, u64)>,
}

impl Centre {
    fn take(&mut self, file: &UsageFile, keys: &[PublicKey]) {
        let verified = keys.iter().find_map(|key| segment::open(&file.bytes, key).ok()).expect("it verifies");
        let (mut told, mut lost) = (0, 0);
        for row in verified.rows() {
            match row {
                Row::Request(_) => told += 1,
                Row::RollUp(sum) => told += sum.count,
                Row::Gap(gap) => lost += gap.count.expect("every loss here is counted"),
            }
        }
        let link = Link::of(verified.header(), file.digest);
        assert_eq!(file.at, Cursor { stream: verified.header().stream, seq: link.seq });
        self.files.insert(file.digest, (file.at, link, told, lost));
    }

    /// Requests that are told, and that are said to be lost.
    fn books(&self) -> (u64, u64) {
        let counts = |(at, link, ..): &&(Cursor, Link, u64, u64)| {
            !self.files.values().any(|(other, wide, ..)| other.stream == at.stream && wide != link && wide.covers(link))
        };
        let counted = self.files.values().filter(counts);
        counted.fold((0, 0), |(told, lost), file| (told + file.2, lost + file.3))
    }
}

fn drain(ledger: &mut Ledger, centre: &mut Centre, keys: &[PublicKey]) -> Vec<Cursor> {
    let mut found = Vec::new();
    while let Some(file) = ledger.oldest(None, 1000).expect("it reads") {
        centre.take(&file, keys);
        ledger.acknowledge(file.at, &file.digest, 1000).expect("it is removed");
        found.push(file.at);
        if found.len() > 1000 {
            panic!("{found:?}");
        }
    }
    found
}

/// Seals this many files of [`ROWS`] requests.
fn fill(ledger: &mut Ledger, folder: &Path, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        write_log(folder, number, ROWS);
        let sealed = ledger.seal(&seal()).expect("a full backlog makes room");
        assert!((ROWS..ROWS + 4).contains(&sealed.rows), "{sealed:?}"); // gaps may be among them
        let disk = ledger.report().expect("it tells").disk_bytes;
        assert!(disk < 6 << 20, "{disk} with a limit of 4 MiB");
    }
}

#[test]
fn a_full_backlog_tells_its_oldest_files_as_sums_or_a_count_and_not_one_request_is_missing() {
    for (when_full, all_told) in [(WhenFull::RollUp, true), (WhenFull::DropOldest, false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = open_with(tight(folder.path(), when_full));
        fill(&mut ledger, folder.path(), 1..=80);
        let names: Vec<_> = ledger.tombstones.list().collect();
        assert!(matches!(names[..], [one] if one.first == 1 && one.seq > 20), "one that has grown: {names:?}");
        drop(ledger);
        let mut ledger = open_with(tight(folder.path(), when_full));
        let mut centre = Centre::default();
        let keys = [ledger.key.public()];
        let found = drain(&mut ledger, &mut centre, &keys);
        assert!(found.windows(2).all(|two| two[0] < two[1]), "oldest first: {found:?}");
        let (told, lost) = centre.books();
        assert_eq!(told + lost, u64::from(80 * ROWS));
        assert_eq!(lost == 0, all_told);
        let report = ledger.report().expect("it tells");
        assert!(report.files == 0 && report.disk_bytes < 2 << 20, "the disk is given back: {report:?}");
    }
}

#[test]
fn a_file_that_the_hub_has_and_the_device_does_not_know_of_counts_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open_with(tight(folder.path(), WhenFull::RollUp));
    let (mut centre, keys) = (Centre::default(), [ledger.key.public()]);
    let (mut after, mut receipts) = (None, Vec::new());
    for number in 1..=80 {
        fill(&mut ledger, folder.path(), number..=number);
        // The link breaks before each receipt; some come later, when all has long been summed.
        if number % 3 == 0 {
            let file = ledger.oldest(after, 1000).expect("it reads").expect("there is one");
            centre.take(&file, &keys);
            after = Some(file.at);
            receipts.push((file.at, file.digest));
        }
    }
    for (at, digest) in receipts.iter().step_by(2) {
        ledger.acknowledge(*at, digest, 1000).expect("a late receipt does no harm");
    }
    drain(&mut ledger, &mut centre, &keys);
    assert_eq!(centre.books(), (u64::from(80 * ROWS), 0));
    // The control: were every file that came added up, there would be more.
    assert!(centre.files.values().map(|file| file.2).sum::<u64>() > u64::from(80 * ROWS));
}

#[test]
fn what_was_acknowledged_between_is_in_no_tombstone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open_with(tight(folder.path(), WhenFull::RollUp));
    fill(&mut ledger, folder.path(), 1..=8);
    let (mut centre, keys) = (Centre::default(), [ledger.key.public()]);
    let first = ledger.oldest(None, 1000).expect("it reads").expect("there is one");
    let second = ledger.oldest(Some(first.at), 1000).expect("it reads").expect("there is one");
    centre.take(&second, &keys);
    ledger.acknowledge(second.at, &second.digest, 1000).expect("it is removed");
    fill(&mut ledger, folder.path(), 9..=80);
    let names: Vec<_> = ledger.tombstones.list().map(|name| (name.first, name.seq)).collect();
    assert!(matches!(names[..], [(1, 1), (3, last)] if last > 20), "{names:?}");
    drain(&mut ledger, &mut centre, &keys);
    assert_eq!(centre.books(), (u64::from(80 * ROWS), 0));
}

#[test]
fn a_crash_anywhere_in_retirement_counts_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    fs::create_dir(&before).expect("a folder");
    let mut ledger = open_with(tight(&before, WhenFull::RollUp));
    let mut number = 1;
    while ledger.report().expect("it tells").disk_bytes < 4 << 20 {
        fill(&mut ledger, &before, number..=number);
        number += 1;
    }
    drop(ledger);
    super::tests::copy(&before, &after);
    let mut ledger = open_with(tight(&after, WhenFull::RollUp));
    assert!(ledger.make_way(1000).expect("it makes room"));
    drop(ledger);
    // The tombstone is there, and nothing was removed yet.
    super::tests::copy(&after.join("retired"), &before.join("retired"));
    let mut ledger = open_with(tight(&before, WhenFull::RollUp));
    let (mut centre, keys) = (Centre::default(), [ledger.key.public()]);
    fill(&mut ledger, &before, number..=number + 3);
    drain(&mut ledger, &mut centre, &keys);
    assert_eq!(centre.books(), (u64::from((number + 3) * ROWS), 0));
    // The control: without a look at the tombstones the files come as well, and a hub that adds up counts them twice.
    let all: u64 = centre.files.values().map(|file| file.2).sum();
    assert_eq!(all, u64::from((number + 3) * ROWS), "each came once");
}

#[test]
fn too_many_tombstones_are_left_with_their_counts_and_a_damaged_one_is_a_gap_of_as_many() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open_with(tight(folder.path(), WhenFull::RollUp));
    fill(&mut ledger, folder.path(), 1..=60);
    ledger.setup.backlog_limit = 0;
    ledger.shorten(1000).expect("it is done");
    let name = ledger.tombstones.list().next().expect("there is one");
    let bytes = ledger.tombstones.read(name).expect("it reads");
    assert!(bytes.len() < 600, "{}", bytes.len());
    ledger.setup.backlog_limit = u64::MAX;
    let path = fs::read_dir(folder.path().join("retired")).expect("it lists").next().expect("one").expect("one").path();
    for damage in [&b""[..], &bytes[..bytes.len() - 1], b"something else"] {
        fs::write(&path, damage).expect("it writes");
        let (mut centre, copy) = (Centre::default(), tempfile::tempdir().expect("a folder"));
        let damaged = copy.path().join("damaged");
        super::tests::copy(folder.path(), &damaged);
        let mut ledger = open_with(Setup { folder: damaged, ..ledger.setup.clone() });
        let keys = [ledger.key.public()];
        drain(&mut ledger, &mut centre, &keys);
        ledger.seal(&seal()).expect("it seals the gap");
        drain(&mut ledger, &mut centre, &keys);
        let (told, lost) = centre.books();
        assert_eq!((told + lost, lost), (u64::from(60 * ROWS), name.count));
    }
}

#[test]
fn files_by_a_former_key_become_a_gap_of_the_present_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open_with(tight(folder.path(), WhenFull::RollUp));
    fill(&mut ledger, folder.path(), 1..=20);
    let old = ledger.key.public();
    drop(ledger);
    let seed = Seed([8; 32]);
    let mut ledger = open_with(Setup { seed, ..tight(folder.path(), WhenFull::RollUp) });
    fill(&mut ledger, folder.path(), 21..=60);
    let (mut centre, keys) = (Centre::default(), [ledger.key.public(), old]);
    drain(&mut ledger, &mut centre, &keys);
    ledger.seal(&seal()).expect("it seals what is left to tell");
    drain(&mut ledger, &mut centre, &keys);
    let (told, lost) = centre.books();
    assert_eq!(told + lost, u64::from(60 * ROWS));
    assert!(lost > 0 && lost <= u64::from(20 * ROWS), "{lost}");
}

#[test]
fn a_tombstone_that_is_acknowledged_takes_with_it_what_a_crash_left_of_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    fs::create_dir(&before).expect("a folder");
    let mut ledger = open_with(tight(&before, WhenFull::RollUp));
    fill(&mut ledger, &before, 1..=8);
    drop(ledger);
    super::tests::copy(&before, &after);
    let mut ledger = open_with(Setup { backlog_limit: 0, ..tight(&after, WhenFull::RollUp) });
    assert!(ledger.retire_oldest(1000).expect("it is done"));
    drop(ledger);
    super::tests::copy(&after.join("retired"), &before.join("retired"));

    let mut ledger = open_with(tight(&before, WhenFull::RollUp));
    let (mut centre, keys) = (Centre::default(), [ledger.key.public()]);
    let tombstone = ledger.oldest(None, 1000).expect("it reads").expect("it comes first");
    centre.take(&tombstone, &keys);
    ledger.acknowledge(tombstone.at, &tombstone.digest, 1000).expect("it is removed");
    assert_eq!(ledger.tombstones.list().len(), 0);
    let next = ledger.oldest(None, 1000).expect("it reads").expect("there are more");
    assert_eq!(next.at.seq, tombstone.at.seq + 1, "none of those that it stood for comes again");
    // So none of them is in the next tombstone either, which a hub would take for a fork.
    fill(&mut ledger, &before, 9..=80);
    let first = ledger.tombstones.list().next().expect("there is one");
    assert!(first.first > tombstone.at.seq, "{first:?}");
    drain(&mut ledger, &mut centre, &keys);
    assert_eq!(centre.books(), (u64::from(80 * ROWS), 0));
}
