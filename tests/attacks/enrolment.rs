//! Enrolments: which labels a device has, by the policy or the hub role, and in which order.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::bundle::document::{Document, DocumentKind};
use tidegate::bundle::enrolment::{Enrolment, Request};
use tidegate::bundle::manifest::Target;
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::{Imported, canonical, pack};
use tidegate::disk::Machine;
use tidegate::ids::hex;
use tidegate::store::pair::Pair;

use crate::rotation::{link, signed, third};
use crate::world::{Device, GOLDEN_AT, GOLDEN_SEQ, case, device_facts, draft, golden, key, root, sign};

/// Key 9 is the device's.
const DEVICE: u8 = 9;

fn labelled(site: &str) -> Value {
    json!({"site": site})
}

fn body(seq: u64, site: &str) -> Value {
    json!({
        "deployment": "harbour",
        "device": device_facts().id,
        "epoch": 1,
        "issued_at": GOLDEN_AT,
        "key": hex(key(DEVICE).public().raw()),
        "labels": labelled(site),
        "root_version": 2,
        "seq": seq,
    })
}

/// The frame as the format's table draws it, around any bytes.
pub fn framed(kind: DocumentKind, body: &[u8], seeds: &[u8]) -> Vec<u8> {
    let mut keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    keys.sort_by_key(|key| key.public().id());
    let signatures: Vec<_> = keys
        .iter()
        .map(|key| {
            let (id, bytes) = (key.public().id(), hex(&key.sign(kind.media_type(), body)));
            format!("{{\"key\":\"{id}\",\"signature\":\"{bytes}\"}}")
        })
        .collect();
    let end = format!(",\"signatures\":[{}],\"type\":\"{}\"}}\n", signatures.join(","), kind.media_type());
    [b"{\"body\":", body, end.as_bytes()].concat()
}

fn with(seeds: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut body = body(1, "quay");
    change(&mut body);
    framed(DocumentKind::Enrolment, &canonical::write(&body).expect("canonical"), seeds)
}

/// The enrolment of number `seq`, signed by the policy role.
pub fn enrolment(seq: u64, site: &str) -> Vec<u8> {
    with(&[4, 5], |body| *body = self::body(seq, site))
}

