//! Usage files sealed to the hub's key, so that a stick that is lost tells nobody anything: HPKE (RFC 9180) in base mode,
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Pure, but for the random numbers of the sealing.
//!
//! ```text
//! off  size  field
//! 0    8     magic 89 54 47 53 0D 0A 1A 0A     "\x89TGS\r\n\x1a\n"
//! 8    2     format = 1, big-endian
//! 10   32    key id      of the hub's usage key (`key`)
//! 42   32    enc         the encapsulated key
//! 74   …     ciphertext  of the whole usage file, and its tag of 16 bytes
//! info = "application/vnd.tidegate.sealed-usage.v1"
//! aad  = bytes 0–41 ‖ device 16 ‖ stream u64 ‖ seq u64, big-endian, as the path on the stick says
//! ```
//!
//! Sealing hides, and proves nothing: whoever has the public key can seal. What comes out is judged as any usage file is.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _, setup_receiver, setup_sender};

use crate::ids::{DeviceId, Digest};
use crate::spool::backlog::Cursor;
use crate::spool::segment::FILE_LIMIT;

const MAGIC: [u8; 8] = *b"\x89TGS\r\n\x1a\n";
const FORMAT: [u8; 2] = 1u16.to_be_bytes();
const INFO: &[u8] = b"application/vnd.tidegate.sealed-usage.v1";
const NAMED_LEN: usize = 42;
const HEAD_LEN: usize = NAMED_LEN + 32;
const TAG_LEN: usize = 16;
/// Longest sealed file, in bytes.
pub const SEALED_LIMIT: usize = HEAD_LEN + FILE_LIMIT + TAG_LEN;

type Kem = X25519HkdfSha256;

/// Why a file cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a sealed file of this format, or cut off: copy it again from its source.
    #[error("not a sealed usage file")]
    Malformed,
    /// Sealed to another key: bring it to the hub that has that one.
    #[error("sealed to another usage key")]
    AnotherKey,
    /// Altered, moved to another name, or cut off: copy it again from its source, under the name that it has there.
    #[error("the seal is broken")]
    Broken,
    /// The key is not one that can be sealed to: make another.
    #[error("not a usage key")]
    BadKey,
}

impl Error {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "SealMalformed",
            Self::AnotherKey => "SealedToAnotherKey",
            Self::Broken => "SealBroken",
            Self::BadKey => "BadUsageKey",
        }
    }
}

/// A new pair: the secret half and the public one.
#[must_use]
pub fn generate() -> ([u8; 32], [u8; 32]) {
    let (secret, public) = Kem::gen_keypair();
    (secret.to_bytes().into(), public.to_bytes().into())
}

/// The public half of a secret key.
pub fn public_of(secret: &[u8; 32]) -> Result<[u8; 32], Error> {
    let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(secret).map_err(|_| Error::BadKey)?;
    Ok(Kem::sk_to_pk(&secret).to_bytes().into())
}

/// Seals a usage file of `device` at `at` to `public`, whose id is `id`.
pub fn seal(file: &[u8], device: DeviceId, at: Cursor, public: &[u8; 32], id: Digest) -> Result<Vec<u8>, Error> {
    let named = named(id);
    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(public).map_err(|_| Error::BadKey)?;
    let (enc, mut context) =
        setup_sender::<ChaCha20Poly1305, HkdfSha256, Kem>(&OpModeS::Base, &public, INFO).map_err(|_| Error::BadKey)?;
    let sealed = context.seal(file, &bound(&named, device, at)).map_err(|_| Error::BadKey)?;
    Ok([&named[..], &enc.to_bytes(), &sealed].concat())
}

/// The id of the key that a file is sealed to.
pub fn key_id(sealed: &[u8]) -> Result<Digest, Error> {
    let named = sealed.first_chunk::<NAMED_LEN>().ok_or(Error::Malformed)?;
    let id: [u8; 32] = named[10..].try_into().map_err(|_| Error::Malformed)?;
    let is_whole = (HEAD_LEN + TAG_LEN..=SEALED_LIMIT).contains(&sealed.len());
    if is_whole && self::named(Digest(id)) == *named { Ok(Digest(id)) } else { Err(Error::Malformed) }
}

