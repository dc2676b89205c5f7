//! A time reset: the root's word that the time floor of some devices is wrong, and what time it is.
//!
//! The way back when the floor was raised far ahead. It may do what nothing else may, so the threshold of the root's own
//! role signs it, and each works once. Its container is not that of a bundle: a bundle has a chain, a manifest with an
//! order of its own and entries, and a reset has none of them. The file's ending is a bundle's all the same, so that it
//! comes by the same ways, and through the same importer and [`super::verify`].
//!
//! ```text
//! off  size  field                                       (big-endian)
//! 0    8     magic 89 54 47 54 0D 0A 1A 0A               "\x89TGT\r\n\x1a\n"
//! 8    2     format = 1
//! 10   4     doc_len      1..65536
//! 14   …     document     canonical JSON
//! …    …     sig block    as a bundle's, over PAE("application/vnd.tidegate.time-reset.v1+json", the document); to the end
//!
//! document: at · author {reason,tool,who} · deployment · epoch · seq ·
//!           target {"all":true | "devices":[] | "labels":{k:[v]}} · type "time-reset" · undoes
//! ```

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::canonical;
use super::container::{FORMAT, MAX_SIGNATURES, Signature, signature_block, take_signatures};
use super::error::{Refused, plain};
use super::manifest::{Author, LAST_SECOND, Target, TargetForm, is_name};
use super::pack::{self, PackError};
use super::root::{Role, RootDocument, Signers};
use super::verify::{Findings, Judge};
use crate::clock::Reading;
use crate::ids::Digest;
use crate::keys::{SigningKey, sha256};
use crate::store::time::{Reset, ResetRefused, TimeFile};
use crate::units::UnixSeconds;

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"\x89TGT\r\n\x1a\n";
/// The media type that its signatures are over.
pub const MEDIA_TYPE: &str = "application/vnd.tidegate.time-reset.v1+json";
/// Most bytes of its document: a thousand devices fit.
pub const MAX_DOCUMENT: u32 = 65_536;
/// Most bytes of the whole.
pub const MAX_FILE: u64 = HEAD as u64 + MAX_DOCUMENT as u64 + 1 + 96 * MAX_SIGNATURES as u64;

const HEAD: usize = 14;
/// So many bytes are the same in a bundle's magic.
const SHARED: usize = 3;

/// A reset whose form is right; that says nothing about who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeReset {
    /// What time it is.
    pub at: UnixSeconds,
    /// Who makes it, and why.
    pub author: Author,
    /// Which deployment it is for.
    pub deployment: String,
    /// The root's generation that it counts in.
    pub epoch: u64,
    /// Its place in the order; at least 1.
    pub seq: u64,
    /// For which devices.
    pub target: Target,
    /// The least floor that it takes back; after `at`. A device whose floor is earlier has no need of it, and whoever keeps
    /// it must not wind that one's clock back years later.
    pub undoes: UnixSeconds,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    at: UnixSeconds,
    author: Author,
    deployment: String,
    epoch: u64,
    seq: u64,
    target: TargetForm,
    #[serde(rename = "type")]
    kind: String,
    undoes: UnixSeconds,
}

impl TimeReset {
    /// 12 and 17: sets the floor of `time`, which holds the number of the last reset too.
    pub fn apply(&self, time: &TimeFile, reading: &Reading) -> Result<(), Refused> {
        let Self { at, undoes, seq, .. } = *self;
        match time.reset(Reset { at, undoes, seq }, reading) {
            Ok(written) => written.map_err(|error| Refused::StateLost(format!("writing the time floor: {error}"))),
            Err(ResetRefused::Used(last)) => {
                Err(Refused::Rollback(format!("time reset {seq}; reset {last} was taken")))
            }
            Err(ResetRefused::NotReached(floor)) => self.is_needed_at(floor),
        }
    }

    /// Whether a device with that floor has need of it.
    pub fn is_needed_at(&self, floor: UnixSeconds) -> Result<(), Refused> {
        if floor >= self.undoes {
            return Ok(());
        }
        let detail = format!("it takes back a floor of {} or later; the device's is {floor}", self.undoes);
        Err(Refused::ResetNotApplicable(detail))
    }

