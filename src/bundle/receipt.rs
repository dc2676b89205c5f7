//! What stands beside a bundle after its import: the device's signed word on how it ended.
//!
//! ```text
//! NAME.result.json   a signed document of type import-receipt; its body, in canonical JSON:
//! at · boot · detail · device · digest? · file_sha256? · journal? {file,hash,length} · name · quality · result ·
//! root? · seq?
//! ```
//!
//! Whoever carries the stick back has proof of what the device did, across the air gap. `journal` says how far the
//! device's hash chain had come: a later `journal` that does not hold that hash at that place was altered.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentKind};
use super::error::Refused;
use super::journal::Position;
use crate::ids::{DeviceId, Digest};
use crate::keys::{PublicKey, SigningKey};
use crate::units::{TimeQuality, UnixSeconds};

/// The end of a receipt's name, after the name of what was imported.
pub const ENDING: &str = ".result.json";

/// The mode of a receipt. It stays the daemon's own; the group of a set-group-id inbox, those who push, reads it,
/// whatever the daemon's umask is.
const MODE: u32 = 0o640;

/// How an import ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The least that the time was.
    pub at: UnixSeconds,
    /// The boot that it happened in.
    pub boot: String,
    /// What was found, for people.
    pub detail: String,
    /// Whose word this is.
    pub device: DeviceId,
    /// The bundle's identity, as far as it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// SHA-256 of the whole file, if it could be copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_sha256: Option<Digest>,
    /// The end of the journal after the import; none where it could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Position>,
    /// The name of the file.
    pub name: String,
    /// What the time is worth.
    pub quality: TimeQuality,
    /// The name of how it ended: `Activated`, `TimeReset`, …, or that of a refusal.
    pub result: String,
    /// The version of the root that came with it and is trusted from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<u64>,
    /// Its sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

impl Receipt {
    /// Its bytes, signed by the device's key.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, Refused> {
        Ok(Document::sign(DocumentKind::ImportReceipt, self, key)?.to_bytes())
    }

    /// Reads a receipt that the device of `key` must have signed.
    pub fn verify(bytes: &[u8], key: &PublicKey) -> Result<Self, Refused> {
        let document = Document::parse(bytes)?;
        document.expect(DocumentKind::ImportReceipt)?;
        document.signed_by(key)?;
        let receipt: Self = document.read()?;
        let device = DeviceId::from(key.id());
        if receipt.device != device {
            let detail = format!("it names device {}; the key is that of {device}", receipt.device);
            return Err(Refused::NotForThisDevice(detail));
        }
        Ok(receipt)
    }

    /// Where the receipt of the file at `source` stands.
    #[must_use]
    pub fn beside(source: &Path) -> PathBuf {
        with_ending(source, ENDING)
    }

    /// Signs it and writes it beside the file at `source`, by a new file and a rename: a link of that name is replaced
    /// and never followed. A courtesy (a stick may be read-only): the journal is the record.
    pub fn put_beside(&self, source: &Path, key: &SigningKey) -> io::Result<()> {
        let bytes = self.sign(key).map_err(io::Error::other)?;
        let part = with_ending(source, ".result.part");
        let _ = std::fs::remove_file(&part);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&part)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(&bytes)?;
        std::fs::rename(&part, Self::beside(source))
    }
}

fn with_ending(source: &Path, ending: &str) -> PathBuf {
    let mut name = source.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    fn receipt() -> Receipt {
        Receipt {
            at: 1_800_000_000,
            boot: "0".repeat(32),
            detail: "in force".into(),
            device: DeviceId::from(key(1).public().id()),
            digest: Some(Digest([4; 32])),
            file_sha256: None,
            journal: Some(Position { file: 1, hash: Digest([5; 32]), length: 700 }),
            name: "a.tgb".into(),
            quality: TimeQuality::Floor,
            result: "Activated".into(),
            root: None,
            seq: Some(7),
        }
    }

    #[test]
    fn a_receipt_is_believed_of_the_device_that_it_names_and_of_no_other() {
        let bytes = receipt().sign(&key(1)).expect("signed");
        assert_eq!(Receipt::verify(&bytes, &key(1).public()), Ok(receipt()));
        assert!(matches!(Receipt::verify(&bytes, &key(2).public()), Err(Refused::ThresholdNotMet(_))));
        let borrowed = receipt().sign(&key(2)).expect("signed");
        assert!(matches!(Receipt::verify(&borrowed, &key(2).public()), Err(Refused::NotForThisDevice(_))));
    }

    #[test]
    fn no_altered_receipt_is_believed() {
        let bytes = receipt().sign(&key(1)).expect("signed");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Receipt::verify(&flipped, &key(1).public()).is_err(), "bit {bit}");
        }
    }
}
