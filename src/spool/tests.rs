//! The writer thread and its child together, on a disk that fails where a test says. The child is this test
//! binary, started again with the name of a test that does nothing unless the environment says so.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::backlog::{Backlog as _, UsageFile};
use super::record::{Gap, GapReason, Row, SAMPLE, UsageRecord};
use super::{Config, Program, Spool, child, segment};
use crate::ids::RequestId;
use crate::keys::SigningKey;
use crate::store::generation::{Error, Generation};
use crate::units::{Bytes, Span};

const FAULT: &str = "TIDEGATE_TEST_SPOOL_FAULT";

/// The entry of the child; not a test otherwise.
#[test]
fn child_entry() {
    let Ok(fault) = std::env::var(FAULT) else { return };
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().expect("a socket"));
    let done = match &*fault {
        "none" => child::serve(socket, |_, folder| Generation::open(folder)),
        "unreadable" => child::serve(socket, |number, folder| match number {
            1 => Err(Error::Unreadable(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))),
            _ => Generation::open(folder),
        }),
        "dies" => child::serve(socket, |number, folder| match number {
            1 => std::process::exit(3),
            _ => Generation::open(folder),
        }),
        other => panic!("{other}"),
    };
    done.expect("it serves");
    std::process::exit(0);
}

fn program(fault: &str) -> Program {
    let exe = std::env::current_exe().expect("a test has a path");
    let fault = format!("{FAULT}={fault}");
    let arguments = [&*fault, exe.to_str().expect("UTF-8"), "--exact", "spool::tests::child_entry"];
    Program { path: "/usr/bin/env".into(), arguments: arguments.map(String::from).into() }
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).expect("a seed makes a key")
}

/// Each file in a generation of its own, and sealed only when asked.
fn start(folder: &Path, fault: &str) -> Spool {
    let never = Span::secs(3600);
    let config =
        Config { generation_size: Bytes(1), seal_after: never, seal_after_offline: never, ..Config::default() };
    Spool::start(&config, folder, &key(), program(fault), 1).expect("it starts")
}

pub(super) fn record(number: u8) -> UsageRecord<'static> {
    UsageRecord { request: RequestId([number; 16]), ..SAMPLE }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute") })
}

fn rows(file: &UsageFile) -> (usize, Vec<Gap>) {
    let verified = segment::open(&file.bytes, &key().public()).expect("it verifies");
    let gaps = verified.rows().filter_map(|row| if let Row::Gap(gap) = row { Some(gap) } else { None }).collect();
    (verified.rows().filter(|row| matches!(row, Row::Request(_))).count(), gaps)
}

#[test]
fn a_generation_that_kills_or_fails_its_readers_twice_becomes_a_gap_and_the_next_files_come() {
    for fault in ["unreadable", "dies"] {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = start(folder.path(), "none");
        let mut intake = spool.intake(0);
        for number in 1..=3 {
            intake.append(&record(number));
            spool.seal_now();
            wait(spool.oldest(None)).expect("it answers");
        }
        drop(intake);
        spool.stop();
        drop(spool);

        let spool = start(folder.path(), fault);
        let failures = (0..10).take_while(|_| wait(spool.oldest(None)).is_err()).count();
        assert_eq!(failures, 2, "{fault}: it is tried again by a fresh child, and then given up");
        spool.seal_now();
        let mut found = (0, Vec::new());
        while let Some(file) = wait(spool.oldest(None)).expect("it answers") {
            wait(spool.acknowledge(file.at, &file.digest)).expect("it answers");
            let (requests, gaps) = rows(&file);
            found.0 += requests;
            found.1.extend(gaps);
        }
        assert_eq!(found.0, 2, "{fault}");
        let told: Vec<_> = found.1.iter().map(|gap| (gap.reason, gap.count)).collect();
        assert_eq!(told, [(GapReason::GenerationLost, None)], "{fault}");
    }
}

/// A child that never answers, and ends after some seconds.
fn hung(seconds: &str) -> Program {
    Program { path: "/bin/sleep".into(), arguments: vec![seconds.into()] }
}

#[test]
fn no_worker_waits_for_a_child_that_hangs_over_what_an_earlier_run_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = start(folder.path(), "none");
    let mut intake = spool.intake(0);
    intake.append(&record(1));
    drop((intake, spool)); // not sealed, so the next start has something to seal
    let begun = std::time::Instant::now();
    let spool = Spool::start(&Config::default(), folder.path(), &key(), hung("6"), 3).expect("it starts");
    let intakes: Vec<_> = (0..3)
        .map(|worker| {
            std::thread::sleep(Duration::from_millis(300)); // as if the gateway had to do something in between
            spool.intake(worker)
        })
        .collect();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop((intakes, spool));
}

#[test]
fn records_are_synced_at_their_pace_while_the_child_hangs() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { sync_interval: Span::millis(100), ..Config::default() };
    let spool = Spool::start(&config, folder.path(), &key(), hung("6"), 1).expect("it starts");
    let mut intake = spool.intake(0);
    intake.append(&record(1));
    spool.seal_now(); // the writer thread now waits for the child
    let begun = std::time::Instant::now();
    for _ in 0..3 {
        intake.append(&record(2));
        while spool.status().unsynced_bytes > 0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "nothing is synced meanwhile");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    drop(intake);
}

#[test]
fn damaged_sums_are_a_gap_also_if_the_daemon_stops_before_it_can_tell() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("cut off", |path| {
            File::options().write(true).open(path).and_then(|file| file.set_len(4096)).expect("it cuts")
        }),
        ("too long", |path| {
            File::options().write(true).open(path).and_then(|file| file.set_len(9000)).expect("it grows")
        }),
        ("a bad slot", |path| fs::write(path, [7; 8192]).expect("it writes")),
        ("not a file", |path| fs::remove_file(path).and_then(|()| fs::create_dir(path)).expect("it is made")),
    ];
    for (what, harm) in harms {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = start(folder.path(), "none");
        drop(spool.intake(0));
        drop(spool);
        harm(&folder.path().join("open/counts-000"));
        // This daemon sees it, makes the file good, and has no child to tell it.
        let nobody = Program { path: "/nonexistent".into(), arguments: Vec::new() };
        let spool = Spool::start(&Config::default(), folder.path(), &key(), nobody, 1).expect("it starts");
        drop(spool.intake(0));
        drop(spool);
        let spool = start(folder.path(), "none");
        let _intake = spool.intake(0);
        spool.seal_now();
        let file = wait(spool.oldest(None)).expect("it answers").expect("a gap is something to seal");
        let told: Vec<_> = rows(&file).1.iter().map(|gap| (gap.reason, gap.count)).collect();
        assert_eq!(told, [(GapReason::LogDamaged, None)], "{what}");
        wait(spool.acknowledge(file.at, &file.digest)).expect("it answers");
        spool.seal_now();
        assert_eq!(wait(spool.oldest(None)), Ok(None), "{what}: it is told once");
    }
}

#[test]
fn a_backlog_that_three_generations_and_a_file_fill_is_no_setting() {
    let with = |limit| Config { generation_size: Bytes(16 << 20), backlog_limit: Bytes(limit), ..Config::default() };
    let least = (48 << 20) + segment::FILE_LIMIT as u64;
    assert_eq!(with(least).check(), []);
    assert_eq!(with(least - 1).check().iter().map(|unfit| unfit.key).collect::<Vec<_>>(), ["backlog_limit"]);
    assert_eq!(with(16 << 20).check().len(), 1);
}
