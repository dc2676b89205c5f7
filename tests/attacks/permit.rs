//! Bundles of type 3: leave to go from one exact bundle to another, once, on exact devices.

use std::fs;

use tidegate::bundle::manifest::{Permit, Target};
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::{Imported, pack};
use tidegate::ids::Digest;

use crate::rotation::{link, third};
use crate::world::{Device, GOLDEN_FLOOR, GOLDEN_SEQ, bundle, case, device_facts, draft, golden, key, root};

fn digest(bundle: &[u8]) -> Digest {
    pack::digest(bundle).expect("it has a digest")
}

fn permit_under(root: &RootDocument, seq: u64, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut draft = draft(seq, "");
    (draft.security_floor, draft.target) = (0, Target::Devices(vec![device_facts().id]));
    draft.entries.clear();
    let permit = Permit { from: digest(from), to: digest(to) };
    pack::sign(&draft.assemble_permit(permit, root).expect("a sound permit"), root, &key(7)).expect("key 7 may sign")
}

pub fn permit(seq: u64, from: &[u8], to: &[u8]) -> Vec<u8> {
    permit_under(&root(), seq, from, to)
}

/// Older than the golden bundle, at the floor, and below it; and another of the golden bundle's number.
pub fn older() -> Vec<u8> {
    bundle(GOLDEN_FLOOR, "older")
}

fn below_floor() -> Vec<u8> {
    let mut draft = draft(GOLDEN_FLOOR - 1, "below");
    draft.security_floor = 1;
    crate::world::sign(&draft.assemble(&root()).expect("a sound draft"))
}

fn other() -> Vec<u8> {
    bundle(GOLDEN_SEQ, "other")
}

#[test]
fn a_permit_lets_the_named_bundle_in_and_uses_itself_up() {
    for (to, policy, refused) in [(older(), "older", "Rollback"), (other(), "other", "Equivocation")] {
        let leave = permit(1, &golden(), &to);
        let mut device = Device::with_golden();
        // The negative control: without the permit it is refused.
        device.refuses(&case(refused, "before the permit", to.clone()));
        device.takes(&leave);
        assert_eq!(device.journal().last().expect("a line").result, "Permitted");
        let before = device.kept();
        assert!(matches!(device.offer(&leave).result, Imported::AlreadyInstalled));
        assert_eq!(device.kept(), before);
        device.still_serves_golden();
        device.takes(&to);
        for _ in 0..2 {
            device.refuses(&case("PermitUsed", "the permit again", leave.clone()));
            device.start();
            assert_eq!(device.serving.as_ref().expect("it serves").1, policy);
        }
        // What was seen stays: no other old bundle, and the next must be newer than the newest.
        device.refuses(&case("Rollback", "another old one", bundle(GOLDEN_SEQ - 1, "yet another")));
        assert!(matches!(device.offer(&to).result, Imported::AlreadyInstalled));
        // Nor the bundle that it led away from: whoever still offers that one does not undo the way back.
        device.refuses(&case("Rollback", "the bundle that it led away from", golden()));
        device.start();
        device.refuses(&case("Rollback", "the same after a start", golden()));
        device.takes(&permit(2, &to, &golden()));
        device.takes(&golden());
        device.refuses(&case(refused, "after both permits", to.clone()));
        device.refuses(&case("PermitUsed", "the permit, though its state is back", leave));
        device.takes(&permit(3, &golden(), &to));
        device.takes(&to);
        device.takes(&bundle(GOLDEN_SEQ + 1, "next"));
    }
}

#[test]
fn a_permit_that_waits_names_one_bundle_and_goes_with_the_next_activation() {
    let mut device = Device::with_golden();
    device.takes(&permit(1, &golden(), &older()));
    device.start();
    device.refuses(&case("PermitDigestMismatch", "another of the number", other()));
    device.refuses(&case("PermitDigestMismatch", "another old one", bundle(GOLDEN_FLOOR, "another")));
    // A newer permit takes its place, an older one does not.
    device.takes(&permit(3, &golden(), &other()));
    device.refuses(&case("PermitUsed", "the permit before", permit(1, &golden(), &older())));
    device.refuses(&case("PermitDigestMismatch", "what the permit before named", older()));
    // What needs no permit needs none, and ends it.
    let next = bundle(GOLDEN_SEQ + 1, "next");
    device.takes(&next);
    device.refuses(&case("Rollback", "the permit is gone", other()));
    device.refuses(&case("PermitNotApplicable", "away from what serves no more", permit(4, &golden(), &older())));
    device.takes(&permit(4, &next, &golden()));
    device.takes(&golden());
}

#[test]
fn no_permit_leads_below_the_security_floor() {
    let mut device = Device::with_golden();
    device.takes(&permit(1, &golden(), &below_floor()));
    device.refuses(&case("BelowSecurityFloor", "with a permit too", below_floor()));
    // The floor stays where it is after a way back, whatever the floor of the older bundle.
    let mut low = draft(GOLDEN_FLOOR, "low");
    low.security_floor = 1;
    let low = crate::world::sign(&low.assemble(&root()).expect("a sound draft"));
    device.takes(&permit(2, &golden(), &low));
    device.takes(&low);
    device.takes(&permit(3, &low, &below_floor()));
    device.refuses(&case("BelowSecurityFloor", "after a way back", below_floor()));
}

#[test]
fn a_permitted_bundle_whose_slot_rotted_comes_again_without_a_permit() {
    let mut device = Device::with_golden();
    device.takes(&permit(1, &golden(), &older()));
    device.takes(&older());
    let head = device.state().join("slots").join(digest(&older()).to_string()).join("head");
    let mut bytes = fs::read(&head).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&head, bytes).expect("written");
    device.start();
    assert_eq!(device.serving.as_ref().expect("the one before").1, "golden");
    device.takes(&older());
    device.start();
    assert_eq!(device.serving.as_ref().expect("it serves").1, "older");
}

#[test]
fn one_broken_record_neither_undoes_a_permitted_step_nor_renews_its_permit() {
    for record in ["trust/state.0", "trust/state.1"] {
        let mut device = Device::with_golden();
        device.takes(&permit(1, &golden(), &older()));
        device.takes(&older());
        let path = device.state().join(record);
        let mut bytes = fs::read(&path).expect("readable");
        bytes[40] ^= 1;
        fs::write(&path, bytes).expect("written");
        for _ in 0..2 {
            device.start();
            assert_eq!(device.serving.as_ref().expect("it serves").1, "older", "{record}");
        }
        device.refuses(&case("PermitUsed", record, permit(1, &golden(), &older())));
        device.refuses(&case("Rollback", record, bundle(GOLDEN_SEQ - 1, "another")));
    }
}

#[test]
fn a_new_epoch_ends_permits_of_the_one_before() {
    let mut device = Device::with_golden();
    device.takes(&permit(9, &golden(), &older()));
    let epoch = third(|draft| draft.epoch = 2);
    device.offer(&pack::with_chain(&golden(), &[link(&epoch, &[1, 2, 11, 12])]).expect("it fits"));
    device.refuses(&case("ThresholdNotMet", "what the permit named", older()));
    device.refuses(&case("EpochMismatch", "a permit of the epoch before", permit(10, &golden(), &older())));
    device.takes(&permit_under(&epoch, 1, &golden(), &older()));
}

#[test]
fn a_permit_is_not_made_for_more_than_exact_devices() {
    let mut draft = draft(1, "");
    (draft.security_floor, draft.entries) = (0, std::collections::BTreeMap::new());
    let permit = Permit { from: digest(&golden()), to: digest(&older()) };
    assert!(draft.assemble_permit(permit, &root()).is_err());
}
