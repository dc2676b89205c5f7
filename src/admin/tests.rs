use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::*;
use crate::ids::{DeviceId, Digest, StreamId};
use crate::spool::backlog::{Cursor, Unavailable};
use crate::units::TimeBounds;

struct Answering {
    ready: Result<(), String>,
}

impl Answers for Answering {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }
    fn ready(&self) -> Result<(), String> {
        self.ready.clone()
    }
    fn metrics(&self) -> String {
        "tidegate_policy_seq 41\n".into()
    }
    fn status(&self) -> Status {
        status()
    }
    fn next_file(&self, after: Option<Cursor>) -> Later<'_, Result<Option<Vec<u8>>, Unavailable>> {
        Box::pin(async move {
            match after {
                None => Ok(Some(b"first".to_vec())),
                Some(Cursor { stream: StreamId(0xa5), seq: 1 }) => Ok(Some(b"second".to_vec())),
                Some(Cursor { seq: 2, .. }) => Ok(None),
                Some(_) => Err(Unavailable),
            }
        })
    }
    fn receipt(&self, receipt: bytes::Bytes) -> Later<'_, Result<(), NotTaken>> {
        Box::pin(async move {
            match &receipt[..] {
                b"good" => Ok(()),
                b"later" => Err(NotTaken::Unavailable),
                _ => Err(NotTaken::Refused(crate::spool::receipt::Error::KeyUnknown)),
            }
        })
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        device: DeviceId([0xa5; 16]),
        labels: [("site".to_owned(), "pier".to_owned())].into(),
        card: None,
        uptime_seconds: 12,
        not_ready: None,
        policy: PolicyStatus::Active {
            id: Digest([7; 32]),
            seq: 41,
            epoch: 1,
            activated_at: 1_700_000_000,
            expires_at: None,
            stale: false,
            on_trial: true,
        },
        time: TimeBounds::floor(1_700_000_000).into(),
        spool: SpoolStatus {
            stream: Some("00000000000000a5".into()),
            backlog_files: 2,
            backlog_bytes: 4096,
            disk_bytes: 524_288,
            open_bytes: 700,
            unsynced_bytes: 70,
            appended: 9,
            rolled_up: 1,
            lost: 0,
            last_error: None,
        },
        upload: Some(UploadStatus {
            hub: Some("https://hub.example".into()),
            held: None,
            day_bytes: 17,
            files: 3,
            failures: 1,
            passed_over: 1,
            by_another_key: 0,
            hears_events: true,
            last_success_seconds: Some(5),
            last_error: None,
        }),
        imports: vec![Imported { name: "a.tgb".into(), result: "Rollback".into(), at: 1_700_000_001, seq: Some(40) }],
        equivocations: 1,
        revocations_age_seconds: Some(60),
    }
}

/// A served door in a folder of its own, until the test ends.
struct Served {
    folder: tempfile::TempDir,
    config: Config,
    port: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start(ready: Result<(), String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let config = Config { socket: folder.path().join("admin.sock"), listen };
        let doors = Doors::open(&config).unwrap();
        let port = doors.port().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(doors.serve(Arc::new(Answering { ready }), async { _ = stopped.await }));
        Self { folder, config, port, stop, task }
    }

    async fn over_tcp(&self, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.port).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // The server may reset what it refuses half-read; what it said before that counts.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }
}

