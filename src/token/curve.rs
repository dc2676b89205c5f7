//! Whether a public point lies on its curve; asked once, when a key is imported.
//!
//! ring refuses such points when a signature is checked, without saying why, and has no call that asks. Public values
//! only: nothing here takes care of timing. Numbers are little-endian limbs of 64 bits.
//!
//! ```text
//! P-256, P-384   y² = x³ − 3x + b (mod p)                          FIPS 186-4, D.1.2; x, y < p
//! Ed25519        x² = (y² − 1) / (d·y² + 1) has a root (mod p)      RFC 8032, 5.1.3; y < p, d = −121665/121666
//! ```

use std::cmp::Ordering;

type Limbs<const N: usize> = [u64; N];

const P256: Limbs<4> = [0xffff_ffff_ffff_ffff, 0x0000_0000_ffff_ffff, 0, 0xffff_ffff_0000_0001];
const P256_B: Limbs<4> = [0x3bce_3c3e_27d2_604b, 0x651d_06b0_cc53_b0f6, 0xb3eb_bd55_7698_86bc, 0x5ac6_35d8_aa3a_93e7];
const P384: Limbs<6> = [
    0x0000_0000_ffff_ffff,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];
const P384_B: Limbs<6> = [
    0x2a85_c8ed_d3ec_2aef,
    0xc656_398d_8a2e_d19d,
    0x0314_088f_5013_875a,
    0x181d_9c6e_fe81_4112,
    0x988e_056b_e3f8_2d19,
    0xb331_2fa7_e23e_e7e4,
];
const P25519: Limbs<4> = [0xffff_ffff_ffff_ffed, u64::MAX, u64::MAX, 0x7fff_ffff_ffff_ffff];

/// Whether the uncompressed point 04 ‖ x ‖ y is on P-256.
pub(super) fn is_on_p256(point: &[u8]) -> bool {
    is_on_weierstrass(&P256, &P256_B, point)
}

/// Whether the uncompressed point 04 ‖ x ‖ y is on P-384.
pub(super) fn is_on_p384(point: &[u8]) -> bool {
    is_on_weierstrass(&P384, &P384_B, point)
}

fn is_on_weierstrass<const N: usize>(p: &Limbs<N>, b: &Limbs<N>, point: &[u8]) -> bool {
    let Some((4, coordinates)) = point.split_first() else { return false };
    let Some((x, y)) = coordinates.split_at_checked(N * 8) else { return false };
    let (Some(x), Some(y)) = (below(p, x), below(p, y)) else { return false };
    // x³ − 3x + b = x·(x² − 3) + b
    let x2 = multiply(p, &x, &x);
    let right = add(p, &multiply(p, &x, &subtract(p, &x2, &small(3))), b);
    multiply(p, &y, &y) == right
}

/// Whether the 32 bytes decode to a point of edwards25519, in canonical form.
pub(super) fn is_on_ed25519(encoded: &[u8; 32]) -> bool {
    let p = &P25519;
    let mut bytes = *encoded;
    bytes.reverse();
    bytes[0] &= 0x7f; // the sign of x
    let Some(y) = below(p, &bytes) else { return false };
    // x² = u / v with u = 121666·(y² − 1) and v = 121666 − 121665·y²; u/v is a square where u·v is
    let y2 = multiply(p, &y, &y);
    let u = multiply(p, &small(121_666), &subtract(p, &y2, &small(1)));
    let v = subtract(p, &small(121_666), &multiply(p, &small(121_665), &y2));
    is_square(p, multiply(p, &u, &v))
}

fn small<const N: usize>(value: u64) -> Limbs<N> {
    let mut limbs = [0; N];
    limbs[0] = value;
    limbs
}

/// A big-endian number of exactly the width of `p`, and below it.
fn below<const N: usize>(p: &Limbs<N>, bytes: &[u8]) -> Option<Limbs<N>> {
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    let mut limbs: Limbs<N> = words.iter().map(|word| u64::from_be_bytes(*word)).collect::<Vec<_>>().try_into().ok()?;
    limbs.reverse();
    (compare(&limbs, p) == Ordering::Less).then_some(limbs)
}

fn compare<const N: usize>(a: &Limbs<N>, b: &Limbs<N>) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

