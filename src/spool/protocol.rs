//! The names of the hub's HTTP interface, as both ends write and read them.
//!
//! ```text
//! PUT /v1/usage/{device: 32 hex}/{stream: 16 hex}/{seq: decimal, from 1}
//!   Tidegate-Device-Key: 64 hex          the raw Ed25519 key, so that a hub that enrols by itself can check the id
//!   Tidegate-Signature: 128 hex          the file's last 64 bytes: with them its head is judged before its body is taken
//!   body: the usage file, with Content-Length
//! 200  body: the signed receipt (`receipt`); the same again for the same file
//!   Tidegate-Bundles: 16 hex             changes with what there is under /v1/bundles for the device
//! 403  UnknownDevice, DeviceRevoked      the device is not enrolled, or no longer
//! 409  ChainFork, PreviousMismatch       kept apart; it does not get better by sending it again
//! 400, 408, 411, 413, 422                the request or the file is at fault; 422 KeyMismatch: another device's file
//! 429  RateLimited                       later: Retry-After, in seconds, the device's own rate allows it again
//! 503  Overloaded, LedgerFailed          later: Retry-After, in seconds, each who is turned away is told another moment
//!
//! What begins with a device's id and is no usage file wants proof that the asker has that device's key: it showed the key
//! as a raw public key in the TLS handshake (RFC 7250), or, where TLS ends before the hub, it signs a challenge:
//! 401  ProofRequired, ProofInvalid
//!   Tidegate-Challenge: 64 hex           big-endian Unix seconds and 24 bytes of the hub's own; good for ten minutes
//!   then the same request again, and any other on this connection, with
//!   Tidegate-Proof: 64 hex "." 128 hex   the challenge, and the key's signature over PAE(`PROOF_TYPE`, `proof_message`)
//!
//! Any request of a device may tell what waits on it. It is a hint: a hub takes it where the request proves itself (a file
//! that it took, a proof), shows it to people, decides nothing by it, and passes over one that it cannot read.
//!   Tidegate-Backlog: files=12, bytes=34567, oldest=1764000000    see `backlog::Waits`
//!
//! GET /v1/bundles/{device: 32 hex}/{enrolment|revocation|permit|policy}
//!   Tidegate-Device-Key: 64 hex
//!   If-None-Match: "64 hex", …           what the device has of that kind, or refused
//! 200  ETag: "64 hex", the identity      body: the newest that names the device
//! 304  it has that one      404  there is none      401, 403, 503 as above
//!   body of every refusal: application/problem+json (RFC 9457); `title` is the error's name
//!
//! GET /v1/events/{device: 32 hex}
//! 200  text/event-stream; event `bundles` with data {16 hex}, what Tidegate-Bundles says, at the beginning and whenever
//!      it is another one; a comment line every 20 s. It ends when the hub drains and when the device is revoked
//! 404  the hub has no bundles      401, 403, 503 as elsewhere
//!
//! POST /v1/leases/{device: 32 hex}/{quota: [a-z0-9-], at most 64}
//!   body: JSON {"want": n}, and {"back": m, "lease": number} with what is left of a lease of this window; at most 1 KiB
//! 200  body: the signed lease (`lease`), of at most what was wanted      204  nothing was wanted
//! 404  no such quota      422  LeaseMalformed      401, 403, 503 as elsewhere, the proof in every case
//! 429  QuotaUsedUp: Retry-After, in seconds, at the latest an hour; the next window has its own
//!
//! GET /v1/time/{device: 32 hex}/{nonce: 32 hex}
//!   Tidegate-Device-Key: as above
//! 200  body: the signed time (`timestamp`), for this device and this nonce
//! 401, 403 as elsewhere
//!
//! PUT /v1/requests
//!   body: a device's signed request to be enrolled, with Content-Length, at most 32 KiB; for a person at the hub
//! 204  kept, in place of the last one of that device
//! 404  the hub keeps none      411, 413, 408 as above      422  the name by which a device would refuse it
//! 503  RequestsFull: somebody must look through them first
//! ```

use serde::{Deserialize, Serialize};

use super::backlog::Cursor;
use super::segment::SEQ_LIMIT;
use super::timestamp::Question;
use crate::ids::{DeviceId, StreamId, hex, unhex};

