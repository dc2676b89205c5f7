//! A small signed document (`*.tgd`): one JSON line that people can read, and the signatures over its body.
//!
//! Receipts, requests of devices, enrolments, the hub's usage key and leave to take usage along have this form; what is larger, or has blobs, is a bundle.
//!
//! ```text
//! {"body":B,"signatures":[{"key":"K","signature":"S"},…],"type":"T"}\n
//!
//! B   canonical JSON of an object: what is signed, byte for byte
//! K   64 lower-case hex digits, the id of the key; strictly ascending; 1 to 16 of them
//! S   128 lower-case hex digits, over PAE(T, B)
//! T   the media type, which selects who may sign
//! ```
//!
//! At most 32 KiB. The frame has one byte form, and is read from its end without a parser: nothing of the body is
//! parsed before its signatures are good. The document's identity is the SHA-256 of its body. Pure.

use std::io::{self, Read, Seek, SeekFrom};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::canonical;
use super::container::Signature;
use super::error::{Refused, plain};
use super::pack::{self, PackError};
use crate::ids::{Digest, KeyId, hex, unhex};
use crate::keys::{PublicKey, SigningKey, sha256};

/// Most bytes of a whole document.
pub const MAX_DOCUMENT: u64 = 32 << 10;
/// The first bytes.
pub const MAGIC: &[u8] = br#"{"body":"#;

const SIGNATURES: &[u8] = br#","signatures":["#;
/// Bytes of one signature as it is written.
const SIGNATURE: usize = r#"{"key":"","signature":""}"#.len() + 64 + 128;

/// What a document is; bound into its signatures through the media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// A device's word on how an import ended.
    ImportReceipt,
    /// A device asks to be enrolled.
    DeviceRequest,
    /// A device's labels, by the policy or the hub role.
    Enrolment,
    /// What usage on a stick is sealed to, by the hub role.
    UsageKey,
    /// Leave to take usage along on a stick, by the policy role.
    ExportUsage,
}

impl DocumentKind {
    const ALL: [Self; 5] =
        [Self::ImportReceipt, Self::DeviceRequest, Self::Enrolment, Self::UsageKey, Self::ExportUsage];

    /// The media type that its signatures are over.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::ImportReceipt => "application/vnd.tidegate.import-receipt.v1+json",
            Self::DeviceRequest => "application/vnd.tidegate.device-request.v1+json",
            Self::Enrolment => "application/vnd.tidegate.enrolment.v1+json",
            Self::UsageKey => "application/vnd.tidegate.usage-key.v1+json",
            Self::ExportUsage => "application/vnd.tidegate.export-usage.v1+json",
        }
    }

    /// What stands after the last signature.
    fn ending(self) -> String {
        format!("],\"type\":\"{}\"}}\n", self.media_type())
    }
}

/// A document whose frame is sound; what its signatures are worth is for its reader to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    kind: DocumentKind,
    body: Vec<u8>,
    signatures: Vec<Signature>,
}

impl Document {
    /// The document that a file is, if it begins as one.
    pub fn of(file: &mut (impl Read + Seek)) -> Result<Option<Self>, Refused> {
        let unread = |error: io::Error| Refused::SourceIo(format!("reading the document: {error}"));
        file.seek(SeekFrom::Start(0)).map_err(unread)?;
        let mut bytes = Vec::new();
        let start = MAGIC.len() as u64;
        file.take(start).read_to_end(&mut bytes).map_err(unread)?;
        if bytes != MAGIC {
            return Ok(None);
        }
        // One byte more than there may be, so that a longer one is told as such.
        file.take(MAX_DOCUMENT + 1 - start).read_to_end(&mut bytes).map_err(unread)?;
        Self::parse(&bytes).map(Some)
    }

