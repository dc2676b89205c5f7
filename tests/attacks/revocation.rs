//! Bundles of type 2: the revocation role takes access away, never gives it back, and nothing of it goes with a policy.

use std::fs;
use std::path::PathBuf;

use tidegate::bundle::entry::{CutOff, CutOffKind, HashedId, Revocations};
use tidegate::bundle::journal::Event;
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::{EntryKind, Imported, Origin, pack};
use tidegate::policy::revocations::{Kind, RevokedId, TokenIds};
use tidegate::store::time::BUILD_TIME;

use crate::rotation::{link, signed, third};
use crate::world::{Device, GOLDEN_AT, GOLDEN_SEQ, bundle, case, draft, golden, key, root, root_draft};

/// Long after the floor of a test device.
const LATE: i64 = GOLDEN_AT + 1_000_000_000;
/// At the test device's floor, or before it.
const PAST: i64 = BUILD_TIME;
const ISS: &str = "https://site.example";

fn cut_off(value: &str, before: i64) -> CutOff {
    CutOff { kind: CutOffKind::Client, issuer: ISS.into(), value: value.into(), before }
}

/// The entry of a list of these ids, each with the moment until which it counts.
pub fn table(ids: &[(u64, i64)], cut_offs: &[CutOff]) -> Vec<u8> {
    let ids = ids.iter().map(|(hash, until)| HashedId { hash: *hash, until: *until }).collect();
    Revocations { cut_offs: cut_offs.to_vec(), ids }.to_bytes()
}

fn list_under(root: &RootDocument, seq: u64, table: Vec<u8>) -> Vec<u8> {
    let mut list = draft(seq, "");
    list.security_floor = 0;
    list.entries = [(EntryKind::Revocations, ("revocations".into(), table))].into();
    let unsigned = list.assemble_list(root).expect("a sound list");
    pack::sign(&unsigned, root, &key(7)).expect("key 7 may sign")
}

pub fn list(seq: u64, table: Vec<u8>) -> Vec<u8> {
    list_under(&root(), seq, table)
}

/// What the device of the cases has: list 3.
pub fn held() -> Vec<u8> {
    list(3, table(&[(1, PAST), (5, LATE), (9, LATE)], &[cut_off("till", 500)]))
}

#[test]
fn a_list_takes_away_and_never_gives_back() {
    let mut device = Device::with_golden();
    device.takes(&held());
    let before = device.kept();
    assert!(matches!(device.offer(&held()).result, Imported::AlreadyInstalled));
    assert_eq!(device.kept(), before);
    // What has expired may go; ids and cut-offs may come, and count for longer. Numbers may be left out.
    let more = table(&[(5, LATE + 1), (7, LATE), (9, LATE)], &[cut_off("desk", 1), cut_off("till", 501)]);
    device.takes(&list(7, more));
    assert_eq!(device.list.as_ref().expect("in force").1.len(), (3, 2));
    assert_eq!(device.journal().last().expect("a line").detail, "a list of 3 ids and 2 cut-offs");
    device.still_serves_golden();
    assert_eq!(device.list.as_ref().expect("in force").1.len(), (3, 2));
}

#[test]
fn a_list_and_a_policy_go_their_own_ways() {
    let ids = |jti: &str| TokenIds { jti: Some(RevokedId::of(Kind::Jti, ISS, jti)), ..TokenIds::default() };
    let mut device = Device::new(std::sync::Arc::new(tidegate::disk::Machine));
    device.takes(&list(1, table(&[(RevokedId::of(Kind::Jti, ISS, "one").0, LATE)], &[])));
    device.start();
    assert_eq!((device.serving.is_none(), &device.origin), (true, &Origin::Fresh), "a list alone serves nothing");
    // Many policies come and go, with falling numbers of lists beside them; the slots that none names are dropped.
    device.takes(&golden());
    for seq in 1..5 {
        device.takes(&bundle(GOLDEN_SEQ + seq, "next"));
    }
    device.start();
    let (digest, list) = device.list.as_ref().expect("in force");
    assert!(list.find(&ids("one"), None).is_some() && list.find(&ids("two"), None).is_none());
    let named = [*digest, device.serving.as_ref().expect("it serves").0];
    let slots = fs::read_dir(device.state().join("slots")).expect("the slots").count();
    assert_eq!(
        (slots, named.iter().all(|digest| device.state().join("slots").join(digest.to_string()).exists())),
        (3, true)
    );
    device.refuses(&case("Rollback", "the order of policies is its own", bundle(GOLDEN_SEQ, "old")));
}

