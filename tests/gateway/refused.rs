//! What the gateway answers by itself.

use std::time::Duration;

use tidegate::gateway::ListenerConfig;
use tidegate::policy::Snapshot;
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{Of, RIG, quick, scene, scene_of, with_token};
use crate::upstream::{echo_target, start};

#[test]
fn each_refusal_has_its_status_name_and_code_and_one_record() {
    let scene = scene(&Terms::to(start(echo_target).address));
    let bearer = |token: &str| format!("Host: h\r\nAuthorization: Bearer {token}\r\n");
    let good = RIG.token(1);
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    let cases = [
        ("GET /petstore/1.0/pet/1", "Host: h\r\n".into(), 401, "TokenMissing", 900_902),
        ("GET /petstore/1.0/pet/1", "Host: h\r\nAuthorization: Basic YTpi\r\n".into(), 401, "TokenMissing", 900_902),
        ("GET /petstore/1.0/pet/1", bearer("a.b"), 401, "TokenMalformed", 900_901),
        ("GET /petstore/1.0/pet/1", bearer(&forged), 401, "SignatureInvalid", 900_901),
        ("GET /petstore/1.0/pet/1", bearer(&RIG.token_with(1, "shop-key", "x")), 403, "ScopeMissing", 900_910),
        ("GET /petstore/1.0/pet/1", bearer(&RIG.token_with(1, "none", "read:pets")), 403, "NotSubscribed", 900_908),
        (
            "GET /petstore/1.0/pet/1",
            bearer(&RIG.token_with(1, "old-key", "admin")),
            403,
            "SubscriptionBlocked",
            900_907,
        ),
        ("GET /nowhere", bearer(&good), 404, "NoRoute", 900_906),
        ("DELETE /petstore/1.0/pet/1", bearer(&good), 405, "MethodNotAllowed", 0),
        ("BREW /petstore/1.0/pet/1", bearer(&good), 405, "MethodNotAllowed", 0),
        ("GET /petstore/1.0/pet/../1", bearer(&good), 400, "BadRequest", 0),
        ("GET /petstore/1.0//pet/1", bearer(&good), 400, "BadRequest", 0),
        ("GET /petstore/1.0/pet/%2e%2e", bearer(&good), 400, "BadRequest", 0),
        ("GET /petstore/1.0/pet/1", String::new(), 400, "BadRequest", 0),
        ("GET /petstore/1.0/pet/1", "Host: a\r\nHost: b\r\n".into(), 400, "BadRequest", 0),
        ("GET /petstore/1.0/pet/1", "Host: a/b\r\n".into(), 400, "BadRequest", 0),
        ("GET /petstore/1.0/pet/1", format!("{}Authorization: Bearer x\r\n", bearer(&good)), 400, "BadRequest", 0),
    ];
    for (line, fields, status, error, code) in cases {
        let reply = scene.ask(&format!("{line} HTTP/1.1\r\n{fields}\r\n"));
        let body = reply.json();
        assert_eq!((reply.status, body["error"].as_str()), (status, Some(error)), "{line} {fields}");
        assert_eq!(body["status"], status);
        assert_eq!(body["code"].as_u64().unwrap_or(0), code, "{line}");
        assert_eq!(reply.field("content-type"), Some("application/problem+json"));
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        assert_eq!(reply.field("www-authenticate").is_some(), status == 401 || error == "ScopeMissing", "{error}");
        let record = scene.record();
        assert_eq!((record.outcome.name(), record.status), (error, status), "{line}");
        assert_eq!(record.bytes_out, reply.body.len() as u64);
        assert_eq!(reply.field("x-request-id"), Some(&*record.request));
    }
    scene.end();
}

#[test]
fn who_is_refused_is_on_the_record_once_the_token_is_verified() {
    let scene = scene(&Terms::to(start(echo_target).address));
    scene.ask("GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\n\r\n");
    let unknown = scene.record();
    assert_eq!((&*unknown.route, &*unknown.application, unknown.of), ("/pet/{petId}", "", Of::Refused));
    scene.ask(&with_token("POST /petstore/1.0/open/x", ""));
    assert_eq!(scene.record().outcome, Outcome::Admitted);
    let token = RIG.token_with(1, "shop-key", "x");
    scene.ask(&format!("GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n"));
    let known = scene.record();
    assert_eq!((known.outcome, known.of), (Outcome::ScopeMissing, Of::Known));
    scene.end();
}

