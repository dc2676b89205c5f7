//! Steps 1 to 5: the bytes before anything is believed.

use proptest::prelude::*;
use tidegate::bundle::canonical;
use tidegate::bundle::container::BundleType;

use crate::world::{golden, judge, manifest_value, signed_bytes};

/// The offset and the true value of each length field.
fn lengths() -> [(&'static str, usize, usize); 4] {
    [("trust_len", 12, 4), ("manifest_len", 16, 4), ("sigs_len", 20, 4), ("payload_len", 24, 8)]
}

#[test]
fn the_golden_bundle_itself_is_taken() {
    assert!(judge(&golden()).is_ok());
}

#[test]
fn every_size_lie_is_refused() {
    let golden = golden();
    for (field, at, width) in lengths() {
        let truth = golden[at..at + width].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let most = if width == 8 { u64::MAX } else { u64::from(u32::MAX) };
        let near = (0..200).flat_map(|by| [truth.wrapping_sub(by), truth.wrapping_add(by)]);
        for lie in near.chain((0..64).map(|bit| 1 << bit)).chain([0, most]).map(|lie| lie & most) {
            let mut bundle = golden.clone();
            bundle[at..at + width].copy_from_slice(&lie.to_be_bytes()[8 - width..]);
            assert_eq!(judge(&bundle).is_err(), lie != truth, "{field} says {lie}");
        }
    }
}

#[test]
fn two_size_lies_that_cancel_out_are_refused() {
    // Bytes move from one section to the next while the file's length stays right.
    let golden = golden();
    for (from, to) in [(16, 24), (16, 12), (20, 24), (16, 20)] {
        for by in [1_u32, 96, 97] {
            let mut bundle = golden.clone();
            let shift = |bundle: &mut [u8], at: usize, by: i64| {
                let at = if at == 24 { 28 } else { at };
                let old = u32::from_be_bytes(bundle[at..at + 4].try_into().expect("four bytes"));
                let new = u32::try_from(i64::from(old) + by).unwrap_or(0);
                bundle[at..at + 4].copy_from_slice(&new.to_be_bytes());
            };
            shift(&mut bundle, from, -i64::from(by));
            shift(&mut bundle, to, i64::from(by));
            assert!(judge(&bundle).is_err(), "{by} bytes from {from} to {to}");
        }
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_and_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4_096)) {
        prop_assert!(judge(&bytes).is_err());
    }

    #[test]
    fn garbage_after_a_true_preamble_is_refused(tail in proptest::collection::vec(any::<u8>(), 0..2_048)) {
        let golden = golden();
        let mut bytes = golden.clone();
        let from = bytes.len().saturating_sub(tail.len()).max(32);
        let part = bytes.len() - from;
        bytes[from..].copy_from_slice(&tail.iter().copied().chain(std::iter::repeat(0)).take(part).collect::<Vec<_>>());
        prop_assert_eq!(judge(&bytes).is_err(), bytes != golden);
    }

    #[test]
    fn a_piece_moved_within_the_bundle_is_refused(from in 0_usize..900, to in 0_usize..900, length in 1_usize..200) {
        let golden = golden();
        let mut bytes = golden.clone();
        let (from, to) = (from % bytes.len(), to % bytes.len());
        let length = length.min(bytes.len() - from).min(bytes.len() - to);
        bytes.copy_within(from..from + length, to);
        prop_assert_eq!(judge(&bytes).is_err(), bytes != golden);
    }

    #[test]
    fn a_garbage_chain_in_a_sound_bundle_is_refused(chain in proptest::collection::vec(any::<u8>(), 1..600)) {
        let manifest = canonical::write(&manifest_value(11, b"p")).expect("canonical");
        prop_assert!(judge(&signed_bytes(BundleType::Policy, &chain, &manifest, &[4, 5], b"p")).is_err());
    }

    #[test]
    fn a_garbage_manifest_with_sound_signatures_is_refused(manifest in "[{}\\[\\]\":,a-z0-9 .\\\\-]{1,300}") {
        prop_assert!(judge(&signed_bytes(BundleType::Policy, &[], manifest.as_bytes(), &[4, 5], b"p")).is_err());
    }

    #[test]
    fn a_manifest_with_any_byte_changed_and_signed_again_never_panics(at in 0_usize..500, byte in any::<u8>()) {
        let mut manifest = canonical::write(&manifest_value(11, b"p")).expect("canonical");
        let at = at % manifest.len();
        manifest[at] = byte;
        let _ = judge(&signed_bytes(BundleType::Policy, &[], &manifest, &[4, 5], b"p"));
    }
}
