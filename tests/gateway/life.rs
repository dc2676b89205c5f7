//! A gateway's life: policies change under load, it stops in good order, it speaks TLS, it does not overfill.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use tidegate::gateway::{
    Config, ConnectionEnd, Drained, Gateway, Intake, Listener, ListenerConfig, Shared, bind, server_config,
};
use tidegate::spool::record::{Outcome, UsageRecord};
use tidegate::telemetry::{Heartbeats, Standstill};
use tidegate::units::Span;

use crate::rig::Terms;
use crate::scene::{RIG, free_port, quick, scene, scene_of, scene_on, scene_with, shared, start, with_token};
use crate::upstream::{self, SOON, echo_target};

#[test]
fn a_policy_changes_under_load_without_a_refused_request() {
    let upstream = upstream::start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (sent, seen) = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = scene_client(&scene.address);
                    let (mut sent, mut seen) = (0, BTreeSet::new());
                    while !stop.load(Ordering::Relaxed) {
                        client.say(&with_token("GET /petstore/1.0/pet/1", ""));
                        let reply = client.reply();
                        assert_eq!(reply.status, 200);
                        seen.insert(reply.text().to_owned());
                        sent += 1;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    (sent, seen)
                })
            })
            .collect();
        let patience = Instant::now() + SOON;
        for round in 0..30 {
            let strip_base_path = round % 2 == 0;
            let next = RIG.snapshot(&Terms { strip_base_path, ..Terms::to(upstream.address) });
            scene.shared.policy.store(Arc::new(next));
            // Of so many answers some are to requests that began under it.
            let enough = answered.load(Ordering::Relaxed) + 2 * callers.len();
            while answered.load(Ordering::Relaxed) < enough && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        stop.store(true, Ordering::Relaxed);
        let ends = callers.into_iter().map(|caller| caller.join().expect("no refusal"));
        ends.fold((0, BTreeSet::new()), |(sent, seen), (more, also)| (sent + more, &seen | &also))
    });
    assert!(seen.iter().eq(["/pet/1", "/petstore/1.0/pet/1"]), "of both policies: {seen:?}");
    let admitted = (0..sent).filter(|_| scene.record().outcome == Outcome::Admitted).count();
    assert_eq!(admitted, sent);
    // The pool outlives the policies: their endpoints stayed the same.
    assert!(scene.shared.counters.upstream_connects.load(Ordering::Relaxed) <= 8, "{:?}", scene.shared.counters);
    scene.end();
}

fn scene_client(address: &std::net::SocketAddr) -> crate::scene::Client {
    let stream = std::net::TcpStream::connect(address).expect("the gateway accepts");
    stream.set_read_timeout(Some(SOON)).expect("a time-out can be set");
    crate::scene::Client { input: std::io::BufReader::new(stream.try_clone().expect("shared")), stream }
}

#[test]
fn what_is_in_flight_ends_well_when_the_gateway_stops() {
    let upstream = upstream::start(|seen, out| {
        std::thread::sleep(Duration::from_millis(200));
        echo_target(seen, out)
    });
    let scene = scene(&Terms::to(upstream.address));
    let mut idle = scene.connect();
    let mut busy = scene.connect();
    busy.say(&with_token("GET /petstore/1.0/pet/1", ""));
    scene.asked(1);
    let begun = Instant::now();
    let drained = scene.running.drain(Duration::from_secs(5));
    assert_eq!(drained, Drained { broken_off: 0, dead_threads: 0 });
    assert!(begun.elapsed() < Duration::from_secs(4), "it waited for an idle connection");
    let reply = busy.reply();
    assert_eq!((reply.status, reply.field("connection")), (200, Some("close")));
    assert!(idle.is_closed());
    assert_eq!(scene.records.try_iter().map(|record| record.outcome).collect::<Vec<_>>(), [Outcome::Admitted]);
}

