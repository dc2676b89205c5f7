//! Signing keys of roots, roles and devices, and what they sign. Imports `ids` only.
//!
//! Signed bytes are DSSE v1's PAE: `"DSSEv1 " len(T) " " T " " len(M) " " M`, with a media type of
//! its own for each kind of document, so that no signature can be moved from one kind to another. The one exception is
//! the handshake of TLS 1.3, whose signed bytes begin with 64 spaces (RFC 8446, 4.4.3) and so are no PAE.
//! A key's algorithm belongs to the key, never to the message.

mod mac;

use std::fmt;

use ring::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

pub use mac::MacKey;

use crate::ids::{Digest, KeyId, NotHex, unhex};

/// Algorithm of a signing key; the number is on disk and wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyAlg {
    /// Ed25519 (RFC 8032); raw key 32 bytes.
    Ed25519 = 1,
    /// ECDSA on P-256 with SHA-256, for HSM, TPM and PIV; raw key 65 bytes, uncompressed (SEC 1, 2.3.3);
    /// signature 64 bytes r ‖ s.
    EcdsaP256 = 2,
}

impl KeyAlg {
    /// The word for it in roots and key files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }

    /// The algorithm of that word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ed25519, Self::EcdsaP256].into_iter().find(|alg| alg.name() == name)
    }

    /// The bytes of a raw public key in hex, of the algorithm's length.
    pub fn unhex(self, text: &str) -> Result<Vec<u8>, NotHex> {
        match self {
            Self::Ed25519 => unhex::<32>(text).map(Vec::from),
            Self::EcdsaP256 => unhex::<65>(text).map(Vec::from),
        }
    }
}

/// A SubjectPublicKeyInfo of an Ed25519 key (RFC 8410, 4) up to the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What a client signs in a handshake of TLS 1.3, up to the transcript's hash (RFC 8446, 4.4.3).
const CLIENT_VERIFY: &[u8] =
    b"                                                                TLS 1.3, client CertificateVerify\0";

/// Why a public key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The bytes are not of the algorithm's length and form: export the key again.
    #[error("not a raw public key of this algorithm")]
    Malformed,
    /// A small-order point, for which anybody can make signatures: use another key.
    #[error("a small-order Ed25519 point")]
    Weak,
}

/// A public key that was parsed and is not weak.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    alg: KeyAlg,
    raw: Vec<u8>,
}

impl PublicKey {
    /// Takes the raw key of `alg`; refuses wrong lengths and weak points.
    pub fn new(alg: KeyAlg, raw: &[u8]) -> Result<Self, BadKey> {
        let well_formed = match alg {
            KeyAlg::Ed25519 => raw.len() == 32,
            KeyAlg::EcdsaP256 => raw.len() == 65 && raw.first() == Some(&4),
        };
        if !well_formed {
            return Err(BadKey::Malformed);
        }
        if alg == KeyAlg::Ed25519 && is_small_order(raw) {
            return Err(BadKey::Weak);
        }
        Ok(Self { alg, raw: raw.to_vec() })
    }

    /// The Ed25519 key in a SubjectPublicKeyInfo of RFC 8410; no other form of one is taken.
    pub fn from_spki(spki: &[u8]) -> Result<Self, BadKey> {
        Self::new(KeyAlg::Ed25519, spki.strip_prefix(&SPKI_PREFIX).ok_or(BadKey::Malformed)?)
    }

    /// An Ed25519 key as a SubjectPublicKeyInfo; `None` for another algorithm.
    #[must_use]
    pub fn to_spki(&self) -> Option<Vec<u8>> {
        (self.alg == KeyAlg::Ed25519).then(|| [&SPKI_PREFIX, self.raw()].concat())
    }

    /// Its algorithm.
    #[must_use]
    pub fn alg(&self) -> KeyAlg {
        self.alg
    }

    /// Its raw bytes.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// SHA-256("tidegate/v1/key\0" ‖ alg byte ‖ raw key).
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(b"tidegate/v1/key\0");
        context.update(&[self.alg as u8]);
        context.update(&self.raw);
        KeyId(bytes32(context.finish().as_ref()))
    }

    /// Whether `signature` is this key's over the PAE of `media_type` and `message`.
    #[must_use]
    pub fn verifies(&self, media_type: &str, message: &[u8], signature: &[u8; 64]) -> bool {
        let alg: &'static dyn signature::VerificationAlgorithm = match self.alg {
            KeyAlg::Ed25519 => &signature::ED25519,
            KeyAlg::EcdsaP256 => &signature::ECDSA_P256_SHA256_FIXED,
        };
        UnparsedPublicKey::new(alg, &self.raw).verify(&pae(media_type, message), signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.alg, self.id())
    }
}

/// An Ed25519 key that can sign. `Debug` shows its id only.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

