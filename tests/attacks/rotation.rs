//! Step 6 on a device: the next root comes with a bundle, by the thresholds of both, and never goes back.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate::bundle::container::BundleType;
use tidegate::bundle::journal::Event;
use tidegate::bundle::pack;
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use tidegate::bundle::trust::Trust;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Whole, verify};
use tidegate::bundle::{Imported, Importer, OpenError, Origin};
use tidegate::disk::Machine;
use tidegate::store::pair::Pair;
use tidegate::store::time::BUILD_TIME;

use crate::world::{
    Device, GOLDEN_AT, GOLDEN_FLOOR, GOLDEN_SEQ, bundle, case, compile, device_facts, draft, golden, key, root,
    root_draft, signed_bytes,
};

/// The keys of version 2's policy role, and of version 3's and 4's.
const OLD: [u8; 2] = [4, 5];
const NEW: [u8; 2] = [14, 15];
/// Holders of the role root: of version 2, of version 3, of both.
const BEFORE: [u8; 2] = [1, 2];
const AFTER: [u8; 2] = [11, 12];
const BOTH: [u8; 4] = [1, 2, 11, 12];

/// Version 3: other root keys and other policy keys (each 2 of 3), and a key for the hub.
pub fn third(change: impl FnOnce(&mut RootDraft)) -> RootDocument {
    let mut draft = root_draft();
    let role = |keys: &[usize], threshold| RoleKeys { keys: keys.to_vec(), threshold };
    draft.version = 3;
    draft.issued_at = BUILD_TIME + 500;
    draft.keys = [11, 12, 13, 14, 15, 16, 7, 17].map(|seed| (format!("key {seed}"), key(seed).public())).into();
    draft.roles.insert(Role::Hub, role(&[7], 1));
    change(&mut draft);
    RootDocument::build(draft).expect("a sound root")
}

fn fourth() -> RootDocument {
    third(|draft| (draft.version, draft.issued_at) = (4, BUILD_TIME + 600))
}

pub fn link(root: &RootDocument, seeds: &[u8]) -> Vec<u8> {
    pack::link(root, seeds.iter().map(|seed| pack::sign_root(root, &key(*seed))).collect()).expect("few signatures")
}

/// The links to version 3, and to version 4.
fn to_third() -> Vec<u8> {
    link(&third(|_| ()), &BOTH)
}

fn to_fourth() -> Vec<u8> {
    link(&fourth(), &AFTER)
}

fn bringing(bundle: &[u8], links: &[Vec<u8>]) -> Vec<u8> {
    pack::with_chain(bundle, links).expect("it fits")
}

/// A bundle made for `root` and signed by `seeds`.
pub fn signed(root: &RootDocument, seq: u64, routes: &str, seeds: &[u8]) -> Vec<u8> {
    let mut draft = draft(seq, routes);
    draft.security_floor = GOLDEN_FLOOR.min(seq);
    let unsigned = draft.assemble(root).expect("a sound draft");
    let head = pack::head(&unsigned).expect("a head");
    let payload = &unsigned[head.bytes().len()..];
    signed_bytes(BundleType::Policy, &[], head.manifest(), seeds, payload)
}

fn next_under_third() -> Vec<u8> {
    bringing(&signed(&third(|_| ()), GOLDEN_SEQ + 1, "next", &NEW), &[to_third()])
}

/// Which root the device goes by.
fn root_of(device: &mut Device) -> u64 {
    let hubs = device.importer.as_ref().expect("it runs").hub_keys().count();
    // Told by what the keys of each can do: the policy keys of version 2 are not those of 3 and 4.
    let probe = |root: &RootDocument, seeds: &[u8]| signed(root, 1, "probe", seeds);
    match device.offer(&probe(&fourth(), &NEW)).result.name() {
        "BelowSecurityFloor" => return 4,
        "StateLost" => return 0,
        _ => {}
    }
    let version = match device.offer(&probe(&root(), &OLD)).result.name() {
        "BelowSecurityFloor" => 2,
        _ => 3,
    };
    assert_eq!(hubs, usize::from(version == 3), "the hub's keys go with the root");
    version
}

