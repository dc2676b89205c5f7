//! Hostile and broken bundles, a family a module: each case expects its named refusal, an unchanged
//! active policy, unchanged state records and slots, and a line in the journal.

#![expect(unreachable_pub, reason = "one binary, whose modules speak to each other")]

mod container;
mod crash;
mod defect;
mod enrolment;
mod entries;
mod format;
mod inbox;
mod manifest;
mod order;
mod permit;
mod revocation;
mod root;
mod rotation;
mod scan;
mod signatures;
mod source;
mod start;
mod time;
mod trial;
mod world;

use std::collections::BTreeSet;

use tidegate::bundle::Refused;
use world::{Case, Device};

fn families() -> Vec<Case> {
    [
        container::cases(),
        root::cases(),
        rotation::cases(),
        signatures::cases(),
        manifest::cases(),
        order::cases(),
        entries::cases(),
        revocation::cases(),
        permit::cases(),
        enrolment::cases(),
    ]
    .concat()
}

#[test]
fn each_hostile_bundle_is_refused_by_its_name_and_changes_nothing() {
    let mut device = Device::with_golden();
    for case in families() {
        device.refuses(&case);
    }
    device.still_serves_golden();
}

#[test]
fn every_name_has_a_case() {
    // The families' names are compared with what is seen above; the other modules give what they saw themselves.
    let by_bundle = families().into_iter().map(|case| case.name.to_owned());
    let elsewhere = [
        revocation::seen(),
        permit::seen(),
        enrolment::seen(),
        source::seen(),
        start::seen(),
        inbox::seen(),
        time::seen(),
        trial::seen(),
    ]
    .concat();
    let seen: BTreeSet<String> = by_bundle.chain(elsewhere).collect();
    let missing: Vec<_> = Refused::NAMES.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
