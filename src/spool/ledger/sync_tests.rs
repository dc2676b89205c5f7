use super::tests::{drain, open, row_of_generations, seal, setup, write_log};
use super::*;
use crate::spool::record::GapReason;

/// A disk that fails to sync this often, and counts how often it was asked.
fn unsynced(fails: u32) -> (Opener, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    use std::sync::atomic::{AtomicU32, Ordering};
    let asked = std::sync::Arc::new(AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&asked);
    let opener = Opener::new(move |_, folder| {
        let asked = std::sync::Arc::clone(&asked);
        let sync = move |file: &Path| match asked.fetch_add(1, Ordering::Relaxed) < fails {
            true => Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
            false => fs::File::open(file)?.sync_data(),
        };
        Generation::open_with(folder, Box::new(sync))
    });
    (opener, counted)
}

fn inode(ledger: &Ledger) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let name = ledger.generations.list().expect("it lists")[0];
    fs::metadata(ledger.generations.path(name).join("db")).expect("it is there").ino()
}

#[test]
fn what_a_failed_sync_leaves_is_written_again_into_other_files_before_a_log_is_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    write_log(folder.path(), 1, 10);
    drop(open(folder.path()).seal(&seal()).expect("it seals"));
    let (path, _) = write_log(folder.path(), 2, 20);
    let (opener, asked) = unsynced(1);
    let mut ledger = Ledger::open(setup(folder.path()), &Known::default(), opener, 1000).expect("it opens");
    let before = inode(&ledger);
    ledger.seal(&seal()).expect("it seals all the same");
    assert!(asked.load(std::sync::atomic::Ordering::Relaxed) > 0 && !path.exists());
    assert_ne!(inode(&ledger), before, "the pages that Linux takes for clean are not relied on");
    let books = drain(&mut ledger);
    assert_eq!((books.requests, books.files.len(), books.gaps.len()), (30, 2, 0));
}

#[test]
fn a_generation_that_is_told_to_be_unsynced_is_written_again_and_one_condemned_is_not_even_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    row_of_generations(folder.path());
    let before = inode(&open(folder.path()));
    let known = Known { unsynced: Some(1), ..Known::default() };
    let opener = || Opener::new(|_, folder| Generation::open(folder));
    let ledger = Ledger::open(setup(folder.path()), &known, opener(), 1000).expect("it opens");
    assert_ne!(inode(&ledger), before);
    drop(ledger);
    let never = Opener::new(|number, folder| {
        assert_ne!(number, 1);
        Generation::open(folder)
    });
    let known = Known { condemned: Some(1), ..Known::default() };
    let books = drain(&mut Ledger::open(setup(folder.path()), &known, never, 1000).expect("it opens"));
    assert_eq!((books.gaps.len(), books.gaps[0].reason), (1, GapReason::GenerationLost));
    assert!(books.requests > 0);
}

#[test]
fn the_disk_is_synced_before_a_log_is_deleted_and_before_anybody_is_told() {
    use std::sync::{Arc, Mutex};
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = write_log(folder.path(), 1, 10);
    let synced = Arc::new(Mutex::new(Vec::new()));
    let (log, seen) = (path.clone(), Arc::clone(&synced));
    let opener = Opener::new(move |_, folder| {
        let (log, seen) = (log.clone(), Arc::clone(&seen));
        let sync = move |file: &Path| {
            seen.lock().expect("no test panics with it").push(log.exists());
            fs::File::open(file)?.sync_data()
        };
        Generation::open_with(folder, Box::new(sync))
    });
    let mut ledger = Ledger::open(setup(folder.path()), &Known::default(), opener, 1000).expect("it opens");
    ledger.seal(&seal()).expect("it seals");
    let so_far = synced.lock().expect("no test panics with it").clone();
    assert!(!path.exists() && so_far.contains(&true) && !so_far.contains(&false), "{so_far:?}");
    let file = ledger.oldest(None, 1).expect("it reads").expect("it is there");
    ledger.acknowledge(file.at, &file.digest, 1).expect("it is removed");
    assert!(synced.lock().expect("no test panics with it").len() > so_far.len());
}