async fn body(socket: &Path, path: &'static str) -> (u16, String) {
    let reply = client::ask(socket, path).await.unwrap();
    (reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_socket_tells_health_metrics_and_status() {
    let served = Served::start(Ok(()));
    let socket = served.config.socket.as_path();
    assert_eq!(body(socket, "/livez").await, (200, "ok\n".into()));
    assert_eq!(body(socket, "/readyz").await, (200, "ok\n".into()));
    assert_eq!(body(socket, "/metrics").await, (200, "tidegate_policy_seq 41\n".into()));
    assert_eq!(body(socket, "/etc/passwd").await.0, 404);
    assert_eq!(client::status(socket).await.unwrap(), status(), "the client reads back what the daemon told");
}

#[tokio::test]
async fn a_daemon_that_is_not_ready_says_503_and_why() {
    let served = Served::start(Err("safe mode: no policy is active".into()));
    let answer = body(&served.config.socket, "/readyz").await;
    assert_eq!(answer, (503, "safe mode: no policy is active\n".into()));
    assert_eq!(body(&served.config.socket, "/livez").await.0, 200, "it lives all the same");
}

#[tokio::test]
async fn only_owner_and_group_may_use_the_socket_and_it_is_gone_after_the_stop() {
    let served = Served::start(Ok(()));
    let mode = std::fs::metadata(&served.config.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    served.stop.send(()).unwrap();
    served.task.await.unwrap();
    assert_eq!(std::fs::read_dir(served.folder.path()).unwrap().count(), 0, "neither socket nor part is left");
    let error = client::status(&served.config.socket).await;
    assert!(matches!(error, Err(client::Error::NotRunning { .. })), "{error:?}");
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_a_living_ones_and_a_file_are_not() {
    let served = Served::start(Ok(()));
    let config = Config { listen: None, ..served.config.clone() };
    assert!(matches!(Doors::open(&config), Err(Error::SocketInUse { .. })));
    assert_eq!(body(&config.socket, "/livez").await.0, 200, "the first daemon still answers");

    let dead = Config { socket: served.folder.path().join("dead.sock"), listen: None };
    drop(std::os::unix::net::UnixListener::bind(&dead.socket).unwrap());
    let before = std::fs::metadata(&dead.socket).unwrap().ino();
    let doors = Doors::open(&dead).unwrap();
    assert_ne!(std::fs::metadata(&dead.socket).unwrap().ino(), before);
    drop(doors);

    let file = Config { socket: served.folder.path().join("precious"), listen: None };
    std::fs::write(&file.socket, "data").unwrap();
    assert!(matches!(Doors::open(&file), Err(Error::NotASocket { .. })));
    assert_eq!(std::fs::read(&file.socket).unwrap(), b"data");
}

#[tokio::test]
async fn the_port_answers_only_to_a_loopback_host() {
    let served = Served::start(Ok(()));
    for host in ["127.0.0.1:9090", "localhost", "LOCALHOST:1", "[::1]:9090", "127.9.9.9"] {
        let answer =
            served.over_tcp(&format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    for host in ["evil.example", "localhost.evil.example", "192.168.1.4:9090", "127.0.0.1.evil.example", "", "[::2]"] {
        let answer =
            served.over_tcp(&format!("GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 421 ") && !answer.contains("a5a5"), "{host}: {answer}");
    }
    let answer = served.over_tcp("GET /status HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "no host at all: {answer}");
}

#[tokio::test]
async fn nothing_but_reading_is_answered_and_heads_are_limited() {
    let served = Served::start(Ok(()));
    let post = "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = served.over_tcp(post).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");

    let long = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(100));
    for (what, request) in [("a long head", &*long), ("many fields", &*many), ("garbage", "\u{0}\u{1}\u{2}\r\n\r\n")] {
        let answer = served.over_tcp(request).await;
        assert!(!answer.contains(" 200 "), "{what}: {answer}");
    }
    assert_eq!(body(&served.config.socket, "/livez").await.0, 200, "and it answers on");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_says_nothing_loses_its_connection_to_one_that_asks() {
    let served = Served::start(Ok(()));
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(tokio::net::UnixStream::connect(&served.config.socket).await.unwrap());
    }
    // Virtual time passes as soon as everybody waits; the queue empties slot by slot.
    let answer = tokio::time::timeout(Duration::from_secs(600), async {
        let mut stream = tokio::net::UnixStream::connect(&served.config.socket).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_client_refuses_what_is_no_status_and_what_never_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let big = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", client::REPLY_LIMIT + 1);
        for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "SSH-2.0-OpenSSH\r\n", &big] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert!(matches!(client::status(&socket).await, Err(client::Error::NotAStatus(_))));
    assert!(matches!(client::status(&socket).await, Err(client::Error::Broken(_))));
    assert!(matches!(client::status(&socket).await, Err(client::Error::BadLength)));
    server.join().unwrap();
}

#[test]
fn the_port_is_loopback_or_a_configuration_error() {
    for good in ["127.0.0.1:9090", "[::1]:9090", "127.255.0.1:0"] {
        let text = format!("listen = {good:?}");
        let config: Config = toml::from_str(&text).unwrap();
        assert_eq!(config.listen.map(|listen| listen.to_string()), Some(good.into()));
    }
    for bad in
        ["0.0.0.0:9090", "[::]:9090", "192.168.1.4:9090", "localhost:9090", "127.0.0.1", "[::ffff:10.0.0.1]:1", ""]
    {
        let error = toml::from_str::<Config>(&format!("listen = {bad:?}")).unwrap_err();
        assert!(error.to_string().contains("is not a loopback address"), "{bad}: {error}");
    }
    assert!(toml::from_str::<Config>("adress = \"127.0.0.1:9090\"").is_err(), "unknown keys are refused");
}

#[test]
fn a_status_of_a_newer_daemon_is_still_read() {
    let mut json = serde_json::to_value(status()).unwrap();
    json["policy"]["trial"] = serde_json::json!({"ends_at": 1});
    json["fleet"] = serde_json::json!("north");
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());
}

#[tokio::test]
async fn usage_files_go_through_the_socket_and_never_through_the_port() {
    let served = Served::start(Ok(()));
    let socket = &served.config.socket;
    let at = |stream, seq| Some(Cursor { stream: StreamId(stream), seq });
    assert_eq!(client::next_file(socket, None).await.unwrap().as_deref(), Some(&b"first"[..]));
    assert_eq!(client::next_file(socket, at(0xa5, 1)).await.unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(client::next_file(socket, at(0xa5, 2)).await.unwrap(), None);
    assert!(matches!(client::next_file(socket, at(0xa5, 3)).await, Err(client::Error::Spool(_))));
    client::receipt(socket, b"good").await.unwrap();
    for bad in [&b"later"[..], b"bad"] {
        assert!(matches!(client::receipt(socket, bad).await, Err(client::Error::Spool(_))));
    }
    let long = [0; crate::spool::receipt::LEN + 1];
    assert!(matches!(client::receipt(socket, &long).await, Err(client::Error::Refused(_))), "a receipt has one length");
    for request in ["GET /spool/next HTTP/1.1", "POST /spool/receipt HTTP/1.1\r\nContent-Length: 0"] {
        let answer = served.over_tcp(&format!("{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    }
    drop(served.stop);
    served.task.await.unwrap();
}
