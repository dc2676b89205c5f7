//! What goes through, and how it looks on the other side.

use std::io::{Read, Write};
use std::sync::Barrier;

use tidegate::gateway::ListenerConfig;
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{Of, RIG, quick, scene, scene_of, with_token};
use crate::upstream::{SOON, echo_target, start};

#[test]
fn a_good_request_is_forwarded_and_leaves_one_record() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let reply = scene.ask(&with_token("GET /petstore/1.0/pet/7?full=1", ""));
    assert_eq!((reply.status, reply.text()), (200, "/pet/7?full=1"));
    let record = scene.record();
    assert_eq!((record.outcome, record.status, record.bytes_in, record.bytes_out), (Outcome::Admitted, 200, 0, 13));
    assert_eq!((&*record.method, &*record.route, &*record.application), ("GET", "/pet/{petId}", "shop"));
    assert_eq!(record.upstream, upstream.address.to_string());
    assert_eq!(reply.field("x-request-id"), Some(&*record.request));
    assert_eq!(upstream.seen.recv_timeout(SOON).expect("it").field("x-request-id"), Some(&*record.request));
    scene.end();
}

#[test]
fn the_upstream_learns_who_called_from_us_alone() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let lies = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                X-Request-Id: 0123456789abcdef0123456789abcdef\r\nConnection: X-Secret, close\r\nX-Secret: 1\r\n\
                Keep-Alive: 5\r\nProxy-Authorization: Basic YTpi\r\nUpgrade: websocket\r\nTE: gzip\r\nX-Kept: yes\r\n\
                X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-User: root\r\nX-Real-IP: 6.6.6.6\r\n\
                X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Host: evil\r\nX_REAL_IP: 6.6.6.6\r\nX_Request-Id: 1\r\nX_Forwarders: no\r\n";
    let reply = scene.ask(&with_token("GET /petstore/1.0/pet/7", lies));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("connection"), Some("close"), "as the caller asked");
    let seen = upstream.seen.recv_timeout(SOON).expect("the request");
    assert_eq!(seen.line, "GET /pet/7 HTTP/1.1");
    let expected = [
        ("host", Some(upstream.address.to_string())),
        ("x-forwarded-for", Some("127.0.0.1".into())),
        ("x-forwarded-proto", Some("http".into())),
        ("x-forwarded-host", Some("shop.example".into())),
        ("forwarded", Some("for=127.0.0.1;proto=http".into())),
        ("via", Some("1.1 tidegate".into())),
        ("x-kept", Some("yes".into())),
        ("authorization", None),
        ("x-secret", None),
        ("connection", None),
        ("keep-alive", None),
        ("proxy-authorization", None),
        ("upgrade", None),
        ("te", None),
        ("x-forwarded-port", None),
        ("x-forwarded-prefix", None),
        ("x-forwarded-user", None),
        ("x-real-ip", None),
        ("x_forwarded_for", None),
        ("x-forwarded_host", None),
        ("x_real_ip", None),
        ("x_request-id", None),
        ("x_forwarders", Some("no".into())),
    ];
    for (name, value) in expected {
        assert_eq!(seen.field(name), value.as_deref(), "{name}");
    }
    assert_ne!(seen.field("x-request-id"), Some("0123456789abcdef0123456789abcdef"));
    scene.record();
    scene.end();
}

