//! Checks usage files and receipts without the device: form, signature where a key is known, and the chain from file to file.
//!
//! Pure: the caller reads. What a sealed file holds is for the hub to see; of it only the form is told.

use std::collections::BTreeMap;

use serde::Serialize;

use super::seal;
use crate::ids::{DeviceId, StreamId};
use crate::keys::{PublicKey, sha256};
use crate::spool::chain::{self, Known, Link, Verdict};
use crate::spool::receipt::Receipt;
use crate::spool::segment::Unverified;

/// What was found of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judged {
    /// A usage file of sound form.
    Usage {
        /// Who made it.
        device: DeviceId,
        /// Its stream, 16 hex digits.
        stream: String,
        /// The lowest number that it stands for.
        first: u64,
        /// Its number.
        seq: u64,
        /// Whether it is a tombstone.
        tombstone: bool,
        /// Its requests.
        requests: u32,
        /// Its sums and gaps.
        others: u32,
        /// The earliest moment that it tells, in milliseconds since the Unix epoch.
        first_ms: i64,
        /// The latest.
        last_ms: i64,
        /// Whether its signature and rows were checked; they are not where its key is not known.
        signed: bool,
    },
    /// A sealed file of sound form.
    Sealed {
        /// The id of the key that it is sealed to.
        key: String,
    },
    /// A receipt.
    Receipt {
        /// Whether a hub's key that the root names signed it; not checked without a root.
        signed: bool,
    },
    /// Refused, by name.
    Bad {
        /// The error's name.
        name: String,
    },
}

impl Judged {
    /// Whether somebody should look into it.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        matches!(self, Self::Bad { .. })
    }
}

/// What is wrong between files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Whose.
    pub device: DeviceId,
    /// Of which stream, 16 hex digits.
    pub stream: String,
    /// The lowest number that is there, and the highest. Files below may have gone to the hub by another way.
    pub first: u64,
    /// The highest.
    pub last: u64,
    /// Numbers in between that are not there, as first and last of each run.
    pub holes: Vec<(u64, u64)>,
    /// Numbers of files that contradict others.
    pub forks: Vec<u64>,
}

/// Judges files one by one, and at the end how they fit together.
#[derive(Debug, Default)]
pub struct Verifier {
    /// Keys of devices.
    keys: Vec<PublicKey>,
    /// Keys of hubs; `None` where no root is given.
    hubs: Option<Vec<PublicKey>>,
    chains: BTreeMap<(DeviceId, StreamId), Vec<Link>>,
}

impl Verifier {
    /// One that believes these keys.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>, hubs: Option<Vec<PublicKey>>) -> Self {
        Self { keys, hubs, chains: BTreeMap::new() }
    }

    /// Judges a file by its bytes, whatever it is called.
    pub fn judge(&mut self, bytes: &[u8]) -> Judged {
        let bad = |name: &str| Judged::Bad { name: name.into() };
        if bytes.starts_with(b"\x89TGS") {
            return match seal::key_id(bytes) {
                Ok(key) => Judged::Sealed { key: key.to_string() },
                Err(error) => bad(error.name()),
            };
        }
        if bytes.starts_with(b"\x89TGR") {
            return match Receipt::verify(bytes, self.hubs.as_deref().unwrap_or_default()) {
                Ok(_) => Judged::Receipt { signed: true },
                Err(crate::spool::receipt::Error::KeyUnknown) if self.hubs.is_none() => {
                    Judged::Receipt { signed: false }
                }
                Err(error) => bad(super::receipts::Outcome::Refused(error).name()),
            };
        }
        let unverified = match Unverified::parse(bytes) {
            Ok(unverified) => unverified,
            Err(error) => return bad(error.name()),
        };
        let header = *unverified.claimed();
        let signed = match self.keys.iter().find(|key| key.id() == header.key) {
            Some(key) => match unverified.verify(key) {
                Ok(_) => true,
                Err(error) => return bad(error.name()),
            },
            None if self.keys.is_empty() && !unverified.is_whole() => return bad("BodyDigestMismatch"),
            None if self.keys.is_empty() => false,
            None => return bad("KeyMismatch"),
        };
        let device = header.device();
        self.chains.entry((device, header.stream)).or_default().push(Link::of(&header, sha256(bytes)));
        Judged::Usage {
            device,
            stream: header.stream.to_string(),
            first: header.first(),
            seq: header.seq,
            tombstone: header.stands_for.is_some(),
            requests: header.requests,
            others: header.others,
            first_ms: header.first_ms,
            last_ms: header.last_ms,
            signed,
        }
    }

    /// How the files that were judged fit together.
    #[must_use]
    pub fn chains(&self) -> Vec<Chain> {
        self.chains.iter().map(|((device, stream), links)| chain(*device, *stream, links.clone())).collect()
    }
}

fn chain(device: DeviceId, stream: StreamId, mut links: Vec<Link>) -> Chain {
    links.sort_by_key(|link| (link.seq, link.first));
    let (mut forks, mut held) = (Vec::new(), Vec::<Link>::new());
    let begin = links.iter().map(|link| link.first).min().unwrap_or(1);
    for link in links {
        // Those that end below all that this one touches need not be looked at: what is held ascends.
        let near = held.iter().rev().take_while(|other| other.seq.saturating_add(1) >= link.first);
        let near: Vec<Link> = near.copied().collect();
        let overlaps = |other: &&Link| other.first <= link.seq && link.first <= other.seq;
        let known = Known {
            contiguous: link.first.saturating_sub(1),
            same: near.iter().filter(overlaps).copied().collect(),
            before: near.iter().find(|other| other.seq.saturating_add(1) == link.first).map(|other| other.chain_digest),
            after_expects: None,
        };
        match chain::judge(&link, &known) {
            Verdict::ChainFork | Verdict::PreviousMismatch => forks.push(link.seq),
            Verdict::Repeat => {}
            _ => held.push(link),
        }
    }
    // Again by where each begins: a tombstone may begin before files that end before it does.
    held.sort_by_key(|link| link.first);
    let (mut next, mut holes) = (begin, Vec::new());
    for link in &held {
        if link.first > next {
            holes.push((next, link.first.saturating_sub(1)));
        }
        next = next.max(link.seq.saturating_add(1));
    }
    Chain { device, stream: stream.to_string(), first: begin, last: next.saturating_sub(1), holes, forks }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
