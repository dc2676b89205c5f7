use std::path::Path;

use super::*;
use crate::ids::RequestId;
use crate::spool::WhenFull;
use crate::spool::backlog::Cursor;
use crate::spool::lane::OpenLog;
use crate::spool::log::{self, FRAME_LIMIT, HEAD, Preamble, finish_frame};
use crate::spool::losses::Losses;
use crate::spool::record::{Gap, GapReason, Row, SAMPLE, UsageRecord};
use crate::spool::renew::renew;
use crate::spool::wire::Seed;
use crate::units::Bytes;

pub(super) fn setup(folder: &Path) -> Setup {
    Setup {
        folder: folder.to_owned(),
        seed: Seed([7; 32]),
        generation_size: Bytes(1 << 20).0,
        backlog_limit: u64::MAX,
        when_full: WhenFull::RollUp,
        free_floor: 0,
    }
}

pub(super) fn open(folder: &Path) -> Ledger {
    open_with(setup(folder))
}

pub(super) fn open_with(setup: Setup) -> Ledger {
    let opener = Opener::new(|_, folder| Generation::open(folder));
    Ledger::open(setup, &Known::default(), opener, 1000).expect("it opens, whatever is on the disk")
}

/// A finished log of `rows` requests, whose ids go on from `first`.
pub(super) fn write_log(folder: &Path, number: u32, rows: u32) -> (PathBuf, Vec<u8>) {
    fs::create_dir_all(folder.join("open")).expect("a folder");
    let name = log::Name { number, id: u64::from(number) };
    let preamble = Preamble { boot: lane::boot_id(), made_ms: 1, sync: 0 };
    drop(OpenLog::make(&folder.join("open"), name, preamble).expect("it is made"));
    let path = folder.join("open").join(name.file_name());
    let mut bytes = fs::read(&path).expect("it reads");
    for row in 0..=rows {
        // Ids like random ones, so that a file has some size.
        let id = keys::sha256(&[number.to_be_bytes(), row.to_be_bytes()].concat());
        let request = RequestId(*id.0.first_chunk().expect("16 of 32"));
        let record = UsageRecord { at_ms: 500, request, ..SAMPLE };
        let mut frame = [0; FRAME_LIMIT];
        let len = Row::Request(record).encode(&mut frame[HEAD..]).expect("it fits").len();
        let len = if row == rows { 0 } else { len }; // the end row
        finish_frame(&mut frame[..HEAD + len], row);
        bytes.extend(&frame[..HEAD + len]);
    }
    fs::write(&path, &bytes).expect("it writes");
    (path, bytes)
}

/// What came out of a ledger.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) files: Vec<Cursor>,
    pub(super) requests: u64,
    pub(super) gaps: Vec<Gap>,
}

/// Seals, takes everything out and acknowledges it, until nothing is left.
pub(super) fn drain(ledger: &mut Ledger) -> Books {
    let mut books = Books::default();
    loop {
        let sealed = ledger.seal(&seal()).expect("it seals");
        let Some(file) = ledger.oldest(None, 1000).expect("it reads") else {
            if sealed.rows == 0 && !sealed.left_over {
                assert_eq!(ledger.report().expect("it tells").files, 0);
                return books;
            }
            continue;
        };
        for row in segment::open(&file.bytes, &ledger.key.public()).expect("it verifies").rows() {
            match row {
                Row::Gap(gap) => books.gaps.push(gap),
                _ => books.requests += 1,
            }
        }
        ledger.acknowledge(file.at, &file.digest, 1000).expect("it is removed");
        books.files.push(file.at);
    }
}

/// Thirteen files of 4000 requests, in several generations.
pub(super) fn row_of_generations(folder: &Path) {
    let mut ledger = open_with(Setup { generation_size: (1 << 19) + 1, ..setup(folder) });
    for number in 1..=13 {
        write_log(folder, number, 4000);
        assert_eq!(ledger.seal(&seal()).expect("it seals").rows, 4000);
    }
    let names = ledger.generations.list().expect("it lists");
    assert!(names.len() >= 3, "{names:?}");
}