#[test]
fn the_next_root_comes_with_a_bundle_and_judges_it() {
    let mut device = Device::with_golden();
    let outcome = device.offer(&next_under_third());
    assert_eq!((outcome.result.name(), outcome.root), ("Activated", Some(3)), "{outcome:?}");
    let journal = device.journal();
    let [.., rotated, import] = &*journal else { panic!("{journal:?}") };
    assert_eq!((rotated.event, rotated.digest), (Event::RootRotated, Some(third(|_| ()).digest())));
    assert_eq!((rotated.signers.len(), rotated.medium.is_some()), (4, true));
    assert_eq!(import.result, "Activated");
    for _ in 0..2 {
        assert_eq!(root_of(&mut device), 3);
        device.refuses(&case("ThresholdNotMet", "the old policy keys", bundle(GOLDEN_SEQ + 2, "old keys")));
        device.start();
        assert_eq!((device.serving.as_ref().expect("it serves").1.as_str(), &device.origin), ("next", &Origin::Active));
    }
    // The chain again, with what serves and with the next: the links are passed over.
    assert_eq!(device.offer(&next_under_third()).result.name(), "AlreadyInstalled");
    device.takes(&bringing(&signed(&third(|_| ()), GOLDEN_SEQ + 2, "later", &NEW), &[to_third()]));
}

#[test]
fn a_root_is_kept_even_if_the_bundle_that_brought_it_is_refused() {
    for (name, manifest) in [
        ("ThresholdNotMet", bundle(GOLDEN_SEQ + 1, "old keys")),
        ("Rollback", { signed(&third(|_| ()), GOLDEN_FLOOR, "old", &NEW) }),
    ] {
        let mut device = Device::with_golden();
        let outcome = device.offer(&bringing(&manifest, &[to_third()]));
        assert_eq!((outcome.result.name(), outcome.root), (name, Some(3)), "{outcome:?}");
        assert!(device.journal().iter().any(|line| line.event == Event::RootRotated));
        for _ in 0..2 {
            assert_eq!(root_of(&mut device), 3);
            device.still_serves_golden();
        }
    }
}

#[test]
fn several_roots_come_at_once_and_those_before_a_bad_link_count() {
    let mut device = Device::with_golden();
    let chain = [link(&root(), &[]), to_third(), to_fourth()];
    device.takes(&bringing(&signed(&fourth(), GOLDEN_SEQ + 1, "next", &NEW), &chain));
    device.start();
    assert_eq!(root_of(&mut device), 4);
    assert_eq!(device.journal().iter().filter(|line| line.event == Event::RootRotated).count(), 2);

    let mut device = Device::with_golden();
    let chain = [to_third(), link(&fourth(), &BEFORE)];
    let outcome = device.offer(&bringing(&signed(&fourth(), GOLDEN_SEQ + 1, "next", &NEW), &chain));
    assert_eq!((outcome.result.name(), outcome.root), ("RootThresholdOld", Some(3)));
    device.start();
    assert_eq!(root_of(&mut device), 3);
}

#[test]
fn an_accepted_root_raises_the_time_floor() {
    let mut device = Device::with_golden();
    let at = GOLDEN_AT + 1_000_000;
    let late = third(|draft| draft.issued_at = at);
    let outcome = device.offer(&bringing(&bundle(GOLDEN_SEQ + 1, "old keys"), &[link(&late, &BOTH)]));
    assert_eq!(outcome.root, Some(3));
    let lower = |device: &mut Device| {
        let now = device.now();
        device.importer.as_ref().expect("it runs").time().floor().bounds(&now.reading, false).lower
    };
    assert!(lower(&mut device) >= at);
    for record in ["trust/time.0", "trust/time.1"] {
        fs::remove_file(device.state().join(record)).expect("removed");
    }
    device.start();
    assert!(lower(&mut device) >= at, "a lost floor is not before the root");
}

#[test]
fn a_rotation_of_the_policy_keys_puts_no_device_into_safe_mode() {
    let mut device = Device::with_golden();
    device.offer(&bringing(&bundle(GOLDEN_SEQ + 1, "old keys"), &[to_third()]));
    device.still_serves_golden();
    // By the new root alone the slot would be refused: it is the root of its time that lets it serve.
    let (trust, facts) = (Trust::new(third(|_| ())), device_facts());
    let by = Judge { trust: &trust, lower: i64::MIN, device: &facts, purpose: Purpose::Serve };
    let bytes = golden();
    let refused = verify(&mut Whole(std::io::Cursor::new(&bytes)), &by, compile, &mut Findings::default());
    assert_eq!(refused.expect_err("other keys").name(), "ThresholdNotMet");
    // The next bundle is of the new root, and the one before it, of the old, is still there to fall back to.
    let next = signed(&third(|_| ()), GOLDEN_SEQ + 1, "next", &NEW);
    device.takes(&next);
    rot(&slot(&device, &next).join("head"));
    device.start();
    assert_eq!((device.serving.as_ref().expect("the one before").1.as_str()), "golden");
    assert!(matches!(device.origin, Origin::Previous(_)));
}

