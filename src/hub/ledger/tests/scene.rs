//! What the tests share: a store in a throw-away place, a device, and its files.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::*;
use crate::hub::config::{ClickHouse, Config};
use crate::ids::{Digest, RequestId, StreamId};
use crate::spool::record::{Gap, GapReason, Outcome, RollUp, Row, SAMPLE, UsageRecord};
use crate::spool::segment::{Builder, Place, StandsFor, open};
use crate::units::TimeQuality;

pub(super) const STREAM: StreamId = StreamId(7);

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
}

pub(super) fn device() -> Device {
    Device { key: key(1).public(), name: "till".into(), came_by_itself: false }
}

pub(super) fn record(id: u8) -> UsageRecord<'static> {
    UsageRecord {
        at_ms: 1_000,
        time: TimeQuality::Floor,
        request: RequestId([id; 16]),
        bytes_in: 1,
        bytes_out: 7,
        total_us: 3,
        upstream_us: 2,
        ..SAMPLE
    }
}

/// A file and all its bytes.
pub(super) type Sealed = (Verified, Vec<u8>);

fn opened(bytes: Vec<u8>) -> Sealed {
    (open(&bytes, &key(1).public()).expect("it opens"), bytes)
}

/// One sealed file of three records and a gap; `mark` makes its records its own.
pub(super) fn file(seq: u64, previous: Option<Digest>, mark: u8) -> Sealed {
    file_in(STREAM, seq, previous, mark)
}

/// The same in another stream.
pub(super) fn file_in(stream: StreamId, seq: u64, previous: Option<Digest>, mark: u8) -> Sealed {
    let mut builder = Builder::new();
    for id in 0..3 {
        builder.push(&Row::Request(record(mark * 10 + id))).expect("there is room");
    }
    let gap = Gap { reason: GapReason::UncleanStop, from_ms: 5, to_ms: 6, count: None };
    builder.push(&Row::Gap(gap)).expect("there is room");
    let place = Place { stream, seq, previous, policy: None };
    opened(builder.seal(&place, &key(1)).expect("it seals"))
}

/// A tombstone for those files of `chain`, counted from 1: three requests for each; `mark` makes it another.
pub(super) fn tombstone(chain: &[Sealed], first: usize, last: usize, mark: i64) -> Sealed {
    let count = 3 * (last - first + 1) as u64;
    let sum = RollUp {
        from_ms: 1_000 + mark,
        to_ms: 86_400_000,
        outcome: Outcome::Admitted,
        count,
        bytes_in: count,
        bytes_out: 7 * count,
        api: "petstore",
        application: "till",
    };
    let mut builder = Builder::new();
    builder.push(&Row::RollUp(sum)).expect("there is room");
    let previous = first.checked_sub(2).map(|before| chain[before].0.digest());
    let stream = chain[0].0.header().stream;
    let place = Place { stream, seq: last as u64, previous, policy: None };
    let stands_for = StandsFor { first: first as u64, digest: chain[last - 1].0.digest() };
    opened(builder.bury(&place, stands_for, &key(1)).expect("it seals"))
}

pub(super) fn chain(len: u8) -> Vec<Sealed> {
    chain_in(STREAM, len)
}

pub(super) fn chain_in(stream: StreamId, len: u8) -> Vec<Sealed> {
    let mut files: Vec<Sealed> = Vec::new();
    for seq in 1..=len {
        files.push(file_in(stream, seq.into(), files.last().map(|(file, _)| file.digest()), seq));
    }
    files
}

/// Takes one file.
pub(super) fn try_take(ledger: &mut Ledger, (file, bytes): &Sealed, now_ms: i64) -> Result<Taken, Error> {
    let taken = ledger.take(&[Incoming { device: &device(), file, bytes }], now_ms)?;
    Ok(taken.into_iter().next().expect("one answer for one file"))
}

pub(super) fn take(ledger: &mut Ledger, file: &Sealed, now_ms: i64) -> Taken {
    try_take(ledger, file, now_ms).expect("the ledger writes")
}

pub(super) fn verdict(taken: &Taken) -> Verdict {
    match taken {
        Taken::Kept { verdict, .. } | Taken::Apart(verdict) => *verdict,
    }
}

/// A store's place, which outlives whoever opens it.
#[derive(Debug)]
pub(super) struct Site {
    folder: tempfile::TempDir,
    pub(super) config: Config,
}

