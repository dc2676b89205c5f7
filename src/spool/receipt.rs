//! The hub's signed word that it has a usage file for good: the only thing that lets a file be deleted.
//!
//! Signed by a key of the root's `hub` role, under a media type of its own. Pure. Made by the hub,
//! checked by the uploader and by `tidegate spool receipts`.
//!
//! Bytes, big-endian, the same length always:
//!
//! ```text
//! off  size  field
//! 0    8     magic 89 54 47 52 0D 0A 1A 0A     "\x89TGR\r\n\x1a\n"
//! 8    2     format = 1
//! 10   16    device
//! 26   8     stream
//! 34   8     seq
//! 42   32    digest       SHA-256 of the whole usage file
//! 74   8     at           when the hub had it, milliseconds since the Unix epoch, signed
//! 82   32    key id       of the hub's key
//! 114  64    signature    over PAE("application/vnd.tidegate.usage-receipt.v1", bytes 0–113)
//! ```

use crate::ids::{DeviceId, Digest, KeyId, StreamId};
use crate::keys::{PublicKey, SigningKey};

/// Length of a signed receipt, in bytes.
pub const LEN: usize = SIGNED_LEN + 64;

const SIGNED_LEN: usize = 114;
const MAGIC: [u8; 8] = *b"\x89TGR\r\n\x1a\n";
const FORMAT: [u8; 2] = 1u16.to_be_bytes();
const MEDIA_TYPE: &str = super::protocol::RECEIPT_TYPE;

/// Why a receipt is not believed. In each case the usage file stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a receipt of this format: something other than a hub answered.
    #[error("not a receipt")]
    Malformed,
    /// Signed by a key that the root does not name for the `hub` role: check which hub this is.
    #[error("the receipt's key is not one of the hub's")]
    KeyUnknown,
    /// Altered, or made by someone else.
    #[error("invalid signature")]
    SignatureInvalid,
}

/// What the hub has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Whose file.
    pub device: DeviceId,
    /// Of which stream.
    pub stream: StreamId,
    /// Which file.
    pub seq: u64,
    /// SHA-256 of the whole file.
    pub digest: Digest,
    /// When the hub had it, in milliseconds since the Unix epoch by the hub's clock.
    pub at_ms: i64,
}

impl Receipt {
    /// The receipt's bytes, signed.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> [u8; LEN] {
        let mut bytes = Vec::with_capacity(LEN);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT);
        bytes.extend(self.device.0);
        bytes.extend(self.stream.0.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.digest.0);
        bytes.extend(self.at_ms.to_be_bytes());
        bytes.extend(key.public().id().0);
        bytes.extend(key.sign(MEDIA_TYPE, &bytes));
        bytes.try_into().expect("the fields add up to LEN")
    }

    /// Reads a receipt that one of `hubs` must have signed.
    pub fn verify(bytes: &[u8], hubs: &[PublicKey]) -> Result<Self, Error> {
        let bytes: &[u8; LEN] = bytes.try_into().map_err(|_| Error::Malformed)?;
        let (signed, signature) = bytes.split_first_chunk::<SIGNED_LEN>().ok_or(Error::Malformed)?;
        let signature: &[u8; 64] = signature.try_into().map_err(|_| Error::Malformed)?;
        let mut rest = &signed[..];
        if take(&mut rest)? != MAGIC || take(&mut rest)? != FORMAT {
            return Err(Error::Malformed);
        }
        let receipt = Self {
            device: DeviceId(take(&mut rest)?),
            stream: StreamId(u64::from_be_bytes(take(&mut rest)?)),
            seq: u64::from_be_bytes(take(&mut rest)?),
            digest: Digest(take(&mut rest)?),
            at_ms: i64::from_be_bytes(take(&mut rest)?),
        };
        let id = KeyId(take(&mut rest)?);
        let key = hubs.iter().find(|key| key.id() == id).ok_or(Error::KeyUnknown)?;
        if key.verifies(MEDIA_TYPE, signed, signature) { Ok(receipt) } else { Err(Error::SignatureInvalid) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (taken, after) = rest.split_first_chunk().ok_or(Error::Malformed)?;
    *rest = after;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt { device: DeviceId([1; 16]), stream: StreamId(2), seq: 3, digest: Digest([4; 32]), at_ms: -5 }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    #[test]
    fn a_receipt_is_believed_from_any_key_of_the_hub_role() {
        let hubs = [key(1).public(), key(2).public()];
        for seed in [1, 2] {
            assert_eq!(Receipt::verify(&receipt().sign(&key(seed)), &hubs), Ok(receipt()));
        }
    }

    #[test]
    fn a_receipt_by_anybody_else_is_not() {
        let bytes = receipt().sign(&key(3));
        assert_eq!(Receipt::verify(&bytes, &[key(1).public()]), Err(Error::KeyUnknown));
        assert_eq!(Receipt::verify(&bytes, &[]), Err(Error::KeyUnknown));
        let mut renamed = bytes;
        renamed[82..114].copy_from_slice(&key(1).public().id().0);
        assert_eq!(Receipt::verify(&renamed, &[key(1).public()]), Err(Error::SignatureInvalid));
    }

    #[test]
    fn no_altered_receipt_is_believed() {
        let hubs = [key(1).public()];
        let bytes = receipt().sign(&key(1));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Receipt::verify(&flipped, &hubs).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(Receipt::verify(&bytes[..end], &hubs), Err(Error::Malformed));
        }
        assert_eq!(Receipt::verify(&[&bytes[..], &[0]].concat(), &hubs), Err(Error::Malformed));
    }
}