#[test]
fn what_does_not_end_in_time_is_broken_off_and_on_the_record() {
    let upstream = upstream::start(|_, out| out.read(&mut [0; 1]).is_ok_and(|read| read > 0));
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    client.say(&with_token("GET /petstore/1.0/pet/1", ""));
    scene.asked(1);
    let drained = scene.running.drain(Duration::from_millis(100));
    assert_eq!(drained, Drained { broken_off: 1, dead_threads: 0 });
    assert!(client.is_closed());
    let records: Vec<_> = scene.records.try_iter().map(|record| record.outcome).collect();
    assert_eq!(records, [Outcome::DownstreamAborted]);
}

#[test]
fn a_stop_breaks_no_connection_that_has_not_had_its_turn() {
    let mut config = quick();
    config.limits.connections = 1;
    let upstream = upstream::start(echo_target);
    let terms = Terms::to(upstream.address);
    let socket = free_port();
    let next = socket.try_clone().expect("a socket can be shared");
    let scene = scene_on(socket, RIG.snapshot(&terms), config, ListenerConfig::default(), None);
    let _first = scene.connect();
    let mut waiting: Vec<_> = (0..3).map(|_| scene.connect()).collect();
    for client in &mut waiting {
        client.say(&with_token("GET /petstore/1.0/pet/1", ""));
    }
    let _ = scene.running.drain(Duration::from_secs(5));
    // Whoever listens on after a restart finds them in the queue.
    let scene = scene_on(next, RIG.snapshot(&terms), quick(), ListenerConfig::default(), None);
    assert!(waiting.iter_mut().all(|client| client.reply().status == 200));
    assert!((0..3).all(|_| scene.record().outcome == Outcome::Admitted));
    scene.end();
}

#[test]
fn connections_over_the_limit_wait_until_there_is_room() {
    let mut config = quick();
    config.limits.connections = 2;
    let upstream = upstream::start(echo_target);
    let scene = scene_of(RIG.snapshot(&Terms::to(upstream.address)), config, ListenerConfig::default());
    let first = scene.connect();
    let _second = scene.connect();
    let mut third = scene.connect();
    third.say(&with_token("GET /petstore/1.0/pet/1", ""));
    scene.no_record(Duration::from_millis(100));
    drop(first);
    assert_eq!(third.reply().status, 200);
    assert_eq!(scene.record().outcome, Outcome::Admitted);
    scene.end();
}

#[test]
fn a_gateway_without_requests_closes_idle_connections_and_lets_go_of_an_old_policy() {
    // It shows a request when its connection is closed.
    let upstream =
        upstream::start(|seen, out| echo_target(seen, out) && out.read(&mut [0; 1]).is_ok_and(|read| read > 0));
    let mut config = quick();
    config.timeouts.idle_upstream = Span::millis(100);
    let terms = Terms::to(upstream.address);
    let scene = scene_of(RIG.snapshot(&terms), config, ListenerConfig::default());
    assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).status, 200);
    scene.record();
    upstream.seen.recv_timeout(SOON).expect("the idle connection was closed");

    let old = Arc::downgrade(&scene.shared.policy.swap(Arc::new(RIG.snapshot(&terms))));
    let deadline = Instant::now() + SOON;
    while old.strong_count() > 0 {
        assert!(Instant::now() < deadline, "the worker keeps the old policy");
        std::thread::sleep(Duration::from_millis(5));
    }
    scene.end();
}

#[test]
fn a_listener_without_callers_keeps_no_place_from_another() {
    let mut config = quick();
    config.limits.connections = 1;
    let terms = Terms::to(upstream::start(echo_target).address);
    let shared = shared(RIG.snapshot(&terms));
    let sockets: Vec<_> = (0..2).map(|_| bind(([127, 0, 0, 1], 0).into()).expect("a free port")).collect();
    let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
    let listeners = sockets.into_iter().map(|socket| Listener::new(socket, &ListenerConfig::default(), None)).collect();
    let (let_go, hung) = channel();
    drop(let_go);
    let running = Gateway::start(&config, listeners, &shared, vec![Box::new(Hung(hung))]).expect("it starts");
    for address in addresses.iter().chain(addresses.iter().rev()) {
        let mut client = scene_client(address);
        client.say(&with_token("GET /petstore/1.0/pet/1", ""));
        assert_eq!(client.reply().status, 200);
    }
    let _ = running.drain(Duration::from_millis(100));
}

