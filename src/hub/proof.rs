//! Proof that whoever asks in a device's name has its key. Pure.
//!
//! Either the key was shown in the TLS handshake, or the request brings a signature over a challenge. A challenge is
//! remembered by nobody: it names its moment, and a MAC under a key of this hub's says for which device it was made.
//!
//! ```text
//! off  size  field
//! 0    8     when it was made, big-endian seconds since the Unix epoch, signed
//! 8    24    HMAC-SHA256(key, device ‖ those 8 bytes), its first 24 bytes
//! ```
//!
//! A proof is for one method and path, so one that was seen on its way is good for the same request again within ten
//! minutes, and for nothing else.

use hyper::{HeaderMap, Method};

use super::refusal::Refusal;
use crate::ids::DeviceId;
use crate::keys::{MacKey, PublicKey, SigningKey};
use crate::spool::protocol::{PROOF, PROOF_TYPE, proof_message, read_proof};
use crate::units::UnixSeconds;

/// How long a challenge is good, and how far the hub's clock may be set back meanwhile, in seconds.
const GOOD_FOR: i64 = 600;
const SET_BACK: i64 = 60;
/// What its key is for.
const PURPOSE: &str = "tidegate/v1/challenge";

/// The hub's side of proofs.
pub(super) struct Proofs {
    key: MacKey,
    is_required: bool,
}

impl std::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proofs").field("is_required", &self.is_required).finish_non_exhaustive()
    }
}

/// What a request shows of its maker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The key of the TLS handshake.
    pub(super) key: Option<&'a PublicKey>,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
}

impl Proofs {
    pub(super) fn new(key: &SigningKey, is_required: bool) -> Self {
        Self { key: key.mac_key(PURPOSE), is_required }
    }

    /// Whether whoever asks has proven who it is.
    pub(super) fn are_required(&self) -> bool {
        self.is_required
    }

    /// Whether the request is by the device of `key`; if it does not matter, or is proven.
    pub(super) fn check(&self, key: &PublicKey, shown: Shown<'_>, now: UnixSeconds) -> Result<(), Refusal> {
        if !self.is_required {
            return Ok(());
        }
        self.demand(key, shown, now)
    }

    /// The same, where it always matters.
    pub(super) fn demand(&self, key: &PublicKey, shown: Shown<'_>, now: UnixSeconds) -> Result<(), Refusal> {
        if shown.key == Some(key) {
            return Ok(());
        }
        let device = key.id().into();
        let anew = self.challenge(device, now);
        let Some(proof) = shown.headers.get(PROOF) else { return Err(Refusal::ProofRequired(anew)) };
        let (challenge, signature) = proof.to_str().ok().and_then(read_proof).ok_or(Refusal::ProofInvalid(anew))?;
        if !self.is_good(device, &challenge, now) {
            return Err(Refusal::ProofRequired(anew));
        }
        let message = proof_message(&challenge, shown.method.as_str(), shown.path);
        if key.verifies(PROOF_TYPE, &message, &signature) { Ok(()) } else { Err(Refusal::ProofInvalid(anew)) }
    }

    fn challenge(&self, device: DeviceId, at: UnixSeconds) -> [u8; 32] {
        let mut challenge = [0; 32];
        challenge[..8].copy_from_slice(&at.to_be_bytes());
        let tag = self.key.mac(&[&device.0, &at.to_be_bytes()]);
        challenge[8..].copy_from_slice(&tag[..24]);
        challenge
    }

    fn is_good(&self, device: DeviceId, challenge: &[u8; 32], now: UnixSeconds) -> bool {
        let Some((at, _)) = challenge.split_first_chunk() else { return false };
        let at = UnixSeconds::from_be_bytes(*at);
        // In one time, whatever differs.
        let differs = challenge.iter().zip(self.challenge(device, at)).fold(0, |differs, (a, b)| differs | (a ^ b));
        differs == 0 && at <= now.saturating_add(SET_BACK) && now.saturating_sub(at) <= GOOD_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::protocol::proof;

    const NOW: UnixSeconds = 1_795_564_800;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    fn proofs() -> Proofs {
        Proofs::new(&key(9), true)
    }

    fn signed(by: &SigningKey, challenge: &[u8; 32], method: &str, path: &str) -> HeaderMap {
        let signature = by.sign(PROOF_TYPE, &proof_message(challenge, method, path));
        HeaderMap::from_iter([(PROOF.parse().expect("a name"), proof(challenge, &signature).parse().expect("hex"))])
    }

    /// What becomes of a request for `/p` by the device of `key(1)`.
    fn judged(headers: &HeaderMap, shown: Option<&SigningKey>, now: UnixSeconds) -> Result<(), &'static str> {
        let shown = shown.map(SigningKey::public);
        let shown = Shown { key: shown.as_ref(), method: &Method::GET, path: "/p", headers };
        proofs().check(&key(1).public(), shown, now).map_err(Refusal::name)
    }

    #[test]
    fn the_key_of_the_handshake_or_a_signature_over_a_challenge_is_proof_and_nothing_else() {
        let (device, none) = (key(1), HeaderMap::new());
        let id = DeviceId::from(device.public().id());
        let challenge = proofs().challenge(id, NOW);
        let good = signed(&device, &challenge, "GET", "/p");
        assert_eq!(judged(&none, Some(&device), NOW), Ok(()));
        assert_eq!(judged(&none, Some(&key(2)), NOW), Err("ProofRequired"), "another device's key");
        assert_eq!(judged(&none, None, NOW), Err("ProofRequired"));
        for (later, told) in [(0, Ok(())), (600, Ok(())), (601, Err("ProofRequired")), (-60, Ok(()))] {
            assert_eq!(judged(&good, None, NOW + later), told, "{later}");
        }
        assert_eq!(judged(&good, None, NOW - 61), Err("ProofRequired"), "from the future");
        for (headers, told) in [
            (signed(&key(2), &challenge, "GET", "/p"), "ProofInvalid"),
            (signed(&device, &challenge, "GET", "/q"), "ProofInvalid"),
            (signed(&device, &challenge, "POST", "/p"), "ProofInvalid"),
            (signed(&device, &proofs().challenge(DeviceId([7; 16]), NOW), "GET", "/p"), "ProofRequired"),
            (signed(&device, &Proofs::new(&key(8), true).challenge(id, NOW), "GET", "/p"), "ProofRequired"),
            (HeaderMap::from_iter([(PROOF.parse().expect("a name"), "x".parse().expect("text"))]), "ProofInvalid"),
        ] {
            assert_eq!(judged(&headers, None, NOW), Err(told));
        }
        for bit in 0..256 {
            let mut altered = challenge;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(judged(&signed(&device, &altered, "GET", "/p"), None, NOW), Err("ProofRequired"), "bit {bit}");
        }
    }

    #[test]
    fn no_moment_overflows() {
        for at in [i64::MIN, 0, i64::MAX] {
            let challenge = proofs().challenge(DeviceId([1; 16]), at);
            for now in [i64::MIN, 0, i64::MAX] {
                assert_eq!(proofs().is_good(DeviceId([1; 16]), &challenge, now), at == now);
            }
        }
    }
}
