//! Damaged files and full disks: the spool starts, goes on, and says what is gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate::spool::Config;
use tidegate::spool::record::{GapReason, Outcome};
use tidegate::units::Bytes;

use crate::support::{Books, drain, patient, record, start, wait};
use tidegate::spool::backlog::Backlog as _;

const RECORDS: u64 = 31_000;

fn config() -> Config {
    Config { generation_size: Bytes(1 << 19), log_size: Bytes(128 << 10), ..patient() }
}

/// A spool with several generations, an acknowledged file, unsealed rows and sums.
fn prepare(folder: &Path) -> Books {
    let spool = start(folder, &config());
    let mut intake = spool.intake(0);
    (0..RECORDS - 500).for_each(|number| intake.append(&record(number)));
    intake.append_unauthenticated(&record(u64::from(u32::MAX)), std::time::Duration::ZERO);
    for _ in 0..5 {
        spool.seal_now();
    }
    let mut books = Books::default();
    let file = wait(spool.oldest(None)).expect("it answers").expect("it was sealed");
    wait(spool.acknowledge(file.at, &file.digest)).expect("it answers");
    books.enter(file);
    (RECORDS - 500..RECORDS).for_each(|number| intake.append(&record(number)));
    drop(intake);
    spool.stop();
    books
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("it lists") {
        let path = entry.expect("it lists").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success());
}

#[test]
fn a_corrupt_byte_in_any_file_is_survived_and_every_loss_is_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    fs::create_dir(&whole).expect("a folder");
    let before = prepare(&whole);
    let taken: BTreeSet<u64> = before.requests.keys().copied().collect();
    let (mut cases, mut losses) = (0, 0);
    for (index, path) in files(&whole).into_iter().enumerate() {
        let len = fs::metadata(&path).expect("it is there").len();
        for place in 0..4u64.min(len) {
            let at = (len / 4) * place + (index as u64 * 131) % (len / 4).max(1);
            let damaged = folder.path().join("damaged");
            copy(&whole, &damaged);
            let relative = path.strip_prefix(&whole).expect("it is in it");
            let file = fs::OpenOptions::new().read(true).write(true).open(damaged.join(relative)).expect("it opens");
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("it reads");
            file.write_all_at(&[byte[0] ^ 0x55], at).expect("it writes");

            let what = format!("byte {at} of {len} in {}", relative.display());
            let spool = start(&damaged, &config());
            let mut books = Books::default();
            let mut intake = spool.intake(0);
            intake.append(&record(RECORDS)); // it goes on
            drain(&spool, &mut books);
            drain(&spool, &mut books);
            books.requests.remove(&u64::from(u32::MAX));
            assert!(books.requests.contains_key(&RECORDS), "{what}");
            let missing = (0..RECORDS).filter(|n| !taken.contains(n) && !books.requests.contains_key(n)).count() as u64;
            let twice = books.requests.values().filter(|count| **count > 1).count();
            let again = taken.iter().filter(|number| books.requests.contains_key(number)).count();
            assert_eq!(twice, 0, "{what}");
            let told: Option<u64> = books.gaps.iter().map(|gap| gap.count).sum();
            match told {
                Some(told) => assert_eq!(told, missing, "{what}: {:?}", books.gaps),
                None => losses += 1,
            }
            assert!(missing == 0 || !books.gaps.is_empty(), "{what}: {missing} lost in silence");
            assert!(again == 0 || !books.gaps.is_empty(), "{what}: {again} told again in silence");
            cases += 1;
            drop(intake);
            drop(spool);
            fs::remove_dir_all(&damaged).expect("removed");
        }
    }
    println!("{cases} cases, {losses} with a gap of unknown size");
}

#[test]
fn a_full_disk_turns_records_into_counts_and_heals_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = folder.path().join("small");
    fs::create_dir(&mount).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(&mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: this needs the right to mount a small tmpfs");
        return;
    }
    let outcome = std::panic::catch_unwind(|| full_disk(&mount));
    let _ = Command::new("umount").arg(&mount).status();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn full_disk(mount: &Path) {
    let config = Config { free_floor: Bytes(0), ..config() };
    let spool = start(mount, &config);
    let mut intake = spool.intake(0);
    let mut next = 0;
    let mut append = |intake: &mut tidegate::spool::Intake, count: u64| {
        (next..next + count).for_each(|number| intake.append(&record(number)));
        next += count;
    };
    append(&mut intake, 20_000);
    spool.seal_now();
    fs::write(mount.join("filler"), vec![1; 20 << 20]).expect_err("it fills the disk");
    append(&mut intake, 20_000);
    spool.seal_now();
    let _ = wait(spool.oldest(None)); // an answer or an error, but no hang
    let status = spool.status();
    assert!(status.rolled_up > 0, "{status:?}");
    assert_eq!((status.appended + status.rolled_up, status.lost), (40_000, 0));
    fs::remove_file(mount.join("filler")).expect("removed");
    append(&mut intake, 1000);
    let status = spool.status();
    assert_eq!(status.appended + status.rolled_up, 41_000);
    drop(intake);
    spool.stop();
    drop(spool);

    let spool = start(mount, &config);
    let mut books = Books::default();
    while books.summed.get(&Outcome::Admitted).copied().unwrap_or(0) < status.rolled_up {
        drain(&spool, &mut books);
    }
    let twice = books.requests.values().filter(|count| **count > 1).count();
    assert_eq!(twice, 0);
    let lost = status.appended - books.requests.len() as u64;
    assert!(
        lost == 0 || books.gaps.iter().any(|gap| gap.reason == GapReason::GenerationLost),
        "{lost} lost in silence"
    );
    assert_eq!(lost, 0, "ENOSPC damages nothing: {:?}", books.gaps);
}
