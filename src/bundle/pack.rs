//! The author's side: a draft becomes an unsigned bundle, which goes from signer to signer.
//!
//! The unfinished file is itself a bundle of format 1 with fewer signatures than the root asks for, so
//! that it can be inspected at every stage and no second format exists. Signing changes nothing but
//! the signature block: every signer signs the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::canonical;
use super::container::{BundleType, Head, MAX_SIGNATURES, Preamble, Signature, signature_block};
use super::error::Refused;
use super::manifest::{Author, EntryForm, EntryKind, Form, Manifest, Permit, Target, TargetForm};
use super::root::{self, Role, RootDocument};
use super::trust::Table;
use crate::ids::{Digest, KeyId};
use crate::keys::{SigningKey, sha256};
use crate::units::UnixSeconds;

/// A bundle before it has bytes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Who makes it, and why.
    pub author: Author,
    /// For which devices.
    pub target: Target,
    /// Its place in the order; at least 1.
    pub seq: u64,
    /// Below this sequence number nothing is taken after it.
    pub security_floor: u64,
    /// When it is made.
    pub issued_at: UnixSeconds,
    /// Until when it may be installed.
    pub expires_at: Option<UnixSeconds>,
    /// The bundle that a device must serve to take this one; only a policy may have it.
    pub base: Option<Digest>,
    /// What its reader must be able to do, beyond format 1.
    pub requires: Vec<String>,
    /// The parts, each with a name for people.
    pub entries: BTreeMap<EntryKind, (String, Vec<u8>)>,
}

/// A bundle that could not be made or signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// No device would take it: the source says why.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The key has no part in the role that signs this type: sign with another.
    #[error("key {0} does not have the role {role}", role = .1.name())]
    NotInRole(KeyId, Role),
    /// This key has signed already: pass the file on.
    #[error("key {0} has signed already")]
    SignedAlready(KeyId),
    /// Sixteen have signed: no more fit.
    #[error("there are {MAX_SIGNATURES} signatures already")]
    Full,
    /// The two roots together ask for more signatures than a block holds: keep more holders, or lower a threshold and
    /// raise it again with the root after.
    #[error("the old root and the new one together want {0} signatures; {MAX_SIGNATURES} fit")]
    ThresholdsTooHigh(usize),
}

impl Draft {
    /// The unsigned policy bundle, for the deployment, epoch and version of `root`.
    pub fn assemble(&self, root: &RootDocument) -> Result<Vec<u8>, PackError> {
        self.assemble_as(BundleType::Policy, (None, None), root)
    }

    /// The unsigned list of revocations: it has that one entry, and the security floor 0.
    pub fn assemble_list(&self, root: &RootDocument) -> Result<Vec<u8>, PackError> {
        self.assemble_as(BundleType::Revocation, (None, None), root)
    }

    /// The unsigned permit: it has no entry and the security floor 0, and its target is one of exact devices.
    pub fn assemble_permit(&self, permit: Permit, root: &RootDocument) -> Result<Vec<u8>, PackError> {
        if !matches!(self.target, Target::Devices(_)) {
            return Err(Refused::PermitForbidden("the target is not one of exact devices".into()).into());
        }
        self.assemble_as(BundleType::Permit, (Some(permit), None), root)
    }

    /// The unsigned release of that version: its entries are packages.
    pub fn assemble_release(&self, version: &str, root: &RootDocument) -> Result<Vec<u8>, PackError> {
        self.assemble_as(BundleType::Release, (None, Some(version.to_owned())), root)
    }

    fn assemble_as(
        &self,
        bundle_type: BundleType,
        (permit, version): (Option<Permit>, Option<String>),
        root: &RootDocument,
    ) -> Result<Vec<u8>, PackError> {
        let mut payload = Vec::new();
        let mut entries = Vec::with_capacity(self.entries.len());
        for (kind, (name, blob)) in &self.entries {
            let len = blob.len() as u64;
            entries.push(EntryForm { kind: kind.name().into(), len, name: name.clone(), sha256: sha256(blob) });
            payload.extend_from_slice(blob);
        }
        let form = Form {
            author: self.author.clone(),
            base: self.base,
            deployment: root.deployment().into(),
            entries,
            epoch: root.epoch(),
            expires_at: self.expires_at,
            issued_at: self.issued_at,
            permit,
            requires: self.requires.clone(),
            root_version: root.version(),
            security_floor: self.security_floor,
            seq: self.seq,
            target: TargetForm::from(&self.target),
            kind: bundle_type.name().into(),
            version,
        };
        let bytes = canonical::write(&form).map_err(|error| Refused::ManifestSchema(error.to_string()))?;
        // What no device could read is refused at the desk.
        let manifest = Manifest::parse(&bytes, bundle_type)?;
        manifest.entries(payload.len() as u64)?;
        if manifest.target.is_empty() {
            return Err(Refused::TargetEmpty("the target names no device".into()).into());
        }
        let has_floor = matches!(bundle_type, BundleType::Policy | BundleType::Release);
        let highest_floor = if has_floor { self.seq } else { 0 };
        if self.security_floor > highest_floor {
            let detail = format!("security floor {}; the bundle's own sequence is {}", self.security_floor, self.seq);
            return Err(Refused::SecurityFloorInvalid(detail).into());
        }
        Ok(lay(bundle_type, &[], &bytes, &[], &payload)?)
    }
}

