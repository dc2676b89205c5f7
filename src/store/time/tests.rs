use super::*;
use crate::disk::Machine;
use crate::disk::double::CrashDisk;
use crate::disk::stuck::{goes_on, stands_still};

const FOLDER: &str = "/state";
const BOOT: BootId = BootId([1; 16]);
const KNOWN: Known = Known { build: 1_000_000, signed: 0, used: false, epoch: 1 };

fn at(wall: i64, boot: u64) -> Reading {
    Reading { wall_ms: wall.saturating_mul(1_000), boot: Duration::from_secs(boot) }
}

fn disk() -> Arc<CrashDisk> {
    let disk = CrashDisk::new();
    disk.create_folder(Path::new(FOLDER)).unwrap();
    disk.sync_folder(Path::new("/")).unwrap();
    Arc::new(disk)
}

fn open(disk: &Arc<CrashDisk>, boot: BootId, reading: &Reading, known: Known) -> TimeFile {
    let (file, written) = TimeFile::open(Arc::<CrashDisk>::clone(disk), Path::new(FOLDER), boot, reading, known);
    written.unwrap();
    file
}

#[test]
fn an_untrusted_wall_clock_moves_neither_bound() {
    let floor = TimeFloor::new(1_000_000, &at(0, 0), false);
    for wall in [i64::MIN, -1, 0, 59, 1 << 31, 1 << 32, 253_402_300_799, i64::MAX] {
        let bounds = floor.bounds(&at(wall, 10), false);
        assert_eq!(bounds, TimeBounds::floor(1_000_009), "wall {wall}");
    }
}

#[test]
fn a_trusted_clock_gives_both_bounds_and_is_not_written_down() {
    let disk = disk();
    let file = open(&disk, BOOT, &at(0, 0), KNOWN);
    assert_eq!(file.floor().bounds(&at(5_000_000, 0), true), TimeBounds::exact(5_000_000));
    file.persist(&at(5_000_000, 0)).unwrap();
    assert_eq!(file.floor().bounds(&at(0, 0), false).lower, 1_000_000);
}

#[test]
fn a_trusted_clock_behind_the_floor_is_not_believed() {
    let floor = TimeFloor::new(1_000_000, &at(0, 0), false);
    assert_eq!(floor.bounds(&at(1_000_000 - 299, 0), true), TimeBounds::exact(1_000_000));
    assert_eq!(floor.bounds(&at(1_000_000 - 301, 0), true), TimeBounds::floor(1_000_000));
    assert_eq!(floor.bounds(&at(0, 0), true), TimeBounds::floor(1_000_000), "no battery, 1970");
}

#[test]
fn the_floor_counts_uptime_and_stays_below_a_fast_crystal() {
    let floor = TimeFloor::new(0, &at(0, 100), false);
    let day = floor.bounds(&at(0, 100 + 86_400), false).lower;
    assert!((86_380..86_400).contains(&day), "{day}");
    assert_eq!(floor.bounds(&at(0, 50), false).lower, 0, "a boot clock that jumps back");
}

#[test]
fn arithmetic_saturates_at_both_ends() {
    for hard in [i64::MIN, -1, 0, i64::MAX] {
        let floor = TimeFloor::new(hard, &at(0, 0), false);
        let far = Reading { wall_ms: i64::MAX, boot: Duration::MAX };
        let _ = floor.raised(i64::MAX, &far).bounds(&far, true);
        let _ = floor.raised(i64::MIN, &far).moved(&far).bounds(&far, false);
    }
}

#[test]
fn a_signed_document_raises_the_floor_for_good_and_never_lowers_it() {
    let disk = disk();
    let file = open(&disk, BOOT, &at(0, 0), KNOWN);
    file.raise(2_000_000, &at(0, 0)).unwrap();
    file.raise(1_500_000, &at(0, 0)).unwrap();
    let after = Arc::new(disk.after_power_cut(0));
    let file = open(&after, BootId([2; 16]), &at(0, 30), KNOWN);
    // Another boot: its thirty seconds have passed since the anchor.
    assert_eq!(file.floor().bounds(&at(0, 30), false), TimeBounds::floor(2_000_029));
}

