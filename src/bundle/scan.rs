//! What a folder holds for a device, by the heads of its files: which are worth offering, and in which order.
//!
//! A stick is anybody's, and a copy of each of its files into the device would wear out its flash; so only what the
//! root vouches for is offered, judged by heads of at most 386 KiB. This decides nothing else: what is offered goes
//! through the importer as if nobody had looked. Blocking; nothing is written, no link is followed and no folder gone
//! into.
//!
//! ```text
//! order   time resets by the root that the device has · what brings the newest root · other time resets · enrolments ·
//!         lists of revocations · permits · policies · releases · leave to take usage along; of each kind the highest
//!         sequence number first, of such leave the one that ends last
//! ```
//!
//! Memory held: one head at a time. A head is read again when it is judged, for anybody can fill a stick with heads.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::address::is_of;
use super::container::{self, BundleType, Head, MAX_LINK};
use super::document::{self, Document, DocumentKind, MAX_DOCUMENT};
use super::enrolment::Enrolment;
use super::error::Refused;
use super::inbox::{MAX_CANDIDATES, is_candidate};
use super::manifest::{Manifest, Target};
use super::reset::{self, TimeReset};
use super::root::{Role, RootDocument};
use super::staging::open_regular;
use super::trust::{Rotated, follow};
use super::usage_note::UsageNote;
use crate::disk::{Disk, Machine};
use crate::ids::{DeviceId, Digest};
use crate::keys::sha256;

/// What a file is. In the order in which they are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A time reset: while the floor is wrong, the rest may be refused for it.
    TimeReset,
    /// Labels.
    Enrolment,
    /// A list of revocations.
    Revocation,
    /// A permit.
    Permit,
    /// A policy.
    Policy,
    /// A release of the daemon.
    Release,
    /// Leave to take usage along.
    UsageNote,
}

/// A file that is worth offering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its place in the order of its kind.
    pub seq: u64,
    /// Its identity.
    pub digest: Digest,
    /// Whether its chain leads to the newest root of all that is there, which the device does not have.
    pub brings_root: bool,
    /// The bundle that it gives leave to; of a permit only.
    pub permits: Option<Digest>,
}

/// What a folder holds.
#[derive(Debug)]
pub struct Scan {
    /// What is worth offering, in order.
    pub candidates: Vec<Candidate>,
    /// The others, and why.
    pub refused: Vec<(PathBuf, Refused)>,
}

/// The newest root that a device has: the pinned one, or what its state folder leads to from there. Where that cannot
/// be read, the pinned one.
#[must_use]
pub fn known_root(pinned: &RootDocument, state: &Path) -> RootDocument {
    let mut newest = pinned.clone();
    loop {
        let next = newest.version().checked_add(1);
        let link =
            next.and_then(|version| Machine.read(&state.join("trust/roots").join(version.to_string()), MAX_LINK).ok());
        let Some(link) = link else { return newest };
        let mut followed = Vec::new();
        let ended = container::chain(&link).and_then(|chain| follow(&newest, &chain, None, &mut followed));
        match (ended, followed.pop()) {
            (Ok(()), Some(Rotated { root, .. })) => newest = root,
            _ => return newest,
        }
    }
}

/// Looks through `folder` for a device that has `root` and, if that is known, the id `device`. `TooManyCandidates` where
/// it holds more than 256 bundles and documents.
pub fn scan(folder: &Path, root: &RootDocument, device: Option<DeviceId>) -> Result<Scan, Refused> {
    let unread = |error: io::Error| Refused::SourceIo(format!("reading the folder: {error}"));
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let name = entry.map_err(unread)?.file_name();
        if is_candidate(&name) {
            names.push(name);
        }
        if names.len() > MAX_CANDIDATES {
            let detail = format!("more than {MAX_CANDIDATES} bundles in the folder");
            return Err(Refused::TooManyCandidates(detail));
        }
    }
    names.sort_unstable();
    let paths: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();

    // The newest root that the chains lead to, each from where the others have come.
    let mut newest = root.clone();
    let claims = paths.iter().filter_map(|path| Some((path, Content::read(path).ok()?.claims()?)));
    let claims: Vec<(&PathBuf, u64)> = claims.collect();
    loop {
        let further = claims.iter().filter(|(_, version)| *version > newest.version());
        let led = further.filter_map(|(path, _)| Content::read(path).ok()?.leads_to(&newest));
        match led.max_by_key(RootDocument::version) {
            Some(next) => newest = next,
            None => break,
        }
    }
    let (mut candidates, mut refused) = (Vec::new(), Vec::new());
    for path in paths {
        let content = Content::read(&path);
        // What usage is sealed to is for whoever takes it along.
        if matches!(&content, Ok(Content::Document(document)) if document.kind() == DocumentKind::UsageKey) {
            continue;
        }
        let judged = content.and_then(|content| {
            let found = content.judge(&newest, device)?;
            let brings_root = newest.version() > root.version() && content.holds(&newest);
            let is_first = brings_root || (found.kind == Kind::TimeReset && content.judge(root, device).is_ok());
            Ok((found, brings_root, is_first))
        });
        match judged {
            Ok((Found { kind, seq, digest, permits }, brings_root, is_first)) => {
                candidates.push((is_first, Candidate { path, kind, seq, digest, brings_root, permits }));
            }
            Err(why) => refused.push((path, why)),
        }
    }
    candidates.sort_by_key(|(is_first, candidate)| (!is_first, candidate.kind, Reverse(candidate.seq)));
    let candidates = candidates.into_iter().map(|(_, candidate)| candidate).collect();
    Ok(Scan { candidates, refused })
}