#[test]
fn the_records_of_a_list_are_as_good_as_those_of_a_policy() {
    let next = || list(4, table(&[(5, LATE), (9, LATE)], &[cut_off("till", 500)]));
    for spoilt in [&["trust/state.0"][..], &["trust/state.1"], &["trust/state.0", "trust/state.1"]] {
        let mut device = Device::with_golden();
        device.takes(&held());
        device.takes(&next());
        for record in spoilt {
            rot(&device.state().join(record));
        }
        device.still_serves_golden();
        assert_eq!(device.list.as_ref().expect("in force").0, pack::digest(&next()).expect("a digest"), "{spoilt:?}");
        device.refuses(&case("RevocationRollback", "the one before", held()));
    }
}

#[test]
fn while_the_list_does_not_verify_nothing_serves_and_the_list_heals_it() {
    let mut device = Device::with_golden();
    device.takes(&held());
    rot(&slot(&device, &held()).join("revocations"));
    device.start();
    assert!(matches!(device.origin, Origin::NoList(_)), "{:?}", device.origin);
    assert!(device.serving.is_none() && device.list.is_none());
    assert!(device.journal().iter().any(|line| line.event == Event::SafeMode));
    // Neither a policy without the list nor an older list.
    let before = device.kept();
    let outcome = device.offer(&bundle(GOLDEN_SEQ + 1, "next"));
    device.was_refused(&outcome, "StateLost", "a policy without the list", &before);
    device.refuses(&case("RevocationRollback", "an older list", list(2, table(&[], &[]))));
    device.takes(&held());
    assert_eq!(device.serving.as_ref().expect("it serves again, without a start").1, "golden");
    device.still_serves_golden();
    device.refuses(&case("RevocationShrunk", "it binds again", list(4, table(&[], &[]))));
}

#[test]
fn a_list_outlives_the_root_it_was_taken_under_and_a_new_epoch_is_the_way_back() {
    let mut device = Device::with_golden();
    device.takes(&held());
    let under = third(|_| ());
    let chain = [link(&under, &[1, 2, 11, 12])];
    device.takes(&pack::with_chain(&signed(&under, GOLDEN_SEQ + 1, "next", &[14, 15]), &chain).expect("it fits"));
    device.start();
    assert_eq!((device.serving.as_ref().expect("it serves").1.as_str(), device.list.is_some()), ("next", true));
    device.refuses(&case("RevocationShrunk", "under the new root too", list_under(&under, 4, table(&[], &[]))));

    let epoch = third(|draft| (draft.version, draft.epoch) = (4, 2));
    let chain = [link(&epoch, &[11, 12])];
    let outcome = device.offer(&pack::with_chain(&golden(), &chain).expect("it fits"));
    assert_eq!(outcome.root, Some(4));
    device.start();
    assert!(device.list.is_some(), "it stays in force until another one comes");
    device.takes(&list_under(&epoch, 1, table(&[(6, LATE)], &[])));
    device.start();
    assert_eq!(device.list.as_ref().expect("in force").1.len(), (1, 0));
    device.refuses(&case("RevocationShrunk", "from there on it binds", list_under(&epoch, 2, table(&[], &[]))));
}

