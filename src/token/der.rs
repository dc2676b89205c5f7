//! The little DER that public keys are wrapped in (X.690, 10; RFC 5280, 4.1; RFC 8017, A.1.1; RFC 8410).
//!
//! ```text
//! SubjectPublicKeyInfo = SEQUENCE { SEQUENCE { OID, parameters }, BIT STRING 00 ‖ key }
//!     rsaEncryption, NULL         key = SEQUENCE { INTEGER n, INTEGER e }
//!     id-ecPublicKey, curve       key = 04 ‖ x ‖ y
//!     id-Ed25519                  key = 32 bytes
//! ```
//!
//! Reads definite, minimal lengths only, and nothing may trail. Keys come from files; every length is checked.

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;

/// AlgorithmIdentifier of rsaEncryption, with its NULL.
pub(super) const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// AlgorithmIdentifier of id-ecPublicKey on prime256v1.
pub(super) const P256: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// AlgorithmIdentifier of id-ecPublicKey on secp384r1.
pub(super) const P384: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// AlgorithmIdentifier of id-Ed25519.
pub(super) const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// Takes one element with `tag` off the front of `input`: its content, and what follows.
pub(super) fn take(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = input.split_first()?;
    if *first != tag {
        return None;
    }
    let (short, rest) = rest.split_first()?;
    let (length, rest) = match *short {
        length @ 0..=0x7f => (usize::from(length), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let minimal = match *short {
        0x81 => length > 0x7f,
        0x82 => length > 0xff,
        _ => true,
    };
    if !minimal {
        return None;
    }
    rest.split_at_checked(length)
}

/// As [`take`], where nothing may follow.
pub(super) fn whole(input: &[u8], tag: u8) -> Option<&[u8]> {
    take(input, tag).and_then(|(content, rest)| rest.is_empty().then_some(content))
}

/// The magnitude of a positive INTEGER, without leading zeros.
pub(super) fn unsigned(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, high, ..] if *high >= 0x80 => content.get(1..),
        [1..=0x7f, ..] => Some(content),
        _ => None,
    }
}

/// Algorithm identifier and key of a SubjectPublicKeyInfo.
pub(super) fn public_key_parts(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (algorithm, rest) = take(whole(spki, SEQUENCE)?, SEQUENCE)?;
    let (unused_bits, key) = whole(rest, BIT_STRING)?.split_first()?;
    (*unused_bits == 0).then_some((algorithm, key))
}

/// Modulus and exponent of an RSAPublicKey, without leading zeros.
pub(super) fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (n, rest) = take(whole(der, SEQUENCE)?, INTEGER)?;
    Some((unsigned(n)?, unsigned(whole(rest, INTEGER)?)?))
}

/// One element.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match content.len() {
        length @ 0..=0x7f => der.push(length as u8),
        length @ 0x80..=0xff => der.extend([0x81, length as u8]),
        length => {
            der.push(0x82);
            der.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    der.extend(content);
    der
}

/// An INTEGER from a magnitude.
pub(super) fn integer(magnitude: &[u8]) -> Vec<u8> {
    let start = magnitude.iter().position(|byte| *byte != 0).unwrap_or(magnitude.len());
    let mut content = magnitude.get(start..).unwrap_or_default().to_vec();
    if content.first().is_none_or(|high| *high >= 0x80) {
        content.insert(0, 0);
    }
    element(INTEGER, &content)
}

/// The SubjectPublicKeyInfo of a key.
pub(super) fn subject_public_key_info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let algorithm = element(SEQUENCE, algorithm);
    let key = element(BIT_STRING, &[&[0], key].concat());
    element(SEQUENCE, &[algorithm, key].concat())
}

/// An RSAPublicKey.
pub(super) fn rsa_key(n: &[u8], e: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[integer(n), integer(e)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_at_every_length_form() {
        for length in [1, 127, 128, 255, 256, 1024] {
            let n = vec![0xff; length];
            let spki = subject_public_key_info(RSA, &rsa_key(&n, &[1, 0, 1]));
            let (algorithm, key) = public_key_parts(&spki).expect("our own form reads back");
            assert_eq!(algorithm, RSA);
            assert_eq!(rsa_public_key(key), Some((&n[..], &[1, 0, 1][..])));
            for cut in 0..spki.len() {
                assert_eq!(public_key_parts(&spki[..cut]), None, "cut at {cut} of {}", spki.len());
            }
            assert_eq!(public_key_parts(&[&spki[..], &[0]].concat()), None, "a byte trails");
        }
    }

    #[test]
    fn loose_forms_are_refused() {
        assert_eq!(take(&[SEQUENCE, 0x80, 0, 0], SEQUENCE), None, "indefinite length");
        assert_eq!(take(&[SEQUENCE, 0x81, 1, 0], SEQUENCE), None, "length not minimal");
        assert_eq!(take(&[SEQUENCE, 0x82, 0, 1, 0], SEQUENCE), None, "length not minimal");
        assert_eq!(take(&[SEQUENCE, 0x83, 0, 0, 1, 0], SEQUENCE), None, "longer than any key");
        assert_eq!(unsigned(&[0x80]), None, "negative");
        assert_eq!(unsigned(&[0, 1]), None, "leading zero");
        assert_eq!(unsigned(&[0]), None, "zero");
        assert_eq!(unsigned(&[]), None);
        assert_eq!(public_key_parts(&[SEQUENCE, 5, SEQUENCE, 0, BIT_STRING, 1, 7]), None, "unused bits");
    }
}