/// `a − b`, wrapping; whether it borrowed.
fn minus<const N: usize>(a: &Limbs<N>, b: &Limbs<N>) -> (Limbs<N>, bool) {
    let mut borrow = false;
    let difference = std::array::from_fn(|i| {
        let (once, first) = a[i].overflowing_sub(b[i]);
        let (twice, second) = once.overflowing_sub(u64::from(borrow));
        borrow = first || second;
        twice
    });
    (difference, borrow)
}

/// `a + b`, wrapping; whether it carried.
fn plus<const N: usize>(a: &Limbs<N>, b: &Limbs<N>) -> (Limbs<N>, bool) {
    let mut carry = false;
    let sum = std::array::from_fn(|i| {
        let (once, first) = a[i].overflowing_add(b[i]);
        let (twice, second) = once.overflowing_add(u64::from(carry));
        carry = first || second;
        twice
    });
    (sum, carry)
}

fn add<const N: usize>(p: &Limbs<N>, a: &Limbs<N>, b: &Limbs<N>) -> Limbs<N> {
    let (sum, carry) = plus(a, b);
    let (reduced, borrow) = minus(&sum, p);
    if carry || !borrow { reduced } else { sum }
}

fn subtract<const N: usize>(p: &Limbs<N>, a: &Limbs<N>, b: &Limbs<N>) -> Limbs<N> {
    let (difference, borrow) = minus(a, b);
    if borrow { plus(&difference, p).0 } else { difference }
}

/// Double and add: slow, short, and done a handful of times per key.
fn multiply<const N: usize>(p: &Limbs<N>, a: &Limbs<N>, b: &Limbs<N>) -> Limbs<N> {
    let bits = b.iter().rev().flat_map(|limb| (0..64).rev().map(move |bit| limb >> bit & 1 == 1));
    bits.fold([0; N], |product, bit| {
        let doubled = add(p, &product, &product);
        if bit { add(p, &doubled, a) } else { doubled }
    })
}

/// Whether `a` is a square modulo the odd prime `p`, by the Jacobi symbol (a/p) ∈ {0, 1} (Cohen 1993, 1.4.10).
fn is_square<const N: usize>(p: &Limbs<N>, a: Limbs<N>) -> bool {
    let (mut a, mut n, mut negative) = (a, *p, false);
    while a != [0; N] {
        while a[0] & 1 == 0 {
            a = std::array::from_fn(|i| a[i] >> 1 | a.get(i + 1).map_or(0, |next| next << 63));
            negative ^= matches!(n[0] & 7, 3 | 5);
        }
        if compare(&a, &n) == Ordering::Less {
            std::mem::swap(&mut a, &mut n);
            negative ^= a[0] & 3 == 3 && n[0] & 3 == 3;
        }
        a = minus(&a, &n).0;
    }
    // Where the greatest common divisor is not 1, `a` was 0 from the start, which is a square.
    n != small(1) || !negative
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn every_key_that_ring_makes_is_on_its_curve_and_its_neighbours_are_not() {
        let random = SystemRandom::new();
        for (algorithm, is_on) in [
            (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, is_on_p256 as fn(&[u8]) -> bool),
            (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, is_on_p384),
        ] {
            for _ in 0..8 {
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
                let mut point = pair.public_key().as_ref().to_vec();
                assert!(is_on(&point));
                *point.last_mut().unwrap() ^= 1;
                assert!(!is_on(&point));
                point.pop();
                assert!(!is_on(&point));
            }
            assert!(!is_on(&[4]));
            assert!(!is_on(&[]));
            assert!(!is_on(&[0xff; 65]));
        }
    }

    #[test]
    fn every_ed25519_key_is_on_the_curve_and_half_of_all_numbers_are_not() {
        for seed in 0..16 {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            assert!(is_on_ed25519(pair.public_key().as_ref().try_into().unwrap()));
        }
        let on = (2..=201).filter(|y| is_on_ed25519(&std::array::from_fn(|i| if i == 0 { *y } else { 0 }))).count();
        assert!((70..130).contains(&on), "{on} of 200");
        // y = p + 3 is 3 in a form that is not canonical.
        let mut over = [0xff; 32];
        over[0] = 0xf0;
        over[31] = 0x7f;
        assert!(!is_on_ed25519(&over));
    }
}
