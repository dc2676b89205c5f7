//! Step 7: who signed, how many of them, and what exactly.

use tidegate::bundle::container::{BundleType, Signature};

use super::sound::{self, Parts};
use super::{Folder, refused};
use crate::world::{ascending, signature};

/// The next policy with these signatures in place of its own, in this order, past what a packer allows.
fn raw(signatures: &[Signature]) -> Vec<u8> {
    let parts = sound::next();
    let filler: Vec<_> = (100..).take(signatures.len()).map(|seed| parts.signature(seed)).collect();
    let mut bundle = parts.with(&filler);
    let at = 32 + parts.manifest.len() + 1;
    for (n, signature) in signatures.iter().enumerate() {
        bundle[at + 96 * n..][..32].copy_from_slice(&signature.key.0);
        bundle[at + 96 * n + 32..][..64].copy_from_slice(&signature.bytes);
    }
    bundle
}

/// The order of the base point of Ed25519, little-endian (RFC 8032, 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The same signature with its scalar above the order: another form of what is equally true.
fn malleated(mut signature: Signature) -> Signature {
    let mut carry = 0;
    for (byte, order) in signature.bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    signature
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("signatures", slug, name, about, bytes)
}

pub fn cases() -> Vec<Folder> {
    let next = sound::next();
    let good = |seed| next.signature(seed);
    let with = |signatures: &[Signature]| next.with(signatures);
    let of_type = |bundle_type| signature(5, bundle_type, &next.manifest);
    let bare = Signature { key: good(5).key, bytes: crate::world::key(5).sign("", &next.manifest) };
    let root_type = Signature {
        key: good(5).key,
        bytes: crate::world::key(5).sign(tidegate::bundle::root::MEDIA_TYPE, &next.manifest),
    };
    let mut wrong = good(5);
    wrong.bytes[0] ^= 1;
    let as_type = |bundle_type, seeds: &[u8]| Parts { bundle_type, ..sound::next() }.signed(seeds);
    let descending: Vec<_> = ascending(vec![good(4), good(5)]).into_iter().rev().collect();
    let mut above = [0xff; 64];
    above[..32].copy_from_slice(&good(5).bytes[..32]);
    vec![
        case("nobody", "ThresholdNotMet", "A bundle that nobody signed.", with(&[])),
        case("one-of-two", "ThresholdNotMet", "One holder alone.", with(&[good(4)])),
        case(
            "one-and-a-stranger",
            "ThresholdNotMet",
            "One holder, and a key that the root does not name.",
            with(&[good(4), good(40)]),
        ),
        case(
            "one-and-another-role",
            "ThresholdNotMet",
            "One holder, and the holder of the roles revocation, permit and release.",
            with(&[good(4), good(7)]),
        ),
        case(
            "the-roots-keys",
            "ThresholdNotMet",
            "All holders of the role root: they make roots, and no policies.",
            with(&[good(1), good(2), good(3)]),
        ),
        case(
            "fifteen-strangers",
            "ThresholdNotMet",
            "One holder among fifteen strangers.",
            with(&(40..55).chain([4]).map(good).collect::<Vec<_>>()),
        ),
        case("other-deployments-keys", "ThresholdNotMet", "Keys of another deployment.", with(&[good(40), good(41)])),
        case("same-key-twice", "SignersNotAscending", "One holder as two.", raw(&[good(4), good(4)])),
        case("same-key-twice-around", "SignersNotAscending", "One holder as two, with another between them.", {
            let both = ascending(vec![good(4), good(5)]);
            raw(&[both[0], both[1], both[0]])
        }),
        case("descending", "SignersNotAscending", "Two holders in the wrong order.", raw(&descending)),
        case(
            "one-bit",
            "SignatureInvalid",
            "One bit wrong in one, though the threshold is met by two others.",
            with(&[good(4), good(6), wrong]),
        ),
        case(
            "under-anothers-name",
            "SignatureInvalid",
            "One holder's signature under another's key id.",
            with(&[good(4), Signature { key: good(5).key, bytes: good(4).bytes }]),
        ),
        case("ids-exchanged", "SignatureInvalid", "Two good signatures, each under the other's key id.", {
            with(&[
                Signature { key: good(5).key, bytes: good(4).bytes },
                Signature { key: good(4).key, bytes: good(5).bytes },
            ])
        }),
        case(
            "all-zeros",
            "SignatureInvalid",
            "A signature of zeros.",
            with(&[good(4), Signature { key: good(5).key, bytes: [0; 64] }]),
        ),
        case(
            "scalar-above-order",
            "SignatureInvalid",
            "A good signature with the order added to its scalar: it must have one form.",
            with(&[good(4), malleated(good(5))]),
        ),
        case(
            "scalar-of-ones",
            "SignatureInvalid",
            "A scalar of all ones.",
            with(&[good(4), Signature { key: good(5).key, bytes: above }]),
        ),
        case(
            "signed-as-a-permit",
            "SignatureInvalid",
            "Signed over the media type of a permit.",
            with(&[good(4), of_type(BundleType::Permit)]),
        ),
        case(
            "signed-as-a-list",
            "SignatureInvalid",
            "Signed over the media type of a list of revocations.",
            with(&[good(4), of_type(BundleType::Revocation)]),
        ),
        case(
            "signed-as-a-root",
            "SignatureInvalid",
            "Signed over the media type of a root.",
            with(&[good(4), root_type]),
        ),
        case("signed-over-no-type", "SignatureInvalid", "Signed over an empty media type.", with(&[good(4), bare])),
        case("of-another-manifest", "SignatureInvalid", "The signatures of another bundle.", {
            let other =
                sound::Parts::of(&sound::draft(sound::SEQ + 1, "other").assemble(&sound::root()).expect("sound"));
            with(&[other.signature(4), other.signature(5)])
        }),
        case(
            "type-byte-changed",
            "ThresholdNotMet",
            "A policy whose type byte says that it is a list: other keys count.",
            as_type(BundleType::Revocation, &sound::POLICY),
        ),
        case(
            "a-release",
            "TypeMismatch",
            "A policy whose type byte says that it is a release, soundly signed by the role of releases.",
            as_type(BundleType::Release, &[7]),
        ),
        case(
            "a-release-by-the-policy-role",
            "ThresholdNotMet",
            "A release by the policy role.",
            as_type(BundleType::Release, &sound::POLICY),
        ),
    ]
}
