use super::*;
use crate::keys::SigningKey;
use crate::spool::lane;
use crate::spool::log::{HEAD, finish_frame};
use crate::spool::record::{SAMPLE, UsageRecord};
use crate::spool::segment::{self, Place};

const NOW_MS: i64 = 1000;

fn frame(number: u32) -> Vec<u8> {
    let record = UsageRecord { at_ms: 100 + i64::from(number), ..SAMPLE };
    let mut buffer = [0; FRAME_LIMIT];
    let len = Row::Request(record).encode(&mut buffer[HEAD..]).expect("a row fits").len();
    finish_frame(&mut buffer[..HEAD + len], number);
    buffer[..HEAD + len].to_vec()
}

fn log(boot: BootId, rows: u32, ends: bool) -> Vec<u8> {
    let mut bytes = Preamble { boot, made_ms: 50, sync: 50 }.to_bytes().to_vec();
    (0..rows).for_each(|number| bytes.extend(frame(number)));
    if ends {
        let mut end = [0; HEAD];
        finish_frame(&mut end, rows);
        bytes.extend(end);
    }
    bytes
}

/// What a pass over one finished log gives: how many requests, and which gaps.
fn gathered(bytes: &[u8]) -> (usize, Vec<Gap>) {
    gathered_with(bytes, |file, buffer, at| file.read_at(buffer, at), false).expect("it reads")
}

/// The same, read in a way of its own, and around what cannot be read or not.
fn gathered_with(bytes: &[u8], read: ReadAt, around: bool) -> io::Result<(usize, Vec<Gap>)> {
    gathered_in(bytes, read, around, lane::boot_id())
}

fn gathered_in(bytes: &[u8], read: ReadAt, around: bool, boot: BootId) -> io::Result<(usize, Vec<Gap>)> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(Name { number: 1, id: 1 }.file_name()), bytes).expect("it writes");
    let mut builder = Builder::new();
    let seal = Seal { now_ms: NOW_MS, around, ..Seal::default() };
    let (state, told) = (State::default(), ToldSums::new());
    let gather = Gather { folder: folder.path(), state: &state, told: &told, seal: &seal, boot, read };
    let taken = gather.run(&mut builder)?;
    assert_eq!(taken.finished.len(), 1, "a finished log is done with, whatever is in it");
    if builder.rows() == 0 {
        return Ok((0, Vec::new()));
    }
    let key = SigningKey::from_seed(&[1; 32]).expect("a key");
    let place = Place { stream: crate::ids::StreamId(1), seq: 1, previous: None, policy: None };
    let file = builder.seal(&place, &key).expect("it seals");
    let verified = segment::open(&file, &key.public()).expect("it opens");
    let gaps = verified.rows().filter_map(|row| if let Row::Gap(gap) = row { Some(gap) } else { None }).collect();
    Ok((verified.rows().filter(|row| matches!(row, Row::Request(_))).count(), gaps))
}

#[test]
fn a_log_cut_at_any_byte_gives_the_rows_before_the_cut() {
    let row = frame(0).len();
    for (boot, gaps) in [(lane::boot_id(), 0), ([9; 16], 1)] {
        let bytes = log(boot, 4, false);
        for end in PREAMBLE..bytes.len() {
            let (rows, found) = gathered(&bytes[..end]);
            assert_eq!((rows, found.len()), ((end - PREAMBLE) / row, gaps), "cut at {end}");
            for gap in found {
                assert_eq!((gap.reason, gap.count, gap.to_ms), (GapReason::UncleanStop, None, NOW_MS));
                assert_eq!(gap.from_ms, if rows == 0 { 50 } else { 99 + i64::try_from(rows).expect("small") });
            }
        }
    }
}

#[test]
fn a_log_that_was_closed_in_order_has_no_gap_in_any_boot() {
    for boot in [lane::boot_id(), [9; 16]] {
        assert_eq!(gathered(&log(boot, 3, true)), (3, Vec::new()));
    }
}

#[test]
fn a_damaged_row_is_a_gap_of_exactly_one_wherever_the_byte_is() {
    let bytes = log(lane::boot_id(), 4, true);
    let row = frame(0).len();
    for at in PREAMBLE + row..PREAMBLE + 2 * row {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        let (rows, gaps) = gathered(&bytes);
        let expected = Gap { reason: GapReason::LogDamaged, from_ms: 100, to_ms: 102, count: Some(1) };
        assert_eq!((rows, &*gaps), (3, &[expected][..]), "byte {at}");
    }
}

