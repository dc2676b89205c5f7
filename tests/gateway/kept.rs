//! What records keep of persons: as much as the policy lets them, and nothing more anywhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate::gateway::TimeState;
use tidegate::policy::{KeepAddress, KeepPrincipal, Privacy, Rotate};
use tidegate::spool::record::Outcome;

use crate::logged::lines_with;
use crate::rig::Terms;
use crate::scene::{Kept, RIG, Scene, scene, scene_elsewhere};
use crate::upstream::{echo_target, start};

const SUB: &str = "anna-of-berth-7";
/// 2026-12-01T00:00:00Z.
const DECEMBER_MS: i64 = 1_796_083_200_000;
const HASHED: Privacy =
    Privacy { principal: KeepPrincipal::Hashed, address: KeepAddress::Hashed, rotate: Rotate::Month };
const CLEAR: Privacy = Privacy { principal: KeepPrincipal::Clear, address: KeepAddress::Clear, rotate: Rotate::Month };
const ABSENT: Privacy =
    Privacy { principal: KeepPrincipal::Absent, address: KeepAddress::Absent, rotate: Rotate::Month };

fn head(scene: &Scene, path: &str, claims: &serde_json::Value) -> Kept {
    let token = RIG.token_claiming(claims);
    let reply =
        scene.ask(&format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {token}\r\n\r\n"));
    let record = scene.record();
    assert_eq!(reply.status, record.status);
    assert!(record.status < 400 || !reply.text().contains(SUB), "{}", reply.text());
    record
}

/// One good request of [`SUB`].
fn served(scene: &Scene) -> Kept {
    let record = head(scene, "/petstore/1.0/pet/7", &serde_json::json!({ "sub": SUB }));
    assert_eq!(record.outcome, Outcome::Admitted);
    record
}

fn is_pseudonym(text: &str) -> bool {
    let digits = text.strip_prefix("h:").unwrap_or_default();
    digits.len() == 20 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[test]
fn a_record_keeps_of_its_caller_what_the_policy_says() {
    let upstream = start(echo_target);
    let scene_that = |privacy| scene(&Terms { privacy, ..Terms::to(upstream.address) });
    for (principal, name) in
        [(KeepPrincipal::Clear, Some(SUB)), (KeepPrincipal::Absent, Some("")), (KeepPrincipal::Hashed, None)]
    {
        let scene = scene_that(Privacy { principal, ..Privacy::default() });
        let record = served(&scene);
        match name {
            Some(name) => assert_eq!(record.principal, name),
            None => assert!(is_pseudonym(&record.principal), "{}", record.principal),
        }
        scene.end();
    }
    for (address, client) in [
        (KeepAddress::Clear, Some(Some("127.0.0.1"))),
        (KeepAddress::Truncated, Some(Some("127.0.0.0/24"))),
        (KeepAddress::Absent, Some(None)),
        (KeepAddress::Hashed, None),
    ] {
        let scene = scene_that(Privacy { address, ..Privacy::default() });
        let record = served(&scene);
        match client {
            Some(client) => assert_eq!(record.client.as_deref(), client),
            None => assert!(record.client.as_deref().is_some_and(is_pseudonym), "{:?}", record.client),
        }
        scene.end();
    }
}

#[test]
fn who_says_nothing_gets_a_hash_and_a_network_and_a_refused_caller_too() {
    let upstream = start(echo_target);
    let scene = scene(&Terms::to(upstream.address));
    let good = served(&scene);
    assert!(is_pseudonym(&good.principal), "{}", good.principal);
    assert_eq!(good.client.as_deref(), Some("127.0.0.0/24"));
    // A token that is known and no longer good names the same person.
    let expired = head(&scene, "/petstore/1.0/pet/7", &serde_json::json!({ "sub": SUB, "exp": 1_700_000_100 }));
    assert_eq!((expired.outcome, &expired.principal), (Outcome::TokenExpired, &good.principal));
    let other = head(&scene, "/petstore/1.0/pet/7", &serde_json::json!({ "sub": "bert" }));
    assert!(is_pseudonym(&other.principal) && other.principal != good.principal);
    scene.end();
}

#[test]
fn of_what_no_api_takes_the_deployments_rule_is_kept_and_nobody_is_named() {
    for (privacy, client) in [(Privacy::default(), Some("127.0.0.0/24")), (CLEAR, Some("127.0.0.1")), (ABSENT, None)] {
        let scene = scene(&Terms { privacy, ..Terms::to(([127, 0, 0, 1], 1).into()) });
        let record = head(&scene, "/elsewhere", &serde_json::json!({ "sub": SUB }));
        assert_eq!(record.outcome, Outcome::NoRoute);
        assert_eq!((&*record.principal, record.client.as_deref()), ("", client));
        scene.end();
    }
    // Without a policy there is nobody who could want more.
    let scene = scene(&Terms::to(([127, 0, 0, 1], 1).into()));
    scene.shared.policy.store(Arc::default());
    let record = head(&scene, "/petstore/1.0/pet/7", &serde_json::json!({ "sub": SUB }));
    assert_eq!((&*record.principal, record.client.as_deref()), ("", Some("127.0.0.0/24")));
    scene.end();
}

#[test]
fn a_pseudonym_lasts_for_a_month_of_the_records_own_time_and_only_on_its_device() {
    let upstream = start(echo_target);
    let terms = Terms { privacy: HASHED, ..Terms::to(upstream.address) };
    let (one, other) = (scene(&terms), scene_elsewhere(&terms));
    let at = |scene: &Scene, ms: i64| {
        scene.shared.time.store(Arc::new(TimeState::exact(ms)));
        let record = served(scene);
        (record.principal, record.client)
    };
    // Well before and after midnight: the clock goes on while a request is served.
    let november = at(&one, DECEMBER_MS - 60_000);
    let december = at(&one, DECEMBER_MS);
    assert!(november.0 != december.0 && november.1 != december.1, "{november:?} {december:?}");
    assert_eq!(at(&one, DECEMBER_MS + 30 * 86_400_000), december, "to the last day of the month");
    assert_eq!(at(&one, DECEMBER_MS - 60_000), november, "it is the record's time that counts");
    let elsewhere = at(&other, DECEMBER_MS);
    assert!(elsewhere.0 != december.0 && elsewhere.1 != december.1, "{elsewhere:?} {december:?}");
    one.end();
    other.end();
}

#[test]
fn a_new_policy_counts_from_the_next_request_on() {
    static SWAPPED: AtomicBool = AtomicBool::new(false);
    let upstream = start(|request, stream| {
        // The answer waits until the policy has changed.
        while !SWAPPED.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        echo_target(request, stream)
    });
    let terms = |privacy| Terms { privacy, ..Terms::to(upstream.address) };
    let scene = scene(&terms(CLEAR));
    let mut client = scene.connect();
    let token = RIG.token_claiming(&serde_json::json!({ "sub": SUB }));
    client.say(&format!(
        "GET /petstore/1.0/pet/7 HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    scene.asked(1);
    scene.shared.policy.store(Arc::new(RIG.snapshot(&terms(ABSENT))));
    SWAPPED.store(true, Ordering::Release);
    assert_eq!(client.reply().status, 200);
    let before = scene.record();
    assert_eq!((&*before.principal, before.client.as_deref()), (SUB, Some("127.0.0.1")), "what held when it came");
    let after = served(&scene);
    assert_eq!((&*after.principal, after.client.as_deref()), ("", None));
    scene.end();
}

#[test]
fn no_line_of_the_log_and_no_answer_of_ours_names_the_caller() {
    assert_eq!(lines_with(SUB), [""; 0]);
    let scene = scene(&Terms::to(([127, 0, 0, 1], 1).into()));
    // Nobody listens there, which is logged; each refusal's answer is looked through where it is asked for.
    for (claims, outcome) in [
        (serde_json::json!({ "sub": SUB }), Outcome::UpstreamConnect),
        (serde_json::json!({ "sub": SUB, "exp": 1_700_000_100 }), Outcome::TokenExpired),
        (serde_json::json!({ "sub": SUB, "scope": "none" }), Outcome::ScopeMissing),
        (serde_json::json!({ "sub": SUB, "client_id": "nobody" }), Outcome::NotSubscribed),
    ] {
        assert_eq!(head(&scene, "/petstore/1.0/pet/7", &claims).outcome, outcome);
    }
    assert!(!lines_with("takes no connection").is_empty(), "the log is kept");
    assert_eq!(lines_with(SUB), [""; 0]);
    scene.end();
}