#[test]
fn a_lost_root_does_not_let_the_list_shrink() {
    let mut device = Device::with_golden();
    device.takes(&held());
    let under = third(|_| ());
    let chain = [link(&under, &[1, 2, 11, 12])];
    device.offer(&pack::with_chain(&golden(), &chain).expect("it fits"));
    fs::remove_file(device.state().join("trust/roots/3")).expect("removed");
    device.start();
    assert!(device.list.is_none() && device.serving.is_none());
    let shrunk = pack::with_chain(&list_under(&under, 4, table(&[], &[])), &chain).expect("it fits");
    let outcome = device.offer(&shrunk);
    assert_eq!((outcome.result.name(), outcome.root), ("RevocationShrunk", Some(3)));
    assert!(device.list.is_some() && device.serving.is_some(), "what was kept serves again, without a start");
}

#[test]
fn a_role_that_the_root_gives_nobody_takes_nothing_away() {
    let mut draft = root_draft();
    draft.roles.remove(&tidegate::bundle::root::Role::Revocation);
    let unsigned = RootDocument::build(draft).expect("a sound root");
    assert!(pack::sign(&held(), &unsigned, &key(7)).is_err());
}

fn slot(device: &Device, bundle: &[u8]) -> PathBuf {
    device.state().join("slots").join(pack::digest(bundle).expect("a digest").to_string())
}

fn rot(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_million_ids_fit_a_bundle_and_the_next_list_is_held_against_them() {
    let million = |first: u64| (first..1_000_000 + first).map(|n| (n << 40, LATE)).collect::<Vec<_>>();
    let mut device = Device::with_golden();
    device.takes(&list(1, table(&million(1), &[])));
    assert_eq!(device.list.as_ref().expect("in force").1.len(), (1_000_000, 0));
    device.refuses(&case("RevocationShrunk", "one of them is missing", list(2, table(&million(2), &[]))));
    device.takes(&list(3, table(&million(1), &[cut_off("till", 1)])));
    device.still_serves_golden();
    assert_eq!(device.list.as_ref().expect("in force").1.len(), (1_000_000, 1));
}

#[test]
#[ignore = "measures memory and time; run it alone"]
fn what_a_million_ids_cost() {
    let rss = || {
        let status = fs::read_to_string("/proc/self/status").expect("proc");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("kB")
    };
    let mut device = Device::with_golden();
    let file = device.folder.path().join("in/list.tgb");
    let ids: Vec<_> = (1..=1_000_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), LATE)).collect();
    let sorted = ids.iter().copied().collect::<std::collections::BTreeMap<_, _>>();
    fs::write(&file, list(1, table(&sorted.into_iter().collect::<Vec<_>>(), &[]))).expect("written");
    let before = rss();
    let Imported::Revoked(list) = device.import(&file).result else { panic!("taken") };
    eprintln!("in force: {} kB more", rss() - before);
    let started = std::time::Instant::now();
    let found = ids.iter().filter(|(hash, _)| {
        let ids = TokenIds { jti: Some(RevokedId(*hash)), sub: Some(RevokedId(hash ^ 1)), ..TokenIds::default() };
        list.policy.find(&ids, None).is_some()
    });
    assert_eq!(found.count(), ids.len());
    eprintln!("a look-up: {} ns", started.elapsed().as_nanos() / ids.len() as u128);
}

#[test]
fn two_lists_of_one_number_are_an_alarm_and_the_same_list_again_is_none() {
    let mut device = Device::with_golden();
    device.takes(&held());
    let other = list(3, table(&[(1, PAST), (5, LATE), (9, LATE), (11, LATE)], &[cut_off("till", 500)]));
    let Imported::Refused(refused) = device.offer(&other).result else { panic!("it is taken") };
    assert!(refused.name() == "Equivocation" && refused.is_alarm(), "{refused}");
    // Where its slot rotted it is not in force, and may come again: it is the one that was seen.
    let digest = pack::digest(&held()).expect("a digest");
    rot(&device.state().join(format!("slots/{digest}/revocations")));
    device.start();
    assert!(device.list.is_none());
    let Imported::Refused(refused) = device.offer(&other).result else { panic!("it is taken") };
    assert_eq!(refused.name(), "Equivocation");
    device.takes(&held());
    assert!(matches!(device.offer(&held()).result, Imported::AlreadyInstalled));
}