#[test]
fn a_slot_signed_by_keys_of_no_root_does_not_serve() {
    // The negative control: the same manifest with other signatures, under every root that there was.
    for rotate in [false, true] {
        for seeds in [&[40, 41][..], &[14, 15], &[11, 12], &[4]] {
            let mut device = Device::with_golden();
            if rotate {
                device.offer(&bringing(&bundle(GOLDEN_SEQ + 1, "old keys"), &[to_third()]));
            }
            let forged = signed(&root(), GOLDEN_SEQ, "golden", seeds);
            let head = pack::head(&forged).expect("a head");
            fs::write(slot(&device, &golden()).join("head"), head.bytes()).expect("written");
            device.start();
            assert!(device.serving.is_none(), "{seeds:?}, rotated: {rotate}");
            match &device.origin {
                Origin::Nothing(why) => assert_eq!(why.name(), "ThresholdNotMet"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_lost_root_is_never_replaced_by_an_older_one() {
    for spoil in [remove as fn(&PathBuf), rot] {
        let mut device = Device::with_golden();
        device.takes(&next_under_third());
        spoil(&device.state().join("trust/roots/3"));
        for _ in 0..2 {
            device.start();
            assert!(device.serving.is_none());
            match &device.origin {
                Origin::Nothing(why) => assert_eq!(why.name(), "StateLost"),
                other => panic!("{other:?}"),
            }
            assert!(device.journal().iter().any(|line| (line.event, &*line.result) == (Event::SafeMode, "StateLost")));
            assert_eq!(device.importer.as_ref().expect("it runs").hub_keys().count(), 0);
        }
        // The keys that were rotated out open nothing, nor does another root of that version.
        let old = bundle(GOLDEN_SEQ + 2, "old keys");
        device.refuses(&case("StateLost", "the old keys", old.clone()));
        let fork = third(|draft| draft.issued_at += 1);
        device.refuses(&case("StateLost", "another root 3", bringing(&old, &[link(&fork, &BOTH)])));
        device.refuses(&case("RootThresholdOld", "its signatures lack", bringing(&old, &[link(&fork, &AFTER)])));
        assert!(
            !device.journal().iter().any(|line| line.event == Event::RootRotated && line.digest == Some(fork.digest()))
        );
        // The chain that leads there does, even with a bundle that is refused.
        let outcome = device.offer(&bringing(&old, &[to_third()]));
        assert_eq!((outcome.result.name(), outcome.root), ("ThresholdNotMet", Some(3)));
        device.start();
        assert_eq!((device.serving.as_ref().expect("it serves").1.as_str(), &device.origin), ("next", &Origin::Active));
        assert_eq!(root_of(&mut device), 3);
    }
}

#[test]
fn a_lost_root_is_made_good_by_the_bundle_that_serves_and_a_later_chain() {
    let mut device = Device::with_golden();
    let next = next_under_third();
    device.takes(&next);
    remove(&device.state().join("trust/roots/3"));
    device.start();
    // What was seen still holds, whichever epoch the older root is of.
    device.refuses(&case("StateLost", "without the chain", signed(&third(|_| ()), GOLDEN_SEQ + 1, "next", &NEW)));
    device.takes(&bringing(&next, &[to_third(), to_fourth()]));
    device.start();
    assert_eq!(root_of(&mut device), 4);
}

#[test]
fn a_broken_or_lost_state_record_does_not_bring_an_older_root_back() {
    let records = ["trust/state.0", "trust/state.1"];
    for (spoilt, rotten) in [(&records[..1], false), (&records[1..], false), (&records, false), (&records, true)] {
        let mut device = Device::with_golden();
        device.takes(&next_under_third());
        for record in spoilt {
            rot(&device.state().join(record));
        }
        if rotten {
            rot(&device.state().join("trust/roots/3"));
        }
        for _ in 0..2 {
            device.start();
            let serves = device.serving.as_ref().map(|(_, policy)| policy.as_str());
            assert_eq!(serves, (!rotten).then_some("next"), "{spoilt:?}");
            assert_eq!(root_of(&mut device), if rotten { 0 } else { 3 }, "{spoilt:?}");
        }
    }
}

#[test]
fn a_root_of_a_later_epoch_restarts_the_counters_by_rotation_too() {
    let mut device = Device::with_golden();
    let epoch = third(|draft| draft.epoch = 2);
    let unsigned = |seq| {
        let mut first = draft(seq, "first of its epoch");
        first.security_floor = 0;
        let bytes = first.assemble(&epoch).expect("a sound draft");
        let head = pack::head(&bytes).expect("a head");
        signed_bytes(BundleType::Policy, &[], head.manifest(), &NEW, &bytes[head.bytes().len()..])
    };
    device.takes(&bringing(&unsigned(1), &[link(&epoch, &BOTH)]));
    device.start();
    assert_eq!(device.serving.as_ref().expect("it serves").1, "first of its epoch");
    device.takes(&unsigned(2));
    device.refuses(&case("Rollback", "the new epoch has an order too", unsigned(1)));
    // The order of the later epoch holds while its root is lost, and for the bundle that finds it again.
    remove(&device.state().join("trust/roots/3"));
    device.start();
    let outcome = device.offer(&bringing(&unsigned(1), &[link(&epoch, &BOTH)]));
    assert_eq!((outcome.result.name(), outcome.root), ("Rollback", Some(3)));
}

#[test]
fn a_newer_root_that_the_operator_pins_counts_and_an_older_one_does_not_come_back() {
    let mut device = Device::with_golden();
    let place = |device: &Device, root: &RootDocument| {
        fs::write(device.folder.path().join("root.json"), root.bytes()).expect("placed");
    };
    device.takes(&next_under_third());
    // The pinned root becomes the one that the device has, then a later one of which it knows nothing.
    place(&device, &third(|_| ()));
    device.start();
    assert_eq!(device.serving.as_ref().expect("it serves").1, "next");
    assert_eq!(root_of(&mut device), 3);
    let fifth = third(|draft| draft.version = 5);
    place(&device, &fifth);
    device.start();
    assert_eq!(device.serving.as_ref().expect("the same policy keys").1, "next");
    device.takes(&signed(&fifth, GOLDEN_SEQ + 2, "fifth", &NEW));
    // Back to one from before it: the device knows that it had a later one.
    place(&device, &third(|_| ()));
    device.start();
    assert!(matches!(&device.origin, Origin::Nothing(why) if why.name() == "StateLost"), "{:?}", device.origin);
    // A later epoch is the operator's way out, whatever its version; an earlier one is refused, as ever.
    let anew = third(|draft| (draft.version, draft.epoch) = (1, 2));
    place(&device, &anew);
    device.start();
    device.takes(&signed(&anew, GOLDEN_FLOOR, "anew", &NEW));
    device.start();
    assert_eq!((device.serving.as_ref().expect("it serves").1.as_str(), &device.origin), ("anew", &Origin::Active));
    place(&device, &third(|draft| draft.version = 6));
    device.importer = None;
    let now = device.now();
    match Importer::open(Arc::new(Machine), device.settings(), compile, &now) {
        Err(OpenError::Root(refused)) => assert_eq!(refused.name(), "RootEpochRegression"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_state_record_of_a_version_before_is_read_and_followed_by_one_of_this() {
    for (version, len) in [(1, 121), (2, 361)] {
        from_version(version, len);
    }
}

fn from_version(version: u8, len: usize) {
    let mut device = Device::with_golden();
    device.importer = None;
    let folder = device.state().join("trust");
    let record = |which: usize| folder.join(format!("state.{which}"));
    let (_, found) = Pair::open(Arc::new(Machine), &folder, "state");
    let body = found.body().expect("a record").to_vec();
    assert_eq!((body[0], body.len()), (3, 874));
    let old = [&[version], &body[1..len]].concat();
    (0..2).for_each(|which| fs::remove_file(record(which)).expect("removed"));
    let (mut pair, _) = Pair::open(Arc::new(Machine), &folder, "state");
    (0..2).for_each(|_| pair.write(&old).expect("written"));
    device.still_serves_golden();
    assert!(!device.journal().iter().any(|line| matches!(line.event, Event::StateLost | Event::StateDamaged)));
    device.refuses(&case("Rollback", "the order holds", bundle(GOLDEN_SEQ - 1, "old")));
    device.offer(&bringing(&bundle(GOLDEN_SEQ + 1, "old keys"), &[to_third()]));
    device.still_serves_golden();
    assert_eq!(root_of(&mut device), 3);
    let (_, found) = Pair::open(Arc::new(Machine), &folder, "state");
    assert_eq!(found.body().map(|body| (body[0], body.len())), Some((3, 874)));
}

#[test]
fn a_root_that_cannot_be_written_down_is_not_trusted_and_is_told() {
    let disk = Arc::new(crate::source::Unkind::default());
    for what in ["trust/roots", "trust/state"] {
        let mut device = Device::new(Arc::<crate::source::Unkind>::clone(&disk));
        device.takes(&golden());
        disk.fail(Some((what, std::io::ErrorKind::StorageFull)));
        let outcome = device.offer(&next_under_third());
        assert!(matches!(outcome.result, Imported::Refused(_)) && outcome.root.is_none(), "{what}: {outcome:?}");
        assert!(outcome.unrecorded.is_some(), "{what}");
        assert_eq!(root_of(&mut device), 2, "{what}");
        disk.fail(None);
        device.still_serves_golden();
        device.takes(&next_under_third());
    }
}

fn slot(device: &Device, bundle: &[u8]) -> PathBuf {
    device.state().join("slots").join(pack::digest(bundle).expect("a digest").to_string())
}

fn remove(path: &PathBuf) {
    fs::remove_file(path).expect("removed");
}

fn rot(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}