pub(super) fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(copied.success());
}

pub(super) fn seal() -> Seal {
    Seal { now_ms: 1000, ..Seal::default() }
}

#[test]
fn a_log_that_comes_back_after_its_rows_were_committed_is_not_sealed_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, bytes) = write_log(folder.path(), 1, 10);
    let mut ledger = open(folder.path());
    assert_eq!(ledger.seal(&seal()).expect("it seals").rows, 10);
    assert!(!path.exists());
    drop(ledger);
    fs::write(&path, &bytes).expect("the power cut undid the removal");
    let mut ledger = open(folder.path());
    let report = ledger.seal(&seal()).expect("it seals");
    assert_eq!((report.rows, report.files), (0, 1));
    assert!(!path.exists());
}

#[test]
fn negative_control_without_the_cursor_the_same_rows_are_sealed_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, bytes) = write_log(folder.path(), 1, 10);
    let mut ledger = open(folder.path());
    ledger.seal(&seal()).expect("it seals");
    ledger.state.cursors.clear();
    fs::write(&path, &bytes).expect("it writes");
    assert_eq!(ledger.seal(&seal()).expect("it seals").rows, 10);
}

#[test]
fn a_newest_generation_that_is_lost_begins_a_new_stream_and_is_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    write_log(folder.path(), 1, 10);
    let mut ledger = open(folder.path());
    ledger.seal(&seal()).expect("it seals");
    let before = ledger.oldest(None, 1).expect("it reads").expect("it is there");
    drop(ledger);
    let generations = Generations::open(folder.path()).expect("it opens");
    let name = generations.list().expect("it lists")[0];
    fs::write(generations.path(name).join("db"), vec![0x5a; 1 << 20]).expect("it writes");

    let mut ledger = open(folder.path());
    assert_eq!(ledger.seal(&seal()).expect("it seals").rows, 1, "the gap");
    let file = ledger.oldest(None, 1).expect("it reads").expect("it is there");
    assert_ne!(file.at.stream, before.at.stream);
    assert_eq!(file.at.seq, 1);
    let verified = segment::open(&file.bytes, &ledger.key.public()).expect("it verifies");
    let rows: Vec<_> = verified.rows().collect();
    assert!(matches!(rows[..], [Row::Gap(gap)] if gap.reason == GapReason::GenerationLost), "{rows:?}");
    let kept = fs::read_dir(folder.path().join("generations")).expect("it lists").count();
    assert_eq!(kept, 2, "the new one, and the bad one for whoever looks into it");
}

#[test]
fn a_generation_set_back_in_time_is_noticed_by_the_mark_and_its_numbers_are_not_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    write_log(folder.path(), 1, 10);
    let mut ledger = open(folder.path());
    ledger.seal(&seal()).expect("it seals");
    drop(ledger);
    let (now, then) = (folder.path().join("generations"), folder.path().join("then"));
    copy(&now, &then);
    write_log(folder.path(), 2, 10);
    let mut ledger = open(folder.path());
    assert_eq!(ledger.seal(&seal()).expect("it seals").files, 2);
    let stream = ledger.state.stream;
    drop(ledger);
    fs::remove_dir_all(&now).expect("removed");
    fs::rename(&then, &now).expect("set back");
    let mut ledger = open(folder.path());
    assert_ne!(ledger.state.stream, stream);
    ledger.seal(&seal()).expect("it seals");
    let first = ledger.oldest(None, 1).expect("it reads").expect("the file that survived");
    let second = ledger.oldest(Some(first.at), 1).expect("it reads").expect("the one with the gap");
    assert_eq!((first.at.stream.0, second.at.seq), (stream, 1));
}