#[test]
fn the_same_boot_counts_only_what_passed_since_the_anchor() {
    let disk = disk();
    open(&disk, BOOT, &at(0, 1_000), KNOWN).persist(&at(0, 1_000)).unwrap();
    let file = open(&disk, BOOT, &at(0, 1_010), KNOWN);
    assert_eq!(file.floor().bounds(&at(0, 1_010), false).lower, 1_000_009);
}

#[test]
fn two_lost_records_fall_back_to_what_is_signed_and_say_so_until_something_signed_comes() {
    let disk = disk();
    open(&disk, BOOT, &at(0, 0), KNOWN).raise(3_000_000, &at(0, 0)).unwrap();
    for which in ["/state/time.0", "/state/time.1"] {
        disk.rot(Path::new(which), 20);
    }
    let known = Known { build: 1_000_000, signed: 2_500_000, used: true, epoch: 1 };
    let file = open(&disk, BOOT, &at(0, 0), known);
    let lost = TimeBounds { lower: 2_500_000, upper: None, quality: TimeQuality::Lost };
    assert_eq!(file.floor().bounds(&at(0, 0), false), lost, "never 0");
    // The loss is not forgotten by a restart, and healed by a signed moment.
    let file = open(&disk, BOOT, &at(0, 0), known);
    assert_eq!(file.floor().bounds(&at(0, 0), false), lost);
    file.raise(2_600_000, &at(0, 0)).unwrap();
    assert_eq!(file.floor().bounds(&at(0, 0), false), TimeBounds::floor(2_600_000));
}

#[test]
fn one_broken_record_is_told_and_the_floor_is_never_below_the_one_before() {
    for which in ["/state/time.0", "/state/time.1"] {
        let disk = disk();
        let file = open(&disk, BOOT, &at(0, 0), KNOWN);
        file.raise(2_000_000, &at(0, 0)).unwrap();
        file.raise(3_000_000, &at(0, 0)).unwrap();
        assert!(!open(&disk, BOOT, &at(0, 0), KNOWN).was_damaged());
        disk.rot(Path::new(which), 20);
        let file = open(&disk, BOOT, &at(0, 0), KNOWN);
        assert!(file.was_damaged() && file.floor().bounds(&at(0, 0), false).lower >= 2_000_000, "{which}");
        assert!(!open(&disk, BOOT, &at(0, 0), KNOWN).was_damaged(), "{which}: it was written again");
    }
}

#[test]
fn a_new_device_has_the_build_time_and_has_lost_nothing() {
    let file = open(&disk(), BOOT, &at(0, 0), KNOWN);
    assert_eq!(file.floor().bounds(&at(0, 0), false), TimeBounds::floor(1_000_000));
    let used = Known { used: true, ..KNOWN };
    let file = open(&disk(), BOOT, &at(0, 0), used);
    assert_eq!(file.floor().bounds(&at(0, 0), false).quality, TimeQuality::Lost);
}

#[test]
fn the_build_is_no_earlier_than_the_day_on_which_its_source_was_written() {
    let days = 56 * 365 + 14 + 304 + 24; // 56 years, 14 of them leap years, to November, to the 25th
    assert_eq!(WRITTEN, days * 86_400);
    const { assert!(BUILD_TIME >= WRITTEN) };
}

#[test]
fn a_floor_that_cannot_be_written_holds_all_the_same() {
    let disk = disk();
    disk.cut_after(0);
    let shared = Arc::<CrashDisk>::clone(&disk);
    let (file, written) = TimeFile::open(shared, Path::new(FOLDER), BOOT, &at(0, 0), KNOWN);
    assert!(written.is_err() && file.raise(2_000_000, &at(0, 0)).is_err());
    assert_eq!(file.floor().bounds(&at(0, 0), false), TimeBounds::floor(2_000_000));
}

const DAY: i64 = 86_400;

fn lower(file: &TimeFile, boot: u64) -> i64 {
    file.floor().bounds(&at(0, boot), false).lower
}

/// A record as the version before this one wrote it: without an account.
fn version_1(hard: i64, boot: BootId) -> Vec<u8> {
    [&[1, 0][..], &(hard * 1_000).to_be_bytes(), &boot.0, &0_u64.to_be_bytes()].concat()
}

