//! The hub's signed word how much of a quota a device may spend: one lease, of one device, in one window of time.
//!
//! A quota that many devices share is kept at the hub; each device spends from leases, with or without a link. What the
//! hub has signed away is gone from the quota until it is given back, so all devices together never spend more than its
//! limit. Signed by a key of the root's `hub` role, under a media type of its own. Pure. Made by the hub, read by the device.
//!
//! ```text
//! off  size  field
//! 0    32    key id       of the hub's key
//! 32   64    signature    over PAE("application/vnd.tidegate.lease.v1+json", the document)
//! 96   …     document     JSON {"amount":…,"device":"32 hex","from":…,"issued_at":…,"number":…,"quota":"name","to":…}
//! ```
//!
//! `from`, `to` and `issued_at` are in seconds since the Unix epoch by the hub's clock; the window holds `from` and not
//! `to`. `number` counts the leases of a quota in its window, from 1: with the quota and `from` it names a lease, so one
//! that comes twice is spent once.

use serde::{Deserialize, Serialize};

use super::protocol::LEASE_TYPE;
use crate::ids::{DeviceId, KeyId};
use crate::keys::{PublicKey, SigningKey};
use crate::units::UnixSeconds;

/// Longest lease, in bytes.
pub const LIMIT: usize = 96 + 512;

/// Why a lease is not believed. Nothing may be spent of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a lease of this form: something other than a hub answered.
    #[error("not a hub's lease")]
    Malformed,
    /// Signed by a key that the root does not name for the `hub` role: check which hub this is.
    #[error("the lease's key is not one of the hub's")]
    KeyUnknown,
    /// Altered, or made by someone else.
    #[error("invalid signature")]
    SignatureInvalid,
    /// Another device's, or of another quota than the one that was asked for.
    #[error("the lease is another's")]
    NotAsked,
}

/// So much of a quota, for one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// How much.
    pub amount: u64,
    /// Whose.
    pub device: DeviceId,
    /// When the window begins.
    pub from: UnixSeconds,
    /// When the hub gave it.
    pub issued_at: UnixSeconds,
    /// Which of the window's leases.
    pub number: u64,
    /// Of which quota.
    pub quota: String,
    /// When the window ends; nothing of it counts from then on.
    pub to: UnixSeconds,
}

impl Lease {
    /// Its signed form.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let document = serde_json::to_vec(self).expect("numbers and texts serialise");
        let signature = key.sign(LEASE_TYPE, &document);
        [&key.public().id().0[..], &signature, &document].concat()
    }

    /// Reads a lease of `quota` for `device` that one of `hubs` must have signed.
    pub fn read(bytes: &[u8], device: DeviceId, quota: &str, hubs: &[PublicKey]) -> Result<Self, Error> {
        if bytes.len() > LIMIT {
            return Err(Error::Malformed);
        }
        let (id, rest) = bytes.split_first_chunk::<32>().ok_or(Error::Malformed)?;
        let (signature, document) = rest.split_first_chunk::<64>().ok_or(Error::Malformed)?;
        let key = hubs.iter().find(|key| key.id() == KeyId(*id)).ok_or(Error::KeyUnknown)?;
        if !key.verifies(LEASE_TYPE, document, signature) {
            return Err(Error::SignatureInvalid);
        }
        let lease: Self = serde_json::from_slice(document).map_err(|_| Error::Malformed)?;
        if lease.device != device || lease.quota != quota {
            return Err(Error::NotAsked);
        }
        if lease.from >= lease.to || lease.number == 0 { Err(Error::Malformed) } else { Ok(lease) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId([1; 16]);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    fn lease() -> Lease {
        let (from, to) = (1_795_564_800, 1_795_651_200);
        Lease { amount: 100, device: DEVICE, from, issued_at: from + 5, number: 7, quota: "n".repeat(64), to }
    }

    #[test]
    fn a_lease_is_believed_from_any_key_of_the_hub_role_by_its_device_alone() {
        let (hubs, quota) = ([key(1).public(), key(2).public()], "n".repeat(64));
        for seed in [1, 2] {
            let most = Lease { amount: u64::MAX, number: u64::MAX, issued_at: i64::MIN, ..lease() };
            for lease in [lease(), most] {
                let bytes = lease.sign(&key(seed));
                assert!(bytes.len() <= LIMIT);
                assert_eq!(Lease::read(&bytes, DEVICE, &quota, &hubs), Ok(lease));
                assert_eq!(Lease::read(&bytes, DeviceId([2; 16]), &quota, &hubs), Err(Error::NotAsked));
                assert_eq!(Lease::read(&bytes, DEVICE, "n", &hubs), Err(Error::NotAsked));
            }
        }
        assert_eq!(Lease::read(&lease().sign(&key(3)), DEVICE, &quota, &hubs), Err(Error::KeyUnknown));
        for wrong in [Lease { to: lease().from, ..lease() }, Lease { number: 0, ..lease() }] {
            assert_eq!(Lease::read(&wrong.sign(&key(1)), DEVICE, &quota, &hubs), Err(Error::Malformed));
        }
        let document = serde_json::to_vec(&lease()).expect("JSON");
        let as_time = key(1).sign(super::super::protocol::TIME_TYPE, &document);
        let moved = [&key(1).public().id().0[..], &as_time, &document].concat();
        assert_eq!(Lease::read(&moved, DEVICE, &quota, &hubs), Err(Error::SignatureInvalid), "a time is no lease");
    }

    #[test]
    fn no_altered_lease_is_believed() {
        let (hubs, bytes, quota) = ([key(1).public()], lease().sign(&key(1)), "n".repeat(64));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Lease::read(&flipped, DEVICE, &quota, &hubs).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(Lease::read(&bytes[..end], DEVICE, &quota, &hubs).is_err(), "{end}");
        }
        assert_eq!(Lease::read(&[0; LIMIT + 1], DEVICE, &quota, &hubs), Err(Error::Malformed));
    }
}
