//! Policies come and go under a daemon that serves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidegate::admin::PolicyStatus;

use crate::site::{Site, serves, until};
use crate::wire::{Caller, get, upstream};

fn policy_in_force(status: &tidegate::admin::Status) -> (String, u64) {
    match &status.policy {
        PolicyStatus::Active { id, seq, .. } => (id.to_string(), *seq),
        PolicyStatus::SafeMode => panic!("safe mode"),
    }
}

#[test]
fn without_a_policy_every_route_is_refused_and_health_is_answered() {
    let site = Site::new();
    let daemon = site.start();
    let token = site.token();
    for (path, token) in [("/quay/ping", Some(token.as_str())), ("/quay/ping", None), ("/", None)] {
        let reply = get(site.gateway, path, token);
        assert_eq!((reply.status, reply.field("content-type")), (503, Some("application/problem+json")), "{reply:?}");
        let problem: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
        assert_eq!(problem["status"], 503, "{problem}");
    }
    assert_eq!(daemon.ask("/livez"), Some((200, "ok\n".into())));
    let (status, why) = daemon.ask("/readyz").expect("an answer");
    assert!(status == 503 && why.contains("safe mode"), "{status} {why}");
    assert_eq!(daemon.status().policy, PolicyStatus::SafeMode);

    assert_eq!(daemon.takes("first.tgb", &site.bundle(upstream("one"))), "Activated");
    assert_eq!(daemon.ask("/readyz"), Some((200, "ok\n".into())));
    serves(&site, &token, "one");
    assert_eq!(get(site.gateway, "/quay/ping", None).status, 401);
    assert_eq!(get(site.gateway, "/absent", Some(&token)).status, 404);
    let metrics = daemon.ask("/metrics").expect("an answer").1;
    for line in ["tidegate_policy_seq 1", "tidegate_requests_total{outcome=\"Admitted\"} 1"] {
        assert!(metrics.lines().any(|told| told == line), "{line} is not in\n{metrics}");
    }
    for end in ["closed", "bad_head", "head_timeout", "handshake", "broken"] {
        assert!(metrics.contains(&format!("tidegate_connections_ended_total{{end=\"{end}\"}} ")), "{end}: {metrics}");
    }
    for task in ["accept", "gateway-0", "spool", "imports", "admin"] {
        assert!(metrics.contains(&format!("tidegate_task_heartbeat_age_seconds{{task=\"{task}\"}}")), "{metrics}");
    }
    daemon.stop();
}

#[test]
fn two_bundles_of_one_number_are_an_alarm_in_log_status_and_metrics() {
    let site = Site::new();
    let first = site.bundle(upstream("one"));
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &first), "Activated");
    let counted = |times: u64| {
        assert_eq!(daemon.status().equivocations, times);
        let line = format!("tidegate_bundle_imports_total{{result=\"Equivocation\"}} {times}");
        let metrics = daemon.ask("/metrics").expect("an answer").1;
        assert!(metrics.lines().any(|told| told == line), "{line} is not in\n{metrics}");
    };
    // There from the start, so that an alert sees the first one.
    counted(0);
    site.tidegate(&["bundle", "build", "policy", "-o", "other.tgb", "--seq", "1", "--reason", "another"]);
    site.tidegate(&["bundle", "sign", "other.tgb", "--key", "policy/keys/policy.key", "--yes"]);
    let other = std::fs::read(site.path("other.tgb")).expect("made");
    assert_eq!(daemon.takes("other.tgb", &other), "Equivocation");
    counted(1);
    let log = daemon.log();
    assert!(log.lines().any(|line| line.contains(" error ") && line.contains("Equivocation")), "{log}");
    daemon.stop();
}

