//! When a request goes to an upstream a second time, and when never.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{Scene, scene, with_token};
use crate::upstream::{SOON, echo_target, read_request, start};

/// Longer than a pooled connection counts as fresh.
const RESTED: Duration = Duration::from_millis(1_200);

/// An upstream that answers the first request of each connection, reads the second, and closes. It tells the line of
/// each that it read.
fn fickle() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut out = stream.expect("a connection");
            let mut input = BufReader::new(out.try_clone().expect("a socket can be shared"));
            let sender = sender.clone();
            std::thread::spawn(move || {
                for number in 0..2 {
                    let Some(request) = read_request(&mut input) else { return };
                    let _ = sender.send(request.line);
                    if number == 0 {
                        let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Sends `request` on an upstream's connection that has rested; its status, how often the upstream read it, and how
/// often it was counted as sent again.
fn second(request: &str, body: &str) -> (u16, usize, u64, Outcome) {
    let (address, seen) = fickle();
    let scene: Scene = scene(&Terms::to(address));
    let mut client = scene.connect();
    client.say(&with_token("GET /petstore/1.0/open/first", ""));
    assert_eq!(client.reply().status, 200);
    scene.record();
    std::thread::sleep(RESTED); // its age is what is tested
    let mut client = scene.connect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    client.say(&format!("{}{body}", with_token(request, &length)));
    let status = client.reply().status;
    let outcome = scene.record().outcome;
    let lines: Vec<_> = seen.try_iter().collect();
    let retries = scene.shared.counters.upstream_retries.load(Ordering::Relaxed);
    scene.end();
    (status, lines.iter().filter(|line| line.contains("second")).count(), retries, outcome)
}

#[test]
fn a_request_that_does_no_harm_twice_is_sent_again_where_a_rested_connection_closed_on_it() {
    assert_eq!(second("GET /petstore/1.0/open/second", ""), (200, 2, 1, Outcome::Admitted));
    assert_eq!(second("DELETE /petstore/1.0/open/second", ""), (200, 2, 1, Outcome::Admitted));
}

#[test]
fn a_request_that_may_do_harm_or_has_a_body_is_never_sent_twice() {
    assert_eq!(second("POST /petstore/1.0/open/second", ""), (502, 1, 0, Outcome::UpstreamClosed));
    assert_eq!(second("PUT /petstore/1.0/open/second", "body"), (502, 1, 0, Outcome::UpstreamClosed));
}

#[test]
fn an_endpoint_that_takes_no_connection_delays_one_request_at_a_time() {
    // Its queue is full, so a connection to it neither comes about nor fails.
    let full = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let full = full.expect("a socket");
    rustix::net::bind(&full, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    rustix::net::listen(&full, 0).expect("it listens");
    let deaf = SocketAddr::try_from(rustix::net::getsockname(&full).expect("bound")).expect("an address");
    let mut taken = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&deaf, Duration::from_millis(100)) {
        taken.push(stream);
        assert!(taken.len() < 100, "its queue has no end");
    }

    let upstream = start(echo_target);
    let connect_timeout = Duration::from_millis(600);
    let endpoints = vec![format!("http://{deaf}"), format!("http://{}", upstream.address)];
    let scene = scene(&Terms { endpoints, connect_timeout, ..Terms::to(upstream.address) });
    // The first finds out that it is deaf.
    assert!((0..2).all(|_| scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).status == 200));
    let begun = Instant::now();
    let mut slow = 0;
    std::thread::scope(|threads| {
        let mut callers = Vec::new();
        while begun.elapsed() < 2 * connect_timeout {
            let mut client = scene.connect();
            callers.push(threads.spawn(move || {
                let begun = Instant::now();
                client.say(&with_token("GET /petstore/1.0/pet/1", ""));
                assert_eq!(client.reply().status, 200);
                begun.elapsed() > connect_timeout / 2
            }));
            std::thread::sleep(Duration::from_millis(10));
        }
        slow = callers.into_iter().map(|caller| caller.join().expect("it is answered")).filter(|slow| *slow).count();
    });
    // Each attempt takes the time-out and is followed by a rest.
    assert!((1..=3).contains(&slow), "{slow} requests waited for it");
    while scene.records.recv_timeout(SOON / 100).is_ok() {}
    scene.end();
}