#[test]
fn a_token_that_is_refused_makes_nobody_known_however_well_it_is_signed() {
    let scene = scene(&Terms::to(start(echo_target).address));
    for (claims, error) in [
        (serde_json::json!({ "exp": 1_700_000_060_i64 }), "TokenExpired"),
        (serde_json::json!({ "aud": "elsewhere" }), "AudienceMismatch"),
        (serde_json::json!({ "nbf": 3_900_000_000_i64 }), "TokenNotYetValid"),
    ] {
        let token = RIG.token_claiming(&claims);
        // The second time it is in the cache of verified tokens.
        for _ in 0..2 {
            scene.ask(&format!("GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n"));
            let record = scene.record();
            assert_eq!((record.outcome.name(), record.of), (error, Of::Refused));
        }
    }
    scene.end();
}

#[test]
fn a_wrong_method_and_options_are_told_the_right_ones() {
    let scene = scene(&Terms::to(start(echo_target).address));
    let reply = scene.ask(&with_token("DELETE /petstore/1.0/pet", ""));
    assert_eq!((reply.status, reply.field("allow")), (405, Some("POST, PUT")));
    assert_eq!(scene.record().outcome, Outcome::MethodNotAllowed);
    let reply = scene.ask("OPTIONS /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((reply.status, reply.field("allow"), reply.field("content-length")), (204, Some("GET, HEAD"), None));
    let record = scene.record();
    assert_eq!((record.outcome, record.status, &*record.upstream), (Outcome::Admitted, 204, ""));
    scene.end();
}

#[test]
fn too_many_requests_are_told_when_to_come_back_and_do_not_reach_the_upstream() {
    let upstream = start(echo_target);
    let scene = scene(&Terms { per_minute: 2, ..Terms::to(upstream.address) });
    let mut client = scene.connect();
    let statuses: Vec<u16> = (0..4)
        .map(|_| {
            client.say(&with_token("GET /petstore/1.0/pet/1", ""));
            let reply = client.reply();
            if reply.status == 429 {
                assert_eq!(reply.json()["code"], 900_804);
                assert_eq!(reply.json()["error"], "RateLimited");
                let wait: u32 = reply.field("retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
                assert!((1..=30).contains(&wait), "{wait}");
            }
            scene.record();
            reply.status
        })
        .collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(upstream.seen.try_iter().count(), 2);
    scene.end();
}

#[test]
fn without_a_policy_every_route_is_refused() {
    let scene = scene_of(Snapshot::safe_mode(), quick(), ListenerConfig::default());
    for line in ["GET /", "GET /petstore/1.0/pet/1", "POST /petstore/1.0/open/x"] {
        let reply = scene.ask(&with_token(line, ""));
        assert_eq!((reply.status, reply.json()["error"].as_str()), (503, Some("NoPolicy")), "{line}");
        assert_eq!(scene.record().outcome, Outcome::NoPolicy);
    }
    scene.end();
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_or_by_its_bytes() {
    let upstream = start(echo_target);
    let scene = scene(&Terms { max_body: 10, ..Terms::to(upstream.address) });
    let declared = scene.ask(&with_token("POST /petstore/1.0/open/x", "Content-Length: 11\r\n"));
    assert_eq!((declared.status, declared.json()["error"].as_str()), (413, Some("BodyTooLarge")));
    assert_eq!(scene.record().outcome, Outcome::BodyTooLarge);

    let chunked = format!(
        "{}8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n",
        with_token("POST /petstore/1.0/open/x", "Transfer-Encoding: chunked\r\n")
    );
    let reply = scene.ask(&chunked);
    assert_eq!((reply.status, reply.json()["error"].as_str()), (413, Some("BodyTooLarge")));
    assert_eq!(scene.record().outcome, Outcome::BodyTooLarge);
    assert_eq!(upstream.seen.recv_timeout(Duration::from_millis(100)).ok().map(|seen| seen.line), None);

    let fits = scene.ask(&format!("{}0123456789", with_token("POST /petstore/1.0/open/x", "Content-Length: 10\r\n")));
    assert_eq!((fits.status, scene.record().bytes_in), (200, 10));
    scene.end();
}
