//! Ordinary running: records in, files out, limits kept, nothing twice and nothing lost.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tidegate::spool::backlog::Backlog as _;
use tidegate::spool::record::{GapReason, Outcome, UsageRecord};
use tidegate::spool::{Config, Error, Program, Spool, WhenFull};
use tidegate::telemetry::{Heartbeats, Standstill};
use tidegate::units::{Bytes, Span};

use crate::support::{Books, append, drain, key, patient, program, record, start, wait};

#[test]
fn every_record_comes_out_once_in_a_chain_and_the_disk_is_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { generation_size: Bytes(1 << 20), log_size: Bytes(256 << 10), ..patient() };
    let spool = start(folder.path(), &config);
    let mut intake = spool.intake(0);
    let mut changes = spool.changes();
    (0..45_000).for_each(|number| intake.append(&record(number)));
    wait(changes.wait_for(|waiting| waiting.files >= 4)).expect("full files are sealed unasked");
    let mut books = Books::default();
    drain(&spool, &mut books);
    books.holds_once(0..45_000);
    assert_eq!((books.gaps.len(), books.summed.len()), (0, 0));
    assert!(books.files.iter().filter(|file| file.bytes.len() < 300 << 10).count() >= 4);
    let status = spool.status();
    assert_eq!((status.appended, status.rolled_up, status.lost, status.files), (45_000, 0, 0, 0));
    drop(intake);
    spool.stop();
    assert_eq!(entries(&folder.path().join("generations")), 1, "drained generations are deleted");
}

#[test]
fn what_is_not_sealed_when_it_stops_waits_for_the_next_start_without_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    for life in 0..3 {
        let spool = start(folder.path(), &patient());
        let mut intake = spool.intake(0);
        (life * 10..life * 10 + 10).for_each(|number| intake.append(&record(number)));
        drop(intake);
        spool.stop();
    }
    let spool = start(folder.path(), &patient());
    let mut books = Books::default();
    drain(&spool, &mut books);
    books.holds_once(0..30);
    assert_eq!(books.gaps, []);
}

#[test]
fn an_idle_spool_tells_its_backlog_after_a_start_without_being_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = start(folder.path(), &patient());
    let mut intake = spool.intake(0);
    intake.append(&record(1));
    spool.seal_now();
    let file = wait(spool.oldest(None)).expect("it answers").expect("it was sealed");
    drop(intake);
    spool.stop();
    drop(spool);
    let spool = start(folder.path(), &patient());
    let _intake = spool.intake(0);
    wait(spool.changes().wait_for(|waiting| waiting.files == 1)).expect("the uploader learns of it");
    let same = wait(spool.oldest(None)).expect("it answers").expect("it is still there");
    assert_eq!(same, file);
    assert_eq!(wait(spool.oldest(Some(file.at))).expect("it answers"), None);
}

#[test]
fn only_the_right_digest_deletes_and_deleting_twice_is_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = start(folder.path(), &patient());
    let mut intake = spool.intake(0);
    intake.append(&record(1));
    spool.seal_now();
    let file = wait(spool.oldest(None)).expect("it answers").expect("it was sealed");
    let other = tidegate::keys::sha256(b"other bytes");
    assert!(wait(spool.acknowledge(file.at, &other)).is_err());
    assert_eq!(wait(spool.oldest(None)).expect("it answers"), Some(file.clone()));
    for _ in 0..2 {
        wait(spool.acknowledge(file.at, &file.digest)).expect("it answers");
        assert_eq!(wait(spool.oldest(None)).expect("it answers"), None);
    }
}

#[test]
fn a_flood_of_refusals_keeps_its_budget_and_paid_usage_keeps_its_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = start(folder.path(), &patient());
    let mut intake = spool.intake(0);
    for number in 0..1000 {
        let refused = UsageRecord { outcome: Outcome::TokenMissing, ..record(number) };
        intake.append_unauthenticated(&refused, Duration::from_secs(100));
        intake.append(&record(10_000 + number));
    }
    let mut books = Books::default();
    drain(&spool, &mut books);
    books.holds_once((0..10).chain(10_000..11_000));
    assert_eq!(books.summed.get(&Outcome::TokenMissing), Some(&990));
    let refused = UsageRecord { outcome: Outcome::TokenMissing, ..record(5000) };
    intake.append_unauthenticated(&refused, Duration::from_secs(100));
    drain_sums(&spool, &mut books, 1);
    assert_eq!(books.summed.get(&Outcome::TokenMissing), Some(&991), "a sum is told once");
}

