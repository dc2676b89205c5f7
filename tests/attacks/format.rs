//! Format 1 stands still: what the code makes today is, byte for byte, what it made when the format was released,
//! and what was made then is still taken.
//!
//! `tests/fixtures/bundle/root.json` is the pinned root, `v1.tgb` the bundle. Fixed keys and Ed25519 leave nothing
//! to chance, so whatever changes these bytes has changed the format.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use tidegate::bundle::entry::{
    Application, ConsumerKey, CutOff, CutOffKind, HashedId, Revocations, Subscription, Subscriptions,
};
use tidegate::bundle::manifest::{Author, Target};
use tidegate::bundle::pack::{self, Draft};
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::trust::Trust;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Verdict, Whole, verify};
use tidegate::bundle::{EntryKind, importer};
use tidegate::keys::sha256;

use crate::world::{device_facts, entries, key, root_draft};

/// 2026-11-25: no moment of the build goes in.
const AT: i64 = 1_795_564_800;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bundle")).join(name)
}

fn root() -> RootDocument {
    let mut draft = root_draft();
    draft.issued_at = AT;
    RootDocument::build(draft).expect("a sound root")
}

/// An entry of each kind that this version installs, and every member of a manifest that it takes.
fn bundle() -> Vec<u8> {
    let application = Application { name: "till".into(), consumer: "acme".into(), plan: "gold".into() };
    let subscription =
        Subscription { application: 0, api: "pets".into(), version: "1".into(), plan: "gold".into(), blocked: true };
    let subscriptions = Subscriptions {
        applications: vec![application],
        keys: vec![ConsumerKey { key: "client-1".into(), application: 0 }],
        subscriptions: vec![subscription],
    };
    let cut_off = CutOff { kind: CutOffKind::Client, issuer: "site".into(), value: "client-2".into(), before: AT };
    let revocations = Revocations { cut_offs: vec![cut_off], ids: vec![HashedId { hash: 1 << 63, until: AT + 3_600 }] };
    let mut entries = entries(|_| (), |text| text);
    entries.insert(EntryKind::Subscriptions, ("subscriptions".into(), subscriptions.to_bytes()));
    entries.insert(EntryKind::Revocations, ("revocations-2026".into(), revocations.to_bytes()));
    let draft = Draft {
        author: Author { who: "Ada".into(), tool: "tidegate 0.1.0".into(), reason: "the first of its format".into() },
        target: Target::Labels([("site".to_owned(), vec!["pier".to_owned(), "quay".to_owned()])].into()),
        seq: 7,
        security_floor: 3,
        issued_at: AT,
        expires_at: Some(AT + 86_400),
        base: None,
        requires: Vec::new(),
        entries,
    };
    let unsigned = draft.assemble(&root()).expect("a sound draft");
    [4, 5].iter().fold(unsigned, |bundle, seed| pack::sign(&bundle, &root(), &key(*seed)).expect("it may sign"))
}

#[test]
fn root_and_bundle_are_made_with_the_bytes_of_the_fixture() {
    // No assert_eq: kilobytes of numbers help nobody.
    assert!(fs::read(fixture("root.json")).expect("the fixture") == root().bytes(), "root.json is another");
    assert!(fs::read(fixture("v1.tgb")).expect("the fixture") == bundle(), "v1.tgb is another");
}

#[test]
fn the_fixture_is_what_it_was() {
    let digest = |name| sha256(&fs::read(fixture(name)).expect("the fixture")).to_string();
    assert_eq!(digest("root.json"), "319d5ba459b39b9d663b1e9a631c0802656c2df25de8260e85ff6d8678cf888c");
    assert_eq!(digest("v1.tgb"), "8442e3bd67c2785ad43e25d840459981194008342254aeef82983cf3213d8b8c");
}

#[test]
fn the_bundle_of_the_fixture_is_taken_by_the_root_beside_it() {
    let root = importer::pinned_root(&fixture("root.json")).expect("a sound root");
    let bytes = fs::read(fixture("v1.tgb")).expect("the fixture");
    let (trust, device) = (Trust::new(root), device_facts());
    let by = Judge { trust: &trust, lower: AT, device: &device, purpose: Purpose::Install };
    let verdict = verify(&mut Whole(Cursor::new(&bytes)), &by, tidegate::bundle::compile, &mut Findings::default());
    let Ok(Verdict::Accepted(verified)) = verdict else { panic!("{:?}", verdict.map(|_| "installed")) };
    let manifest = verified.manifest();
    assert_eq!(verified.digest().to_string(), "46aeb1c367af3d7153740589cd219530abb9bc2114e99b9ec777c64473dc3349");
    assert_eq!((manifest.deployment(), manifest.epoch(), manifest.root_version()), ("harbour", 1, 2));
    assert_eq!((manifest.seq(), manifest.security_floor()), (7, 3));
    assert_eq!((manifest.issued_at(), manifest.expires_at()), (AT, Some(AT + 86_400)));
    assert_eq!(manifest.author().who, "Ada");
    let signers: BTreeSet<_> = [4, 5].map(|seed| key(seed).public().id()).into();
    assert_eq!(verified.signers().iter().copied().collect::<BTreeSet<_>>(), signers);
    assert_eq!(verified.entries().len(), 5);
    let policy = verified.policy();
    let route = policy.router.find("any", "/pets/7", Some(tidegate::policy::Method::Get)).expect("a route");
    assert_eq!(&*policy.api(policy.route(route).api).name, "pets");
}

#[test]
#[ignore = "writes the fixture; run it by hand, when a format is added"]
fn write_the_fixture() {
    fs::create_dir_all(fixture("")).expect("the folder");
    fs::write(fixture("root.json"), root().bytes()).expect("it can be written");
    fs::write(fixture("v1.tgb"), bundle()).expect("it can be written");
}
