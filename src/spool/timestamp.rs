//! The hub's signed word of what time it is: one answer to one question of one device.
//!
//! Signed by a key of the root's `hub` role, under a media type of its own. It raises the device's lower bound of the
//! time and nothing else. Pure. Made by the hub, checked by the uploader.
//!
//! ```text
//! off  size  field
//! 0    32    key id       of the hub's key
//! 32   64    signature    over PAE("application/vnd.tidegate.time.v1+json", the document)
//! 96   …     document     JSON {"at":…,"device":"32 hex","nonce":"32 hex"}
//! ```
//!
//! `at` is in seconds since the Unix epoch. An old answer, played again, names a moment that is past and could do no
//! harm. One from a day on which the hub's clock ran ahead could, for ever and at every device: so each answer is for one
//! device and for the nonce that it made for this question, and good for nothing else.

use serde::{Deserialize, Serialize};

use super::protocol::TIME_TYPE;
use crate::ids::{DeviceId, KeyId, hex};
use crate::keys::{PublicKey, SigningKey};
use crate::units::UnixSeconds;

/// Longest answer, in bytes.
pub const LIMIT: usize = 96 + 256;

/// What the answer must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub device: DeviceId,
    /// Made for this question from the system's random source.
    pub nonce: [u8; 16],
}

/// Why an answer is not believed. The floor stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an answer of this form: something other than a hub answered.
    #[error("not a hub's time")]
    Malformed,
    /// Signed by a key that the root does not name for the `hub` role: check which hub this is.
    #[error("the time's key is not one of the hub's")]
    KeyUnknown,
    /// Altered, or made by someone else.
    #[error("invalid signature")]
    SignatureInvalid,
    /// An answer to another question: an old one was played again, or another device's.
    #[error("the time is the answer to another question")]
    NotAsked,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    at: UnixSeconds,
    device: DeviceId,
    nonce: String,
}

impl Question {
    /// The signed answer that it is `at`.
    #[must_use]
    pub fn answer(&self, at: UnixSeconds, key: &SigningKey) -> Vec<u8> {
        let document = Document { at, device: self.device, nonce: hex(&self.nonce) };
        let document = serde_json::to_vec(&document).expect("a number and two texts serialise");
        let signature = key.sign(TIME_TYPE, &document);
        [&key.public().id().0[..], &signature, &document].concat()
    }

    /// Reads the moment of an answer that one of `hubs` must have signed.
    pub fn read(&self, answer: &[u8], hubs: &[PublicKey]) -> Result<UnixSeconds, Error> {
        if answer.len() > LIMIT {
            return Err(Error::Malformed);
        }
        let (id, rest) = answer.split_first_chunk::<32>().ok_or(Error::Malformed)?;
        let (signature, document) = rest.split_first_chunk::<64>().ok_or(Error::Malformed)?;
        let key = hubs.iter().find(|key| key.id() == KeyId(*id)).ok_or(Error::KeyUnknown)?;
        if !key.verifies(TIME_TYPE, document, signature) {
            return Err(Error::SignatureInvalid);
        }
        let Document { at, device, nonce } = serde_json::from_slice(document).map_err(|_| Error::Malformed)?;
        if device == self.device && nonce == hex(&self.nonce) { Ok(at) } else { Err(Error::NotAsked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Question = Question { device: DeviceId([1; 16]), nonce: [2; 16] };

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    #[test]
    fn an_answer_is_believed_from_any_key_of_the_hub_role_at_any_moment() {
        let hubs = [key(1).public(), key(2).public()];
        for at in [i64::MIN, -1, 0, 59, 1 << 31, 1 << 32, 253_402_300_799, i64::MAX] {
            for seed in [1, 2] {
                let answer = ASKED.answer(at, &key(seed));
                assert!(answer.len() <= LIMIT);
                assert_eq!(ASKED.read(&answer, &hubs), Ok(at));
            }
        }
    }

    #[test]
    fn an_answer_by_anybody_else_or_to_another_question_is_not() {
        let hubs = [key(1).public()];
        assert_eq!(ASKED.read(&ASKED.answer(5, &key(3)), &hubs), Err(Error::KeyUnknown));
        assert_eq!(ASKED.read(&ASKED.answer(5, &key(1)), &[]), Err(Error::KeyUnknown));
        let mut renamed = ASKED.answer(5, &key(3));
        renamed[..32].copy_from_slice(&key(1).public().id().0);
        assert_eq!(ASKED.read(&renamed, &hubs), Err(Error::SignatureInvalid));
        for other in [Question { device: DeviceId([9; 16]), ..ASKED }, Question { nonce: [9; 16], ..ASKED }] {
            assert_eq!(ASKED.read(&other.answer(5, &key(1)), &hubs), Err(Error::NotAsked));
        }
    }

    #[test]
    fn no_other_signature_of_the_hub_passes_for_a_time() {
        let document =
            br#"{"at":5,"device":"01010101010101010101010101010101","nonce":"02020202020202020202020202020202"}"#;
        let signed =
            |media_type: &str| [&key(1).public().id().0[..], &key(1).sign(media_type, document), document].concat();
        let hubs = [key(1).public()];
        assert_eq!(ASKED.read(&signed(TIME_TYPE), &hubs), Ok(5), "the control");
        assert_eq!(ASKED.read(&signed(super::super::protocol::RECEIPT_TYPE), &hubs), Err(Error::SignatureInvalid));
    }

    #[test]
    fn no_altered_answer_is_believed() {
        let hubs = [key(1).public()];
        let answer = ASKED.answer(1_795_564_800, &key(1));
        for bit in 0..answer.len() * 8 {
            let mut flipped = answer.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ASKED.read(&flipped, &hubs).is_err(), "bit {bit}");
        }
        for end in 0..answer.len() {
            assert!(ASKED.read(&answer[..end], &hubs).is_err(), "{end}");
        }
        assert!(ASKED.read(&[&answer[..], b" "].concat(), &hubs).is_err());
        assert_eq!(ASKED.read(&[0; LIMIT + 1], &hubs), Err(Error::Malformed));
    }
}
