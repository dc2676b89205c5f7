//! Whether an RSA public key is too weak to pin.
//!
//! Sizes and exponent as in FIPS 186-5, 5.1 and 5.4: a modulus of 2048 bits or more, an odd exponent above 2^16. And no
//! modulus of the flawed generator of CVE-2017-15361, known as ROCA: its primes are k·M + 65537^a mod M, so a modulus
//! is a power of 65537 modulo every small prime. A sound key passes for one of them once in 2^27 keys or less.

/// Fewest bits of a modulus.
pub(super) const MIN_BITS: usize = 2048;
/// Most bits of a modulus, which is ring's limit: more would let a key make every check slow.
pub(super) const MAX_BITS: usize = 8192;

/// The primes of the fingerprint (Nemec et al. 2017, 4.1).
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// What is wrong with modulus `n` and exponent `e`, both big-endian without leading zeros; `None` for a sound key.
pub(super) fn weakness(n: &[u8], e: &[u8]) -> Option<&'static str> {
    let bits = n.first().map_or(0, |high| n.len() * 8 - high.leading_zeros() as usize);
    if bits < MIN_BITS {
        return Some("an RSA modulus under 2048 bits");
    }
    if bits > MAX_BITS {
        return Some("an RSA modulus over 8192 bits");
    }
    if n.last().is_none_or(|low| low & 1 == 0) {
        return Some("an even RSA modulus");
    }
    // 65537 and up; ring takes at most 33 bits.
    let exponent = e.iter().try_fold(0_u64, |e, byte| e.checked_mul(256)?.checked_add(u64::from(*byte)));
    match exponent {
        Some(e) if e < 65_537 => return Some("an RSA exponent under 65537"),
        Some(e) if e & 1 == 0 => return Some("an even RSA exponent"),
        Some(e) if e < 1 << 33 => {}
        _ => return Some("an RSA exponent over 33 bits"),
    }
    is_roca(n).then_some("an RSA modulus of the flawed ROCA generator")
}

fn is_roca(n: &[u8]) -> bool {
    PRIMES.into_iter().all(|prime| {
        let residue = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            power = power * 65_537 % prime;
            power == residue
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modulus_of_the_flawed_generator_is_found_and_its_neighbour_is_not() {
        // M·2^k + 1, M the product of the primes, is 65537^0 modulo each of them.
        let mut product = vec![1_u8];
        for prime in PRIMES {
            let mut carry = 0;
            for byte in product.iter_mut().rev() {
                let sum = u32::from(*byte) * prime + carry;
                *byte = (sum & 0xff) as u8;
                carry = sum >> 8;
            }
            if carry > 0 {
                product.insert(0, carry as u8);
            }
        }
        product.resize(260, 0);
        product[259] = 1;
        assert_eq!(weakness(&product, &[1, 0, 1]), Some("an RSA modulus of the flawed ROCA generator"));
        product[259] = 3;
        assert_eq!(weakness(&product, &[1, 0, 1]), None);
    }

    #[test]
    fn the_limits_of_size_and_exponent_hold() {
        let mut n = vec![0xd3; 256];
        assert_eq!(weakness(&n, &[1, 0, 1]), None);
        assert_eq!(weakness(&n[..255], &[1, 0, 1]), Some("an RSA modulus under 2048 bits"));
        n[0] = 0x7f;
        assert_eq!(weakness(&n, &[1, 0, 1]), Some("an RSA modulus under 2048 bits"));
        n[0] = 0xd3;
        assert_eq!(weakness(&[0xd3; 1025], &[1, 0, 1]), Some("an RSA modulus over 8192 bits"));
        assert_eq!(weakness(&[], &[1, 0, 1]), Some("an RSA modulus under 2048 bits"));
        for (e, fault) in [
            (&[][..], "an RSA exponent under 65537"),
            (&[1], "an RSA exponent under 65537"),
            (&[3], "an RSA exponent under 65537"),
            (&[1, 0, 2], "an even RSA exponent"),
            (&[2, 0, 0, 0, 1], "an RSA exponent over 33 bits"),
            (&[0xff; 300], "an RSA exponent over 33 bits"),
        ] {
            assert_eq!(weakness(&n, e), Some(fault), "{e:?}");
        }
        *n.last_mut().unwrap() = 0xd2;
        assert_eq!(weakness(&n, &[1, 0, 1]), Some("an even RSA modulus"));
    }
}
