//! Keys for hashes that nobody without the device's seed can make or check.

use std::fmt;

use ring::hmac;

use super::{SigningKey, bytes32};

/// A key of HMAC-SHA256. It cannot be read out, and `Debug` shows nothing of it.
pub struct MacKey(hmac::Key);

impl SigningKey {
    /// The key for `purpose`: HMAC-SHA256 under the seed. From it neither the seed nor the key of another purpose can be
    /// told.
    #[must_use]
    pub fn mac_key(&self, purpose: &str) -> MacKey {
        MacKey::new(&self.seed).derive(&[purpose.as_bytes()])
    }
}

impl MacKey {
    fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key that this one has for `parts`, end to end.
    #[must_use]
    pub fn derive(&self, parts: &[&[u8]]) -> Self {
        Self::new(&self.mac(parts))
    }

    /// HMAC-SHA256 (RFC 2104) of `parts`, end to end: whoever joins several says how long each is.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        bytes32(context.sign().as_ref())
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::unhex;

    #[test]
    fn it_is_the_hmac_of_the_standard() {
        // RFC 4231, 4.3: a key shorter than a block, which zeros fill.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let expected = unhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843").expect("hex");
        assert_eq!(MacKey::new(&key).mac(&[b"what do ya want ", b"for nothing?"]), expected);
    }

    #[test]
    fn each_purpose_and_each_device_has_a_key_of_its_own_and_none_is_shown() {
        let device = |seed| SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key");
        let key = device(1).mac_key("a");
        assert_eq!(key.mac(&[b"m"]), device(1).mac_key("a").mac(&[b"m"]));
        for other in [device(1).mac_key("b"), device(2).mac_key("a"), key.derive(&[b""])] {
            assert_ne!(key.mac(&[b"m"]), other.mac(&[b"m"]));
        }
        assert_eq!(format!("{key:?}"), "MacKey(…)");
    }
}
