//! Where a message ends: trailers, codings, callers that close early, and bodies that nobody reads.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use tidegate::gateway::ListenerConfig;
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{Client, RIG, quick, scene, scene_of, with_token};
use crate::upstream::{SOON, echo_target, start};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn a_request_with_trailers_is_forwarded_without_them_and_timed_out_like_any() {
    let upstream = start(echo_target);
    let scene_answering = scene(&Terms::to(upstream.address));
    let mut client = scene_answering.connect();
    let trailers = "Trailer: X-Forwarded-For\r\nConnection: X-Other\r\n";
    for _ in 0..2 {
        let head = with_token("POST /petstore/1.0/open/x", &format!("{CHUNKED}{trailers}"));
        client.say(&format!("{head}2\r\nhe\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"));
        assert_eq!(client.reply().text(), "/open/x");
        let seen = upstream.seen.recv_timeout(SOON).expect("the request, and nothing before its line");
        assert_eq!((&*seen.line, &*seen.body), ("POST /open/x HTTP/1.1", &b"he"[..]));
        assert_eq!((seen.field("trailer"), seen.field("x-forwarded-for")), (None, Some("127.0.0.1")));
        assert_eq!(scene_answering.record().outcome, Outcome::Admitted);
    }
    scene_answering.end();

    let silent = start(|_, out| out.read(&mut [0; 1]).is_ok_and(|read| read > 0));
    let scene = scene(&Terms { response_timeout: Duration::from_millis(200), ..Terms::to(silent.address) });
    let head = with_token("POST /petstore/1.0/open/x", &format!("{CHUNKED}Trailer: X-Sum\r\n"));
    assert_eq!(scene.ask(&format!("{head}2\r\nhe\r\n0\r\nX-Sum: 1\r\n\r\n")).status, 504);
    assert_eq!(scene.record().outcome, Outcome::UpstreamTimeout);
    scene.end();
}

#[test]
fn an_answers_trailers_end_here_and_are_not_asked_for() {
    let upstream = start(|_, out| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        out.write_all(format!("{head}2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n").as_bytes()).is_ok()
    });
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    for _ in 0..2 {
        client.say(&with_token("GET /petstore/1.0/open/x", "TE: trailers\r\nConnection: TE\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.text(), reply.field("trailer")), (200, "ok", None));
        let seen = upstream.seen.recv_timeout(SOON).expect("the request");
        assert_eq!((seen.field("te"), seen.field("connection")), (None, None));
        let record = scene.record();
        assert_eq!((record.outcome, record.bytes_out), (Outcome::Admitted, 2));
    }
    client.say(&with_token("GET /petstore/1.0/open/x", "TE: trailers\r\n"));
    assert_eq!(client.reply().status, 200);
    assert_eq!(upstream.seen.recv_timeout(SOON).expect("the request").field("te"), None, "with no Connection: TE");
    scene.record();
    scene.end();
}

#[test]
fn a_caller_that_closes_right_behind_its_request_leaves_one_record() {
    let mut config = quick();
    config.limits.connections = 1;
    let upstream = start(echo_target);
    let scene = scene_of(RIG.snapshot(&Terms::to(upstream.address)), config, ListenerConfig::default());
    for request in [
        with_token("GET /petstore/1.0/pet/1", ""),
        with_token("POST /petstore/1.0/open/x", "Content-Length: 5\r\n"),
        "GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\n\r\n".into(),
    ] {
        // While another has the only place, the head and the end come together.
        let first = scene.connect();
        scene.no_record(Duration::from_millis(50));
        let mut client = scene.connect();
        client.say(&request);
        client.stream.shutdown(Shutdown::Write).expect("it was open");
        drop(first);
        let record = scene.record();
        assert_eq!(record.outcome, Outcome::DownstreamAborted, "{request}");
        scene.no_record(Duration::from_millis(50));
    }
    scene.end();
}

/// Sends on behind the end of an answer, as a caller does that has not looked yet.
fn go_on_sending(client: &mut Client) {
    let mut rest = Vec::new();
    client.input.read_to_end(&mut rest).expect("an end, and no reset");
    assert_eq!(rest, b"");
    for _ in 0..20 {
        client.stream.write_all(&[b'x'; 8 << 10]).expect("what was on its way is still taken");
        std::thread::sleep(Duration::from_millis(1)); // a closed socket has the time to say so
    }
}

#[test]
fn a_refusal_is_read_whole_by_a_caller_that_is_still_sending() {
    let upstream = start(echo_target);
    let scene = scene(&Terms { per_minute: 1, max_body: 1 << 20, ..Terms::to(upstream.address) });
    assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).status, 200);
    scene.record();
    let large = "Content-Length: 2000000\r\n";
    let fits = "Content-Length: 1000000\r\n";
    for (status, request) in [
        (401, format!("POST /petstore/1.0/pet HTTP/1.1\r\nHost: h\r\n{fits}\r\n")),
        (404, format!("POST /nowhere HTTP/1.1\r\nHost: h\r\n{fits}\r\n")),
        (413, with_token("POST /petstore/1.0/open/x", large)),
        (429, with_token("POST /petstore/1.0/pet", fits)),
        (429, with_token("POST /petstore/1.0/pet", CHUNKED)),
    ] {
        let mut client = scene.connect();
        client.say(&request);
        let reply = client.reply();
        assert_eq!((reply.status, reply.field("connection")), (status, Some("close")));
        go_on_sending(&mut client);
        assert_eq!(scene.record().status, status);
    }
    // Not for ever.
    let mut client = scene.connect();
    client.say(&with_token("POST /petstore/1.0/open/x", "Content-Length: 999999999999\r\n"));
    assert_eq!(client.reply().status, 413);
    assert!((0..4_000).any(|_| client.stream.write_all(&[b'x'; 64 << 10]).is_err()), "all 250 MiB were taken");
    scene.record();
    // A refusal of a request that is whole costs nobody the connection.
    let mut client = scene.connect();
    for _ in 0..2 {
        client.say("GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.reply().status, 401);
        scene.record();
    }
    scene.end();
}

