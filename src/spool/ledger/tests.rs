use std::path::Path;

use super::*;
use crate::spool::lane::OpenLog;
use crate::spool::log::{self, FRAME_LIMIT, HEAD, Preamble, finish_frame};
use crate::spool::record::{GapReason, Row};
use crate::units::Bytes;

fn setup(folder: &Path) -> Setup {
    Setup {
        folder: folder.to_owned(),
        seed: [7; 32],
        generation_size: Bytes(1 << 20).0,
        backlog_limit: u64::MAX,
        free_floor: 0,
    }
}

/// A finished log of `rows` gaps: any row serves.
fn write_log(folder: &Path, number: u32, rows: u32) -> (PathBuf, Vec<u8>) {
    fs::create_dir_all(folder.join("open")).expect("a folder");
    let name = log::Name { number, id: u64::from(number) };
    let preamble = Preamble { boot: lane::boot_id(), made_ms: 1 };
    drop(OpenLog::make(&folder.join("open"), name, preamble).expect("it is made"));
    let path = folder.join("open").join(name.file_name());
    let mut bytes = fs::read(&path).expect("it reads");
    for number in 0..=rows {
        let gap = crate::spool::record::Gap { reason: GapReason::NoSpace, from_ms: 5, to_ms: 6, count: Some(1) };
        let mut frame = [0; FRAME_LIMIT];
        let len = Row::Gap(gap).encode(&mut frame[HEAD..]).expect("it fits").len();
        let len = if number == rows { 0 } else { len }; // the end row
        finish_frame(&mut frame[..HEAD + len], number);
        bytes.extend(&frame[..HEAD + len]);
    }
    fs::write(&path, &bytes).expect("it writes");
    (path, bytes)
}

fn seal() -> Seal {
    Seal { now_ms: 1000, ..Seal::default() }
}

#[test]
fn a_log_that_comes_back_after_its_rows_were_committed_is_not_sealed_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, bytes) = write_log(folder.path(), 1, 10);
    let mut ledger = Ledger::open(setup(folder.path()), 1).expect("it opens");
    assert_eq!(ledger.seal(&seal()).expect("it seals").rows, 10);
    assert!(!path.exists());
    drop(ledger);
    fs::write(&path, &bytes).expect("the power cut undid the removal");
    let mut ledger = Ledger::open(setup(folder.path()), 1).expect("it opens");
    let report = ledger.seal(&seal()).expect("it seals");
    assert_eq!((report.rows, report.files), (0, 1));
    assert!(!path.exists());
}

#[test]
fn negative_control_without_the_cursor_the_same_rows_are_sealed_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, bytes) = write_log(folder.path(), 1, 10);
    let mut ledger = Ledger::open(setup(folder.path()), 1).expect("it opens");
    ledger.seal(&seal()).expect("it seals");
    ledger.state.cursors.clear();
    fs::write(&path, &bytes).expect("it writes");
    assert_eq!(ledger.seal(&seal()).expect("it seals").rows, 10);
}

#[test]
fn a_newest_generation_that_is_lost_begins_a_new_stream_and_is_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    write_log(folder.path(), 1, 10);
    let mut ledger = Ledger::open(setup(folder.path()), 1).expect("it opens");
    ledger.seal(&seal()).expect("it seals");
    let before = ledger.oldest(None, 1).expect("it reads").expect("it is there");
    drop(ledger);
    let generations = Generations::open(folder.path()).expect("it opens");
    let name = generations.list().expect("it lists")[0];
    fs::write(generations.path(name).join("db"), vec![0x5a; 1 << 20]).expect("it writes");

    let mut ledger = Ledger::open(setup(folder.path()), 2000).expect("it opens all the same");
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
    let mut ledger = Ledger::open(setup(folder.path()), 1).expect("it opens");
    ledger.seal(&seal()).expect("it seals");
    drop(ledger);
    let (now, then) = (folder.path().join("generations"), folder.path().join("then"));
    let copied = std::process::Command::new("cp").arg("-a").args([&now, &then]).status().expect("cp runs");
    assert!(copied.success());
    write_log(folder.path(), 2, 10);
    let mut ledger = Ledger::open(setup(folder.path()), 1).expect("it opens");
    assert_eq!(ledger.seal(&seal()).expect("it seals").files, 2);
    let stream = ledger.state.stream;
    drop(ledger);
    fs::remove_dir_all(&now).expect("removed");
    fs::rename(&then, &now).expect("set back");
    let mut ledger = Ledger::open(setup(folder.path()), 1).expect("it opens");
    assert_ne!(ledger.state.stream, stream);
    ledger.seal(&seal()).expect("it seals");
    let first = ledger.oldest(None, 1).expect("it reads").expect("the file that survived");
    let second = ledger.oldest(Some(first.at), 1).expect("it reads").expect("the one with the gap");
    assert_eq!((first.at.stream.0, second.at.seq), (stream, 1));
}
