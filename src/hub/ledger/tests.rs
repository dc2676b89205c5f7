use super::*;
use crate::ids::{RequestId, StreamId};
use crate::spool::record::{Gap, GapReason, Row, SAMPLE, UsageRecord};
use crate::spool::segment::{Builder, Place, open};
use crate::units::TimeQuality;

const STREAM: StreamId = StreamId(7);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
}

fn device() -> Device {
    Device { key: key(1).public(), name: "till".into(), came_by_itself: false }
}

fn ledger(folder: &Path) -> Ledger {
    let mut ledger = Ledger::open_file(&folder.join("usage.sqlite"), key(9)).expect("it opens");
    ledger.enrol(&device(), By::Config, 0).expect("it is written");
    ledger
}

fn record(id: u8) -> UsageRecord<'static> {
    UsageRecord {
        at_ms: 1_000,
        time: TimeQuality::Floor,
        request: RequestId([id; 16]),
        bytes_in: 1,
        bytes_out: u64::MAX,
        total_us: 3,
        upstream_us: 2,
        ..SAMPLE
    }
}

/// One sealed file of three records and a gap; `mark` makes its records its own.
fn file(seq: u64, previous: Option<Digest>, mark: u8) -> (Verified, Vec<u8>) {
    let mut builder = Builder::new();
    for id in 0..3 {
        builder.push(&Row::Request(record(mark * 10 + id))).expect("there is room");
    }
    let gap = Gap { reason: GapReason::UncleanStop, from_ms: 5, to_ms: 6, count: None };
    builder.push(&Row::Gap(gap)).expect("there is room");
    let bytes = builder.seal(&Place { stream: STREAM, seq, previous, policy: None }, &key(1)).expect("it seals");
    (open(&bytes, &key(1).public()).expect("it opens"), bytes)
}

fn chain(len: u64) -> Vec<(Verified, Vec<u8>)> {
    let mut files: Vec<(Verified, Vec<u8>)> = Vec::new();
    for seq in 1..=len {
        let previous = files.last().map(|(file, _)| file.digest());
        files.push(file(seq, previous, u8::try_from(seq).expect("a short chain")));
    }
    files
}

fn take(ledger: &mut Ledger, (file, bytes): &(Verified, Vec<u8>), now_ms: i64) -> Taken {
    ledger.take(&device(), file, bytes, now_ms).expect("the ledger writes")
}

fn number(ledger: &Ledger, sql: &str) -> i64 {
    ledger.db.query_row(sql, [], |row| row.get(0)).expect("it answers")
}

fn verdict(taken: &Taken) -> Verdict {
    match taken {
        Taken::Kept { verdict, .. } | Taken::Apart(verdict) => *verdict,
    }
}

#[test]
fn a_file_sent_a_hundred_times_over_restarts_counts_once_and_has_one_receipt() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (file, bytes) = file(1, None, 1);
    let mut receipts = Vec::new();
    for round in 0..10 {
        // Opened anew: as after a crash between the commit and the answer.
        let mut ledger = ledger(folder.path());
        for n in 0..10 {
            match ledger.take(&device(), &file, &bytes, round * 10 + n).expect("the ledger writes") {
                Taken::Kept { receipt, .. } => receipts.push(receipt),
                apart @ Taken::Apart(_) => panic!("{apart:?}"),
            }
        }
        assert_eq!(number(&ledger, "SELECT count(*) FROM records"), 3);
        assert_eq!(number(&ledger, "SELECT count(*) FROM gaps WHERE count IS NULL"), 1);
    }
    assert_eq!(receipts.len(), 100);
    assert!(receipts.iter().all(|receipt| *receipt == receipts[0]));
    let receipt = Receipt::verify(&receipts[0], &[key(9).public()]).expect("it is ours");
    assert_eq!((receipt.device, receipt.seq, receipt.digest, receipt.at_ms), (device().id(), 1, file.digest(), 0));
}