#[test]
fn the_hubs_word_raises_the_floor_by_400_days_in_an_epoch_and_no_further() {
    let disk = disk();
    let file = open(&disk, BOOT, &at(0, 0), KNOWN);
    let by_hub = |file: &TimeFile, to: i64| {
        let (outcome, written) = file.raise_by_hub(to, &at(0, 0));
        written.unwrap();
        outcome
    };
    assert_eq!(by_hub(&file, 999_999), ByHub { raised_ms: 0, refused_ms: 0 }, "it never lowers it");
    let first = 1_000_000 + 300 * DAY;
    assert_eq!(by_hub(&file, first), ByHub { raised_ms: 300 * DAY * 1_000, refused_ms: 0 });
    // What a document raises is not charged to the hub, and what was used is not forgotten by a restart.
    file.raise(first + 50 * DAY, &at(0, 0)).unwrap();
    let file = open(&disk, BOOT, &at(0, 0), KNOWN);
    let outcome = by_hub(&file, first + 1_000 * DAY);
    assert_eq!(outcome, ByHub { raised_ms: 100 * DAY * 1_000, refused_ms: 850 * DAY * 1_000 });
    assert_eq!(lower(&file, 0), first + 150 * DAY);
    for to in [i64::MAX, first + 200 * DAY] {
        assert_eq!(by_hub(&file, to).raised_ms, 0);
    }
    assert_eq!(lower(&file, 0), first + 150 * DAY);
    // The control: a document is not bounded by it, and a new epoch begins a new allowance.
    file.raise(first + 160 * DAY, &at(0, 0)).unwrap();
    file.under(2);
    assert_eq!(by_hub(&file, first + 161 * DAY).raised_ms, DAY * 1_000);
    file.under(1);
    assert_eq!(by_hub(&file, i64::MAX).raised_ms, 399 * DAY * 1_000, "an older epoch renews nothing");
    assert_eq!(by_hub(&file, i64::MIN), ByHub { raised_ms: 0, refused_ms: 0 });
}

#[test]
fn the_hubs_word_heals_a_lost_floor_and_a_document_does() {
    let used = Known { used: true, ..KNOWN };
    let file = open(&disk(), BOOT, &at(0, 0), used);
    assert_eq!(file.floor().bounds(&at(0, 0), false).quality, TimeQuality::Lost);
    file.raise_by_hub(1_000_001, &at(0, 0)).1.unwrap();
    assert_eq!(file.floor().bounds(&at(0, 0), false), TimeBounds::floor(1_000_001));
}

#[test]
fn a_reset_takes_the_floor_back_once_and_for_good() {
    let disk = disk();
    let file = open(&disk, BOOT, &at(0, 0), KNOWN);
    let wrong = 1_000_000 + 3_000 * DAY;
    file.raise(wrong, &at(0, 0)).unwrap();
    let right = 1_000_000 + 10 * DAY;
    file.reset(Reset { at: right, undoes: wrong, seq: 1 }, &at(0, 0)).unwrap().unwrap();
    assert_eq!(file.floor().bounds(&at(0, 0), false), TimeBounds::floor(right));
    // The same number again, and any below the last, changes nothing.
    for seq in [0, 1] {
        assert_eq!(file.reset(Reset { at: 0, undoes: 1, seq }, &at(0, 0)).err(), Some(ResetRefused::Used(1)));
    }
    // The next one does not wind the clock back where the floor is not as far ahead as it says.
    let early = Reset { at: 0, undoes: right + 1, seq: 2 };
    assert_eq!(file.reset(early, &at(0, 0)).err(), Some(ResetRefused::NotReached(right)));
    assert_eq!(lower(&file, 0), right);
    // The document that went wrong serves: a start takes nothing from it, and bringing it again does nothing.
    let serving = Known { signed: wrong, ..KNOWN };
    let file = open(&disk, BootId([2; 16]), &at(0, 5), serving);
    assert_eq!(lower(&file, 5), right + 4);
    file.raise(wrong, &at(0, 5)).unwrap();
    assert_eq!(lower(&file, 5), right + 4);
    // What is near counts, and what is beyond all that was before the reset.
    file.raise(right + 100 * DAY, &at(0, 5)).unwrap();
    assert_eq!(lower(&file, 5), right + 100 * DAY);
    file.raise(wrong + 1, &at(0, 5)).unwrap();
    assert_eq!(lower(&file, 5), wrong + 1);
    assert_eq!(file.reset(Reset { seq: 1, ..early }, &at(0, 5)).err(), Some(ResetRefused::Used(1)));
    // Never below the build.
    file.reset(early, &at(0, 5)).unwrap().unwrap();
    assert_eq!(lower(&file, 5), 1_000_000);
}