/// An intake whose flush waits until it is let go, and says that it was asked.
struct Slow(Sender<()>, Receiver<()>);

impl Intake for Slow {
    fn append(&mut self, _: &UsageRecord<'_>) {}

    fn append_open(&mut self, _: &UsageRecord<'_>) {}

    fn append_unauthenticated(&mut self, _: &UsageRecord<'_>, _: Duration) {}

    fn flush(&mut self) {
        let _ = self.0.send(());
        let _ = self.1.recv_timeout(2 * SOON);
    }
}

#[test]
fn no_answer_is_whole_before_its_record_survives_a_kill() {
    let upstream = upstream::start(|seen, out| {
        let body = if seen.line.contains("/pet/2") { "x".repeat(300_000) } else { "short".into() };
        write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    let shared = shared(RIG.snapshot(&Terms::to(upstream.address)));
    let (asked, is_asked) = channel();
    let (let_go, waits) = channel();
    let (address, _running) = start(&quick(), &ListenerConfig::default(), None, &shared, Box::new(Slow(asked, waits)));
    let refused = "GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_owned();
    let (short, streamed) = ("GET /petstore/1.0/pet/1", "GET /petstore/1.0/pet/2");
    for request in [with_token(short, ""), with_token(streamed, ""), refused] {
        let mut client = TcpStream::connect(address).expect("it listens");
        client.write_all(request.as_bytes()).expect("it reads");
        // All that can be read until the record is asked for, and for a while after.
        client.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        let (mut answer, mut part, mut quiet) = (Vec::new(), vec![0; 1 << 20], 0);
        let deadline = Instant::now() + SOON;
        while quiet < 4 {
            assert!(Instant::now() < deadline, "its record is not asked for; {} bytes came", answer.len());
            match client.read(&mut part) {
                Ok(read) => answer.extend_from_slice(&part[..read]),
                Err(_) => quiet += usize::from(quiet > 0 || is_asked.try_recv().is_ok()),
            }
        }
        assert!(!is_whole(&answer), "{}", String::from_utf8_lossy(&answer));
        let_go.send(()).expect("it waits");
        client.set_read_timeout(Some(SOON)).expect("a time-out");
        while !is_whole(&answer) {
            let read = client.read(&mut part).expect("the rest");
            assert_ne!(read, 0);
            answer.extend_from_slice(&part[..read]);
        }
    }
}

/// Whether an answer with a `Content-Length` is there to its last byte.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    answer.len() == end + 4 + length.unwrap_or(0_usize)
}

#[test]
fn a_caller_that_reads_late_gets_every_answer_whole_and_in_order() {
    const REQUESTS: usize = 20_000;
    let upstream = upstream::start(echo_target);
    // Nobody is too slow here.
    let snapshot = RIG.snapshot(&Terms::to(upstream.address));
    let scene = scene_of(snapshot, Config::default(), ListenerConfig::default());
    let mut client = scene.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(&client.stream, 4 << 10).expect("a socket");
    let mut out = client.stream.try_clone().expect("a socket can be shared");
    let sent = Arc::new(AtomicUsize::new(0));
    let so_far = Arc::clone(&sent);
    let caller = std::thread::spawn(move || {
        for number in 0..REQUESTS {
            out.write_all(with_token(&format!("GET /petstore/1.0/pet/{number}"), "").as_bytes()).expect("it reads");
            so_far.store(number + 1, Ordering::Relaxed);
        }
    });
    // The caller reads nothing until the gateway can take no more.
    let (mut last, mut still) = (0, 0);
    while still < 10 {
        std::thread::sleep(Duration::from_millis(20));
        let now = sent.load(Ordering::Relaxed);
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
    assert!(last < REQUESTS, "everything fits into the buffers of two sockets");
    for number in 0..REQUESTS {
        let reply = client.reply();
        assert!(reply.text().ends_with(&format!("/pet/{number}")), "{number}: {}", reply.text());
    }
    caller.join().expect("it wrote all");
    assert!((0..REQUESTS).all(|_| scene.record().outcome == Outcome::Admitted));
    scene.end();
}

/// An intake that hangs until it is let go.
struct Hung(Receiver<()>);

impl Intake for Hung {
    fn append(&mut self, _: &UsageRecord<'_>) {
        let _ = self.0.recv();
    }

    fn append_open(&mut self, record: &UsageRecord<'_>) {
        self.append(record);
    }

    fn append_unauthenticated(&mut self, record: &UsageRecord<'_>, _: Duration) {
        self.append(record);
    }

    fn flush(&mut self) {}
}

#[test]
fn a_worker_that_hangs_is_missed_and_one_that_drains_is_not() {
    let silence = Duration::from_millis(400);
    let hearts = Heartbeats::new(Instant::now(), silence);
    let shared = Shared { hearts: hearts.clone(), ..shared(RIG.snapshot(&Terms::to(([127, 0, 0, 1], 1).into()))) };
    let (let_go, hung) = channel();
    let (address, running) = start(&quick(), &ListenerConfig::default(), None, &shared, Box::new(Hung(hung)));
    let until = |is_there: &dyn Fn(&Result<(), Standstill>) -> bool| {
        let deadline = Instant::now() + SOON;
        loop {
            let now = hearts.all_fresh(Instant::now());
            if is_there(&now) {
                return;
            }
            assert!(Instant::now() < deadline, "it is still {now:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let names: Vec<_> = hearts.ages(Instant::now()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["gateway-0", "accept"]);
    std::thread::sleep(2 * silence);
    until(&Result::is_ok);

    let mut client = scene_client(&address);
    client.say("GET /nowhere HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    until(&|now| matches!(now, Err(Standstill::Silent { task, .. }) if task == "gateway-0"));
    let_go.send(()).expect("it hangs on it");
    until(&Result::is_ok);

    drop(let_go);
    assert_eq!(running.drain(SOON), Drained { broken_off: 0, dead_threads: 0 });
    assert_eq!(hearts.all_fresh(Instant::now() + 2 * SOON), Ok(()), "it ended on purpose");
}

#[test]
fn a_listener_with_a_certificate_speaks_tls_and_says_so_to_the_upstream() {
    let made = rcgen::generate_simple_self_signed(vec!["gate.example".into()]).expect("a certificate");
    let tls = server_config(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).expect("usable");
    let upstream = upstream::start(echo_target);
    let terms = Terms::to(upstream.address);
    let scene = scene_with(RIG.snapshot(&terms), quick(), ListenerConfig::default(), Some(tls));

    let mut stream = speak_tls(scene.connect().stream, made.cert.der());
    stream.write_all(with_token("GET /petstore/1.0/pet/1", "Connection: close\r\n").as_bytes()).expect("TLS");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and an end that says so");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("/pet/1"), "{answer}");
    let seen = upstream.seen.recv_timeout(SOON).expect("the request");
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert_eq!(scene.record().outcome, Outcome::Admitted);

    // Who is still sending reads why it is refused here, too.
    let mut stream = speak_tls(scene.connect().stream, made.cert.der());
    stream.write_all(b"POST /petstore/1.0/pet HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").expect("TLS");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and an end that says so");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    for _ in 0..20 {
        stream.sock.write_all(&[b'x'; 8 << 10]).expect("what was on its way is still taken");
    }
    assert_eq!(scene.record().outcome, Outcome::TokenMissing);
    drop(stream);

    // Plain text to it is no request.
    let mut plain = scene.connect();
    plain.say(&with_token("GET /petstore/1.0/pet/1", ""));
    let mut rest = Vec::new();
    let _ = plain.input.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    scene.ended(ConnectionEnd::Handshake, 1);
    assert!(server_config(b"no PEM", b"no PEM").is_err());
    scene.end();
}

fn speak_tls(
    socket: TcpStream,
    trusted: &CertificateDer<'static>,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("gate.example").expect("a name");
    rustls::StreamOwned::new(rustls::ClientConnection::new(Arc::new(config), name).expect("a session"), socket)
}