/// Request header with the device's raw Ed25519 key in hex.
pub const DEVICE_KEY: &str = "tidegate-device-key";
/// Request header with the signature that ends the usage file, in hex. Without it a hub has fewer places for uploads.
pub const SIGNATURE: &str = "tidegate-signature";
/// Response header of a receipt: names what the hub has for the device now, in at most [`HINT_LIMIT`] bytes. Another
/// value than before is a hint to ask.
pub const BUNDLES_HINT: &str = "tidegate-bundles";
/// Most bytes of it.
pub const HINT_LIMIT: usize = 64;
/// Response header of a 401: what the device is to sign, in hex.
pub const CHALLENGE: &str = "tidegate-challenge";
/// Request header with the answer to it: see [`proof`].
pub const PROOF: &str = "tidegate-proof";
/// Request header of a device: what waits on it, as [`Waits`](super::backlog::Waits) writes it. A hint.
pub const BACKLOG: &str = "tidegate-backlog";
/// Media type of what a device signs to prove that it has its key.
pub const PROOF_TYPE: &str = "application/vnd.tidegate.proof.v1";
/// Media type of a usage file.
pub const USAGE_TYPE: &str = "application/vnd.tidegate.usage.v1";
/// Media type of a signed receipt.
pub const RECEIPT_TYPE: &str = "application/vnd.tidegate.usage-receipt.v1";
/// Media type of the hub's signed time.
pub const TIME_TYPE: &str = "application/vnd.tidegate.time.v1+json";

/// Where a device's request to be enrolled is brought.
pub const REQUESTS: &str = "/v1/requests";
/// Media type of it.
pub const REQUEST_TYPE: &str = "application/vnd.tidegate.device-request.v1+json";

const TIME_PREFIX: &str = "/v1/time/";
/// Media type of a bundle or a signed document.
pub const BUNDLE_TYPE: &str = "application/vnd.tidegate.bundle";

const BUNDLES: &str = "/v1/bundles/";

const EVENTS: &str = "/v1/events/";
/// Media type of a stream of events (HTML, 9.2).
pub const EVENTS_TYPE: &str = "text/event-stream";
/// The event that tells the hint.
pub const BUNDLES_EVENT: &str = "bundles";

/// Where a device hears of what is new.
#[must_use]
pub fn events_path(device: DeviceId) -> String {
    format!("{EVENTS}{device}")
}

/// Reads [`events_path`].
#[must_use]
pub fn read_events_path(path: &str) -> Option<DeviceId> {
    path.strip_prefix(EVENTS)?.parse().ok()
}

/// What a device can ask the hub for. In the order in which it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleKind {
    /// Its labels.
    Enrolment,
    /// The list of revocations.
    Revocation,
    /// A permit.
    Permit,
    /// The policy.
    Policy,
}

impl BundleKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Enrolment, Self::Revocation, Self::Permit, Self::Policy];

    /// The word in the path.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enrolment => "enrolment",
            Self::Revocation => "revocation",
            Self::Permit => "permit",
            Self::Policy => "policy",
        }
    }

    /// The ending of such a file.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Enrolment => "tgd",
            Self::Revocation | Self::Permit | Self::Policy => "tgb",
        }
    }

    /// Where a device finds the newest.
    #[must_use]
    pub fn path(self, device: DeviceId) -> String {
        format!("{BUNDLES}{device}/{}", self.name())
    }
}

/// Reads [`BundleKind::path`].
#[must_use]
pub fn read_bundle_path(path: &str) -> Option<(DeviceId, BundleKind)> {
    let (device, name) = path.strip_prefix(BUNDLES)?.split_once('/')?;
    let kind = BundleKind::ALL.into_iter().find(|kind| kind.name() == name)?;
    Some((device.parse().ok()?, kind))
}

const PREFIX: &str = "/v1/usage/";

/// The path of a usage file at the hub.
#[must_use]
pub fn usage_path(device: DeviceId, at: Cursor) -> String {
    format!("{PREFIX}{device}/{}/{}", at.stream, at.seq)
}

/// Reads [`usage_path`]; only the form that it writes.
#[must_use]
pub fn read_usage_path(path: &str) -> Option<(DeviceId, Cursor)> {
    let mut parts = path.strip_prefix(PREFIX)?.split('/');
    let (device, stream, seq) = (parts.next()?, parts.next()?, parts.next()?);
    let canonical = seq.bytes().all(|digit| digit.is_ascii_digit()) && !seq.starts_with('0');
    if parts.next().is_some() || !canonical {
        return None;
    }
    let stream: StreamId = stream.parse().ok()?;
    let seq: u64 = seq.parse().ok().filter(|seq| *seq <= SEQ_LIMIT)?;
    Some((device.parse().ok()?, Cursor { stream, seq }))
}

/// The path of a question for the time at the hub.
#[must_use]
pub fn time_path(asked: &Question) -> String {
    format!("{TIME_PREFIX}{}/{}", asked.device, hex(&asked.nonce))
}

