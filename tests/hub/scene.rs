//! What the tests share: a hub in a throw-away folder, a device, its files, and a backlog without a disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use tidegate::bundle::keyfile::AuthorKey;
use tidegate::hub::{Config, DeviceEntry, Hub};
use tidegate::ids::{DeviceId, Digest, RequestId, StreamId, hex};
use tidegate::keys::{SigningKey, sha256};
use tidegate::spool::backlog::{Backlog, Cursor, Stock, Unavailable, UsageFile};
use tidegate::spool::record::{Client, Outcome, Row, UsageRecord};
use tidegate::spool::segment::{Builder, Place};
use tidegate::units::{Span, TimeQuality};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const STREAM: StreamId = StreamId(7);
/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
}

pub(crate) fn device() -> SigningKey {
    key(1)
}

pub(crate) fn hub_key() -> SigningKey {
    key(9)
}

pub(crate) fn record(number: u64) -> UsageRecord<'static> {
    let mut id = [3; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    UsageRecord {
        at_ms: 1_764_000_000_000 + number.cast_signed(),
        time: TimeQuality::Synced,
        request: RequestId(id),
        api: "petstore",
        version: "1.0",
        route: "/pets",
        method: "GET",
        status: 200,
        outcome: Outcome::Admitted,
        application: "till",
        plan: "gold",
        principal: "",
        bytes_in: 0,
        bytes_out: 512,
        total_us: 900,
        upstream_us: 800,
        upstream: "127.0.0.1:9000",
        client: Client::Absent,
        consumer: "shop",
        issuer: "https://idp.example",
    }
}

/// A sealed file of ten records, those of `mark`, signed by `device`.
pub(crate) fn file(device: &SigningKey, seq: u64, previous: Option<Digest>, mark: u64) -> UsageFile {
    file_of(STREAM, device, seq, previous, mark)
}

/// The same in a stream of its own.
pub(crate) fn file_of(
    stream: StreamId,
    device: &SigningKey,
    seq: u64,
    previous: Option<Digest>,
    mark: u64,
) -> UsageFile {
    let mut builder = Builder::new();
    for number in 0..10 {
        builder.push(&Row::Request(record(mark * 10 + number))).expect("there is room");
    }
    let place = Place { stream, seq, previous, policy: None };
    let bytes = builder.seal(&place, device).expect("it seals");
    UsageFile { at: Cursor { stream, seq }, digest: sha256(&bytes), bytes }
}

/// A file of some size: its principals do not compress.
pub(crate) fn large_file(device: &SigningKey) -> UsageFile {
    let mut builder = Builder::new();
    for number in 0..5000u64 {
        let noise: String =
            (0..2u8).map(|part| sha256(&[&number.to_be_bytes()[..], &[part]].concat()).to_string()).collect();
        builder.push(&Row::Request(UsageRecord { principal: &noise, ..record(number) })).expect("there is room");
    }
    let place = Place { stream: STREAM, seq: 1, previous: None, policy: None };
    let bytes = builder.seal(&place, device).expect("it seals");
    UsageFile { at: Cursor { stream: STREAM, seq: 1 }, digest: sha256(&bytes), bytes }
}

pub(crate) fn chain(len: u64) -> Vec<UsageFile> {
    let mut files: Vec<UsageFile> = Vec::new();
    for seq in 1..=len {
        files.push(file(&device(), seq, files.last().map(|file| file.digest), seq));
    }
    files
}

/// A backlog in memory, and how often it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf(pub(crate) Arc<Mutex<Vec<UsageFile>>>, pub(crate) Arc<AtomicU64>);

impl Shelf {
    pub(crate) fn of(files: Vec<UsageFile>) -> Self {
        Self(Arc::new(Mutex::new(files)), Arc::default())
    }

    pub(crate) fn reads(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("no test panics with it").len()
    }
}

impl Backlog for Shelf {
    fn waiting(&self) -> Option<Stock> {
        let files = self.0.lock().expect("no test panics with it");
        let bytes = files.iter().map(|file| file.bytes.len() as u64).sum();
        Some(Stock { files: files.len() as u64, bytes })
    }

    async fn oldest(&self, after: Option<Cursor>) -> Result<Option<UsageFile>, Unavailable> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let files = self.0.lock().expect("no test panics with it");
        Ok(files.iter().find(|file| after.is_none_or(|after| file.at > after)).cloned())
    }

    async fn acknowledge(&self, at: Cursor, digest: &Digest) -> Result<(), Unavailable> {
        self.0.lock().expect("no test panics with it").retain(|file| (file.at, &file.digest) != (at, digest));
        Ok(())
    }
}

/// A hub's folder, which outlives the hub.
#[derive(Debug)]
pub(crate) struct Premises(tempfile::TempDir);

/// A hub that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// The fleet page's.
    pub(crate) fleet: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Premises {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let key = AuthorKey { name: "hub".into(), key: hub_key() };
        key.create(&folder.path().join("hub.key")).expect("it can be written");
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database: self.path("usage.sqlite"),
            key_file: self.path("hub.key"),
            devices: vec![DeviceEntry { name: "till".into(), key: hex(device().public().raw()) }],
            drain: Span::secs(2),
            // Most tests speak to the hub in raw bytes; those of proofs ask for them.
            require_proof: false,
            ..Config::default()
        }
    }

    /// One number out of the hub's database.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let db = Connection::open(self.path("usage.sqlite")).expect("it opens");
        db.busy_timeout(DEADLINE).expect("it is set");
        db.query_row(sql, [], |row| row.get(0)).expect("it answers")
    }
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let hub = Hub::bind(config).await.expect("the hub starts");
        let (address, fleet) = (hub.local_addr().expect("it listens"), hub.fleet_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            hub.serve(async { drop(stopped.await) }).await.expect("the hub ends well");
        });
        Self { address, fleet, stop, task }
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        tokio::time::timeout(DEADLINE, self.task).await.expect("it drains").expect("it does not panic");
    }
}

/// The path of a file of the test device.
pub(crate) fn path(device: &SigningKey, seq: u64) -> String {
    format!("/v1/usage/{}/{STREAM}/{seq}", DeviceId::from(device.public().id()))
}