    /// The unsigned file; what no device would take is refused here.
    pub fn assemble(&self) -> Result<Vec<u8>, Refused> {
        let form = Form {
            at: self.at,
            author: self.author.clone(),
            deployment: self.deployment.clone(),
            epoch: self.epoch,
            seq: self.seq,
            target: TargetForm::from(&self.target),
            kind: "time-reset".into(),
            undoes: self.undoes,
        };
        let document = canonical::write(&form).map_err(|error| Refused::ManifestSchema(error.to_string()))?;
        if Self::parse(&document)?.target.is_empty() {
            return Err(Refused::TargetEmpty("the target names no device".into()));
        }
        let parts = Parts { document, signatures: Vec::new() };
        Ok(parts.to_bytes())
    }

    /// Reads what the file says, and who of the root signed it; the file is not judged.
    pub fn inspect(file: &[u8], root: &RootDocument) -> Result<(Self, Signers), Refused> {
        let parts = Parts::read(&mut &*file, file.len() as u64)?;
        Ok((Self::parse(&parts.document)?, parts.signers(root)?))
    }

    /// The same of a file whose threshold of `root` signed it, and its digest.
    pub(super) fn signed(file: &[u8], root: &RootDocument) -> Result<(Self, Digest), Refused> {
        let parts = Parts::read(&mut &*file, file.len() as u64)?;
        parts.signers(root)?.meet(Role::Root)?;
        Ok((Self::parse(&parts.document)?, sha256(&parts.document)))
    }

    /// Step 8: canonical JSON, schema, type.
    fn parse(document: &[u8]) -> Result<Self, Refused> {
        let value = canonical::read(document).map_err(|error| Refused::ManifestNotCanonical(error.to_string()))?;
        let form: Form = canonical::typed(value).map_err(|error| Refused::ManifestSchema(plain(&error)))?;
        if form.kind != "time-reset" {
            return Err(Refused::TypeMismatch(format!("the document says {:?}", plain(&form.kind))));
        }
        let target = form.check().map_err(Refused::ManifestSchema)?;
        let Form { at, author, deployment, epoch, seq, undoes, .. } = form;
        Ok(Self { at, author, deployment, epoch, seq, target, undoes })
    }
}

impl Form {
    fn check(&self) -> Result<Target, String> {
        if !is_name(&self.deployment) {
            return Err("deployment is not a name".into());
        }
        self.author.check()?;
        if self.seq == 0 {
            return Err("seq is 0; the first is 1".into());
        }
        if !(0..=LAST_SECOND).contains(&self.at) {
            return Err("at is not between 1970 and 9999".into());
        }
        if !(self.at + 1..=LAST_SECOND).contains(&self.undoes) {
            return Err("undoes is not between at and 9999: it takes nothing back".into());
        }
        self.target.check()
    }
}

/// What the reset in `file` is called: SHA-256 of its document.
pub fn digest(file: &[u8]) -> Result<Digest, Refused> {
    Ok(sha256(&Parts::read(&mut &*file, file.len() as u64)?.document))
}

/// `file` with one more signature, its key ids still ascending.
pub fn sign(file: &[u8], root: &RootDocument, key: &SigningKey) -> Result<Vec<u8>, PackError> {
    let mut parts = Parts::read(&mut &*file, file.len() as u64)?;
    let id = key.public().id();
    if !root.role_keys(Role::Root).any(|candidate| candidate.id() == id) {
        return Err(PackError::NotInRole(id, Role::Root));
    }
    // The signer must not be made to sign what no device would read.
    TimeReset::parse(&parts.document)?;
    let bytes = key.sign(MEDIA_TYPE, &parts.document);
    pack::add(&mut parts.signatures, Signature { key: id, bytes })?;
    Ok(parts.to_bytes())
}