/// Ten rows of a log that is still written are sealed, and a power cut takes the mark; after `starts` starts the generation
/// is damaged. How often rows are told, and how many gaps of generations.
fn told_without_a_mark(starts: u32) -> (u64, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, bytes) = write_log(folder.path(), 1, 10);
    let mut ledger = open(folder.path());
    let live = vec![(1, bytes.len() as u64 - HEAD as u64)];
    assert_eq!(ledger.seal(&Seal { live, ..seal() }).expect("it seals").rows, 10);
    let file = ledger.oldest(None, 1).expect("it reads").expect("the hub gets it");
    let told = u64::from(segment::open(&file.bytes, &ledger.key.public()).expect("it verifies").header().requests);
    drop(ledger);
    fs::remove_file(folder.path().join("mark")).expect("it was not synced");
    for _ in 0..starts {
        drop(open(folder.path()));
    }
    let generations = Generations::open(folder.path()).expect("it opens");
    let name = generations.list().expect("it lists")[0];
    fs::write(generations.path(name).join("db"), vec![0x5a; 1 << 20]).expect("it writes");
    let books = drain(&mut open(folder.path()));
    (told + books.requests, books.gaps.iter().filter(|gap| gap.reason == GapReason::GenerationLost).count())
}

#[test]
fn a_mark_that_a_power_cut_took_is_there_again_after_the_next_start() {
    assert_eq!(told_without_a_mark(1), (10, 1));
}

#[test]
fn negative_control_without_a_mark_a_damaged_generation_takes_the_cursors_with_it() {
    assert_eq!(told_without_a_mark(0), (20, 1), "both are lost at once, so the same is told twice");
}

#[test]
fn a_damaged_generation_anywhere_in_the_row_becomes_a_gap_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    fs::create_dir(&whole).expect("a folder");
    row_of_generations(&whole);
    let names = Generations::open(&whole).expect("it opens").list().expect("it lists");
    for (name, opens) in names.iter().flat_map(|name| [(name, true), (name, false)]) {
        let damaged = folder.path().join("damaged");
        copy(&whole, &damaged);
        let generations = Generations::open(&damaged).expect("it opens");
        let bad = name.number;
        let opener = Opener::new(move |number, folder| match number == bad && !opens {
            true => Err(generation::Error::Damaged("sled panicked".into())),
            false => Generation::open(folder),
        });
        if opens {
            // Then sled takes it for an empty one.
            fs::write(generations.path(*name).join("db"), vec![0x5a; 1 << 20]).expect("it writes");
        }
        let books = drain(&mut Ledger::open(setup(&damaged), &Known::default(), opener, 1000).expect("it opens"));
        let gone = 13 - books.requests / 4000;
        assert!(gone > 0 && name.held.is_none_or(|held| held.files == gone), "{name:?}: {gone}");
        let told: Vec<_> = books.gaps.iter().map(|gap| (gap.reason, gap.from_ms, gap.count)).collect();
        assert_eq!(told, [(GapReason::GenerationLost, name.first_ms, None)], "{name:?}");
        fs::remove_dir_all(&damaged).expect("removed");
    }
}

#[test]
fn a_generation_that_sled_cut_in_silence_is_told_as_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    fs::create_dir(&whole).expect("a folder");
    row_of_generations(&whole);
    let oldest = Generations::open(&whole).expect("it opens").list().expect("it lists")[0];
    let (mut lost, mut in_part) = (0, 0);
    for at in (0..1 << 20).step_by(36_000) {
        let cut = folder.path().join("cut");
        copy(&whole, &cut);
        let path = Generations::open(&cut).expect("it opens").path(oldest).join("db");
        let mut bytes = fs::read(&path).expect("it reads");
        let Some(byte) = bytes.get_mut(at) else { break };
        *byte ^= 0x55;
        fs::write(&path, &bytes).expect("it writes");
        let books = drain(&mut open(&cut));
        let missing = 13 - books.requests / 4000;
        assert!(missing == 0 || books.gaps.len() == 1, "byte {at}: {missing} files lost, {:?}", books.gaps);
        lost += u64::from(missing > 0);
        in_part += u64::from((1..3).contains(&missing));
        fs::remove_dir_all(&cut).expect("removed");
    }
    assert!(lost > 3 && in_part > 0, "{lost} {in_part}: if nothing is ever lost, this proves nothing");
}

