//! Peers that break off, stall, or speak nonsense: each request still ends in one record.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tidegate::gateway::{ConnectionEnd, ListenerConfig};
use tidegate::spool::record::Outcome;
use tidegate::units::Span;

use crate::rig::Terms;
use crate::scene::{RIG, quick, scene, scene_of, with_token};
use crate::upstream::{SOON, echo_target, start, start_at};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

#[test]
fn each_failure_of_an_upstream_has_its_status_name_and_code() {
    let cases: [(crate::upstream::Script, u16, &str, u32); 5] = [
        (|_, _| false, 502, "UpstreamClosed", 101_505),
        (|_, out| out.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").is_err(), 502, "UpstreamClosed", 101_505),
        (
            |_, out| {
                let field = format!("X-Large: {}\r\n", "x".repeat(8_000));
                out.write_all(format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(30)).as_bytes()).is_err()
            },
            502,
            "UpstreamProtocol",
            101_506,
        ),
        (|_, out| out.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").is_err(), 502, "UpstreamProtocol", 101_506),
        (
            |_, out| out.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err(),
            502,
            "UpstreamProtocol",
            101_506,
        ),
    ];
    for (script, status, error, code) in cases {
        let upstream = start(script);
        let scene = scene(&Terms::to(upstream.address));
        let reply = scene.ask(&with_token("GET /petstore/1.0/pet/1", ""));
        assert_eq!((reply.status, reply.json()["error"].as_str()), (status, Some(error)));
        assert_eq!(reply.json()["code"], code);
        assert_eq!(scene.record().outcome.name(), error);
        scene.end();
    }
}

#[test]
fn an_upstream_that_is_down_or_silent_costs_its_time_out_and_no_more() {
    let scene_down = scene(&Terms::to(nobody()));
    let reply = scene_down.ask(&with_token("GET /petstore/1.0/pet/1", ""));
    assert_eq!((reply.status, &reply.json()["code"]), (503, &101_503.into()));
    let record = scene_down.record();
    assert_eq!((record.outcome, &*record.upstream), (Outcome::UpstreamConnect, ""));
    scene_down.end();

    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let scene = scene(&Terms { response_timeout: Duration::from_millis(200), ..Terms::to(address) });
    let reply = scene.ask(&with_token("GET /petstore/1.0/pet/1", ""));
    assert_eq!((reply.status, &reply.json()["code"]), (504, &101_504.into()));
    assert_eq!(scene.record().outcome, Outcome::UpstreamTimeout);
    scene.end();
}

#[test]
fn an_upstream_that_was_down_a_moment_ago_is_not_tried_until_it_has_rested() {
    let address = nobody();
    let scene = scene(&Terms::to(address));
    let begun = Instant::now();
    assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).status, 503);
    let upstream = start_at(address, echo_target);
    let mut client = scene.connect();
    let mut refused = 1;
    let mut status = || {
        client.say(&with_token("GET /petstore/1.0/pet/1", ""));
        client.reply().status
    };
    while status() == 503 {
        assert!(begun.elapsed() < SOON);
        refused += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(200), "it was tried before it had rested");
    assert!(upstream.seen.recv_timeout(SOON).is_ok());
    assert!((0..refused).all(|_| scene.record().outcome == Outcome::UpstreamConnect));
    assert_eq!(scene.record().outcome, Outcome::Admitted);
    scene.end();
}

#[test]
fn an_answer_that_breaks_off_is_seen_as_broken_by_the_caller_and_on_the_record() {
    let cases: [(crate::upstream::Script, Outcome); 2] = [
        (
            |_, out| out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").is_err(),
            Outcome::UpstreamClosed,
        ),
        (
            |_, out| {
                out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").expect("it reads");
                out.read(&mut [0; 1]).is_err() // until the gateway gives up
            },
            Outcome::UpstreamTimeout,
        ),
    ];
    for (script, outcome) in cases {
        let scene = scene(&Terms::to(start(script).address));
        let mut client = scene.connect();
        client.say(&with_token("GET /petstore/1.0/pet/1", ""));
        assert_eq!(client.head().status, 200);
        let mut rest = Vec::new();
        let _ = client.input.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a broken answer must not look whole");
        let record = scene.record();
        assert_eq!((record.outcome, record.status, record.bytes_out), (outcome, 200, 4));
        scene.end();
    }
}