#[test]
fn a_proxy_of_ours_is_believed_and_added_to() {
    let upstream = start(echo_target);
    let listener = ListenerConfig { trust_forwarded: true, trust_request_id: true, ..ListenerConfig::default() };
    let terms = Terms { forward_token: true, keep_host: true, strip_base_path: false, ..Terms::to(upstream.address) };
    let scene = scene_of(RIG.snapshot(&terms), quick(), listener);
    let told = "X-Forwarded-For: 10.0.0.9\r\nForwarded: for=10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
                X-Request-Id: 0123456789abcdef0123456789abcdef\r\n";
    let reply = scene.ask(&with_token("GET /petstore/1.0/pet/7", told));
    assert_eq!(reply.field("x-request-id"), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(scene.record().request, "0123456789abcdef0123456789abcdef");
    let seen = upstream.seen.recv_timeout(SOON).expect("the request");
    assert_eq!(seen.line, "GET /petstore/1.0/pet/7 HTTP/1.1");
    assert_eq!(seen.field("host"), Some("shop.example"));
    assert_eq!(seen.field("x-forwarded-for"), Some("10.0.0.9, 127.0.0.1"));
    assert_eq!(seen.field("forwarded"), Some("for=10.0.0.9, for=127.0.0.1;proto=http"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert!(seen.field("authorization").is_some_and(|token| token.starts_with("Bearer ")));
    scene.end();
}

#[test]
fn of_a_long_list_of_hops_those_are_kept_that_a_proxy_of_ours_wrote_last() {
    let upstream = start(echo_target);
    let listener = ListenerConfig { trust_forwarded: true, ..ListenerConfig::default() };
    let scene = scene_of(RIG.snapshot(&Terms::to(upstream.address)), quick(), listener);
    let junk = "6.6.6.6, ".repeat(200);
    let told = format!(
        "X-Forwarded-For: {junk}203.0.113.7\r\nForwarded: {}for=203.0.113.7\r\n",
        "for=6.6.6.6;by=x,".repeat(99)
    );
    assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/7", &told)).status, 200);
    let seen = upstream.seen.recv_timeout(SOON).expect("the request");
    let list = seen.field("x-forwarded-for").expect("it is told");
    assert!(
        list.ends_with(", 203.0.113.7, 127.0.0.1") && list.starts_with("6.6.6.6, ") && list.len() <= 1_024,
        "{list}"
    );
    let list = seen.field("forwarded").expect("it is told");
    assert!(
        list.ends_with("for=203.0.113.7, for=127.0.0.1;proto=http") && list.starts_with("for=6.6.6.6;by=x,"),
        "{list}"
    );
    scene.record();
    scene.end();
}

#[test]
fn an_open_route_passes_a_password_on_and_keeps_a_token_back() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    for (field, passes) in [("Basic YTpi", true), ("Bearer a.b.c", false), ("bearer a.b.c", false)] {
        let request = format!("GET /petstore/1.0/open/x HTTP/1.1\r\nHost: h\r\nAuthorization: {field}\r\n\r\n");
        assert_eq!(scene.ask(&request).status, 200);
        let seen = upstream.seen.recv_timeout(SOON).expect("the request");
        assert_eq!(seen.field("authorization"), passes.then_some(field));
        let record = scene.record();
        assert_eq!(
            (record.outcome, record.of),
            (Outcome::Admitted, Of::Anybody),
            "it takes no room from those who pay"
        );
    }
    scene.end();
}

#[test]
fn what_is_between_upstream_and_gateway_alone_does_not_reach_the_caller() {
    let upstream = start(|_, out| {
        let head = "HTTP/1.1 200 OK\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\nX-Request-Id: theirs\r\n\
                    Proxy-Authenticate: Basic\r\nX-Kept: yes\r\nContent-Length: 2\r\n\r\nok";
        out.write_all(head.as_bytes()).is_ok()
    });
    let scene = scene(&Terms::to(upstream.address));
    let reply = scene.ask(&with_token("GET /petstore/1.0/pet/1", ""));
    assert_eq!((reply.status, reply.text(), reply.field("x-kept")), (200, "ok", Some("yes")));
    for name in ["x-inner", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(reply.field(name), None, "{name}");
    }
    assert_eq!(reply.field("x-request-id"), Some(&*scene.record().request));
    scene.end();
}

#[test]
fn a_length_that_is_said_twice_is_passed_on_once() {
    let scripts: [crate::upstream::Script; 2] = [
        |_, out| out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello").is_ok(),
        |_, out| out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello").is_ok(),
    ];
    for script in scripts {
        let scene = scene(&Terms::to(start(script).address));
        let reply = scene.ask(&with_token("GET /petstore/1.0/pet/1", ""));
        let lengths: Vec<_> = reply.fields.iter().filter(|(name, _)| name == "content-length").collect();
        assert_eq!((reply.text(), lengths), ("hello", vec![&("content-length".to_owned(), "5".to_owned())]));
        assert_eq!(scene.record().bytes_out, 5);
        scene.end();
    }
}

#[test]
fn answers_without_a_body_are_recorded_too() {
    let upstream = start(|seen, out| {
        let answer = match seen.line.split(' ').nth(1) {
            Some("/open/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            Some("/open/304") => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 50\r\n\r\n",
            Some("/open/0") => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
        };
        out.write_all(answer.as_bytes()).is_ok()
    });
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    for (line, status, length) in [
        ("GET /petstore/1.0/open/204", 204, None),
        ("GET /petstore/1.0/open/304", 304, None),
        ("GET /petstore/1.0/open/0", 200, Some("0")),
        ("HEAD /petstore/1.0/open/x", 200, Some("50")),
    ] {
        client.say(&with_token(line, ""));
        let head = client.head();
        assert_eq!(head.status, status, "{line}");
        assert!(length.is_none() || head.field("content-length") == length, "{line}: {head:?}");
        let record = scene.record();
        assert_eq!((record.outcome, record.status, record.bytes_out), (Outcome::Admitted, status, 0), "{line}");
    }
    scene.end();
}

#[test]
fn pipelined_requests_are_answered_in_order_and_each_has_a_record() {
    let scene = scene(&Terms::to(start(echo_target).address));
    let mut client = scene.connect();
    let requests: String = (1..=5).map(|pet| with_token(&format!("GET /petstore/1.0/pet/{pet}"), "")).collect();
    client.say(&requests);
    for pet in 1..=5 {
        assert_eq!(client.reply().text(), format!("/pet/{pet}"));
        assert_eq!(scene.record().outcome, Outcome::Admitted);
    }
    scene.end();
}

#[test]
fn a_stream_reaches_the_caller_as_it_comes_and_is_recorded_at_its_end() {
    /// Passed when the caller has the first part.
    static FIRST_SEEN: Barrier = Barrier::new(2);
    let upstream = start(|_, out| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        out.write_all(head.as_bytes()).expect("the gateway reads");
        FIRST_SEEN.wait();
        out.write_all(b"6\r\nsecond\r\n0\r\n\r\n").is_ok()
    });
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    client.say(&with_token("GET /petstore/1.0/open/x", ""));
    let mut reply = client.head();
    assert_eq!(reply.field("transfer-encoding"), Some("chunked"));
    let mut first = [0; 10];
    client.input.read_exact(&mut first).expect("the first chunk");
    assert_eq!(&first, b"5\r\nfirst\r\n");
    assert!(scene.records.try_recv().is_err(), "not before its end");
    FIRST_SEEN.wait();
    reply.body = crate::upstream::read_chunks(&mut client.input).expect("the rest");
    assert_eq!(reply.text(), "second");
    let record = scene.record();
    assert_eq!((record.outcome, record.bytes_out), (Outcome::Admitted, 11));
    scene.end();
}

#[test]
fn a_body_goes_up_whole_with_a_length_or_in_chunks_on_any_method() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    for method in ["POST", "PUT", "DELETE", "GET"] {
        let line = format!("{method} /petstore/1.0/open/x");
        let sized = scene.ask(&format!("{}hello", with_token(&line, "Content-Length: 5\r\n")));
        let seen = upstream.seen.recv_timeout(SOON).expect("the request");
        assert_eq!((sized.status, &*seen.body, seen.field("content-length")), (200, &b"hello"[..], Some("5")));
        assert_eq!(scene.record().bytes_in, 5);

        let chunks = "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        let chunked = scene.ask(&format!("{}{chunks}", with_token(&line, "Transfer-Encoding: chunked\r\n")));
        let seen = upstream.seen.recv_timeout(SOON).expect("the request");
        assert_eq!((chunked.status, &*seen.body, seen.field("content-length")), (200, &b"hello"[..], None), "{method}");
        assert_eq!(scene.record().bytes_in, 5);
    }
    scene.end();
}

#[test]
fn a_caller_that_waits_for_100_gets_it_when_admitted_and_a_refusal_otherwise() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    client.say(&with_token("POST /petstore/1.0/open/x", "Content-Length: 5\r\nExpect: 100-continue\r\n"));
    assert_eq!(client.head().status, 100);
    client.say("hello");
    assert_eq!(client.reply().status, 200);
    assert_eq!(upstream.seen.recv_timeout(SOON).expect("it").field("expect"), None);
    assert_eq!(scene.record().bytes_in, 5);

    let mut client = scene.connect();
    client.say("POST /petstore/1.0/pet HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.reply().status, 401);
    assert_eq!(scene.record().outcome, Outcome::TokenMissing);
    scene.end();
}

#[test]
fn an_old_caller_and_an_old_upstream_are_understood() {
    let upstream = start(|_, out| out.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").is_err());
    let scene = scene(&Terms::to(upstream.address));
    let mut client = scene.connect();
    client.say("GET /petstore/1.0/open/x HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let mut body = String::new();
    client.input.read_to_string(&mut body).expect("until the end");
    assert_eq!(body, "until the end");
    let record = scene.record();
    assert_eq!((record.outcome, record.bytes_out), (Outcome::Admitted, 13));
    assert_eq!(upstream.seen.recv_timeout(SOON).expect("it").line, "GET /open/x HTTP/1.1");
    scene.end();
}