    /// The document of `body`, signed by `key`.
    pub fn sign(kind: DocumentKind, body: &impl Serialize, key: &SigningKey) -> Result<Self, Refused> {
        let body = canonical::write(body).map_err(|error| Refused::ManifestNotCanonical(error.to_string()))?;
        let signatures = vec![signature(kind, &body, key)];
        let document = Self { kind, body, signatures };
        document.check_length(document.to_bytes().len())?;
        Ok(document)
    }

    /// With one more signature; none is added where the key has signed already.
    pub fn signed_too(mut self, key: &SigningKey) -> Result<Self, Refused> {
        match pack::add(&mut self.signatures, signature(self.kind, &self.body, key)) {
            Ok(()) | Err(PackError::SignedAlready(_)) => Ok(self),
            Err(full) => Err(Refused::SigSectionMalformed(full.to_string())),
        }
    }

    /// Reads the frame.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| Refused::BadMagic("the first bytes are not those of a signed document".into()))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(too_long(bytes.len()));
        }
        let ended = |kind: DocumentKind| Some((kind, rest.strip_suffix(kind.ending().as_bytes())?));
        let Some((kind, mut rest)) = DocumentKind::ALL.into_iter().find_map(ended) else {
            if bytes.ends_with(b"}\n") {
                return Err(Refused::UnknownBundleType("a signed document of another type".into()));
            }
            return Err(Refused::Truncated("the signed document does not end as one does".into()));
        };
        let malformed = || Refused::SigSectionMalformed("the document's signatures are not in their one form".into());
        let mut signatures = Vec::new();
        let body = loop {
            let at = rest.len().checked_sub(SIGNATURE).ok_or_else(malformed)?;
            let (before, last) = rest.split_at(at);
            signatures.push(read_signature(last).ok_or_else(malformed)?);
            if let Some(body) = before.strip_suffix(SIGNATURES) {
                break body;
            }
            rest = before.strip_suffix(b",").filter(|_| signatures.len() < 16).ok_or_else(malformed)?;
        };
        signatures.reverse();
        if !signatures.is_sorted_by(|a: &Signature, b: &Signature| a.key < b.key) {
            return Err(Refused::SignersNotAscending("the key ids of the signatures do not ascend".into()));
        }
        Ok(Self { kind, body: body.to_vec(), signatures })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> DocumentKind {
        self.kind
    }

    /// The exact bytes that are signed.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// What it is called: SHA-256 of its body.
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&self.body)
    }

    /// Its signatures, ascending by key id.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The whole file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let written = |Signature { key, bytes }: &Signature| {
            format!(r#"{{"key":"{key}","signature":"{}"}}"#, hex(bytes)).into_bytes()
        };
        let signatures: Vec<_> = self.signatures.iter().map(written).collect();
        [MAGIC, &self.body, SIGNATURES, &signatures.join(&b","[..]), self.kind.ending().as_bytes()].concat()
    }

    /// `TypeMismatch` where it is of another kind.
    pub fn expect(&self, kind: DocumentKind) -> Result<(), Refused> {
        if self.kind == kind {
            return Ok(());
        }
        let (is, wanted) = (self.kind.media_type(), kind.media_type());
        Err(Refused::TypeMismatch(format!("the document is of type {is}; wanted is {wanted}")))
    }

    /// Whether `key` signed it, and nobody else.
    pub fn signed_by(&self, key: &PublicKey) -> Result<(), Refused> {
        let [signature] = &*self.signatures else {
            return Err(Refused::SigSectionMalformed(format!("{} signatures in place of one", self.signatures.len())));
        };
        if signature.key != key.id() {
            return Err(Refused::ThresholdNotMet(format!("signed by key {}; wanted is {}", signature.key, key.id())));
        }
        if !key.verifies(self.kind.media_type(), &self.body, &signature.bytes) {
            return Err(Refused::SignatureInvalid(format!("the signature of key {}", key.id())));
        }
        Ok(())
    }

    /// What the body says. Judge the signatures first.
    pub fn read<T: Serialize + DeserializeOwned>(&self) -> Result<T, Refused> {
        let value = canonical::read(&self.body).map_err(|error| Refused::ManifestNotCanonical(error.to_string()))?;
        canonical::typed(value).map_err(|error| Refused::ManifestSchema(plain(&error)))
    }

    fn check_length(&self, length: usize) -> Result<(), Refused> {
        if length as u64 > MAX_DOCUMENT { Err(too_long(length)) } else { Ok(()) }
    }
}