#[test]
fn a_file_with_a_missing_part_is_a_gap_of_its_rows_and_one_without_its_entry_of_nobody_knows_how_many() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    for number in 1..=4 {
        write_log(folder.path(), number, 1000);
        ledger.seal(&seal()).expect("it seals");
    }
    let mut changes = Changes::default();
    changes.remove(Key { seq: 2, part: 2 });
    changes.remove(Key { seq: 3, part: 0 });
    ledger.generation().and_then(|generation| Ok(generation.commit(changes)?)).expect("it commits");
    drop(ledger);
    let mut ledger = open(folder.path());
    let books = drain(&mut ledger);
    assert_eq!(books.requests, 2000);
    let told: Vec<_> = books.gaps.iter().map(|gap| (gap.reason, gap.count)).collect();
    assert_eq!(told, [(GapReason::GenerationLost, Some(1000)), (GapReason::GenerationLost, None)]);
    let left = ledger.generation().and_then(|generation| Ok(generation.key_after(crate::spool::state::BEFORE_FILES)?));
    assert_eq!(left.expect("it reads"), None, "nothing of them is left behind");
}

#[test]
fn a_crash_between_noting_a_loss_and_setting_it_aside_tells_it_once() {
    let folder = tempfile::tempdir().expect("a folder");
    row_of_generations(folder.path());
    let generations = Generations::open(folder.path()).expect("it opens");
    let name = generations.list().expect("it lists")[0];
    generations.condemn(name, 900).expect("condemned");
    drop(open(folder.path())); // told, and set aside
    let bad = generations.path(name).with_extension("bad-900");
    fs::rename(&bad, bad.with_extension("lost-900")).expect("the crash undid it");
    let books = drain(&mut open(folder.path()));
    let gap = Gap { reason: GapReason::GenerationLost, from_ms: name.first_ms, to_ms: 900, count: None };
    assert_eq!(books.gaps, [gap]);
}

#[test]
fn a_report_and_a_seal_open_the_newest_generation_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    row_of_generations(folder.path());
    let newest = Generations::open(folder.path()).expect("it opens").list().expect("it lists").len();
    write_log(folder.path(), 20, 10);
    let opener = Opener::new(move |number, folder| {
        assert_eq!(usize::try_from(number), Ok(newest), "each opening writes and syncs");
        Generation::open(folder)
    });
    let setup = Setup { generation_size: u64::MAX, ..setup(folder.path()) };
    let mut ledger = Ledger::open(setup, &Known::default(), opener, 1000).expect("it opens");
    assert_eq!(ledger.report().expect("it tells").files, 13);
    assert_eq!(ledger.seal(&seal()).expect("it seals").files, 14);
}

#[test]
fn a_new_device_key_begins_a_new_stream_behind_the_files_of_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let seal_one = |ledger: &mut Ledger, number| {
        write_log(folder.path(), number, 10);
        ledger.seal(&seal()).expect("it seals");
    };
    let mut ledger = open(folder.path());
    (1..=2).for_each(|number| seal_one(&mut ledger, number));
    let (old, old_key) = (ledger.state.stream, ledger.key.public());
    drop(ledger);
    let mut ledger = open_with(Setup { seed: Seed([8; 32]), ..setup(folder.path()) });
    (3..=4).for_each(|number| seal_one(&mut ledger, number));
    let new = ledger.state.stream;
    let (mut after, mut found) = (None, Vec::new());
    while let Some(file) = ledger.oldest(after, 1).expect("it reads") {
        let key = if file.at.stream.0 == old { &old_key } else { &ledger.key.public() };
        segment::open(&file.bytes, key).expect("it was signed by the key of its stream");
        found.push((file.at.stream.0, file.at.seq));
        after = Some(file.at);
    }
    assert_eq!(found, [(old, 1), (old, 2), (new, 1), (new, 2)]);
}

