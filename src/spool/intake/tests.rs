use std::fs::File;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::*;
use crate::spool::log::{Found, Name, PREAMBLE, look};
use crate::spool::tests::record;

/// A log that takes `room` bytes and no more, as on a disk that is full then.
fn cramped(room: u64) -> Arc<OpenLog> {
    let file = File::from(memfd_create("log", MemfdFlags::ALLOW_SEALING).expect("memory"));
    file.set_len(PREAMBLE as u64 + room).expect("it grows");
    fcntl_add_seals(&file, SealFlags::GROW).expect("it takes a seal");
    Arc::new(OpenLog::of(Name { number: 1, id: 1 }, file))
}

fn intake(log: &Arc<OpenLog>, folder: &Path) -> Intake {
    let mut intake = Intake::lost();
    intake.sums.make(folder, 0).expect("a folder that takes files");
    intake.lane.limit.store(u64::MAX, Ordering::Relaxed);
    intake.log = Some(Arc::clone(log));
    intake.log_size = u64::MAX;
    intake
}

/// The numbers of the whole rows of a log, up to its end.
fn rows(log: &OpenLog) -> Vec<u32> {
    let mut bytes = vec![0; usize::try_from(log.end.load(Ordering::Relaxed)).expect("short") - PREAMBLE];
    log.file.read_exact_at(&mut bytes, PREAMBLE as u64).expect("what is written can be read");
    let (mut numbers, mut rest) = (Vec::new(), &bytes[..]);
    while let Found::Row { number, len, .. } = look(rest) {
        numbers.push(number);
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "{} bytes that are no row", rest.len());
    numbers
}

fn counts(intake: &Intake) -> (u64, u64, u64) {
    let Lane { appended, rolled_up, lost, .. } = &*intake.lane;
    (appended.load(Ordering::Relaxed), rolled_up.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
}

#[test]
fn what_is_held_is_nowhere_until_it_is_flushed_and_then_in_order() {
    let (folder, log) = (tempfile::tempdir().expect("a folder"), cramped(1 << 20));
    let mut intake = intake(&log, folder.path());
    (0..5).for_each(|number| intake.hold(&record(number)));
    assert_eq!((rows(&log), counts(&intake)), (vec![], (0, 0, 0)));
    intake.flush();
    intake.append(&record(5));
    assert_eq!((rows(&log), counts(&intake)), ((0..6).collect(), (6, 0, 0)));
    // More than are held at a time: the oldest are written to make room.
    (0..100).for_each(|number| intake.hold(&record(number)));
    assert!(rows(&log).len() > 6);
    intake.flush();
    assert_eq!(rows(&log), (0..106).collect::<Vec<_>>());
}

#[test]
fn what_anybody_can_send_takes_only_the_room_that_refusals_have() {
    let (folder, log) = (tempfile::tempdir().expect("a folder"), cramped(1 << 20));
    let mut intake = intake(&log, folder.path());
    intake.hold_open(&record(0));
    intake.hold(&record(1));
    intake.flush();
    assert_eq!(counts(&intake), (1, 1, 0), "there is none");
    intake.lane.refusals_limit.store(1 << 10, Ordering::Relaxed);
    (0..100).for_each(|number| {
        intake.hold_open(&record(number));
        intake.flush();
    });
    let (rows, summed, _) = counts(&intake);
    assert!(rows > 2 && summed > 10, "{rows} {summed}");
    intake.hold(&record(1));
    intake.flush();
    assert_eq!(counts(&intake).0, rows + 1, "those who are known have room");
}

#[test]
fn rows_that_a_full_disk_takes_half_are_cut_off_and_go_into_a_sum() {
    let folder = tempfile::tempdir().expect("a folder");
    let row = {
        let log = cramped(1 << 20);
        intake(&log, folder.path()).append(&record(0));
        log.end.load(Ordering::Relaxed) - PREAMBLE as u64 - HEAD as u64 // and its end row
    };
    // A page boundary is where this disk is full, in the middle of a row.
    let page = 4096 - PREAMBLE as u64;
    let fit = u32::try_from(page / row).expect("few");
    assert_ne!(page % row, 0);
    let log = cramped(page);
    let mut intake = intake(&log, folder.path());
    let held = u8::try_from(fit + 3).expect("few");
    (0..held).for_each(|number| intake.hold(&record(number)));
    intake.flush();
    assert_eq!((rows(&log), counts(&intake)), ((0..fit).collect(), (u64::from(fit), 3, 0)));
    assert_eq!(log.rows.load(Ordering::Relaxed), fit);
    // It stays so, and nothing is counted twice.
    intake.append(&record(1));
    assert_eq!((rows(&log).len(), counts(&intake)), (fit as usize, (u64::from(fit), 4, 0)));
}