fn too_long(length: usize) -> Refused {
    Refused::SectionTooLarge(format!("{length} bytes; a signed document has at most {MAX_DOCUMENT}"))
}

fn signature(kind: DocumentKind, body: &[u8], key: &SigningKey) -> Signature {
    Signature { key: key.public().id(), bytes: key.sign(kind.media_type(), body) }
}

fn read_signature(bytes: &[u8]) -> Option<Signature> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (key, rest) = text.strip_prefix(r#"{"key":""#)?.split_at_checked(64)?;
    let signature = rest.strip_prefix(r#"","signature":""#)?.strip_suffix(r#""}"#)?;
    Some(Signature { key: KeyId(unhex(key).ok()?), bytes: unhex(signature).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    fn document() -> Document {
        let body = serde_json::json!({"a": "é \" \n ],\"type\":\"", "n": 1});
        Document::sign(DocumentKind::Enrolment, &body, &key(1)).expect("signed")
    }

    #[test]
    fn a_document_reads_back_and_is_one_json_object() {
        let bytes = document().to_bytes();
        assert_eq!(Document::parse(&bytes), Ok(document()));
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(value["body"]["n"], 1);
        assert_eq!(value["type"], DocumentKind::Enrolment.media_type());
        let both = document().signed_too(&key(2)).expect("room");
        assert_eq!(both.signatures().len(), 2);
        assert_eq!(Document::parse(&both.to_bytes()), Ok(both.clone()));
        assert_eq!(both.clone().signed_too(&key(2)), Ok(both));
    }

    #[test]
    fn no_altered_document_is_believed() {
        let (bytes, public) = (document().to_bytes(), key(1).public());
        let judged = |bytes: &[u8]| {
            let document = Document::parse(bytes)?;
            document.expect(DocumentKind::Enrolment)?;
            document.signed_by(&public)?;
            document.read::<serde_json::Value>()
        };
        assert!(judged(&bytes).is_ok(), "the control");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(judged(&flipped).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(judged(&bytes[..end]).is_err(), "{end}");
        }
        assert!(judged(&[&bytes[..], b"\n"].concat()).is_err());
    }

    #[test]
    fn a_signature_is_good_for_its_type_only() {
        let mut moved = document();
        moved.kind = DocumentKind::ImportReceipt;
        let moved = Document::parse(&moved.to_bytes()).expect("its frame is sound");
        assert!(matches!(moved.signed_by(&key(1).public()), Err(Refused::SignatureInvalid(_))));
        assert!(matches!(document().signed_by(&key(2).public()), Err(Refused::ThresholdNotMet(_))));
    }

    #[test]
    fn the_frame_has_limits() {
        let long = serde_json::json!({"a": "x".repeat(MAX_DOCUMENT as usize)});
        let signed = Document::sign(DocumentKind::Enrolment, &long, &key(1));
        assert!(matches!(signed, Err(Refused::SectionTooLarge(_))));
        let mut crowd = document();
        for seed in 2..=16 {
            crowd = crowd.signed_too(&key(seed)).expect("sixteen fit");
        }
        assert_eq!(Document::parse(&crowd.to_bytes()), Ok(crowd.clone()));
        assert!(crowd.clone().signed_too(&key(17)).is_err());
        crowd.signatures.push(signature(crowd.kind, &crowd.body, &key(17)));
        assert!(matches!(Document::parse(&crowd.to_bytes()), Err(Refused::SigSectionMalformed(_))));
        let mut twice = document();
        twice.signatures.push(twice.signatures[0]);
        assert!(matches!(Document::parse(&twice.to_bytes()), Err(Refused::SignersNotAscending(_))));
    }
}
