//! Bytes from somebody who means harm: nothing of it reaches the upstream as a second request, and nothing hangs.

use std::io::Write;
use std::time::{Duration, Instant};

use tidegate::gateway::ConnectionEnd;
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{Client, RIG, scene, with_token};
use crate::upstream::{SOON, echo_target, start};

const SMUGGLED: &str = "GET /petstore/1.0/open/smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn two_readings_of_a_length_are_never_forwarded() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let framings = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length: 5\r\n X: y\r\n",
        "X: y\rContent-Length: 60\r\n",
    ];
    for framing in framings {
        let mut client = scene.connect();
        let request = format!("POST /petstore/1.0/open/x HTTP/1.1\r\nHost: h\r\n{framing}\r\n0\r\n\r\n{SMUGGLED}");
        client.say(&request);
        assert_eq!(client.reply().status, 400, "{framing:?}");
        assert!(client.is_closed(), "{framing:?}");
    }
    scene.no_record(Duration::from_millis(50));
    let smuggled = upstream.seen.recv_timeout(Duration::from_millis(200));
    assert!(smuggled.is_err(), "{smuggled:?}");
    // Both lengths: read by the chunks alone, passed on with nothing of the other, and nothing after it is read
    // (RFC 9112, 6.1).
    for framing in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]
    {
        let mut client = scene.connect();
        let request = format!("POST /petstore/1.0/open/x HTTP/1.1\r\nHost: h\r\n{framing}\r\n0\r\n\r\n{SMUGGLED}");
        client.say(&request);
        let reply = client.reply();
        assert_eq!((reply.text(), reply.field("connection")), ("/open/x", Some("close")), "{framing:?}");
        assert!(client.is_closed(), "{framing:?}");
        assert_eq!(upstream.seen.recv_timeout(SOON).expect("it").field("content-length"), None);
        assert_eq!(scene.record().outcome, Outcome::Admitted);
    }
    // Negative control: the same bytes with one reading are two requests.
    let mut client = scene.connect();
    client.say(&format!(
        "POST /petstore/1.0/open/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
    ));
    assert_eq!((client.reply().text(), client.reply().text()), ("/open/x", "/open/smuggled"));
    assert_eq!((scene.record().outcome, scene.record().outcome), (Outcome::Admitted, Outcome::Admitted));
    scene.end();
}

#[test]
fn a_chunk_that_lies_about_its_size_ends_the_connection() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    for chunks in ["5\r\nabc\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "zz\r\n", "3\r\nabcX\r\n0\r\n\r\n", "-1\r\n"] {
        let mut client = scene.connect();
        client.say(&format!(
            "{}{chunks}{SMUGGLED}",
            with_token("POST /petstore/1.0/open/x", "Transfer-Encoding: chunked\r\n")
        ));
        assert_eq!(client.reply().status, 400, "{chunks:?}");
        let record = scene.record();
        assert_eq!((record.outcome, record.status), (Outcome::BadRequest, 400), "{chunks:?}");
        drop(client);
    }
    let seen = upstream.seen.recv_timeout(Duration::from_millis(200));
    assert!(seen.is_err(), "{seen:?}");
    scene.end();
}

#[test]
fn garbage_is_answered_once_or_closed_and_is_no_request() {
    let scene = scene(&Terms::to(start(echo_target).address));
    let garbage: [&[u8]; 8] = [
        b"\0\0\0\0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX\0: y\r\n\r\n",
        b"\xff\xfe\xfd\xfc HTTP/1.1\r\n\r\n",
    ];
    for bytes in garbage {
        let mut client = scene.connect();
        client.stream.write_all(bytes).expect("the gateway reads");
        let mut answer = String::new();
        let _ = std::io::Read::read_to_string(&mut client.input, &mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
    }
    scene.no_record(Duration::from_millis(50));
    scene.ended(ConnectionEnd::BadHead, 8);
    scene.end();
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let scene = scene(&Terms::to(start(echo_target).address));
    let mut client = scene.connect();
    let field = format!("X-Large: {}\r\n", "x".repeat(8_000));
    let request = with_token("GET /petstore/1.0/pet/1", &field.repeat(5));
    let _ = client.stream.write_all(request.as_bytes());
    assert_eq!(client.head().status, 431);
    let mut client = scene.connect();
    let _ = client.stream.write_all(with_token("GET /petstore/1.0/pet/1", &"a: b\r\n".repeat(200)).as_bytes());
    assert_eq!(client.head().status, 431);
    scene.no_record(Duration::from_millis(50));
    scene.end();
}

#[test]
fn a_caller_that_drips_its_head_is_closed_and_others_are_served_meanwhile() {
    let scene = scene(&Terms::to(start(echo_target).address));
    let mut slow: Vec<_> = (0..20).map(|_| scene.connect()).collect();
    let begun = Instant::now();
    // A byte every now and then is no head: it moves no timer.
    let drip = |client: &mut Client| client.stream.write_all(b"G").is_ok();
    while slow.iter_mut().fold(false, |is_open, client| drip(client) | is_open) {
        assert!(begun.elapsed() < SOON, "it waits for as long as bytes come");
        assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).status, 200);
        assert_eq!(scene.record().outcome, Outcome::Admitted);
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.ended(ConnectionEnd::HeadTimeout, 20);
    scene.end();
}

#[test]
fn a_target_in_absolute_form_is_judged_by_its_own_host_and_path() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let reply = scene.ask(&with_token("GET http://other.example/petstore/1.0/pet/9?x=1", ""));
    assert_eq!((reply.status, reply.text()), (200, "/pet/9?x=1"));
    assert_eq!(upstream.seen.recv_timeout(SOON).expect("it").field("x-forwarded-host"), Some("other.example"));
    assert_eq!(scene.record().outcome, Outcome::Admitted);
    for target in ["other.example:80", "*", "http://u:p@h/petstore/1.0/pet/9"] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", RIG.token(1));
        assert_eq!(scene.ask(&request).status, 400, "{target}");
        let record = scene.record();
        assert_eq!((record.outcome, record.status), (Outcome::BadRequest, 400), "{target}");
    }
    scene.end();
}