#[test]
fn a_copied_spool_keeps_its_sealed_files_and_goes_on_in_a_stream_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let seal_one = |number| {
        write_log(folder.path(), number, 10);
        let mut ledger = open(folder.path());
        ledger.seal(&seal()).expect("it seals");
        ledger.state.stream
    };
    let old = seal_one(1);
    // The control: without the mark it is the same stream.
    assert_eq!(seal_one(2), old);
    write_log(folder.path(), 3, 10);
    let aside = renew(folder.path()).expect("renewed").expect("there was an open log");
    assert_eq!(fs::read_dir(&aside).expect("set aside").count(), 1);
    assert_eq!(renew(folder.path()).expect("after a crash, once more"), None);
    let new = seal_one(4);
    assert_ne!(new, old);
    assert_eq!(seal_one(5), new, "the mark is gone");
    let (mut after, mut found) = (None, Vec::new());
    let mut ledger = open(folder.path());
    while let Some(file) = ledger.oldest(after, 1).expect("it reads") {
        found.push((file.at.stream.0, file.at.seq));
        after = Some(file.at);
    }
    assert_eq!(found, [(old, 1), (old, 2), (new, 1), (new, 2)]);
}

#[test]
fn losses_that_wait_when_a_card_is_copied_are_told_by_one_of_both() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("open")).expect("a folder");
    let mut losses = Losses::load(folder.path(), 1);
    losses.lost(40);
    losses.save(folder.path()).expect("it writes");
    // The control: they are what the next start tells.
    assert!(!Losses::load(folder.path(), 2).is_empty());
    let aside = renew(folder.path()).expect("renewed").expect("something waited");
    assert!(Losses::load(folder.path(), 2).is_empty());
    assert!(!Losses::load(&aside, 2).is_empty(), "they are where the logs are");
}

#[test]
fn losses_that_a_child_told_before_it_died_are_not_told_again_by_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("open")).expect("a folder");
    let mut losses = Losses::load(folder.path(), 1);
    losses.note(Gap { reason: GapReason::LogDamaged, from_ms: 0, to_ms: 1, count: None });
    losses.lost(40);
    let asked = Seal { losses, ..seal() };
    assert_eq!(open(folder.path()).seal(&asked).expect("it seals").rows, 2);
    // Its answer never came, so the daemon asks for the same once more; then more is lost.
    assert_eq!(open(folder.path()).seal(&asked).expect("it answers").rows, 0);
    let mut more = asked;
    more.losses.lost(50);
    open(folder.path()).seal(&more).expect("it seals");
    let gaps = drain(&mut open(folder.path())).gaps;
    assert_eq!(gaps.iter().filter_map(|gap| gap.count).sum::<u64>(), 50);
    assert_eq!(gaps.len(), 3);
}

#[test]
fn the_backlog_is_limited_by_the_disk_that_it_takes_and_not_by_the_bytes_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open_with(Setup { backlog_limit: 256 << 10, ..setup(folder.path()) });
    write_log(folder.path(), 1, 500);
    let report = ledger.seal(&seal()).expect("there is room");
    drop(ledger);
    let mut ledger = open_with(Setup { backlog_limit: 256 << 10, ..setup(folder.path()) });
    write_log(folder.path(), 2, 500);
    assert!(report.bytes < 32 << 10);
    assert!(matches!(ledger.seal(&seal()), Err(Error::Refused(BACKLOG_FULL))));
    let report = ledger.report().expect("it tells");
    assert!(report.disk_bytes > 256 << 10, "{report:?}");
}
