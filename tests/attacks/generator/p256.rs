//! Signatures by keys on P-256 that are the same bytes each time: the private keys are 1 and 2 and the nonce is 1, so
//! that nothing is to be multiplied on the curve and anybody can look the points up. Keys of nobody, good for cases alone.

use std::cmp::{max, min};

use tidegate::bundle::container::{BundleType, Signature};
use tidegate::bundle::root::{self, RootDocument};
use tidegate::ids::unhex;
use tidegate::keys::{KeyAlg, PublicKey, pae, sha256};

/// The base point, and twice it.
const POINTS: [&str; 2] = [
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    "047cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978\
     07775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1",
];
/// The order of the base point (SEC 2, 2.4.2).
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// A number below the order, big-endian.
type Scalar = [u8; 32];

/// Which of the two forms of a signature, of s and of the order less s, both of which are good.
#[derive(Clone, Copy)]
pub enum Form {
    Low,
    High,
}

pub fn order() -> Scalar {
    unhex(ORDER).expect("hex")
}

/// The public half of the private key 1 or 2.
pub fn public(private: usize) -> PublicKey {
    let raw = KeyAlg::EcdsaP256.unhex(POINTS[private - 1]).expect("hex");
    PublicKey::new(KeyAlg::EcdsaP256, &raw).expect("a point")
}

/// `a - b` modulo 2^256, and whether it went below 0.
fn less(a: Scalar, b: Scalar) -> (Scalar, bool) {
    let (mut out, mut borrow) = ([0; 32], false);
    for at in (0..32).rev() {
        let (first, under) = a[at].overflowing_sub(b[at]);
        let (second, under_too) = first.overflowing_sub(borrow.into());
        (out[at], borrow) = (second, under || under_too);
    }
    (out, borrow)
}

/// `a + b` modulo the order, both below it.
fn sum(a: Scalar, b: Scalar) -> Scalar {
    // a + b is a - (order - b), and the order more where that is below 0.
    let (rest, under) = less(a, less(order(), b).0);
    if under { less(rest, less([0; 32], order()).0).0 } else { rest }
}

/// With a nonce of 1, r is the base point's x, and s is hash + r * private.
pub fn signature(private: usize, form: Form, media_type: &str, message: &[u8]) -> Signature {
    let r: Scalar = public(1).raw()[1..33].try_into().expect("an x");
    let hash = sha256(&pae(media_type, message)).0;
    let hash = match less(hash, order()) {
        (rest, false) => rest,
        _ => hash,
    };
    let s = (0..private).fold(hash, |s, _| sum(s, r));
    let other = less(order(), s).0;
    let s = match form {
        Form::Low => min(s, other),
        Form::High => max(s, other),
    };
    Signature { key: public(private).id(), bytes: [r, s].concat().try_into().expect("two scalars") }
}

pub fn of_bundle(private: usize, form: Form, bundle_type: BundleType, manifest: &[u8]) -> Signature {
    signature(private, form, bundle_type.media_type(), manifest)
}

pub fn of_root(private: usize, root: &RootDocument) -> Signature {
    signature(private, Form::Low, root::MEDIA_TYPE, root.bytes())
}