#[test]
fn refusals_take_a_quarter_of_the_room_at_most_and_the_rest_is_for_paid_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    let any = 1_000_000_000;
    let config = Config { open_limit: Bytes(40_000), unauthenticated_records: any, ..patient() };
    let spool = start(folder.path(), &config);
    let mut intake = spool.intake(0);
    (0..1000).for_each(|number| intake.append_unauthenticated(&record(number), Duration::from_secs(number)));
    let refused = spool.status();
    (1000..2000).for_each(|number| intake.append(&record(number)));
    let status = spool.status();
    assert!((10..80).contains(&refused.appended), "{refused:?}");
    assert!(status.appended > 3 * refused.appended, "{status:?}");
    drop((intake, spool));

    // In sealed files it is the same, by the disk that they take.
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { backlog_limit: Bytes(2 << 20), unauthenticated_records: any, ..patient() };
    let spool = start(folder.path(), &config);
    let mut intake = spool.intake(0);
    let mut number = 0;
    while spool.status().disk_bytes < 512 << 10 {
        intake.append_unauthenticated(&record(number), Duration::from_secs(number));
        intake.append(&record(number));
        spool.seal_now();
        wait(spool.oldest(None)).expect("it answers");
        number += 1;
        assert!(number < 100, "{:?}", spool.status());
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while spool.status().rolled_up == 0 {
        intake.append_unauthenticated(&record(number), Duration::from_secs(number));
        number += 1;
        assert!(Instant::now() < deadline, "the intake never learns of it: {:?}", spool.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    let full = spool.status();
    (number..number + 100).for_each(|number| intake.append(&record(number)));
    assert_eq!(spool.status().appended, full.appended + 100, "paid usage is kept");
}

/// Sums are not in `open_bytes`: seal until they came.
fn drain_sums(spool: &Spool, books: &mut Books, more: u64) {
    let expected = books.summed.values().sum::<u64>() + more;
    while books.summed.values().sum::<u64>() < expected {
        drain(spool, books);
    }
}

#[test]
fn records_over_the_limit_are_counted_and_the_books_still_balance() {
    let folder = tempfile::tempdir().expect("a folder");
    let when_full = WhenFull::DropNewest;
    let config = Config { open_limit: Bytes(20_000), backlog_limit: Bytes(0), when_full, ..patient() };
    let spool = start(folder.path(), &config);
    let mut intake = spool.intake(0);
    (0..1000).for_each(|number| intake.append(&record(number)));
    let status = spool.status();
    assert!(status.appended > 50 && status.rolled_up > 500, "{status:?}");
    spool.seal_now();
    assert_eq!(wait(spool.oldest(None)), Ok(None), "nothing is sealed over the backlog's limit");
    assert!(spool.status().last_error.is_some());
    drop(intake);
    spool.stop();
    drop(spool);

    let spool = start(folder.path(), &patient());
    let mut books = Books::default();
    drain_sums(&spool, &mut books, status.rolled_up);
    books.holds_once(0..status.appended);
    assert_eq!(books.summed.get(&Outcome::Admitted), Some(&status.rolled_up));
    assert_eq!(books.gaps, []);
}

#[test]
fn a_backlog_that_was_full_takes_usage_again_once_the_hub_has_it() {
    for (limit, generation) in [(1, 512), (2, 512), (2, 2048)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (backlog_limit, generation_size) = (Bytes(limit << 20), Bytes(generation << 10));
        let when_full = WhenFull::DropNewest;
        let spool = start(folder.path(), &Config { backlog_limit, generation_size, when_full, ..patient() });
        let mut intake = spool.intake(0);
        let (mut books, mut next) = (Books::default(), 0);
        for round in 0..3 {
            // Until nothing more is sealed.
            let full = loop {
                (next..next + 450).for_each(|number| append(&mut intake, number));
                next += 450;
                let before = spool.status().files;
                spool.seal_now();
                wait(spool.oldest(None)).expect("it answers");
                if spool.status().files == before {
                    break spool.status();
                }
            };
            assert!(full.files > 0 && full.last_error.is_some_and(|error| error.contains("limit")), "round {round}");
            while let Some(file) = wait(spool.oldest(None)).expect("it answers") {
                wait(spool.acknowledge(file.at, &file.digest)).expect("it answers");
                books.enter(file);
            }
            spool.seal_now();
            wait(spool.oldest(None)).expect("it answers");
            let status = spool.status();
            assert_eq!((status.files, status.last_error), (1, None), "round {round} of {limit} MiB, {generation} KiB");
        }
        drain(&spool, &mut books);
        books.holds_once(0..next);
        assert_eq!(books.gaps, []);
    }
}

#[test]
fn a_disk_that_others_fill_stops_only_the_records_and_the_counts_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { free_floor: Bytes(u64::MAX), ..patient() };
    let spool = start(folder.path(), &config);
    let mut intake = spool.intake(0);
    (0..100).for_each(|number| intake.append(&record(number)));
    let status = spool.status();
    assert_eq!((status.appended, status.rolled_up, status.lost), (0, 100, 0));
}

#[test]
fn a_power_cut_is_a_gap_of_unknown_size_and_a_killed_process_is_none() {
    for (cut, gaps) in [(true, 1), (false, 0)] {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = start(folder.path(), &patient());
        let mut intake = spool.intake(0);
        (0..10).for_each(|number| intake.append(&record(number)));
        std::mem::forget(intake); // killed: nobody closes the log
        spool.stop();
        drop(spool);
        if cut {
            pretend_another_boot(&folder.path().join("open"));
        }
        let spool = start(folder.path(), &patient());
        let mut books = Books::default();
        drain(&spool, &mut books);
        books.holds_once(0..10);
        assert_eq!(books.gaps.len(), gaps);
        if let Some(gap) = books.gaps.first() {
            assert_eq!((gap.reason, gap.count), (GapReason::UncleanStop, None));
            assert!(gap.from_ms >= record(9).at_ms && gap.to_ms > gap.from_ms, "{gap:?}");
        }
        drain(&spool, &mut books);
        assert_eq!(books.gaps.len(), gaps, "it is told once");
    }
}

/// Gives every open log the boot id of another boot.
pub(crate) fn pretend_another_boot(open: &Path) {
    for entry in fs::read_dir(open).expect("it lists") {
        let path = entry.expect("it lists").path();
        if path.extension().is_some_and(|end| end == "log") {
            let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("it opens");
            let mut preamble = [0; 40];
            file.read_exact_at(&mut preamble, 0).expect("it has one");
            preamble[12] ^= 0xff;
            let sum = crc32fast::hash(&preamble[..36]);
            preamble[36..].copy_from_slice(&sum.to_be_bytes());
            file.write_all_at(&preamble, 0).expect("it writes");
        }
    }
}

#[test]
fn two_daemons_never_share_a_spool() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = start(folder.path(), &patient());
    let second = Spool::start(&patient(), folder.path(), &key(), program(), 1);
    assert!(matches!(second, Err(Error::Locked(_))));
}