#[test]
fn a_failure_in_the_middle_of_the_rows_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut ledger = ledger(folder.path());
    let one = file(1, None, 1);
    ledger
        .db
        .execute_batch(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON request_rows WHEN new.row = 2
                        BEGIN SELECT raise(ABORT, 'disk full'); END",
        )
        .expect("it is created");
    assert!(ledger.take(&device(), &one.0, &one.1, 0).is_err());
    for table in ["files", "chains", "request_rows", "gap_rows"] {
        assert_eq!(number(&ledger, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    ledger.db.execute_batch("DROP TRIGGER full").expect("it is dropped");
    assert_eq!(verdict(&take(&mut ledger, &one, 0)), Verdict::Contiguous);
    assert_eq!(number(&ledger, "SELECT count(*) FROM records"), 3);
}

#[test]
fn files_in_any_order_count_and_only_the_contiguous_number_waits() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut ledger = ledger(folder.path());
    let files = chain(5);
    for (seq, contiguous) in [(3, 0), (5, 0), (1, 1), (2, 3), (2, 3), (4, 5)] {
        assert!(matches!(take(&mut ledger, &files[seq - 1], 0), Taken::Kept { .. }), "{seq}");
        assert_eq!(number(&ledger, "SELECT contiguous FROM streams"), contiguous, "after {seq}");
    }
    assert_eq!(number(&ledger, "SELECT highest FROM streams"), 5);
    assert_eq!(number(&ledger, "SELECT count(*) FROM records"), 15);
    assert_eq!(number(&ledger, "SELECT count(DISTINCT request_id) FROM records"), 15);
}

#[test]
fn a_fork_is_kept_apart_and_never_counted() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut ledger = ledger(folder.path());
    take(&mut ledger, &file(1, None, 1), 0);
    for mark in 2..22 {
        assert_eq!(take(&mut ledger, &file(1, None, mark), 0), Taken::Apart(Verdict::ChainFork));
    }
    assert_eq!(take(&mut ledger, &file(1, None, 2), 0), Taken::Apart(Verdict::ChainFork));
    let stranger = file(2, Some(Digest([9; 32])), 3);
    assert_eq!(take(&mut ledger, &stranger, 0), Taken::Apart(Verdict::PreviousMismatch));
    assert_eq!(number(&ledger, "SELECT count(*) FROM records"), 3);
    assert_eq!(number(&ledger, "SELECT contiguous FROM streams"), 1);
    assert_eq!(number(&ledger, "SELECT highest FROM streams"), 1);
    assert_eq!(number(&ledger, "SELECT count(*) FROM forks"), 21);
    assert_eq!(number(&ledger, "SELECT count(bytes) FROM forks"), FORKS_KEPT);
    assert_eq!(number(&ledger, "SELECT max(times) FROM forks"), 2);
}

#[test]
fn the_books_can_be_done_in_the_sqlite_shell() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut ledger = ledger(folder.path());
    take(&mut ledger, &file(1, None, 1), 0);
    let row = ledger
        .db
        .query_row("SELECT request_id, status, outcome, device FROM records ORDER BY row LIMIT 1", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
        })
        .expect("it answers");
    assert_eq!(row, ("0a".repeat(16), 200, "Admitted".into(), device().id().to_string()));
}

#[test]
fn another_programs_database_and_a_newer_hubs_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("other.sqlite");
    Connection::open(&path).and_then(|db| db.execute_batch("CREATE TABLE t (x)")).expect("it is made");
    assert!(matches!(Ledger::open_file(&path, key(9)), Err(Error::Foreign)));
    drop(ledger(folder.path()));
    let path = folder.path().join("usage.sqlite");
    Connection::open(&path).and_then(|db| db.pragma_update(None, "user_version", 4)).expect("it is set");
    assert!(matches!(Ledger::open_file(&path, key(9)), Err(Error::NewerSchema(4))));
}

#[test]
fn a_database_of_version_1_is_brought_forward_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let files = chain(2);
    take(&mut ledger(folder.path()), &files[0], 1);
    let before = "DROP TRIGGER device_added; DROP TRIGGER device_changed; DROP TRIGGER device_removed; DROP TABLE changes;
                  ALTER TABLE devices DROP COLUMN revoked_ms; ALTER TABLE files ADD COLUMN receipt BLOB NOT NULL DEFAULT x'00'; PRAGMA user_version = 1";
    let db = Connection::open(folder.path().join("usage.sqlite")).expect("it opens");
    db.execute_batch(before).expect("as version 1 had it");
    drop(db);
    for at_ms in [2, 3] {
        let mut ledger = ledger(folder.path());
        assert_eq!(verdict(&take(&mut ledger, &files[0], at_ms)), Verdict::Repeat);
        take(&mut ledger, &files[1], at_ms);
        assert_eq!(number(&ledger, "SELECT count(*) FROM pragma_table_info('files') WHERE name = 'receipt'"), 0);
        assert_eq!(number(&ledger, "SELECT contiguous FROM streams"), 2);
    }
}

#[test]
fn a_repeat_is_signed_with_the_key_that_the_hub_has_now_and_keeps_its_time() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let one = file(1, None, 1);
    take(&mut ledger(folder.path()), &one, 77);
    let mut renewed = Ledger::open_file(&folder.path().join("usage.sqlite"), key(5)).expect("it opens");
    let Taken::Kept { receipt, verdict } = take(&mut renewed, &one, 99) else { panic!("it is a repeat") };
    let receipt = Receipt::verify(&receipt, &[key(5).public()]).expect("a device that knows the new key believes it");
    assert_eq!((verdict, receipt.digest, receipt.at_ms), (Verdict::Repeat, one.0.digest(), 77));
}

#[test]
fn what_the_database_holds_is_for_the_hubs_eyes_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let ledger = ledger(folder.path());
    for name in ["usage.sqlite", "usage.sqlite-wal", "usage.sqlite-shm"] {
        let mode = std::fs::metadata(folder.path().join(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(ledger);
}
