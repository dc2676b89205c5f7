//! What is particular to SQLite.

use std::time::Instant;

use rusqlite::Connection;

use super::super::sqlite::Sqlite;
use super::super::*;
use super::scene::*;
use crate::ids::RequestId;
use crate::spool::record::{Client, Gap, GapReason, Outcome, RollUp, Row, UsageRecord};
use crate::spool::segment::{Builder, Place, open};

/// Version 2 as it was.
const VERSION_2: &str = include_str!("version-2.sql");
/// And version 3.
const VERSION_3: &str = include_str!("version-3.sql");

const GAP: Gap = Gap { reason: GapReason::Dropped, from_ms: 5, to_ms: 6, count: None };
const SUM: RollUp<'_> = RollUp {
    from_ms: 1,
    to_ms: 2,
    outcome: Outcome::Admitted,
    count: 0,
    bytes_in: 0,
    bytes_out: 0,
    api: "petstore",
    application: "till",
};

fn sqlite(site: &Site) -> Sqlite {
    Sqlite::open(&site.path()).expect("it opens")
}

#[test]
fn a_failure_in_the_middle_of_the_rows_leaves_nothing_of_the_whole_batch_behind() {
    let site = Site::sqlite();
    let mut store = sqlite(&site);
    let full = "CREATE TEMP TRIGGER full BEFORE INSERT ON requests WHEN new.id & 16383 = 2 AND new.id > 32768
                BEGIN SELECT raise(ABORT, 'disk full'); END";
    store.db().execute_batch(full).expect("it is created");
    let (files, device) = (chain(2), device());
    let batch: Vec<_> = files.iter().map(|(file, bytes)| Incoming { device: &device, file, bytes }).collect();
    assert!(store.take(&batch, 0).is_err(), "the second file does not fit");
    for table in ["files", "chains", "requests", "endpoints", "sums", "gap_rows"] {
        assert_eq!(site.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    store.db().execute_batch("DROP TRIGGER full").expect("it is dropped");
    assert_eq!(store.take(&batch, 0).expect("the ledger writes").len(), 2);
    assert_eq!(site.counted(), (6, 0));
}

#[test]
fn only_the_first_forks_of_a_stream_are_kept_with_their_bytes() {
    let site = Site::sqlite();
    let mut ledger = site.ledger();
    for mark in 1..22 {
        take(&mut ledger, &file(1, None, mark), 0);
    }
    assert_eq!(site.lines("SELECT count(*), count(bytes) FROM forks"), ["20|16"]);
}

#[test]
fn sums_that_no_integer_holds_stop_at_its_end_and_do_not_break_the_daily_view() {
    let site = Site::sqlite();
    let mut ledger = site.ledger();
    let huge = UsageRecord { bytes_out: u64::MAX, ..record(1) };
    let mut builder = Builder::new();
    for id in 0..3 {
        builder.push(&Row::Request(UsageRecord { request: RequestId([id; 16]), ..huge })).expect("there is room");
    }
    let place = Place { stream: STREAM, seq: 1, previous: None, policy: None };
    let bytes = builder.seal(&place, &key(1)).expect("it seals");
    let one = (open(&bytes, &key(1).public()).expect("it opens"), bytes);
    take(&mut ledger, &one, 0);
    assert_eq!(site.lines("SELECT requests, bytes_out FROM daily"), [format!("3|{}", i64::MAX)]);
    // The same of sums that are kept up, and none of them keeps a file out.
    let mut files = vec![one];
    for seq in 2..=4 {
        let previous = files.last().map(|(file, _): &Sealed| file.digest());
        let mut builder = Builder::new();
        let most = RollUp { count: u64::MAX, ..SUM };
        builder.push(&Row::RollUp(most)).expect("there is room");
        builder.push(&Row::Gap(Gap { count: Some(u64::MAX), ..GAP })).expect("there is room");
        let bytes = builder.seal(&Place { seq, previous, ..place }, &key(1)).expect("it seals");
        files.push((open(&bytes, &key(1).public()).expect("it opens"), bytes));
        assert!(matches!(take(&mut ledger, &files[files.len() - 1], 0), Taken::Kept { .. }));
    }
    let most = i64::MAX;
    assert_eq!(site.lines("SELECT requests, gaps, lost, unknown FROM tallies"), [format!("{most}|3|{most}|0")]);
    assert!(matches!(take(&mut ledger, &tombstone(&files, 1, 4, 0), 0), Taken::Kept { .. }));
}

#[test]
fn another_programs_database_and_a_newer_hubs_are_left_alone() {
    let site = Site::sqlite();
    Connection::open(site.path()).and_then(|db| db.execute_batch("CREATE TABLE t (x)")).expect("it is made");
    assert!(matches!(Sqlite::open(&site.path()), Err(Error::Foreign)));
    let site = Site::sqlite();
    drop(site.ledger());
    Connection::open(site.path()).and_then(|db| db.pragma_update(None, "user_version", 5)).expect("it is set");
    assert!(matches!(Sqlite::open(&site.path()), Err(Error::NewerSchema(5))));
}

/// A database of version 2 with one file of `chain`, as that version wrote it.
fn of_version_2(site: &Site, (file, bytes): &Sealed) {
    let db = Connection::open(site.path()).expect("it opens");
    db.execute_batch(VERSION_2).expect("it is SQL");
    let header = file.header();
    let (device, stream) = (header.device().0, header.stream.0.to_be_bytes());
    db.execute("INSERT INTO devices VALUES (?1, ?2, 'till', 'config', 0)", (device, device_key())).expect("a device");
    db.execute(
        "INSERT INTO files VALUES (3, ?1, ?2, 1, ?3, NULL, NULL, 3, 1, ?4, ?5, 77, ?6)",
        (device, stream, file.digest().0, header.first_ms, header.last_ms, int(bytes.len() as u64)),
    )
    .expect("a line");
    db.execute("INSERT INTO chains VALUES (?1, ?2, 1, 1, 77)", (device, stream)).expect("a chain");
    for (row, number) in file.rows().zip(0i64..) {
        match row {
            Row::Request(record) => {
                let insert =
                    "INSERT INTO request_rows VALUES (3,?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,'',?13,?14,?15,?16,?17,
                              '10.0.0.1',?18,?19)";
                let params = rusqlite::params![
                    number,
                    record.at_ms,
                    record.time.name(),
                    record.request.0,
                    record.api,
                    record.version,
                    record.route,
                    record.method,
                    record.status,
                    record.outcome.name(),
                    record.application,
                    record.plan,
                    int(record.bytes_in),
                    int(record.bytes_out),
                    record.total_us,
                    record.upstream_us,
                    record.upstream,
                    record.consumer,
                    record.issuer
                ];
                db.execute(insert, params).expect("a row");
            }
            Row::Gap(gap) => {
                let insert = "INSERT INTO gap_rows VALUES (3,?1,?2,?3,?4,NULL)";
                db.execute(insert, (number, gap.reason.name(), gap.from_ms, gap.to_ms)).expect("a gap");
            }
            Row::RollUp(_) => {}
        }
    }
    db.execute("INSERT INTO roll_up_rows VALUES (3,4,1,2,'TokenMissing',5,6,7,'a','b')", []).expect("a roll-up");
    db.execute("INSERT INTO forks VALUES (?1, ?2, 1, x'aa', 'ChainFork', 1, 2, NULL)", (device, stream))
        .expect("a fork");
    let marks = format!("PRAGMA user_version = 2; PRAGMA application_id = {}", 0x5469_6465);
    db.execute_batch(&marks).expect("it is marked");
}

fn device_key() -> Vec<u8> {
    device().key.raw().to_vec()
}

#[test]
fn a_database_of_version_2_or_1_is_brought_forward_with_all_that_is_in_it() {
    let views = [
        "SELECT * FROM records ORDER BY row",
        "SELECT * FROM roll_ups ORDER BY row",
        "SELECT * FROM gaps ORDER BY row",
        "SELECT device, name, stream, contiguous, highest, contact_ms FROM streams",
        "SELECT seq, reason, times FROM forks",
    ];
    let files = chain(2);
    let site = Site::sqlite();
    of_version_2(&site, &files[0]);
    let before = views.map(|view| site.lines(view));
    assert!(before.iter().all(|lines| !lines.is_empty()), "{before:?}");
    for round in 0..2 {
        let mut ledger = site.ledger();
        if round == 0 {
            assert_eq!(views.map(|view| site.lines(view)), before);
            assert_eq!(site.number("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%\\_2' ESCAPE '\\'"), 0);
        }
        assert_eq!(verdict(&take(&mut ledger, &files[0], 99)), Verdict::Repeat);
        assert!(matches!(take(&mut ledger, &files[1], 99), Taken::Kept { .. }));
        assert_eq!(site.counted(), (6, 5));
        assert_eq!(site.number("SELECT sum(requests) FROM daily"), 11);
    }
    // Version 1 had one column more.
    let site = Site::sqlite();
    of_version_2(&site, &files[0]);
    let db = Connection::open(site.path()).expect("it opens");
    let older = "ALTER TABLE files ADD COLUMN receipt BLOB NOT NULL DEFAULT x'00'; PRAGMA user_version = 1";
    db.execute_batch(older).expect("as version 1 had it");
    drop(db);
    drop(site.ledger());
    assert_eq!(views.map(|view| site.lines(view)), before);
}

#[test]
fn a_database_of_version_3_gets_what_it_had_not_and_its_sums_are_right() {
    let site = Site::sqlite();
    let files = chain(5);
    let mut ledger = site.ledger();
    for file in files.iter().take(4).chain([&tombstone(&files, 2, 3, 0)]) {
        take(&mut ledger, file, 0);
    }
    drop(ledger);
    let schema = "SELECT name, sql FROM sqlite_schema ORDER BY name";
    let sums =
        ["SELECT * FROM outcomes ORDER BY 1, 2", "SELECT hex(device), requests, gaps, lost, unknown FROM tallies"];
    let (fresh, before) = (site.lines(schema), sums.map(|of| site.lines(of)));
    assert_eq!(site.number("SELECT sum(requests) FROM outcomes"), 12);
    // As version 3 had it: what came since goes.
    let db = Connection::open(site.path()).expect("it opens");
    let older =
        "DROP VIEW waiting; DROP TABLE backlogs; DROP TABLE outcomes; DROP TABLE tallies; PRAGMA user_version = 3";
    db.execute_batch(older).expect("it is made older");
    drop(db);
    let then = Site::sqlite();
    Connection::open(then.path()).and_then(|db| db.execute_batch(VERSION_3)).expect("it is SQL");
    assert_eq!(site.lines(schema), then.lines(schema), "the control: that is version 3");
    let mut ledger = site.ledger();
    assert_eq!((site.lines(schema), sums.map(|of| site.lines(of))), (fresh, before));
    take(&mut ledger, &files[4], 0);
    take(&mut ledger, &tombstone(&files, 1, 5, 0), 0);
    assert_eq!(site.counted(), (0, 15));
}

#[test]
fn what_the_database_holds_is_for_the_hubs_eyes_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::sqlite();
    let ledger = site.ledger();
    for name in ["", "-wal", "-shm"] {
        let path = format!("{}{name}", site.path().display());
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(ledger);
}

/// Wall and this process's own time since, as rows a second: on a busy machine only the second says what it costs.
fn speed(rows: f64, begun: (Instant, f64)) -> String {
    let (wall, own) = (begun.0.elapsed().as_secs_f64(), own_time() - begun.1);
    format!("{:.0} rows/s, {:.0} rows/s of its own time", rows / wall, rows / own)
}

fn own_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Prints rows a second: `cargo test --release --lib -- --ignored --nocapture how_fast`.
#[test]
#[ignore = "a measurement"]
fn how_fast_files_of_ten_thousand_rows_are_verified_and_inserted() {
    const FILES: u64 = 40;
    let mut files: Vec<Sealed> = Vec::new();
    let mut sealed = Vec::new();
    let routes: Vec<String> = (0..20).map(|route| format!("/pets/{{id}}/{route}")).collect();
    let people: Vec<String> = (0..500).map(|person| format!("person-{person:05}@shop.example")).collect();
    for seq in 1..=FILES {
        let mut builder = Builder::new();
        for row in 0..10_000u64 {
            let number = seq * 10_000 + row;
            let mut request = [3; 16];
            request[8..].copy_from_slice(&number.to_be_bytes());
            let record = UsageRecord {
                at_ms: 1_764_000_000_000 + number.cast_signed(),
                request: RequestId(request),
                route: &routes[usize::try_from(number * 7 % 20).expect("small")],
                principal: &people[usize::try_from(number * 31 % 500).expect("small")],
                client: Client::Whole([10, 0, (number % 7) as u8, (number % 250) as u8].into()),
                bytes_in: number % 1_000,
                bytes_out: number % 100_000,
                total_us: 900 + (number % 4_000) as u32,
                upstream_us: 800,
                ..record(1)
            };
            builder.push(&Row::Request(record)).expect("there is room");
        }
        let previous = sealed.last().map(|bytes: &Vec<u8>| crate::keys::sha256(bytes));
        let place = Place { stream: STREAM, seq, previous, policy: None };
        sealed.push(builder.seal(&place, &key(1)).expect("it seals"));
    }
    let rows = FILES as f64 * 10_000.0;
    let begun = (Instant::now(), own_time());
    for bytes in sealed {
        files.push((open(&bytes, &key(1).public()).expect("it opens"), bytes));
    }
    eprintln!("verify: {}, {} bytes a file", speed(rows, begun), files[0].1.len());
    let mut sites = vec![("sqlite", Site::sqlite())];
    sites.extend(Site::clickhouse().map(|site| ("clickhouse", site)));
    for (name, site) in sites {
        for size in [1, 8] {
            let site = if size == 1 {
                &site
            } else {
                &if name == "sqlite" { Site::sqlite() } else { Site::clickhouse().expect("as before") }
            };
            let mut ledger = site.ledger();
            let (begun, device) = ((Instant::now(), own_time()), device());
            for batch in files.chunks(size) {
                let batch: Vec<_> =
                    batch.iter().map(|(file, bytes)| Incoming { device: &device, file, bytes }).collect();
                ledger.take(&batch, 0).expect("the ledger writes");
            }
            eprintln!("{name}, {size} files a batch: {}", speed(rows, begun));
            let begun = Instant::now();
            assert_eq!(site.number("SELECT sum(requests) FROM daily"), rows as i64);
            eprintln!("{name}: daily in {:?}", begun.elapsed());
        }
    }
}