#[test]
fn a_reset_takes_back_what_the_hub_gave_and_its_allowance_begins_anew() {
    let file = open(&disk(), BOOT, &at(0, 0), KNOWN);
    file.raise_by_hub(i64::MAX, &at(0, 0)).1.unwrap();
    file.reset(Reset { at: 1_000_000, undoes: 1_000_001, seq: 1 }, &at(0, 0)).unwrap().unwrap();
    assert_eq!(lower(&file, 0), 1_000_000);
    assert_eq!(file.raise_by_hub(1_000_000 + DAY, &at(0, 0)).0.raised_ms, DAY * 1_000);
}

#[test]
fn a_reset_that_cannot_be_written_is_not_done() {
    let disk = disk();
    let file = open(&disk, BOOT, &at(0, 0), KNOWN);
    file.raise(9_000_000, &at(0, 0)).unwrap();
    disk.cut_after(0);
    assert!(file.reset(Reset { at: 2_000_000, undoes: 9_000_000, seq: 1 }, &at(0, 0)).unwrap().is_err());
    assert_eq!(lower(&file, 0), 9_000_000);
}

#[test]
fn the_record_of_the_version_before_is_read_and_one_of_a_later_version_is_a_lost_floor() {
    for (body, expected) in [
        (version_1(4_000_000, BOOT), TimeBounds::floor(4_000_000)),
        ([&[9, 0][..], &[0; 64]].concat(), TimeBounds { lower: 1_000_000, upper: None, quality: TimeQuality::Lost }),
    ] {
        let disk = disk();
        let (mut pair, _) = Pair::open(Arc::<CrashDisk>::clone(&disk) as Arc<dyn Disk>, Path::new(FOLDER), "time");
        pair.write(&body).unwrap();
        let file = open(&disk, BOOT, &at(0, 0), KNOWN);
        assert_eq!(file.floor().bounds(&at(0, 0), false), expected);
        file.raise_by_hub(4_000_001, &at(0, 0)).1.unwrap();
        let file = open(&disk, BOOT, &at(0, 0), KNOWN);
        assert_eq!(lower(&file, 0), 4_000_001);
    }
}

#[test]
fn no_cut_or_longer_record_is_read() {
    let whole = to_bytes(TimeFloor::new(1, &at(0, 0), true), Account::NEW, BOOT);
    assert_eq!(from_bytes(&whole, BOOT), Some((TimeFloor::new(1, &at(0, 0), true), Account::NEW)));
    for end in 0..whole.len() {
        assert_eq!(from_bytes(&whole[..end], BOOT), None, "{end}");
    }
    assert_eq!(from_bytes(&[&whole[..], &[0]].concat(), BOOT), None);
}

#[test]
fn the_floor_is_read_while_a_write_of_it_waits_for_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let (file, written) = TimeFile::open(Arc::new(Machine), folder.path(), BOOT, &at(0, 0), KNOWN);
    written.unwrap();
    let (file, card) = (Arc::new(file), folder.path().join("time.1.part"));
    stands_still(&card);
    let writing = {
        let file = Arc::clone(&file);
        std::thread::spawn(move || file.raise(2_000_000, &at(0, 0)))
    };
    while file.inside.try_lock().is_ok() {
        std::thread::yield_now(); // it has not begun
    }
    let (say, read) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || say.send(lower(&file, 0)));
    let read = read.recv_timeout(Duration::from_secs(20));
    let _card = goes_on(&card);
    assert!(writing.join().unwrap().is_err(), "a pipe is no file to sync");
    reading.join().unwrap().unwrap();
    assert_eq!(read, Ok(2_000_000));
}
