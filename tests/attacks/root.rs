//! Step 6: the form of the chain of roots that a bundle brings; `rotation` is about roots that follow.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate::bundle::canonical;
use tidegate::bundle::container::BundleType;
use tidegate::bundle::pack::{head, lay};
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};

use crate::world::{Case, bundle, case, judge, key, root, root_draft, signed_bytes, with_manifest};

/// A chain of these documents, unsigned: the length, the document, no signatures.
fn chain(documents: &[&[u8]]) -> Vec<u8> {
    let mut chain = Vec::new();
    for document in documents {
        chain.extend_from_slice(&u32::try_from(document.len()).expect("short").to_be_bytes());
        chain.extend_from_slice(document);
        chain.push(0);
    }
    chain
}

/// A good bundle that brings `trust`.
fn bringing(trust: &[u8]) -> Vec<u8> {
    let good = bundle(11, "next");
    let head = head(&good).expect("a head");
    let payload = &good[head.bytes().len()..];
    lay(BundleType::Policy, trust, head.manifest(), &head.signatures().expect("signed"), payload).expect("fits")
}

fn version(version: u64) -> Vec<u8> {
    document(|draft| draft.version = version)
}

fn document(change: impl FnOnce(&mut RootDraft)) -> Vec<u8> {
    let mut draft = root_draft();
    change(&mut draft);
    RootDocument::build(draft).expect("a sound root").bytes().to_vec()
}

/// The device's own root with its JSON changed past what a draft allows.
fn edited(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = canonical::read(root().bytes()).expect("canonical");
    change(&mut value);
    canonical::write(&value).expect("canonical")
}

/// Seventeen keys of the policy role, all of which must sign.
fn seventeen_of_seventeen(root: &mut Value) {
    let public = |seed| tidegate::ids::hex(key(seed).public().raw());
    root["keys"] = (1..=17).map(|n| json!({"alg": "ed25519", "name": n.to_string(), "public": public(n)})).collect();
    root["roles"]["policy"] = json!({"keys": (0..17).collect::<Vec<_>>(), "threshold": 17});
}