/// The file of a bundle from its sections. For an author's tools and tests; it vouches for nothing.
pub fn lay(
    bundle_type: BundleType,
    trust: &[u8],
    manifest: &[u8],
    signatures: &[Signature],
    payload: &[u8],
) -> Result<Vec<u8>, Refused> {
    let preamble = Preamble::new(bundle_type, trust.len(), manifest.len(), signatures.len(), payload.len() as u64)?;
    Ok([&preamble.to_bytes(), trust, manifest, &signature_block(signatures), payload].concat())
}

/// The signature of a holder of the role `root`, in the old root or in `root` itself, for [`link`]. `succession` asks
/// whether it counts.
#[must_use]
pub fn sign_root(root: &RootDocument, key: &SigningKey) -> Signature {
    Signature { key: key.public().id(), bytes: key.sign(root::MEDIA_TYPE, root.bytes()) }
}

/// A link of a trust chain, for [`with_chain`].
pub fn link(root: &RootDocument, mut signatures: Vec<Signature>) -> Result<Vec<u8>, PackError> {
    signatures.sort_unstable_by_key(|signature| signature.key);
    signatures.dedup_by_key(|signature| signature.key);
    if signatures.len() > usize::from(MAX_SIGNATURES) {
        return Err(PackError::Full);
    }
    let length = u32::try_from(root.bytes().len()).expect("a root document is at most 16 KiB");
    Ok([&length.to_be_bytes(), root.bytes(), &signature_block(&signatures)].concat())
}

/// `bundle` with these links as its chain, oldest first. The chain is no part of its identity.
pub fn with_chain(bundle: &[u8], links: &[Vec<u8>]) -> Result<Vec<u8>, PackError> {
    let head = head(bundle)?;
    let payload = bundle.get(head.bytes().len()..).unwrap_or_default();
    Ok(lay(head.preamble().bundle_type, &links.concat(), head.manifest(), &head.signatures()?, payload)?)
}

/// The head of a bundle that an author holds whole in memory.
pub fn head(bundle: &[u8]) -> Result<Head, Refused> {
    Head::read(&mut &*bundle, bundle.len() as u64)
}

/// Whether a device that has the list of revocations `before` would miss anything in `list`: `RevocationShrunk` says what,
/// by the device's own comparison. What counts no more when `list` is made may be left out.
pub fn check_list(before: &[u8], list: &[u8]) -> Result<(), Refused> {
    let [(before, old), (manifest, Held(blob))] = [table(before)?, table(list)?];
    // A new epoch is the way back from a list that took too much.
    let old = (before.epoch() == manifest.epoch()).then_some(&old as &dyn Table);
    // A device that has the one knows when it was made, and learns it of the other.
    let lower = before.issued_at().max(manifest.issued_at());
    super::list::read(blob.as_slice(), blob.len() as u64, old, lower).map(drop)
}

/// A list's manifest, and its table.
fn table(list: &[u8]) -> Result<(Manifest, Held), Refused> {
    let head = head(list)?;
    let manifest = Manifest::parse(head.manifest(), BundleType::Revocation)?;
    Ok((manifest, Held(list.get(head.bytes().len()..).unwrap_or_default().to_vec())))
}

/// The table of a list in memory.
#[derive(Debug)]
struct Held(Vec<u8>);

impl Table for Held {
    fn read(&self) -> io::Result<(Box<dyn Read + Send>, u64)> {
        Ok((Box::new(io::Cursor::new(self.0.clone())), self.0.len() as u64))
    }
}

/// What `bundle` is called: SHA-256 of its manifest. A signer reads it to the others before signing.
pub fn digest(bundle: &[u8]) -> Result<Digest, Refused> {
    Ok(sha256(head(bundle)?.manifest()))
}

/// `bundle` with one more signature, its key ids still ascending.
pub fn sign(bundle: &[u8], root: &RootDocument, key: &SigningKey) -> Result<Vec<u8>, PackError> {
    let head = head(bundle)?;
    let bundle_type = head.preamble().bundle_type;
    let role = Role::of(bundle_type);
    let id = key.public().id();
    if !root.role_keys(role).any(|candidate| candidate.id() == id) {
        return Err(PackError::NotInRole(id, role));
    }
    // The signer must not be made to sign what no device would read.
    Manifest::parse(head.manifest(), bundle_type)?;
    let mut signatures = head.signatures()?;
    add(&mut signatures, Signature { key: id, bytes: key.sign(bundle_type.media_type(), head.manifest()) })?;
    let payload = bundle.get(head.bytes().len()..).unwrap_or_default();
    Ok(lay(bundle_type, head.trust(), head.manifest(), &signatures, payload)?)
}

/// Puts a signature among the others, their key ids still ascending.
pub(super) fn add(signatures: &mut Vec<Signature>, one: Signature) -> Result<(), PackError> {
    let Err(at) = signatures.binary_search_by_key(&one.key, |signature| signature.key) else {
        return Err(PackError::SignedAlready(one.key));
    };
    if signatures.len() >= usize::from(MAX_SIGNATURES) {
        return Err(PackError::Full);
    }
    signatures.insert(at, one);
    Ok(())
}

/// Who of the role has signed, and how many are needed; a wrong signature is an error.
pub fn signers(bundle: &[u8], root: &RootDocument) -> Result<super::root::Signers, Refused> {
    let head = head(bundle)?;
    let bundle_type = head.preamble().bundle_type;
    root.signers(Role::of(bundle_type), bundle_type.media_type(), head.manifest(), &head.signatures()?)
}