impl Site {
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let database = folder.path().join("usage.sqlite");
        Self { folder, config: Config { database, clickhouse: None, ..Config::default() } }
    }

    /// `None`, having said why, where there is no server's program.
    pub(super) fn clickhouse() -> Option<Self> {
        static DATABASES: AtomicU64 = AtomicU64::new(0);
        let url = Server::shared()?;
        let database = format!("hub_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().expect("a folder can be made");
        let clickhouse = ClickHouse { url: url.into(), database, user: None, password_file: None };
        Some(Self { folder, config: Config { clickhouse: Some(clickhouse), ..Config::default() } })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("usage.sqlite")
    }

    /// Opened anew: as after a crash.
    pub(super) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::open(&self.config, key(9)).expect("it opens");
        ledger.enrol(&device(), By::Config, 0).expect("it is written");
        ledger
    }

    /// What a query says, in one line for each row, as somebody beside the hub sees it.
    pub(super) fn lines(&self, sql: &str) -> Vec<String> {
        match &self.config.clickhouse {
            None => sqlite_lines(&self.path(), sql),
            Some(clickhouse) => {
                let answer = post(&clickhouse.url, &format!("/?database={}", clickhouse.database), sql);
                answer.lines().map(|line| line.replace('\t', "|")).collect()
            }
        }
    }

    pub(super) fn number(&self, sql: &str) -> i64 {
        let lines = self.lines(sql);
        lines.first().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{sql}: {lines:?}"))
    }

    /// Requests and sums that count.
    pub(super) fn counted(&self) -> (i64, i64) {
        self.check_sums();
        (self.number("SELECT count(*) FROM records"), self.number("SELECT coalesce(sum(count), 0) FROM roll_ups"))
    }

    /// The sums that SQLite keeps up with each file say what the views say of all.
    fn check_sums(&self) {
        if self.config.clickhouse.is_some() {
            return;
        }
        let days = "date(day * 86400, 'unixepoch'), outcome, requests FROM outcomes WHERE requests > 0";
        let daily = "day, outcome, sum(requests) FROM daily GROUP BY day, outcome";
        let tallies =
            "lower(hex(device)), requests, gaps, lost, unknown FROM tallies WHERE requests + gaps + unknown > 0";
        let views = "device, sum(r), sum(g), sum(l), sum(u) FROM (
                         SELECT device, requests AS r, 0 AS g, 0 AS l, 0 AS u FROM daily
                         UNION ALL SELECT device, 0, count IS NOT NULL, coalesce(count, 0), count IS NULL FROM gaps
                     ) GROUP BY device";
        for (kept, told) in [(days, daily), (tallies, views)] {
            let [kept, told] = [kept, told].map(|of| self.lines(&format!("SELECT {of} ORDER BY 1, 2")));
            assert_eq!(kept, told);
        }
    }

    /// Those of one stream.
    pub(super) fn counted_in(&self, stream: StreamId) -> (i64, i64) {
        let of = |what: &str| self.number(&format!("SELECT {what} WHERE stream = '{stream}'"));
        (of("count(*) FROM records"), of("coalesce(sum(count), 0) FROM roll_ups"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(ClickHouse { url, database, .. }) = &self.config.clickhouse {
            post(url, "/", &format!("DROP DATABASE IF EXISTS {database}"));
        }
    }
}

fn sqlite_lines(path: &Path, sql: &str) -> Vec<String> {
    let db = Connection::open(path).expect("it opens");
    let mut query = db.prepare(sql).expect("it is SQL");
    let columns = query.column_count();
    let rows = query.query_map([], |row| {
        let fields = (0..columns).map(|column| {
            Ok(match row.get_ref(column)? {
                rusqlite::types::ValueRef::Null => "\\N".into(),
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                other => String::from_utf8_lossy(other.as_bytes().expect("text")).into_owned(),
            })
        });
        Ok(fields.collect::<rusqlite::Result<Vec<String>>>()?.join("|"))
    });
    rows.and_then(Iterator::collect).expect("it answers")
}

/// A plain client of its own, so that no defect of the hub's hides itself.
fn post(url: &str, target: &str, body: &str) -> String {
    let address = url.strip_prefix("http://").expect("a test's server");
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let head = format!("POST {target} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("it takes a query");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(" 200 "), "{body}: {text}");
    text.to_owned()
}

/// A ClickHouse server for all tests of this process.
struct Server {
    _child: Child,
    url: String,
}

const CONFIG: &str = "<yandex><logger><level>error</level><console>true</console></logger>
<listen_host>127.0.0.1</listen_host><http_port>PORT</http_port><path>FOLDER/data/</path><tmp_path>FOLDER/tmp/</tmp_path>
<user_files_path>FOLDER/files/</user_files_path><format_schema_path>FOLDER/schemas/</format_schema_path>
<users_config>FOLDER/users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><mark_cache_size>67108864</mark_cache_size></yandex>";
const USERS: &str = "<yandex><profiles><default/></profiles><users><default><password></password>
<networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
<quotas><default/></quotas></yandex>";
/// Ends the server, and takes its folder away, when the tests' process is gone, however that ends.
const KEEPER: &str = r#"clickhouse-server --config-file="$1/config.xml" >"$1/log" 2>&1 & echo started; cat >/dev/null; kill -9 $!; wait; rm -rf "$1""#;

impl Server {
    fn shared() -> Option<&'static str> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref().map(|server| server.url.as_str())
    }

    fn start() -> Option<Self> {
        if Command::new("clickhouse-server").arg("--version").output().is_err() {
            eprintln!("skipped: no clickhouse-server here; on Debian, `apt-get install clickhouse-server`");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder can be made").keep();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port();
        let path = folder.display().to_string();
        let config = CONFIG.replace("PORT", &port.to_string()).replace("FOLDER", &path);
        std::fs::write(folder.join("config.xml"), config).expect("it can be written");
        std::fs::write(folder.join("users.xml"), USERS).expect("it can be written");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper", &path]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = keeper.spawn().expect("a shell is here");
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).lines().next().expect("it says so").expect("it is text");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { _child: child, url: format!("http://127.0.0.1:{port}") })
    }
}

/// Lets so many statements through to the server; the next one is not sent, or is sent and its answer lost, and so are all
/// after it: what the server saw of a hub that was killed between any two statements.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Fuse {
    pub(super) left: usize,
    pub(super) is_sent: bool,
}

impl Fuse {
    pub(in super::super) fn blows_before(&mut self) -> bool {
        self.left == 0 && !self.is_sent
    }

    pub(in super::super) fn blows_after(&mut self) -> bool {
        let blows = self.left == 0;
        self.is_sent &= !blows;
        self.left = self.left.saturating_sub(1);
        blows
    }
}