/// A file's head; of a time reset, all of it.
enum Content {
    Bundle(Box<Head>),
    Document(Document),
    Reset(Vec<u8>),
}

struct Found {
    kind: Kind,
    seq: u64,
    digest: Digest,
    permits: Option<Digest>,
}

impl Content {
    fn read(path: &Path) -> Result<Self, Refused> {
        let unread = |error: io::Error| Refused::SourceIo(format!("reading the source: {error}"));
        let mut file = open_regular(path)?.file;
        let length = file.metadata().map_err(unread)?.len();
        let mut start = Vec::new();
        (&file).take(MAX_DOCUMENT + 1).read_to_end(&mut start).map_err(unread)?;
        if start.starts_with(document::MAGIC) {
            return Document::parse(&start).map(Self::Document);
        }
        file.seek(SeekFrom::Start(0)).map_err(unread)?;
        if reset::is_next(&mut &*start).map_err(unread)? {
            start.clear();
            file.take(reset::MAX_FILE + 1).read_to_end(&mut start).map_err(unread)?;
            return Ok(Self::Reset(start));
        }
        Head::read(&mut file, length).map(|head| Self::Bundle(Box::new(head)))
    }

    /// The newest root that its chain is said to hold; nobody has vouched for it.
    fn claims(&self) -> Option<u64> {
        let Self::Bundle(head) = self else { return None };
        let versions = head.chain().ok()?.into_iter().filter_map(|link| RootDocument::parse(link.document).ok());
        versions.map(|root| root.version()).max()
    }

    /// The root that its chain leads to from `root`; links before one that is refused count.
    fn leads_to(&self, root: &RootDocument) -> Option<RootDocument> {
        let Self::Bundle(head) = self else { return None };
        let mut followed = Vec::new();
        let _ = follow(root, &head.chain().ok()?, None, &mut followed);
        followed.pop().map(|next| next.root)
    }

    /// Whether its chain holds that very root.
    fn holds(&self, root: &RootDocument) -> bool {
        let Self::Bundle(head) = self else { return false };
        head.chain().is_ok_and(|links| links.iter().any(|link| link.document == root.bytes()))
    }

    fn judge(&self, root: &RootDocument, device: Option<DeviceId>) -> Result<Found, Refused> {
        let another = |id: DeviceId| Refused::NotForThisDevice(format!("it does not name device {id}"));
        let targeted = |target: &Target| match (device, target) {
            (Some(id), Target::Devices(ids)) if !ids.contains(&id) => Err(another(id)),
            _ => Ok(()),
        };
        match self {
            Self::Reset(file) => {
                let (reset, digest) = TimeReset::signed(file, root)?;
                is_of(&reset.deployment, root)?;
                targeted(&reset.target)?;
                Ok(Found { kind: Kind::TimeReset, seq: reset.seq, digest, permits: None })
            }
            Self::Document(document) if document.kind() == DocumentKind::ExportUsage => {
                let (note, _) = UsageNote::verify(document, root)?;
                targeted(&Target::Devices(note.devices))?;
                let seq = note.expires_at.unsigned_abs();
                Ok(Found { kind: Kind::UsageNote, seq, digest: document.digest(), permits: None })
            }
            Self::Document(document) => {
                document.expect(DocumentKind::Enrolment)?;
                let enrolment = Enrolment::verify(document, root)?.enrolment;
                if let Some(id) = device.filter(|id| *id != enrolment.device) {
                    return Err(another(id));
                }
                let (kind, seq) = (Kind::Enrolment, enrolment.seq);
                Ok(Found { kind, seq, digest: document.digest(), permits: None })
            }
            Self::Bundle(head) => {
                let bundle_type = head.preamble().bundle_type;
                let role = Role::of(bundle_type);
                let (media_type, signatures) = (bundle_type.media_type(), head.signatures()?);
                root.signers(role, media_type, head.manifest(), &signatures)?.meet(role)?;
                let manifest = Manifest::parse(head.manifest(), bundle_type)?;
                is_of(manifest.deployment(), root)?;
                targeted(&manifest.target)?;
                let kind = match bundle_type {
                    BundleType::Policy => Kind::Policy,
                    BundleType::Revocation => Kind::Revocation,
                    BundleType::Permit => Kind::Permit,
                    BundleType::Release => Kind::Release,
                };
                let permits = manifest.permit().map(|permit| permit.to);
                Ok(Found { kind, seq: manifest.seq(), digest: sha256(head.manifest()), permits })
            }
        }
    }
}