fn labels(device: &Device) -> Vec<(String, String)> {
    let facts = device.importer.as_ref().expect("it runs").device();
    facts.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn at(site: &str) -> Vec<(String, String)> {
    vec![("site".into(), site.into())]
}

fn for_site(seq: u64, site: &str) -> Vec<u8> {
    let mut draft = draft(seq, &format!("of the {site}"));
    draft.target = Target::Labels([("site".into(), vec![site.into()])].into());
    sign(&draft.assemble(&root()).expect("a sound draft"))
}

#[test]
fn labels_come_from_the_enrolment_survive_restarts_and_decide_targets() {
    let mut device = Device::with_golden();
    // The negative control: without the enrolment the bundle is for others.
    device.refuses(&case("NotForThisDevice", "before the enrolment", for_site(GOLDEN_SEQ + 1, "quay")));
    device.takes(&enrolment(1, "quay"));
    assert_eq!(device.journal().last().expect("a line").result, "Enrolled");
    for _ in 0..2 {
        assert_eq!(labels(&device), at("quay"));
        device.start();
    }
    device.takes(&for_site(GOLDEN_SEQ + 1, "quay"));
    device.refuses(&case("NotForThisDevice", "of the site before", for_site(GOLDEN_SEQ + 2, "pier")));
}

#[test]
fn an_older_enrolment_and_another_of_its_number_are_refused_by_name() {
    let mut device = Device::with_golden();
    device.takes(&enrolment(7, "quay"));
    for restart in [false, true] {
        if restart {
            device.start();
        }
        device.refuses(&case("EnrolmentRollback", "an older one", enrolment(6, "pier")));
        device.refuses(&case("Equivocation", "another of its number", enrolment(7, "pier")));
        assert!(matches!(device.offer(&enrolment(7, "quay")).result, Imported::AlreadyInstalled));
        assert_eq!(labels(&device), at("quay"));
    }
    device.takes(&enrolment(8, "pier"));
    assert_eq!(labels(&device), at("pier"));
}

#[test]
fn other_labels_take_nothing_out_of_service() {
    let mut device = Device::with_golden();
    device.takes(&enrolment(1, "quay"));
    let of_the_quay = for_site(GOLDEN_SEQ + 1, "quay");
    device.takes(&of_the_quay);
    device.takes(&enrolment(2, "pier"));
    device.start();
    let serving = device.serving.as_ref().map(|(digest, _)| *digest);
    assert_eq!(serving, Some(pack::digest(&of_the_quay).expect("it has a digest")));
}

#[test]
fn an_enrolment_outlives_the_keys_that_signed_it_and_new_ones_need_the_new_keys() {
    let mut device = Device::with_golden();
    device.takes(&enrolment(1, "quay"));
    device.takes(&with_third());
    for _ in 0..2 {
        assert_eq!(labels(&device), at("quay"));
        device.start();
    }
    device.refuses(&case("ThresholdNotMet", "by the old keys", enrolment(2, "pier")));
    // Version 3 has a hub, whose word is enough.
    device.takes(&with(&[17], |body| *body = self::body(2, "pier")));
    assert_eq!(labels(&device), at("pier"));
}

/// The bundle that brings the third root, whose policy keys are 14 to 16 and whose hub key is 17.
pub fn with_third() -> Vec<u8> {
    let rotated = signed(&third(|_| ()), GOLDEN_SEQ + 1, "next", &[14, 15]);
    pack::with_chain(&rotated, &[link(&third(|_| ()), &[1, 2, 11, 12])]).expect("it fits")
}

fn under_third(seeds: &[u8], seq: u64, site: &str) -> Vec<u8> {
    with(seeds, |body| {
        *body = self::body(seq, site);
        body["root_version"] = 3.into();
    })
}

#[test]
fn a_stolen_hub_key_locks_the_policy_role_out_by_no_number_and_undoes_nothing_of_it() {
    const LAST: u64 = 1 << 53;
    let (by_policy, by_hub) =
        (|seq, site| under_third(&[14, 15], seq, site), |seq, site| under_third(&[17], seq, site));
    let mut device = Device::with_golden();
    device.takes(&with_third());
    device.takes(&by_policy(5, "quay"));
    device.refuses(&case("EnrolmentRollback", "the hub's, of an older number", by_hub(4, "pier")));
    device.refuses(&case("EnrolmentRollback", "the hub's, of its number", by_hub(5, "pier")));
    device.takes(&by_hub(LAST, "pier"));
    for restart in [false, true] {
        if restart {
            device.start();
        }
        assert_eq!(labels(&device), at("pier"));
        device.refuses(&case("EnrolmentRollback", "what was taken before the hub's", by_policy(5, "quay")));
        device.refuses(&case("EnrolmentRollback", "an older one of the policy role", by_policy(4, "berth")));
        device.refuses(&case("Equivocation", "another of the hub's number", by_hub(LAST, "berth")));
    }
    device.takes(&by_policy(6, "berth"));
    for restart in [false, true] {
        if restart {
            device.start();
        }
        assert_eq!(labels(&device), at("berth"));
        device.refuses(&case("EnrolmentRollback", "the hub's again", by_hub(LAST, "pier")));
        device.refuses(&case("Equivocation", "another of the policy role's number", by_policy(6, "quay")));
        assert!(matches!(device.offer(&by_policy(6, "berth")).result, Imported::AlreadyInstalled));
    }
}

#[test]
fn a_lost_root_that_is_found_again_brings_the_labels_back_and_no_older_enrolment_in() {
    let mut device = Device::with_golden();
    device.takes(&with_third());
    device.takes(&under_third(&[14, 15], 5, "quay"));
    fs::remove_file(device.state().join("trust/roots/3")).expect("removed");
    device.start();
    assert_ne!(labels(&device), at("quay"), "nobody can tell who signed it");
    device.refuses(&case("StateLost", "while the root is lost", under_third(&[14, 15], 6, "berth")));
    // The root comes again with whatever bundle; labels and order are as they were, without a start.
    device.offer(&with_third());
    for restart in [false, true] {
        if restart {
            device.start();
        }
        assert_eq!(labels(&device), at("quay"), "started: {restart}");
        device.refuses(&case("EnrolmentRollback", "an older one", under_third(&[14, 15], 4, "pier")));
    }
}

#[test]
fn an_enrolment_that_no_root_vouches_for_any_more_keeps_its_place_in_the_order() {
    let mut device = Device::with_golden();
    device.takes(&enrolment(5, "quay"));
    // The operator pins a later root by hand, whose keys are others.
    fs::write(device.folder.path().join("root.json"), third(|_| ()).bytes()).expect("placed");
    device.start();
    assert_ne!(labels(&device), at("quay"));
    device.refuses(&case("EnrolmentRollback", "an older one, by the new keys", under_third(&[14, 15], 4, "pier")));
    device.takes(&under_third(&[14, 15], 6, "pier"));
}

#[test]
fn an_enrolment_that_the_version_before_wrote_down_is_read() {
    let mut device = Device::with_golden();
    let (mut pair, _) = Pair::open(Arc::new(Machine), &device.state().join("trust"), "enrolment");
    pair.write(&[&2_u64.to_be_bytes()[..], &enrolment(5, "quay")].concat()).expect("written");
    device.start();
    assert_eq!(labels(&device), at("quay"));
    device.refuses(&case("EnrolmentRollback", "an older one", enrolment(4, "pier")));
    device.takes(&enrolment(6, "pier"));
    device.start();
    assert_eq!(labels(&device), at("pier"));
}

#[test]
fn the_hub_enrols_and_moves_no_time() {
    let with_hub =
        |body: &mut Value| (body["root_version"], body["issued_at"]) = (3.into(), (GOLDEN_AT + 9_000).into());
    let floor = |device: &mut Device| {
        let now = device.now();
        device.importer.as_ref().expect("it runs").time().floor().bounds(&now.reading, false).lower
    };
    let mut device = Device::with_golden();
    device.takes(&with_third());
    device.takes(&with(&[17], with_hub));
    assert!(floor(&mut device) < GOLDEN_AT + 9_000);
    // The control: the policy role does move it.
    device.takes(&with(&[14, 15], |body| {
        with_hub(body);
        body["seq"] = 2.into();
    }));
    assert!(floor(&mut device) >= GOLDEN_AT + 9_000);
}

#[test]
fn a_torn_or_rotten_enrolment_is_told_and_the_policy_serves_on() {
    let mut device = Device::with_golden();
    device.takes(&enrolment(1, "quay"));
    device.takes(&enrolment(2, "pier"));
    let records = ["trust/enrolment.0", "trust/enrolment.1"].map(|name| device.state().join(name));
    let cut = |path| {
        let bytes = fs::read(path).expect("a record");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
    };
    cut(&records[1]);
    device.start();
    assert_eq!(labels(&device), at("quay"), "the one before");
    let told = |device: &Device| {
        let lines = device.journal();
        lines.iter().filter(|line| line.result == "StateDamaged" && line.detail.contains("enrolment")).count()
    };
    assert_eq!(told(&device), 1);
    cut(&records[0]);
    device.start();
    // The world's own label stands for none.
    assert_eq!((labels(&device), told(&device)), (at("pier"), 2));
    device.still_serves_golden();
    device.takes(&enrolment(3, "quay"));
    assert_eq!(labels(&device), at("quay"));
}

#[test]
fn a_request_shows_that_its_sender_holds_the_key() {
    let labels = [("site".to_owned(), "quay".to_owned())].into();
    let document = Request::sign(&key(DEVICE), labels, "board").expect("signed");
    let (request, public) = Request::verify(&document).expect("its own");
    assert_eq!((request.device, public), (device_facts().id, key(DEVICE).public()));
    // Another's key in one's own request, and one's own name in another's.
    let mut body: Value = serde_json::from_slice(document.body()).expect("JSON");
    body["key"] = hex(key(8).public().raw()).into();
    for (seed, name) in [(8, "NotForThisDevice"), (DEVICE, "ThresholdNotMet")] {
        let stolen = Document::sign(DocumentKind::DeviceRequest, &body, &key(seed)).expect("signed");
        assert_eq!(Request::verify(&stolen).expect_err("stolen").name(), name);
    }
}

#[test]
fn what_the_tool_makes_is_the_format() {
    let root: RootDocument = root();
    let labels = [("site".to_owned(), "quay".to_owned())].into();
    let made = Enrolment::new(&root, &key(DEVICE).public(), labels, 1, GOLDEN_AT).expect("sound");
    let document = Document::sign(DocumentKind::Enrolment, &made, &key(4)).expect("signed");
    assert_eq!(document.signed_too(&key(5)).expect("room").to_bytes(), enrolment(1, "quay"));
    assert_ne!(golden(), enrolment(1, "quay"));
}