#[test]
fn zeros_and_garbage_at_the_end_are_a_gap_and_never_rows() {
    for tail in [vec![0; 5000], vec![0xd7; 5000], [0xd7, 0x4c, 8, 0].repeat(2000)] {
        let bytes = [log(lane::boot_id(), 2, false), tail].concat();
        let (rows, gaps) = gathered(&bytes);
        assert_eq!((rows, gaps.len()), (2, 1));
        assert_eq!((gaps[0].reason, gaps[0].count), (GapReason::LogDamaged, None));
    }
}

#[test]
fn a_long_damaged_stretch_is_stepped_over_window_by_window() {
    let mut bytes = log(lane::boot_id(), 6000, true);
    let row = frame(0).len();
    let (from, to) = (PREAMBLE + 100 * row, PREAMBLE + 5000 * row);
    bytes[from..to].fill(0xee);
    let (rows, gaps) = gathered(&bytes);
    let lost: u64 = gaps.iter().filter_map(|gap| gap.count).sum();
    assert_eq!((rows as u64 + lost, gaps.len()), (6000, 1));
}

#[test]
fn a_sector_that_cannot_be_read_is_an_error_at_first_and_then_a_gap_of_its_rows() {
    // A disk with a bad sector at 40 KiB.
    let read: ReadAt = |file, buffer, at| {
        let bad = 40 << 10..44 << 10;
        match at < bad.end && bad.start < at + buffer.len() as u64 {
            true => Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
            false => file.read_at(buffer, at),
        }
    };
    for ends in [true, false] {
        let bytes = log(lane::boot_id(), 3000, ends);
        assert!(is_unreadable(&gathered_with(&bytes, read, false).expect_err("nothing is given up at once")));
        let (rows, gaps) = gathered_with(&bytes, read, true).expect("it reads around");
        let lost = 3000 - rows as u64;
        assert!((30..200).contains(&lost), "{lost}");
        assert_eq!((gaps.len(), gaps[0].reason, gaps[0].count), (1, GapReason::LogDamaged, Some(lost)));
    }
}

#[test]
fn where_linux_does_not_tell_the_boot_every_unclosed_log_may_be_a_power_cut() {
    let zero = BootId::default();
    for (ends, gaps) in [(false, 1), (true, 0)] {
        let read: ReadAt = |file, buffer, at| file.read_at(buffer, at);
        let (rows, found) = gathered_in(&log(zero, 3, ends), read, false, zero).expect("it reads");
        assert_eq!((rows, found.len()), (3, gaps));
        assert!(found.iter().all(|gap| gap.reason == GapReason::UncleanStop));
    }
}

/// A folder with a log for each of these: its number, its rows, and whether it is closed.
fn folder_of(logs: impl IntoIterator<Item = (u32, u32, bool)>) -> (tempfile::TempDir, Vec<(u64, u64)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut live = Vec::new();
    for (number, rows, is_closed) in logs {
        let bytes = log(lane::boot_id(), rows, is_closed);
        let name = Name { number, id: number.into() };
        fs::write(folder.path().join(name.file_name()), &bytes).expect("it writes");
        if !is_closed {
            live.push((name.id, bytes.len() as u64));
        }
    }
    (folder, live)
}

/// Passes until nothing is left over; how many rows each log gave, and the passes.
fn drained(folder: &Path, live: Vec<(u64, u64)>) -> (u64, u32) {
    let seal = Seal { now_ms: NOW_MS, live, ..Seal::default() };
    let (mut state, told) = (State::default(), ToldSums::new());
    let (mut rows, mut passes) = (0, 0);
    loop {
        let mut builder = Builder::new();
        let read: ReadAt = |file, buffer, at| file.read_at(buffer, at);
        let gather = Gather { folder, state: &state, told: &told, seal: &seal, boot: lane::boot_id(), read };
        let taken = gather.run(&mut builder).expect("it reads");
        assert!(taken.cursors.len() <= LOGS_LIMIT, "they must fit");
        taken.finished.iter().for_each(|(_, path)| fs::remove_file(path).expect("removed"));
        state.cursors = taken.cursors;
        rows += u64::from(builder.rows());
        passes += 1;
        if !taken.left_over {
            return (rows, passes);
        }
        assert!(passes < 100, "it comes no further");
    }
}

#[test]
fn no_log_starves_behind_many_that_are_idle_or_come_before_it() {
    let idle = (1..=140).map(|number| (number, 0, false));
    let (folder, live) = folder_of(idle.chain([(141, 3, false), (142, 4, true)]));
    assert_eq!(drained(folder.path(), live), (7, 1));
    let (folder, live) = folder_of((1..=300).map(|number| (number, 2, true)));
    assert_eq!(drained(folder.path(), live), (600, 3));
    let (folder, live) = folder_of((1..=140).map(|number| (number, 1, false)).chain([(200, 5, true)]));
    assert_eq!(drained(folder.path(), live).0, 127 + 5, "as many as have places");
}