impl SigningKey {
    /// A new key from the system's random source; `None` if that source fails.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let seed = random::<32>()?;
        Self::from_seed(&seed)
    }

    /// The key of a stored seed (RFC 8032, 5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self { pair, seed: *seed })
    }

    /// What is stored, 0600, and never shown.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey { alg: KeyAlg::Ed25519, raw: self.pair.public_key().as_ref().to_vec() }
    }

    /// The signature over the PAE of `media_type` and `message`.
    #[must_use]
    pub fn sign(&self, media_type: &str, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(&pae(media_type, message)).as_ref());
        bytes
    }

    /// The signature of a client over a handshake of TLS 1.3; `None` for any other bytes.
    #[must_use]
    pub fn sign_handshake(&self, message: &[u8]) -> Option<Vec<u8>> {
        message.starts_with(CLIENT_VERIFY).then(|| self.pair.sign(message).as_ref().to_vec())
    }

    /// The same key once more.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::from_seed(&self.seed).expect("the seed made this key")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// DSSE v1's pre-authentication encoding.
#[must_use]
pub fn pae(media_type: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {media_type} {} ", media_type.len(), message.len()).into_bytes();
    bytes.extend_from_slice(message);
    bytes
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(bytes32(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref()))
}

/// `N` bytes from the system's random source; `None` if that source fails.
#[must_use]
pub fn random<const N: usize>() -> Option<[u8; N]> {
    #[cfg(all(test, feature = "hub"))]
    if let Some(bytes) = seeded_tests::random() {
        return Some(bytes);
    }
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).ok()?;
    Some(bytes)
}

/// Random bytes that come again: a simulation is to be replayed to the byte.
#[cfg(all(test, feature = "hub"))]
pub(crate) mod seeded_tests {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From here on this thread's random bytes follow from `seed`; from `None` on they are the system's.
    pub(crate) fn set(seed: Option<u64>) {
        STATE.set(seed);
    }

    pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
        let state = STATE.get()?;
        STATE.set(Some(state.wrapping_add(1)));
        let digest = super::sha256(&state.to_be_bytes()).0;
        Some(std::array::from_fn(|at| digest[at % digest.len()]))
    }
}

fn bytes32(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("SHA-256 gives 32 bytes")
}

/// The y coordinates of the eight points of small order on edwards25519, little-endian, with the
/// non-canonical encodings among them; the sign bit is masked before the comparison
/// (Cremers and Jackson 2019, table 1; the same list as libsodium's).
const SMALL_ORDER: [[u8; 32]; 7] = {
    const fn filled(first: u8, middle: u8, last: u8) -> [u8; 32] {
        let mut y = [middle; 32];
        y[0] = first;
        y[31] = last;
        y
    }
    const ORDER_8_A: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    const ORDER_8_B: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    [
        filled(0, 0, 0),
        filled(1, 0, 0),
        ORDER_8_A,
        ORDER_8_B,
        filled(0xec, 0xff, 0x7f),
        filled(0xed, 0xff, 0x7f),
        filled(0xee, 0xff, 0x7f),
    ]
};

fn is_small_order(raw: &[u8]) -> bool {
    SMALL_ORDER.iter().any(|y| y[..31] == raw[..31] && y[31] == raw[31] & 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_bound_to_key_type_and_message() {
        let key = SigningKey::from_seed(&[7; 32]).expect("a seed makes a key");
        let signature = key.sign("text/a", b"m");
        let public = key.public();
        assert!(public.verifies("text/a", b"m", &signature));
        assert!(!public.verifies("text/b", b"m", &signature));
        assert!(!public.verifies("text/a", b"n", &signature));
        let other = SigningKey::from_seed(&[8; 32]).expect("a seed makes a key").public();
        assert!(!other.verifies("text/a", b"m", &signature));
    }

    #[test]
    fn a_key_reads_back_from_its_spki_and_nothing_but_a_handshake_is_signed_without_a_type() {
        let key = SigningKey::from_seed(&[7; 32]).expect("a seed makes a key");
        let spki = key.public().to_spki().expect("it is Ed25519");
        assert_eq!(PublicKey::from_spki(&spki), Ok(key.public()));
        let weak = [&SPKI_PREFIX[..], &[0; 32]].concat();
        assert_eq!(PublicKey::from_spki(&weak), Err(BadKey::Weak));
        for wrong in [&spki[1..], &spki[..43], &[&spki[..], &[0]].concat(), b""] {
            assert_eq!(PublicKey::from_spki(wrong), Err(BadKey::Malformed));
        }
        let verify = [CLIENT_VERIFY, &[1; 32]].concat();
        assert!(key.sign_handshake(&verify).is_some());
        for wrong in [&pae("text/a", b"m"), &verify[1..], &CLIENT_VERIFY[..97], b""] {
            assert!(key.sign_handshake(wrong).is_none());
        }
    }

    #[test]
    fn small_order_points_are_refused_with_either_sign() {
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut raw = y;
                raw[31] |= sign;
                assert_eq!(PublicKey::new(KeyAlg::Ed25519, &raw), Err(BadKey::Weak));
            }
        }
        assert_eq!(PublicKey::new(KeyAlg::Ed25519, &[1; 31]), Err(BadKey::Malformed));
    }
}
