//! Step 6: the form of the chain of roots that a bundle brings; `rotation` is about roots that follow.

use std::collections::BTreeMap;

use tidegate::bundle::canonical;
use tidegate::bundle::container::{BundleType, MAX_CHAIN};
use tidegate::bundle::pack::{head, lay};
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use tidegate::bundle::trust::Trust;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Verdict, Whole, verify};
use tidegate::store::time::BUILD_TIME;

use crate::generator::sound;
use crate::world::{bundle, judge, root, root_draft, signed_bytes};

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

#[test]
fn a_chain_of_what_the_device_has_is_passed_over() {
    let mine = root().bytes().to_vec();
    for trust in [chain(&[]), chain(&[&mine]), chain(&[&version(1), &mine]), chain(&[&version(1)])] {
        assert!(judge(&bringing(&trust)).is_ok());
    }
}

#[test]
fn a_chain_of_as_many_documents_as_may_be_is_taken() {
    // The control of `roots/sixty-five-documents`.
    let chain = crate::generator::long_chain(MAX_CHAIN);
    let bundle = sound::bringing(&sound::policy(sound::SEQ, "next"), &chain);
    let (trust, device) = (Trust::new(sound::root()), sound::device());
    let by = Judge { trust: &trust, lower: BUILD_TIME, device: &device, purpose: Purpose::Install };
    let mut found = Findings::default();
    let verdict = verify(&mut Whole(std::io::Cursor::new(bundle)), &by, tidegate::bundle::compile, &mut found);
    assert!(matches!(verdict, Ok(Verdict::Accepted(_))), "{verdict:?}");
    assert_eq!(found.roots.len(), MAX_CHAIN - 1);
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