#[test]
fn a_child_that_cannot_start_costs_nothing_but_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = tidegate::spool::Program { path: "/nonexistent".into(), arguments: Vec::new() };
    let spool = Spool::start(&patient(), folder.path(), &key(), broken, 1).expect("it starts");
    let mut intake = spool.intake(0);
    intake.append(&record(1));
    assert_eq!(wait(spool.oldest(None)), Ok(None), "nothing is sealed, and no child is needed to know that");
    spool.seal_now();
    assert!(wait(spool.oldest(None)).is_err());
    assert!(spool.status().last_error.is_some());
    drop((intake, spool));
    let spool = start(folder.path(), &patient());
    let mut books = Books::default();
    drain(&spool, &mut books);
    books.holds_once([1]);
}

#[test]
fn random_operations_agree_with_the_model() {
    for seed in 1..=4 {
        model(seed);
    }
}

/// The model of a spool is a set: what was appended, and what came out.
fn model(seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config {
        generation_size: Bytes(1 << 20),
        log_size: Bytes(32 << 10),
        seal_after_offline: Span::millis(20),
        ..Config::default()
    };
    let mut state = seed;
    let mut roll = move |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let mut spool = start(folder.path(), &config);
    let mut intake = spool.intake(0);
    let (mut next, mut books) = (0, Books::default());
    for _ in 0..60 {
        match roll(6) {
            0 | 1 => {
                let more = roll(4000);
                (next..next + more).for_each(|number| intake.append(&record(number)));
                next += more;
            }
            2 => spool.seal_now(),
            3 | 4 => {
                if let Some(file) = wait(spool.oldest(None)).expect("it answers") {
                    wait(spool.acknowledge(file.at, &file.digest)).expect("it answers");
                    books.enter(file);
                }
            }
            _ => {
                if roll(2) == 0 {
                    drop(intake);
                } else {
                    std::mem::forget(intake);
                }
                drop(spool);
                spool = start(folder.path(), &config);
                intake = spool.intake(0);
            }
        }
    }
    drain(&spool, &mut books);
    books.holds_once(0..next);
    assert_eq!(books.gaps, [], "seed {seed}");
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("it lists").count()
}

#[test]
fn a_writer_thread_that_hangs_is_missed_and_one_that_stops_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    // A child that says nothing for a while, and then ends.
    let mute = Program { path: "/bin/sleep".into(), arguments: vec!["3".into()] };
    let spool = Spool::start(&patient(), folder.path(), &key(), mute, 1).expect("the spool starts");
    let silence = Duration::from_millis(1800);
    let hearts = Heartbeats::new(Instant::now(), silence);
    spool.watched(hearts.register("spool", Instant::now()));
    let until = |is_there: &dyn Fn(&Result<(), Standstill>) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = hearts.all_fresh(Instant::now());
            if is_there(&now) {
                return;
            }
            assert!(Instant::now() < deadline, "it is still {now:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::sleep(silence);
    until(&Result::is_ok);
    spool.seal_now();
    until(&|now| matches!(now, Err(Standstill::Silent { task, .. }) if task == "spool"));
    until(&Result::is_ok);
    spool.stop();
    assert_eq!(hearts.all_fresh(Instant::now() + 2 * silence), Ok(()), "it ended on purpose");
}