#[test]
fn a_new_bundle_takes_over_without_a_request_refused_or_dropped() {
    let site = Site::new();
    let (token, first, second) = (site.token(), site.bundle(upstream("one")), site.bundle(upstream("two")));
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &first), "Activated");
    let (ended, on_first, on_second) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let sent: usize = std::thread::scope(|scope| {
        // Two callers keep their connection, two make one for each request.
        let callers: Vec<_> = (0..4)
            .map(|number| {
                let (token, ended, on_first, on_second) = (&token, &ended, &on_first, &on_second);
                let gateway = site.gateway;
                scope.spawn(move || {
                    let mut caller = Caller::connect(gateway).expect("no connection is refused");
                    let (mut sent, mut is_new) = (0, false);
                    while !ended.load(Ordering::Relaxed) {
                        if number < 2 {
                            caller = Caller::connect(gateway).expect("no connection is refused");
                        }
                        let reply = caller.get("/quay/ping", Some(token)).expect("no request is dropped");
                        match (reply.status, reply.body.as_str()) {
                            (200, "one") if !is_new => on_first.fetch_add(1, Ordering::Relaxed),
                            (200, "two") => on_second.fetch_add(1, Ordering::Relaxed),
                            _ => panic!("after the new policy: {is_new}; {reply:?}"),
                        };
                        is_new = reply.body == "two";
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        // A caller that ended early has panicked, and is told of by its join.
        let goes_on = |count: &AtomicUsize, least| {
            until("callers call", || {
                let is_over = callers.iter().any(std::thread::ScopedJoinHandle::is_finished);
                (is_over || count.load(Ordering::Relaxed) > least).then_some(())
            });
        };
        goes_on(&on_first, 50);
        assert_eq!(daemon.takes("second.tgb", &second), "Activated");
        goes_on(&on_second, on_second.load(Ordering::Relaxed) + 50);
        ended.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().expect("no caller saw a failure")).sum()
    });
    assert_eq!(policy_in_force(&daemon.status()).1, 2);
    let metrics = daemon.ask("/metrics").expect("an answer").1;
    let admitted = format!("tidegate_requests_total{{outcome=\"Admitted\"}} {sent}");
    assert!(metrics.lines().any(|told| told == admitted), "{admitted} is not in\n{metrics}");
    daemon.stop();
}

#[test]
fn what_is_no_good_bundle_leaves_the_old_policy_serving() {
    let site = Site::new();
    let (token, good, newer) = (site.token(), site.bundle(upstream("one")), site.bundle(upstream("two")));
    let daemon = site.start();
    assert_eq!(daemon.takes("good.tgb", &good), "Activated");
    let before = policy_in_force(&daemon.status());

    let stranger = Site::new().bundle(upstream("stranger"));
    let mut flipped = newer.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let cases: [(&str, &[u8]); 7] = [
        ("empty.tgb", b""),
        ("garbage.tgb", &[0xa5; 4096]),
        ("head.tgb", &newer[..40]),
        ("half.tgb", &newer[..newer.len() / 2]),
        ("short.tgb", &newer[..newer.len() - 1]),
        ("flipped.tgb", &flipped),
        ("stranger.tgb", &stranger),
    ];
    for (name, bytes) in cases {
        let result = daemon.takes(name, bytes);
        assert!(!["Activated", "AlreadyInstalled"].contains(&result.as_str()), "{name}: {result}");
        assert_eq!(policy_in_force(&daemon.status()), before, "{name}");
        serves(&site, &token, "one");
    }
    assert_eq!(daemon.takes("newer.tgb", &newer), "Activated", "and a good one is still taken");
    assert_eq!(daemon.takes("good.tgb", &good), "Rollback");
    serves(&site, &token, "two");
    let told: Vec<_> = daemon.status().imports.into_iter().map(|import| import.result).collect();
    assert_eq!((told.len(), told[0].as_str(), told[1].as_str()), (10, "Rollback", "Activated"), "{told:?}");
    daemon.stop();
}

#[test]
fn a_new_policy_leaves_the_list_of_revocations_in_force_and_so_does_a_start() {
    let site = Site::new();
    let mint =
        ["token", "mint", "--key", "policy/keys/issuer.pem", "--kid", "2026-01", "--aud", "edge", "--scope", "ping"];
    let mint = [&mint[..], &["--iss", "https://tokens.example.com", "--client", "till", "--sub", "ben"]].concat();
    let (ada, ben) = (site.token(), site.tidegate(&mint).trim().to_owned());
    let revoke = ["revoke", "policy", "-o", "list.tgb", "--issuer", "site", "--sub", "ada"];
    site.tidegate(&revoke);
    site.tidegate(&["bundle", "sign", "list.tgb", "--key", "policy/keys/revocation.key", "--yes"]);
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &site.bundle(upstream("one"))), "Activated");
    serves(&site, &ada, "one");
    assert_eq!(daemon.takes("list.tgb", &std::fs::read(site.path("list.tgb")).expect("made")), "Activated");
    let holds = |body: &str| {
        let reply = get(site.gateway, "/quay/ping", Some(&ada));
        assert!(reply.status == 401 && reply.body.contains("TokenRevoked"), "{reply:?}");
        serves(&site, &ben, body); // the control: it is the list, and the policy is the one that is meant
    };
    holds("one");
    for name in ["two", "three"] {
        assert_eq!(daemon.takes(&format!("{name}.tgb"), &site.bundle(upstream(name))), "Activated");
        holds(name);
    }
    daemon.stop();
    let daemon = site.start();
    holds("three");
    daemon.stop();
}
