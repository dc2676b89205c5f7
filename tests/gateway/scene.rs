//! A gateway in this process, its records in a list, and raw sockets to speak to it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tidegate::gateway::{
    Config, ConnectionEnd, Counters, Gateway, Intake, Listener, ListenerConfig, PSEUDONYMS, Running, Shared, TimeState,
    bind,
};
use tidegate::keys::{MacKey, SigningKey};
use tidegate::policy::Snapshot;
use tidegate::spool::record::{Outcome, UsageRecord};
use tidegate::telemetry::Heartbeats;
use tidegate::throttle::{self, Throttle};
use tidegate::units::Span;

use crate::rig::{Rig, Terms};
use crate::upstream::{SOON, read_chunks};

pub(crate) static RIG: LazyLock<Rig> = LazyLock::new(Rig::new);

/// The parts of a record that the tests look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) outcome: Outcome,
    pub(crate) status: u16,
    pub(crate) method: String,
    pub(crate) route: String,
    pub(crate) application: String,
    pub(crate) upstream: String,
    pub(crate) request: String,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) upstream_us: u32,
    pub(crate) principal: String,
    pub(crate) client: Option<String>,
    pub(crate) of: Of,
}

/// Of whom a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Known,
    Anybody,
    Refused,
}

/// Tells of a record when it is flushed, as the spool does.
struct List(Sender<Kept>, Vec<Kept>);

impl List {
    fn keep(&mut self, record: &UsageRecord<'_>, of: Of) {
        self.1.push(Kept {
            outcome: record.outcome,
            status: record.status,
            method: record.method.into(),
            route: record.route.into(),
            application: record.application.into(),
            upstream: record.upstream.into(),
            request: record.request.to_string(),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            upstream_us: record.upstream_us,
            principal: record.principal.into(),
            client: record.client.to_text(),
            of,
        });
    }
}

impl Intake for List {
    fn append(&mut self, record: &UsageRecord<'_>) {
        self.keep(record, Of::Known);
    }

    fn append_open(&mut self, record: &UsageRecord<'_>) {
        self.keep(record, Of::Anybody);
    }

    fn append_unauthenticated(&mut self, record: &UsageRecord<'_>, _: Duration) {
        self.keep(record, Of::Refused);
    }

    fn flush(&mut self) {
        for kept in self.1.drain(..) {
            let _ = self.0.send(kept);
        }
    }
}

pub(crate) struct Scene {
    pub(crate) address: SocketAddr,
    pub(crate) records: Receiver<Kept>,
    pub(crate) shared: Shared,
    pub(crate) running: Running,
}

/// A gateway of one worker in front of `terms`.
pub(crate) fn scene(terms: &Terms) -> Scene {
    scene_of(RIG.snapshot(terms), quick(), ListenerConfig::default())
}

/// Time-outs that a test can wait for.
pub(crate) fn quick() -> Config {
    let mut config = Config::default();
    config.timeouts.head = Span::millis(500);
    config.timeouts.body = Span::millis(500);
    config
}

pub(crate) fn scene_of(snapshot: Snapshot, config: Config, listener: ListenerConfig) -> Scene {
    scene_with(snapshot, config, listener, None)
}

