//! What a policy says, seen through the gateway: where tokens come, which hosts, how much, until when.

use tidegate::gateway::TimeState;
use tidegate::policy::Uncertain;
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{Of, RIG, scene, with_token};
use crate::upstream::{SOON, echo_target, start};

#[test]
fn a_token_in_a_header_of_its_own_ends_here_and_keeps_answers_apart() {
    let upstream = start(echo_target);
    let terms = || Terms { token_header: "x-pet-key", ..Terms::to(upstream.address) };
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: h\r\nX-Pet-Key: {}\r\n\r\n", RIG.token(1));
    let scene_removing = scene(&terms());
    let reply = scene_removing.ask(&request("GET /petstore/1.0/pet/1"));
    assert_eq!((reply.status, reply.field("vary")), (200, Some("x-pet-key")));
    let seen = upstream.seen.recv_timeout(SOON).expect("the request");
    assert_eq!((seen.field("x-pet-key"), seen.field("authorization")), (None, None));
    assert_eq!((scene_removing.record().outcome, reply.field("cache-control")), (Outcome::Admitted, None));
    // An open route answers everybody alike, and the usual header says nothing here.
    assert_eq!(scene_removing.ask(&request("GET /petstore/1.0/open/x")).field("vary"), None);
    scene_removing.record();
    assert_eq!(scene_removing.ask(&with_token("GET /petstore/1.0/pet/1", "")).status, 401);
    assert_eq!(scene_removing.record().outcome, Outcome::TokenMissing);
    scene_removing.end();

    let scene = scene(&Terms { forward_token: true, ..terms() });
    upstream.seen.try_iter().for_each(drop);
    assert_eq!(scene.ask(&request("GET /petstore/1.0/pet/1")).status, 200);
    assert!(upstream.seen.recv_timeout(SOON).expect("it").field("x-pet-key").is_some());
    scene.record();
    scene.end();
}

#[test]
fn the_usual_token_header_needs_no_vary() {
    let scene = scene(&Terms::to(start(echo_target).address));
    assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).field("vary"), None);
    scene.record();
    scene.end();
}

#[test]
fn an_endpoint_with_a_path_has_it_before_every_target() {
    let upstream = start(echo_target);
    let endpoints = vec![format!("http://{}/v2/shop", upstream.address)];
    let scene = scene(&Terms { endpoints, ..Terms::to(upstream.address) });
    assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1?x=%2F", "")).text(), "/v2/shop/pet/1?x=%2F");
    scene.record();
    assert_eq!(scene.ask(&with_token("GET http://h/petstore/1.0/open/a", "")).text(), "/v2/shop/open/a");
    scene.record();
    scene.end();
}

#[test]
fn an_api_of_one_host_is_at_no_other() {
    let scene = scene(&Terms { hosts: vec!["pets.example".into()], ..Terms::to(start(echo_target).address) });
    for (host, status) in [
        ("pets.example", 200),
        ("PETS.example:8080", 200),
        ("pets.example.evil", 404),
        ("shop.example", 404),
        ("", 404),
    ] {
        let token = RIG.token(1);
        let fields = format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n");
        assert_eq!(scene.ask(&format!("GET /petstore/1.0/pet/1 HTTP/1.1\r\n{fields}\r\n")).status, status, "{host}");
        assert_eq!(scene.record().status, status, "{host}");
    }
    scene.end();
}

#[test]
fn a_quota_that_is_used_up_is_told_with_the_time_that_it_lasts() {
    let upstream = start(echo_target);
    let scene = scene(&Terms { per_month: 2, ..Terms::to(upstream.address) });
    for status in [200, 200, 429] {
        let reply = scene.ask(&with_token("GET /petstore/1.0/pet/1", ""));
        assert_eq!(reply.status, status);
        let record = scene.record();
        if status == 429 {
            assert_eq!((&reply.json()["error"], &reply.json()["code"]), (&"QuotaExceeded".into(), &900_804.into()));
            let wait: u32 = reply.field("retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
            assert!((1..=31 * 86_400).contains(&wait), "{wait}");
            assert_eq!((record.outcome, record.of), (Outcome::QuotaExceeded, Of::Known));
        }
    }
    assert_eq!(upstream.seen.try_iter().count(), 2);
    scene.end();
}

#[test]
fn a_token_that_is_taken_back_or_cannot_be_dated_is_refused() {
    let terms = Terms { revoked: vec!["user-7"], uncertain: Uncertain::Deny, ..Terms::to(start(echo_target).address) };
    let scene = scene(&terms);
    let ask = |number| {
        let token = RIG.token(number);
        scene.ask(&format!("GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n"))
    };
    let refused = |reply: crate::scene::Reply, error: &str| {
        assert_eq!((reply.status, reply.json()["error"].as_str()), (401, Some(error)));
        let record = scene.record();
        assert_eq!((record.outcome.name(), record.of), (error, Of::Refused));
    };
    refused(ask(7), "TokenRevoked");
    assert_eq!((ask(8).status, scene.record().outcome), (200, Outcome::Admitted));
    scene.shared.time.store(TimeState::floor(1_800_000_000).into());
    refused(ask(8), "TimeUncertain");
    scene.end();
}