/// Reads [`time_path`]; only the form that it writes.
#[must_use]
pub fn read_time_path(path: &str) -> Option<Question> {
    let (device, nonce) = path.strip_prefix(TIME_PREFIX)?.split_once('/')?;
    Some(Question { device: device.parse().ok()?, nonce: unhex(nonce).ok()? })
}

const LEASES: &str = "/v1/leases/";
/// Media type of a signed lease.
pub const LEASE_TYPE: &str = "application/vnd.tidegate.lease.v1+json";

/// Whether a quota may be called so.
#[must_use]
pub fn is_quota_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// Where a device asks for a part of a quota.
#[must_use]
pub fn lease_path(device: DeviceId, quota: &str) -> String {
    format!("{LEASES}{device}/{quota}")
}

/// Reads [`lease_path`].
#[must_use]
pub fn read_lease_path(path: &str) -> Option<(DeviceId, &str)> {
    let (device, quota) = path.strip_prefix(LEASES)?.split_once('/')?;
    Some((device.parse().ok()?, Some(quota).filter(|quota| is_quota_name(quota))?))
}

/// What a device signs under [`PROOF_TYPE`]: challenge ‖ method ‖ " " ‖ path.
#[must_use]
pub fn proof_message(challenge: &[u8; 32], method: &str, path: &str) -> Vec<u8> {
    [challenge, method.as_bytes(), b" ", path.as_bytes()].concat()
}

/// The value of [`PROOF`].
#[must_use]
pub fn proof(challenge: &[u8; 32], signature: &[u8; 64]) -> String {
    format!("{}.{}", hex(challenge), hex(signature))
}

/// Reads [`proof`].
#[must_use]
pub fn read_proof(text: &str) -> Option<([u8; 32], [u8; 64])> {
    let (challenge, signature) = text.split_once('.')?;
    Some((unhex(challenge).ok()?, unhex(signature).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_reads_back_and_no_other_spelling_does() {
        let text = proof(&[0xa5; 32], &[7; 64]);
        assert_eq!(read_proof(&text), Some(([0xa5; 32], [7; 64])));
        let wrong = [text.to_uppercase(), format!("{text}0"), text.replace('.', ""), text[1..].into(), String::new()];
        assert!(wrong.iter().all(|wrong| read_proof(wrong).is_none()));
    }

    #[test]
    fn paths_of_events_and_leases_read_back_and_no_other_spelling_does() {
        let device = DeviceId([0xa5; 16]);
        assert_eq!(read_events_path(&events_path(device)), Some(device));
        assert_eq!(read_lease_path(&lease_path(device, "calls-2")), Some((device, "calls-2")));
        let long = "n".repeat(65);
        for quota in ["", "Calls", "a/b", "a.b", "..", "a%20", long.as_str()] {
            assert_eq!(read_lease_path(&lease_path(device, quota)), None, "{quota}");
        }
        assert_eq!(read_events_path(&format!("{}/", events_path(device))), None);
    }

    #[test]
    fn a_question_for_the_time_reads_back_and_no_other_spelling_does() {
        let asked = Question { device: DeviceId([0xa5; 16]), nonce: [7; 16] };
        let path = time_path(&asked);
        assert_eq!(read_time_path(&path), Some(asked));
        let wrong = ["/v1/time/".into(), path.to_uppercase(), format!("{path}0"), format!("{path}/"), path[1..].into()];
        assert!(wrong.iter().all(|wrong| read_time_path(wrong).is_none()));
    }

    #[test]
    fn a_path_reads_back_and_no_other_spelling_does() {
        let device = DeviceId([0xa5; 16]);
        let at = Cursor { stream: StreamId(7), seq: 120 };
        let path = usage_path(device, at);
        assert_eq!(read_usage_path(&path), Some((device, at)));
        let hex = "a5".repeat(16);
        for wrong in [
            format!("/v1/usage/{hex}/0000000000000007/0120"),
            format!("/v1/usage/{hex}/0000000000000007/+120"),
            format!("/v1/usage/{hex}/0000000000000007/"),
            format!("/v1/usage/{hex}/0000000000000007/0"),
            format!("/v1/usage/{hex}/0000000000000007/99999999999999999999"),
            format!("/v1/usage/{hex}/0000000000000007/9007199254740993"),
            format!("/v1/usage/{hex}/7/120"),
            format!("/v1/usage/{}/0000000000000007/120", hex.to_uppercase()),
            format!("{path}/"),
            format!("{path}/../1"),
            format!("//v1/usage/{hex}/0000000000000007/120"),
            "/v1/usage".into(),
            String::new(),
        ] {
            assert_eq!(read_usage_path(&wrong), None, "{wrong}");
        }
    }
}