pub(crate) fn scene_with(
    snapshot: Snapshot,
    config: Config,
    listener: ListenerConfig,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Scene {
    scene_on(free_port(), snapshot, config, listener, tls)
}

/// The same on a socket that is listened on already.
pub(crate) fn scene_on(
    socket: TcpListener,
    snapshot: Snapshot,
    config: Config,
    listener: ListenerConfig,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Scene {
    let (sender, records) = channel();
    let shared = shared(snapshot);
    let (address, running) = start_on(socket, &config, &listener, tls, &shared, Box::new(List(sender, Vec::new())));
    Scene { address, records, shared, running }
}

/// A gateway of one worker in front of `terms`, on another device than all others.
pub(crate) fn scene_elsewhere(terms: &Terms) -> Scene {
    let (sender, records) = channel();
    let shared = Shared { pseudonyms: Arc::new(device(2)), ..shared(RIG.snapshot(terms)) };
    let intake = Box::new(List(sender, Vec::new()));
    let (address, running) = start(&quick(), &ListenerConfig::default(), None, &shared, intake);
    Scene { address, records, shared, running }
}

/// What a device makes pseudonyms with.
fn device(seed: u8) -> MacKey {
    SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key").mac_key(PSEUDONYMS)
}

/// What the workers of a gateway under `snapshot` share.
pub(crate) fn shared(snapshot: Snapshot) -> Shared {
    Shared {
        policy: Arc::new(ArcSwap::from_pointee(snapshot)),
        throttle: Arc::new(Throttle::new(throttle::Config::default())),
        time: Arc::new(ArcSwap::from_pointee(TimeState::exact(1_800_000_000_000))),
        counters: Arc::new(Counters::default()),
        origin: Instant::now(),
        pseudonyms: Arc::new(device(1)),
        hearts: Heartbeats::new(Instant::now(), Duration::from_secs(60)),
    }
}

/// A gateway of one worker on a free port.
pub(crate) fn start(
    config: &Config,
    listener: &ListenerConfig,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: &Shared,
    intake: Box<dyn Intake>,
) -> (SocketAddr, Running) {
    start_on(free_port(), config, listener, tls, shared, intake)
}

pub(crate) fn free_port() -> TcpListener {
    bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
}

fn start_on(
    socket: TcpListener,
    config: &Config,
    listener: &ListenerConfig,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: &Shared,
    intake: Box<dyn Intake>,
) -> (SocketAddr, Running) {
    let address = socket.local_addr().expect("bound");
    let listener = Listener::new(socket, listener, tls);
    (address, Gateway::start(config, vec![listener], shared, vec![intake]).expect("it starts"))
}

impl Scene {
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the gateway accepts");
        stream.set_read_timeout(Some(SOON)).expect("a time-out can be set");
        Client { input: BufReader::new(stream.try_clone().expect("a socket can be shared")), stream }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Reply {
        let mut client = self.connect();
        client.say(request);
        client.reply()
    }

    pub(crate) fn record(&self) -> Kept {
        self.records.recv_timeout(SOON).expect("a record")
    }

    /// Stops the gateway and sees that no further record comes.
    pub(crate) fn end(self) {
        let _ = self.running.drain(Duration::from_millis(100));
        let more: Vec<_> = self.records.try_iter().collect();
        assert_eq!(more, [], "records of requests that never were");
    }

    /// Sees that exactly so many connections end so; a connection is counted just after its caller sees the end.
    pub(crate) fn ended(&self, end: ConnectionEnd, count: u64) {
        let deadline = Instant::now() + SOON;
        while self.shared.counters.ended(end) < count && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(self.shared.counters.ended(end), count, "{end:?}");
    }

    /// Waits until so many connections to upstreams were opened.
    pub(crate) fn asked(&self, connections: u64) {
        let deadline = Instant::now() + SOON;
        while self.shared.counters.upstream_connects.load(Ordering::Relaxed) < connections {
            assert!(Instant::now() < deadline, "no upstream is asked");
            std::thread::yield_now();
        }
    }

    pub(crate) fn no_record(&self, within: Duration) {
        match self.records.recv_timeout(within) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("no request, and yet {other:?}"),
        }
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) input: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Client {
    pub(crate) fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("the gateway reads");
    }

    /// Reads the head of an answer.
    pub(crate) fn head(&mut self) -> Reply {
        let mut line = String::new();
        self.input.read_line(&mut line).expect("an answer");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut fields = Vec::new();
        loop {
            let mut field = String::new();
            self.input.read_line(&mut field).expect("a field");
            let Some((name, value)) = field.trim_end().split_once(':') else { break };
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Reply { status, fields, body: Vec::new() }
    }

    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        if reply.field("transfer-encoding").is_some() {
            reply.body = read_chunks(&mut self.input).expect("whole chunks");
        } else if let Some(length) = reply.field("content-length").map(|length| length.parse().expect("a number")) {
            reply.body = vec![0; length];
            self.input.read_exact(&mut reply.body).expect("the whole body");
        }
        reply
    }

    /// Whether the gateway closes, with nothing more to say, and soon.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.input.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// A request for the petstore with a good token; `more` holds further fields, each ended by CRLF.
pub(crate) fn with_token(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {}\r\n{more}\r\n", RIG.token(1))
}
