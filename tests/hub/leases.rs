//! Quotas that devices share: each spends from leases that the hub signs.

use std::collections::BTreeSet;

use tidegate::hub::{Config, DeviceEntry, Quota, Window};
use tidegate::ids::{DeviceId, hex, unhex};
use tidegate::keys::SigningKey;
use tidegate::spool::lease::Lease;
use tidegate::spool::protocol::{PROOF_TYPE, lease_path, proof, proof_message};
use tokio::task::JoinSet;

use crate::http::{raw, refusal, status, told};
use crate::scene::{Premises, Running, device, hub_key, key};

fn sharing(premises: &Premises, limit: u64) -> Config {
    let quota = Quota { name: "calls".into(), limit, window: Window::Month, share: 0.25 };
    let mut config = Config { quotas: vec![quota], ..premises.config() };
    config.devices.push(DeviceEntry { name: "other".into(), key: hex(key(2).public().raw()) });
    config
}

fn id(key: &SigningKey) -> DeviceId {
    DeviceId::from(key.public().id())
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The answer to a request that is proven.
async fn asks(hub: std::net::SocketAddr, by: &SigningKey, quota: &str, body: &str) -> Vec<u8> {
    let path = lease_path(id(by), quota);
    let answer = raw(hub, &post(&path, "", body)).await;
    let text = String::from_utf8_lossy(&answer);
    let Some((_, challenge)) = text.split_once("tidegate-challenge: ") else { return answer };
    let challenge = unhex(&challenge[..64]).expect("64 digits");
    let signature = by.sign(PROOF_TYPE, &proof_message(&challenge, "POST", &path));
    raw(hub, &post(&path, &format!("Tidegate-Proof: {}\r\n", proof(&challenge, &signature)), body)).await
}

fn lease(answer: &[u8], of: &SigningKey) -> Lease {
    assert_eq!(status(answer), "200", "{}", String::from_utf8_lossy(answer));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole answer") + 4;
    Lease::read(&answer[end..], id(of), "calls", &[hub_key().public()]).expect("a lease of this hub")
}

#[tokio::test]
async fn devices_that_ask_at_once_get_no_more_than_the_limit_also_over_a_start_and_each_lease_has_its_number() {
    let premises = Premises::new();
    let hub = Running::start(sharing(&premises, 1_000)).await;
    let mut tasks = JoinSet::new();
    for number in 0..40u8 {
        let (hub, by) = (hub.address, key(1 + number % 2));
        tasks.spawn(async move { (number, asks(hub, &by, "calls", "{\"want\": 30}").await) });
    }
    let answers = tasks.join_all().await;
    let given = answers.iter().filter(|(_, answer)| status(answer) == "200");
    let mut leases: Vec<Lease> = given.map(|(number, answer)| lease(answer, &key(1 + number % 2))).collect();
    hub.stop().await;
    let hub = Running::start(sharing(&premises, 1_000)).await;
    loop {
        let answer = asks(hub.address, &device(), "calls", "{\"want\": 30}").await;
        if status(&answer) != "200" {
            assert_eq!(refusal(&answer), told("429", "QuotaUsedUp"));
            assert!(String::from_utf8_lossy(&answer).contains("retry-after: "));
            break;
        }
        leases.push(lease(&answer, &device()));
    }
    assert_eq!(leases.iter().map(|lease| lease.amount).sum::<u64>(), 1_000);
    let numbers: BTreeSet<u64> = leases.iter().map(|lease| lease.number).collect();
    assert_eq!(numbers, (1..=leases.len() as u64).collect());
    // What a device gives back another one gets.
    let mine = leases.iter().find(|lease| lease.device == id(&device())).expect("it has one");
    let back = format!("{{\"want\": 0, \"back\": {}, \"lease\": {}}}", mine.amount, mine.number);
    assert_eq!(status(&asks(hub.address, &device(), "calls", &back).await), "204");
    let again = lease(&asks(hub.address, &key(2), "calls", "{\"want\": 1}").await, &key(2));
    assert_eq!((again.amount, again.number), (1, leases.len() as u64 + 1));
    hub.stop().await;
}

#[tokio::test]
async fn a_lease_wants_proof_whatever_else_does_and_what_is_no_request_for_one_is_refused_by_name() {
    let premises = Premises::new();
    // The scene's hub wants no proof for the rest.
    let hub = Running::start(sharing(&premises, 1_000)).await;
    let mine = lease_path(id(&device()), "calls");
    let answer = raw(hub.address, &post(&mine, "", "{\"want\": 1}")).await;
    assert_eq!(refusal(&answer), told("401", "ProofRequired"));
    assert_eq!(refusal(&asks(hub.address, &key(3), "calls", "{\"want\": 1}").await), told("403", "UnknownDevice"));
    assert_eq!(refusal(&asks(hub.address, &device(), "other", "{\"want\": 1}").await), told("404", "NotFound"));
    for body in ["", "{}", "{\"want\": -1}", "{\"want\": 1.5}", "{\"want\": 1, \"more\": 1}", "[1]"] {
        let answer = asks(hub.address, &device(), "calls", body).await;
        assert_eq!(refusal(&answer), told("422", "LeaseMalformed"), "{body}");
    }
    let get = format!("GET {mine} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(refusal(&raw(hub.address, get.as_bytes()).await), told("405", "MethodNotAllowed"));
    let long = format!("{{\"want\": 1{}}}", " ".repeat(2_000));
    assert_eq!(refusal(&asks(hub.address, &device(), "calls", &long).await), told("413", "RequestTooLarge"));
    assert_eq!(premises.number("SELECT count(*) FROM leases"), 0, "nothing of that was given");
    hub.stop().await;
    // A hub without quotas.
    let hub = Running::start(premises.config()).await;
    assert_eq!(refusal(&asks(hub.address, &device(), "calls", "{\"want\": 1}").await), told("404", "NotFound"));
    hub.stop().await;
}