pub fn cases() -> Vec<Case> {
    let mine = root().bytes().to_vec();
    let mut cut = chain(&[&mine]);
    cut.truncate(cut.len() - 20);
    let with = |name, about: &str, trust: Vec<u8>| case(name, about, bringing(&trust));
    let small_order = "0100000000000000000000000000000000000000000000000000000000000000";
    let mut cases = vec![
        with("RootFork", "another root of the same version", chain(&[&document(|draft| draft.issued_at += 1)])),
        with("RootGap", "a root two versions on", chain(&[&version(4)])),
        with("RootGap", "a chain with a hole", chain(&[&version(1), &version(3)])),
        with("RootGap", "a chain that goes backwards", chain(&[&mine, &version(1)])),
        with("RootThresholdOld", "the next root, unsigned", chain(&[&mine, &version(3)])),
        with(
            "RootWrongDeployment",
            "the root of another deployment",
            chain(&[&document(|draft| draft.deployment = "quay".into())]),
        ),
        with(
            "RootEpochRegression",
            "a later root of an earlier epoch",
            chain(&[&document(|draft| (draft.version, draft.epoch) = (3, 0))]),
        ),
        with("RootChainMalformed", "a document cut off", cut),
        with("RootChainMalformed", "a document of no bytes", vec![0, 0, 0, 0, 0]),
        with("RootChainMalformed", "a document of 4 GiB", [&[0xff; 4][..], &mine].concat()),
        with("RootChainMalformed", "sixty-five documents", chain(&vec![&mine[..1]; 65])),
        with(
            "RootChainMalformed",
            "signatures that are not there",
            [&chain(&[&mine])[..mine.len() + 4], &[3]].concat(),
        ),
        with("RootSchema", "not JSON", chain(&[b"{"])),
        with("RootSchema", "an unknown member", chain(&[&edited(|v| v["extra"] = 1.into())])),
        with("RootSchema", "white space", chain(&[&[&mine[..], b" "].concat()])),
        with("RootSchema", "another type", chain(&[&edited(|v| v["type"] = "policy".into())])),
        with("RootSchema", "an unknown role", chain(&[&edited(|v| v["roles"]["king"] = v["roles"]["root"].clone())])),
        with("RootSchema", "an unknown algorithm", chain(&[&edited(|v| v["keys"][0]["alg"] = "rsa".into())])),
        with("RootSchema", "a key that is not hex", chain(&[&edited(|v| v["keys"][0]["public"] = "zz".into())])),
        with("RootInvalid", "a weak key", chain(&[&edited(|v| v["keys"][0]["public"] = small_order.into())])),
        with(
            "RootInvalid",
            "a key twice",
            chain(&[&edited(|v| v["keys"][1]["public"] = v["keys"][0]["public"].clone())]),
        ),
        with("RootInvalid", "a threshold of 0", chain(&[&edited(|v| v["roles"]["policy"]["threshold"] = 0.into())])),
        with("RootInvalid", "more than there are", chain(&[&edited(|v| v["roles"]["policy"]["threshold"] = 4.into())])),
        with(
            "RootInvalid",
            "an index twice",
            chain(&[&edited(|v| v["roles"]["policy"]["keys"] = serde_json::json!([3, 3]))]),
        ),
        with(
            "RootInvalid",
            "an index past the end",
            chain(&[&edited(|v| v["roles"]["policy"]["keys"] = serde_json::json!([3, 7]))]),
        ),
        with("RootInvalid", "a threshold over what a signature block holds", chain(&[&edited(seventeen_of_seventeen)])),
        with("RootInvalid", "version 0", chain(&[&edited(|v| v["version"] = 0.into())])),
    ];
    cases.push(case("RootTooOld", "a bundle for a later root", with_manifest(b"p", |m| m["root_version"] = 3.into())));
    cases.push(case("EpochMismatch", "a later epoch", with_manifest(b"p", |m| m["epoch"] = 2.into())));
    cases
}

#[test]
fn a_chain_of_what_the_device_has_is_passed_over() {
    let mine = root().bytes().to_vec();
    for trust in [chain(&[]), chain(&[&mine]), chain(&[&version(1), &mine]), chain(&[&version(1)])] {
        assert!(judge(&bringing(&trust)).is_ok());
    }
}

#[test]
fn a_role_that_nobody_has_signs_nothing() {
    let mut draft = root_draft();
    draft.roles.remove(&Role::Release);
    let root = RootDocument::build(draft).expect("a sound root");
    let refused = root.signers(Role::Release, "t", b"m", &[]).expect_err("nobody");
    assert_eq!(refused.name(), "ThresholdNotMet");
}

#[test]
fn a_root_without_its_own_role_or_keys_cannot_be_built() {
    let of = |change: fn(&mut RootDraft)| {
        let mut draft = root_draft();
        change(&mut draft);
        RootDocument::build(draft).expect_err("unsound").name()
    };
    assert_eq!(of(|draft| drop(draft.roles.remove(&Role::Root))), "RootInvalid");
    assert_eq!(of(|draft| draft.keys.clear()), "RootInvalid");
    assert_eq!(of(|draft| draft.deployment = "../harbour".into()), "RootInvalid");
    assert_eq!(
        of(|draft| draft.roles = BTreeMap::from([(Role::Policy, RoleKeys { keys: vec![], threshold: 0 })])),
        "RootInvalid"
    );
}

#[test]
fn another_deployments_keys_open_nothing() {
    let manifest = canonical::write(&crate::world::manifest_value(11, b"p")).expect("canonical");
    let foreign = signed_bytes(BundleType::Policy, &[], &manifest, &[40, 41], b"p");
    assert_eq!(judge(&foreign).expect_err("foreign").name(), "ThresholdNotMet");
}