#[test]
fn a_clock_that_was_wrong_once_makes_only_that_roll_up_wrong() {
    let mut sum = Sum { epoch: 1, ..Sum::default() };
    let mut told = None;
    let mut grow = |at_ms: &[i64]| {
        at_ms.iter().for_each(|at_ms| sum.add(*at_ms, 1, 1));
        let row = growth(Outcome::TokenMissing, &sum, told).expect("it grew");
        told = Some(Told::of(Outcome::TokenMissing.number(), &sum));
        (row.from_ms, row.to_ms, row.count)
    };
    assert_eq!(grow(&[100, 110]), (100, 110, 2));
    assert_eq!(grow(&[120, 99_000]), (110, 99_000, 2), "the clock jumps ahead");
    assert_eq!(grow(&[140]), (140, 140, 1), "and is set right");
    assert_eq!(grow(&[150, 160]), (140, 160, 2));
}

/// What is told of a power cut in each of these boots: its logs, each with its interval in tenths of a second and the
/// time of its last row.
fn cut_in(boots: &[(u8, &[(u16, i64)])], now_ms: i64) -> Vec<Gap> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut number = 0;
    for (boot, logs) in boots {
        for (sync, at_ms) in *logs {
            number += 1;
            let mut bytes = Preamble { boot: [*boot; 16], made_ms: 50, sync: *sync }.to_bytes().to_vec();
            let mut frame = [0; FRAME_LIMIT];
            let record = UsageRecord { at_ms: *at_ms, ..SAMPLE };
            let len = HEAD + Row::Request(record).encode(&mut frame[HEAD..]).expect("a row fits").len();
            finish_frame(&mut frame[..len], 0);
            bytes.extend(&frame[..len]);
            let name = Name { number, id: number.into() };
            fs::write(folder.path().join(name.file_name()), bytes).expect("it writes");
        }
    }
    let (seal, state, told) = (Seal { now_ms, ..Seal::default() }, State::default(), ToldSums::new());
    let read: ReadAt = |file, buffer, at| file.read_at(buffer, at);
    let gather = Gather { folder: folder.path(), state: &state, told: &told, seal: &seal, boot: [7; 16], read };
    let mut builder = Builder::new();
    assert_eq!(gather.run(&mut builder).expect("it reads").gaps, []);
    let key = SigningKey::from_seed(&[1; 32]).expect("a key");
    let place = Place { stream: crate::ids::StreamId(1), seq: 1, previous: None, policy: None };
    let file = builder.seal(&place, &key).expect("it seals");
    let verified = segment::open(&file, &key.public()).expect("it opens");
    verified.rows().filter_map(|row| if let Row::Gap(gap) = row { Some(gap) } else { None }).collect()
}

#[test]
fn a_power_cut_reaches_back_no_further_than_the_last_sync_however_long_a_worker_was_idle() {
    let begins = |boots: &[(u8, &[(u16, i64)])], now_ms| {
        let gaps = cut_in(boots, now_ms);
        assert!(gaps.iter().all(|gap| (gap.reason, gap.to_ms) == (GapReason::UncleanStop, now_ms)), "{gaps:?}");
        gaps.iter().map(|gap| gap.from_ms).collect::<Vec<_>>()
    };
    let (hour, minute) = (3_600_000, 60_000);
    // One worker has been idle for hours, the other one was busy until the end: what is lost came after the last sync.
    assert_eq!(begins(&[(9, &[(50, hour), (50, 9 * hour)])], 10 * hour), [9 * hour - minute - 5_000]);
    assert_eq!(begins(&[(9, &[(50, 9 * hour), (6_000, hour)])], 10 * hour), [9 * hour - 11 * minute], "by the longest");
    assert_eq!(begins(&[(9, &[(0, hour), (0, 9 * hour)])], 10 * hour), [9 * hour - 11 * minute], "nobody knows");
    // No earlier than the logs themselves say.
    assert_eq!(begins(&[(9, &[(50, 9 * hour)])], 10 * hour), [9 * hour]);
    assert_eq!(begins(&[(9, &[(50, 9 * hour), (50, 9 * hour - 10)])], 10 * hour), [9 * hour - 10]);
    // Each cut has its own end; of boots that cannot be told apart the earliest counts.
    assert_eq!(
        begins(&[(8, &[(50, hour), (50, 2 * hour)]), (9, &[(50, 9 * hour)])], 10 * hour),
        [2 * hour - minute - 5_000, 9 * hour]
    );
    assert_eq!(begins(&[(0, &[(50, hour), (50, 9 * hour)])], 10 * hour), [hour]);
    // A clock that starts anew after the cut tells nothing of when it was.
    assert_eq!(begins(&[(9, &[(50, hour), (50, 9 * hour)])], 2 * hour), [hour]);
}