#[test]
fn an_answer_that_comes_early_is_read_whole_by_a_caller_that_is_still_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 4_096]);
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
        let _ = stream.shutdown(Shutdown::Write);
        while listener.accept().is_ok() {}
    });
    let scene = scene(&Terms::to(address));
    let mut client = scene.connect();
    client.say(&with_token("POST /petstore/1.0/open/x", "Content-Length: 1000000\r\n"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.text()), (413, "no"));
    go_on_sending(&mut client);
    assert_eq!(scene.record().outcome, Outcome::Admitted);
    scene.end();
}

#[test]
fn a_coding_other_than_chunked_is_not_implemented() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    for coding in ["gzip, chunked", "chunked, chunked", "gzip\r\nTransfer-Encoding: chunked", "chunked;x=y, chunked"] {
        let head = with_token("POST /petstore/1.0/open/x", &format!("Transfer-Encoding: {coding}\r\n"));
        let mut client = scene.connect();
        client.say(&format!("{head}0\r\n\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.field("connection")), (501, Some("close")), "{coding}");
        let record = scene.record();
        assert_eq!((record.outcome, record.status), (Outcome::BadRequest, 501), "{coding}");
    }
    assert_eq!(upstream.seen.try_iter().count(), 0);
    let head = with_token("POST /petstore/1.0/open/x", "Transfer-Encoding: Chunked\r\n");
    assert_eq!(scene.ask(&format!("{head}0\r\n\r\n")).status, 200, "case does not matter");
    scene.record();
    scene.end();

    let scripts: [crate::upstream::Script; 2] = [
        |_, out| out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n").is_ok(),
        |_, out| out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx").is_err(),
    ];
    for script in scripts {
        let scene = crate::scene::scene(&Terms::to(start(script).address));
        let reply = scene.ask(&with_token("GET /petstore/1.0/pet/1", ""));
        assert_eq!((reply.status, reply.json()["error"].as_str()), (502, Some("UpstreamProtocol")));
        assert_eq!(scene.record().outcome, Outcome::UpstreamProtocol);
        scene.end();
    }
}