/// Whether a file that begins like this is meant to be a reset. What both magics share is a bundle that was cut off.
pub(super) fn is_next(from: &mut dyn Read) -> io::Result<bool> {
    let mut first = Vec::with_capacity(MAGIC.len());
    from.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    Ok(first.len() > SHARED && MAGIC.starts_with(&first))
}

/// Judges the reset in `from`, which is `length` bytes long, by the steps that it shares with bundles. The order (12), and
/// whether there is anything to take back, is judged where the number of the last one is kept, with the floor.
pub(super) fn verify(
    from: &mut dyn Read,
    length: u64,
    by: &Judge<'_>,
    found: &mut Findings,
) -> Result<TimeReset, Refused> {
    // 1 to 5
    let parts = Parts::read(from, length)?;
    found.digest = Some(sha256(&parts.document));
    // 6 it brings no root; a device that lost its own can tell nobody's signature
    let root = &by.trust.root;
    if let Some(lost) = by.trust.lost {
        return Err(Refused::StateLost(format!("root version {}, which this device had, is lost", lost.version)));
    }
    // 7 count distinct role keys with good signatures, before parsing
    let counted = parts.signers(root)?;
    found.signers.clone_from(&counted.keys);
    counted.meet(Role::Root)?;
    // 8 canonical JSON, schema, type
    let reset = TimeReset::parse(&parts.document)?;
    found.author = Some(reset.author.clone());
    found.seq = Some(reset.seq);
    // 9 it raises no floor; 10 deployment, epoch, target
    let TimeReset { deployment, epoch, target, .. } = &reset;
    Address { deployment, root_version: 0, epoch: *epoch, target, exact: false }.reaches(by)?;
    Ok(reset)
}

/// The file, taken apart.
struct Parts {
    document: Vec<u8>,
    signatures: Vec<Signature>,
}

impl Parts {
    /// 1 preamble · 2 section limits · 3 signature block · 4 exact file length.
    fn read(from: &mut dyn Read, length: u64) -> Result<Self, Refused> {
        if length > MAX_FILE {
            return Err(Refused::SectionTooLarge(format!("{length} bytes; a time reset has at most {MAX_FILE}")));
        }
        let mut bytes = Vec::new();
        let unread = |error: io::Error| Refused::SourceIo(format!("reading the time reset: {error}"));
        from.take(MAX_FILE).read_to_end(&mut bytes).map_err(unread)?;
        let cut = || Refused::Truncated(format!("it ends after {} bytes", bytes.len()));
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        if *magic != MAGIC {
            return Err(Refused::BadMagic("the first bytes are not those of a time reset".into()));
        }
        let (format, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        if u16::from_be_bytes(*format) != FORMAT {
            let detail = format!("format {}; this version reads format {FORMAT}", u16::from_be_bytes(*format));
            return Err(Refused::UnsupportedFormat(detail));
        }
        let (doc_len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let doc_len = u32::from_be_bytes(*doc_len);
        if !(1..=MAX_DOCUMENT).contains(&doc_len) {
            let detail = format!("doc_len is {doc_len}; the limits are 1 to {MAX_DOCUMENT}");
            return Err(Refused::SectionTooLarge(detail));
        }
        let (document, block) = rest.split_at_checked(doc_len as usize).ok_or_else(cut)?;
        let whole = block.first().map(|count| 1 + 96 * usize::from(*count)).ok_or_else(cut)?;
        if block.len() < whole {
            return Err(cut());
        }
        let (signatures, after) = take_signatures(block)?;
        if !after.is_empty() {
            return Err(Refused::TrailingData(format!("{} bytes after the signatures", after.len())));
        }
        Ok(Self { document: document.to_vec(), signatures })
    }

    fn signers(&self, root: &RootDocument) -> Result<Signers, Refused> {
        root.signers(Role::Root, MEDIA_TYPE, &self.document, &self.signatures)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let doc_len = u32::try_from(self.document.len()).unwrap_or(u32::MAX);
        [&MAGIC[..], &FORMAT.to_be_bytes(), &doc_len.to_be_bytes(), &self.document, &signature_block(&self.signatures)]
            .concat()
    }
}