#[test]
fn a_caller_that_goes_away_leaves_a_record_and_frees_the_upstream() {
    // Before the answer: the upstream waits until the gateway closes on it.
    let upstream = start(|_, out| out.read(&mut [0; 1]).is_ok_and(|read| read > 0));
    let scene_waiting = scene(&Terms::to(upstream.address));
    let mut client = scene_waiting.connect();
    client.say(&with_token("GET /petstore/1.0/pet/1", ""));
    scene_waiting.asked(1);
    scene_waiting.no_record(Duration::from_millis(100));
    client.stream.shutdown(Shutdown::Both).expect("it was open");
    let record = scene_waiting.record();
    assert_eq!((record.outcome, record.status), (Outcome::DownstreamAborted, 0));
    assert!(record.upstream_us >= 90_000, "the time that the upstream took: {record:?}");
    upstream.seen.recv_timeout(SOON).expect("the upstream's connection was closed");
    scene_waiting.end();

    // In the middle of an answer larger than any buffer.
    let upstream = start(|_, out| {
        let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let block = [b'x'; 65_536];
        while out.write_all(&block).is_ok() {}
        false
    });
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    client.say(&with_token("GET /petstore/1.0/pet/1", ""));
    assert_eq!(client.head().status, 200);
    client.stream.shutdown(Shutdown::Both).expect("it was open");
    drop(client);
    let record = scene.record();
    assert_eq!((record.outcome, record.status), (Outcome::DownstreamAborted, 200));
    assert!(record.bytes_out < 100_000_000);
    scene.end();
}

#[test]
fn a_caller_that_stops_reading_or_sending_is_not_waited_for() {
    let upstream = start(|_, out| {
        let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let block = [b'x'; 65_536];
        while out.write_all(&block).is_ok() {}
        false
    });
    let scene_reading = scene(&Terms::to(upstream.address));
    let mut client = scene_reading.connect();
    client.say(&with_token("GET /petstore/1.0/pet/1", ""));
    assert_eq!(scene_reading.record().outcome, Outcome::DownstreamAborted);
    scene_reading.end();

    let scene = scene(&Terms::to(start(echo_target).address));
    let reply = scene.ask(&format!("{}abc", with_token("POST /petstore/1.0/open/x", "Content-Length: 10\r\n")));
    assert_eq!(reply.status, 408);
    let record = scene.record();
    assert_eq!((record.outcome, record.status, record.bytes_in), (Outcome::DownstreamAborted, 408, 3));
    scene.end();
}

#[test]
fn a_body_at_fault_after_the_answer_began_is_not_the_upstreams_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // Answers as soon as it has the head, and reads on.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut bytes = [0; 4_096];
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            std::thread::spawn(move || while stream.read(&mut bytes).is_ok_and(|read| read > 0) {});
        }
    });
    let mut config = quick();
    config.timeouts.body = Span::secs(2);
    let terms = Terms { max_body: 10, ..Terms::to(address) };
    let scene = scene_of(RIG.snapshot(&terms), config, ListenerConfig::default());
    for (rest, outcome) in [
        (Some("8\r\n12345678\r\n"), Outcome::BodyTooLarge),
        (Some("zz\r\n"), Outcome::BadRequest),
        (None, Outcome::DownstreamAborted),
    ] {
        let mut client = scene.connect();
        let head = with_token("POST /petstore/1.0/open/x", "Transfer-Encoding: chunked\r\n");
        client.say(&format!("{head}4\r\nhalf\r\n"));
        assert_eq!(client.head().status, 200);
        rest.inspect(|rest| client.say(rest));
        let record = scene.record();
        assert_eq!((record.outcome, record.status), (outcome, 200), "{rest:?}");
    }
    scene.end();
}

#[test]
fn a_body_that_breaks_off_is_no_whole_request_to_the_upstream() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    client.say(&format!("{}4\r\nhalf\r\n", with_token("POST /petstore/1.0/open/x", "Transfer-Encoding: chunked\r\n")));
    client.stream.shutdown(Shutdown::Both).expect("it was open");
    assert_eq!(scene.record().outcome, Outcome::DownstreamAborted);
    assert!(upstream.seen.recv_timeout(Duration::from_millis(200)).is_err(), "the upstream took half a body for whole");
    scene.end();
}

#[test]
fn a_pooled_connection_that_died_costs_nobody_an_error() {
    // Each connection answers once and is closed by the upstream, without saying so.
    let upstream = start(|seen, out| {
        echo_target(seen, out);
        false
    });
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    for pet in 0..20 {
        client.say(&with_token(&format!("GET /petstore/1.0/pet/{pet}"), ""));
        assert_eq!(client.reply().status, 200, "{pet}");
        assert_eq!(scene.record().outcome, Outcome::Admitted);
        // Leaves the close time to arrive: a request that races it could not be sent twice for every method.
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.end();
}

#[test]
fn an_endpoint_that_is_down_is_passed_over() {
    let upstream = start(echo_target);
    let endpoints = vec![format!("http://{}", nobody()), format!("http://{}", upstream.address)];
    let scene = scene(&Terms { endpoints, ..Terms::to(upstream.address) });
    let mut client = scene.connect();
    for _ in 0..6 {
        client.say(&with_token("GET /petstore/1.0/pet/1", ""));
        assert_eq!(client.reply().status, 200);
        assert_eq!(scene.record().upstream, upstream.address.to_string());
    }
    assert_eq!(scene.shared.counters.ended(ConnectionEnd::Broken), 0);
    scene.end();
}