/// Opens a file that lies at the place of `device` and `at` on a stick.
pub fn open(sealed: &[u8], device: DeviceId, at: Cursor, secret: &[u8; 32], id: Digest) -> Result<Vec<u8>, Error> {
    if key_id(sealed)? != id {
        return Err(Error::AnotherKey);
    }
    let (head, ciphertext) = sealed.split_first_chunk::<HEAD_LEN>().ok_or(Error::Malformed)?;
    let (named, enc) = head.split_first_chunk::<NAMED_LEN>().ok_or(Error::Malformed)?;
    open_base(secret, enc, INFO, &bound(named, device, at), ciphertext)
}

/// RFC 9180, 6.1, in base mode.
fn open_base(secret: &[u8; 32], enc: &[u8], info: &[u8], aad: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
    let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(secret).map_err(|_| Error::BadKey)?;
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| Error::Broken)?;
    let context = setup_receiver::<ChaCha20Poly1305, HkdfSha256, Kem>(&OpModeR::Base, &secret, &enc, info);
    context.and_then(|mut context| context.open(ciphertext, aad)).map_err(|_| Error::Broken)
}

fn named(id: Digest) -> [u8; NAMED_LEN] {
    let mut named = [0; NAMED_LEN];
    named[..8].copy_from_slice(&MAGIC);
    named[8..10].copy_from_slice(&FORMAT);
    named[10..].copy_from_slice(&id.0);
    named
}

fn bound(named: &[u8; NAMED_LEN], device: DeviceId, at: Cursor) -> Vec<u8> {
    [&named[..], &device.0, &at.stream.0.to_be_bytes(), &at.seq.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{StreamId, unhex};

    const DEVICE: DeviceId = DeviceId([1; 16]);
    const AT: Cursor = Cursor { stream: StreamId(2), seq: 3 };
    const ID: Digest = Digest([4; 32]);

    #[test]
    fn the_vector_of_rfc_9180_opens() {
        // RFC 9180, A.2.1: base mode of this suite, sequence number 0.
        let secret = unhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb").expect("hex");
        let public = unhex::<32>("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a").expect("hex");
        let enc = unhex::<32>("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a").expect("hex");
        let ciphertext = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28";
        let ciphertext = unhex::<45>(ciphertext).expect("hex");
        let opened = open_base(&secret, &enc, b"Ode on a Grecian Urn", b"Count-0", &ciphertext);
        assert_eq!(opened.as_deref(), Ok(&b"Beauty is truth, truth beauty"[..]));
        assert_eq!(public_of(&secret), Ok(public));
        assert_eq!(open_base(&secret, &enc, b"Ode on a Grecian Urn", b"Count-1", &ciphertext), Err(Error::Broken));
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_at_its_place_only() {
        let (secret, public) = generate();
        let sealed = seal(b"file", DEVICE, AT, &public, ID).expect("it seals");
        assert_eq!(key_id(&sealed), Ok(ID));
        assert_eq!(open(&sealed, DEVICE, AT, &secret, ID).as_deref(), Ok(&b"file"[..]));
        assert_eq!(open(&sealed, DEVICE, AT, &generate().0, ID), Err(Error::Broken), "another key");
        assert_eq!(open(&sealed, DEVICE, AT, &secret, Digest([5; 32])), Err(Error::AnotherKey));
        assert_eq!(open(&sealed, DeviceId([9; 16]), AT, &secret, ID), Err(Error::Broken), "another device");
        for at in [Cursor { seq: 4, ..AT }, Cursor { stream: StreamId(9), ..AT }] {
            assert_eq!(open(&sealed, DEVICE, at, &secret, ID), Err(Error::Broken), "{at:?}");
        }
        assert_ne!(seal(b"file", DEVICE, AT, &public, ID).expect("it seals"), sealed, "each has its own key");
    }

    #[test]
    fn no_altered_or_cut_off_file_opens() {
        let (secret, public) = generate();
        let sealed = seal(b"file", DEVICE, AT, &public, ID).expect("it seals");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The top bit of an X25519 point is ignored (RFC 7748, 5), but not of what HPKE binds.
            assert!(open(&flipped, DEVICE, AT, &secret, ID).is_err(), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert!(open(&sealed[..end], DEVICE, AT, &secret, ID).is_err(), "cut at {end}");
        }
        assert!(open(&[&sealed[..], &[0]].concat(), DEVICE, AT, &secret, ID).is_err());
        assert_eq!(key_id(&vec![0; SEALED_LIMIT + 1]), Err(Error::Malformed));
        assert_eq!(seal(b"file", DEVICE, AT, &[0; 32], ID), Err(Error::BadKey), "a small-order point");
    }
}
