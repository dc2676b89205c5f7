//! Step 7: who signed, how many of them, and what exactly.

use tidegate::bundle::canonical;
use tidegate::bundle::container::{BundleType, Signature};
use tidegate::bundle::pack::{self, PackError};

use crate::world::{ascending, bundle, draft, judge, key, manifest_value, root, signature};

fn manifest() -> Vec<u8> {
    canonical::write(&manifest_value(11, b"p")).expect("canonical")
}

fn with(signatures: &[Signature]) -> Vec<u8> {
    pack::lay(BundleType::Policy, &[], &manifest(), &ascending(signatures.to_vec()), b"p").expect("fits")
}

#[test]
fn any_two_of_the_three_open_it_and_unknown_signers_do_not_hinder() {
    let m = manifest();
    let good = |seed| signature(seed, BundleType::Policy, &m);
    for seeds in [[4, 5], [4, 6], [5, 6]] {
        assert!(judge(&with(&seeds.map(good))).is_ok(), "{seeds:?}");
    }
    let crowd: Vec<_> = (4..=6).chain(40..=52).map(good).collect();
    assert_eq!(crowd.len(), 16);
    assert!(judge(&with(&crowd)).is_ok());
}

#[test]
fn signing_goes_from_person_to_person_and_the_order_does_not_matter() {
    let unsigned = draft(11, "next").assemble(&root()).expect("a sound draft");
    assert_eq!(judge(&unsigned).expect_err("unsigned").name(), "ThresholdNotMet");
    let first = pack::sign(&unsigned, &root(), &key(5)).expect("key 5 may sign");
    assert_eq!(pack::signers(&first, &root()).map(|signers| (signers.keys.len(), signers.threshold)), Ok((1, 2)));
    let both = pack::sign(&first, &root(), &key(4)).expect("key 4 may sign");
    assert_eq!(both, bundle(11, "next"), "the same bytes in either order");
    assert_eq!(pack::digest(&unsigned), pack::digest(&both), "signing does not change the identity");
    assert!(judge(&both).is_ok());
}

#[test]
fn the_packer_refuses_a_stranger_a_second_time_and_what_no_device_would_read() {
    let unsigned = draft(11, "next").assemble(&root()).expect("a sound draft");
    assert!(matches!(pack::sign(&unsigned, &root(), &key(7)), Err(PackError::NotInRole(..))));
    let once = pack::sign(&unsigned, &root(), &key(4)).expect("key 4 may sign");
    assert!(matches!(pack::sign(&once, &root(), &key(4)), Err(PackError::SignedAlready(_))));
    assert!(matches!(pack::sign(&unsigned[..40], &root(), &key(4)), Err(PackError::Refused(_))));
    let mut high = draft(11, "next");
    high.security_floor = 12;
    match high.assemble(&root()) {
        Err(PackError::Refused(refused)) => assert_eq!(refused.name(), "SecurityFloorInvalid"),
        other => panic!("{other:?}"),
    }
    let mut zero = draft(0, "next");
    assert!(matches!(zero.assemble(&root()), Err(PackError::Refused(_))), "seq 0");
    (zero.seq, zero.entries) = (11, Default::default());
    assert!(matches!(zero.assemble(&root()), Err(PackError::Refused(_))), "no entries");
}
