//! A candidate's whole judgement: the numbered steps of BUNDLE.md, 1 to 16, in that order.
//!
//! The daemon, the start-up check of a slot and the operator's command call the same function.
//! Nothing is taken from a bundle before the step that vouches for it; no setting turns a step off.
//! Up to step 14 memory does not grow with the payload. Only [`verify`] makes a [`Verified`].

use std::borrow::Cow;
use std::io::{self, Read, Seek, SeekFrom};

use ring::digest::{Context, SHA256};

use super::address::Address;
use super::container::{BundleType, Head};
use super::error::{Refused, SemanticProblem};
use super::list;
use super::manifest::{Author, DeviceFacts, Entries, Entry, Manifest, Permit};
use super::reset::{self, TimeReset};
use super::root::Role;
use super::trust::{Order, Rotated, Trust, plausible};
use crate::ids::{Digest, KeyId};
use crate::keys::sha256;
use crate::policy::revocations::Revocations;
use crate::units::UnixSeconds;

/// Where a bundle's bytes are: one file, or the files of a slot.
pub trait Source {
    /// Bytes of the whole bundle.
    fn length(&mut self) -> io::Result<u64>;
    /// The bundle from its first byte.
    fn head(&mut self) -> io::Result<Box<dyn Read + '_>>;
    /// The blob of an entry; `payload` is the offset of the payload in the bundle. Asked twice: to hash, and to parse.
    fn blob(&mut self, entry: &Entry, payload: u64) -> io::Result<Box<dyn Read + '_>>;
}

/// A bundle in one piece.
#[derive(Debug)]
pub struct Whole<R>(pub R);

impl<R: Read + Seek> Source for Whole<R> {
    fn length(&mut self) -> io::Result<u64> {
        self.0.seek(SeekFrom::End(0))
    }

    fn head(&mut self) -> io::Result<Box<dyn Read + '_>> {
        self.0.seek(SeekFrom::Start(0))?;
        Ok(Box::new(&mut self.0))
    }

    fn blob(&mut self, entry: &Entry, payload: u64) -> io::Result<Box<dyn Read + '_>> {
        self.0.seek(SeekFrom::Start(payload.saturating_add(entry.offset)))?;
        Ok(Box::new((&mut self.0).take(entry.len)))
    }
}

/// What a bundle is judged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be installed: all steps.
    Install,
    /// To be served again after a start, by the root under which it was accepted: whether it was soon, late or newer
    /// enough was judged when it was installed, and neither age nor a new root takes a policy out of service. Steps
    /// 6, 9, 11 and 12 are left out.
    Serve,
}

/// What a bundle is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The root and the history.
    pub trust: &'a Trust,
    /// The least that the time can be, by what is signed and the time elapsed since; on a device never by its wall clock.
    pub lower: UnixSeconds,
    /// Who this device is.
    pub device: &'a DeviceFacts,
    /// For what.
    pub purpose: Purpose,
}

/// What came to light on the way, kept for the journal and the time floor even if the bundle is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Roots that follow the device's, each by its own signatures.
    pub roots: Vec<Rotated>,
    /// The identity that the file claims: SHA-256 of its manifest.
    pub digest: Option<Digest>,
    /// Keys of the role whose signatures are good.
    pub signers: Vec<KeyId>,
    /// From the manifest, once the signatures vouch for it.
    pub author: Option<Author>,
    /// Likewise.
    pub seq: Option<u64>,
    /// A moment that the threshold of the role vouches for.
    pub issued_at: Option<UnixSeconds>,
}

impl Findings {
    /// The latest moment that signatures vouch for: the time floor may be raised to it.
    #[must_use]
    pub fn moment(&self) -> Option<UnixSeconds> {
        self.roots.iter().map(|next| next.root.issued_at()).chain(self.issued_at).max()
    }
}

/// A bundle that passed every step, and what its entries compile to.
#[derive(Debug)]
pub struct Verified<T> {
    digest: Digest,
    manifest: Manifest,
    signers: Vec<KeyId>,
    head: Head,
    entries: Entries,
    policy: T,
}

impl<T> Verified<T> {
    /// Its identity.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The keys that signed it, ascending.
    #[must_use]
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// All before its payload.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its entries; none of a list of revocations, which is too long to be held.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// What its entries compile to.
    #[must_use]
    pub fn policy(&self) -> &T {
        &self.policy
    }

    /// Gives up the bytes and keeps what serves.
    #[must_use]
    pub fn into_parts(self) -> (Digest, Manifest, Vec<KeyId>, T) {
        (self.digest, self.manifest, self.signers, self.policy)
    }
}

/// The end of a judgement that refused nothing.
#[derive(Debug)]
pub enum Verdict<T> {
    /// It may be activated.
    Accepted(Box<Verified<T>>),
    /// A list of revocations, which may take the place of the one before it.
    Revocations(Box<Verified<Revocations>>),
    /// Leave to go to an exact bundle, which may be kept.
    Permit(Box<Verified<Permit>>),
    /// A release of the daemon, by its table: its packages are not held.
    Release(Box<Verified<Vec<Entry>>>),
    /// The root says what time it is.
    TimeReset(Box<TimeReset>),
    /// It serves, is in force or waits already: success, and nothing to do.
    AlreadyInstalled(Digest),
}

impl<T> Verdict<T> {
    /// The manifest of what a slot may hold.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Accepted(verified) => Some(verified.manifest()),
            Self::Revocations(verified) => Some(verified.manifest()),
            Self::Permit(verified) => Some(verified.manifest()),
            Self::Release(_) | Self::TimeReset(_) | Self::AlreadyInstalled(_) => None,
        }
    }
}

/// Judges the bundle in `source`. `compile` is the seam of steps 15 and 16.
pub fn verify<T>(
    source: &mut dyn Source,
    by: &Judge<'_>,
    compile: impl FnOnce(&Entries) -> Result<T, SemanticProblem>,
    found: &mut Findings,
) -> Result<Verdict<T>, Refused> {
    let unread = |error: io::Error| Refused::SourceIo(format!("reading the bundle: {error}"));

    // 1 preamble · 2 section limits · 3 signature-section arithmetic · 4 exact file length · 5 read the head
    let length = source.length().map_err(unread)?;
    if by.purpose == Purpose::Install && reset::is_next(&mut *source.head().map_err(unread)?).map_err(unread)? {
        let reset = reset::verify(&mut *source.head().map_err(unread)?, length, by, found)?;
        return Ok(Verdict::TimeReset(Box::new(reset)));
    }
    let head = Head::read(&mut *source.head().map_err(unread)?, length)?;
    let bundle_type = head.preamble().bundle_type;
    let digest = sha256(head.manifest());
    found.digest = Some(digest);

    // 6 root chain; the newest root judges the rest
    let trust = match by.purpose {
        Purpose::Install => by.trust.follow(&head, by.lower, &mut found.roots)?,
        Purpose::Serve => Cow::Borrowed(by.trust),
    };
    let lower = found.moment().map_or(by.lower, |at| by.lower.max(at));
    let by = &Judge { trust: &trust, lower, ..*by };
    let root = &trust.root;

    // 7 count distinct role keys with good signatures, before parsing
    let role = Role::of(bundle_type);
    let counted = root.signers(role, bundle_type.media_type(), head.manifest(), &head.signatures()?)?;
    found.signers.clone_from(&counted.keys);
    let signers = counted.meet(role)?;

    // 8 canonical JSON, schema, type
    let manifest = Manifest::parse(head.manifest(), bundle_type)?;
    found.author = Some(manifest.author().clone());
    found.seq = Some(manifest.seq());

    // 9 plausible `issued_at`, then raise the time floor
    let lower = match by.purpose {
        Purpose::Install => {
            let lower = plausible(manifest.issued_at(), by.lower)?;
            found.issued_at = (manifest.deployment() == root.deployment()).then(|| manifest.issued_at());
            lower
        }
        Purpose::Serve => by.lower,
    };

    // 10 deployment, root_version, epoch, target, requires
    let address = Address {
        deployment: manifest.deployment(),
        root_version: manifest.root_version(),
        epoch: manifest.epoch(),
        target: &manifest.target,
        exact: bundle_type == BundleType::Permit,
    };
    address.reaches(by)?;
    if let Some(feature) = manifest.requires().next() {
        return Err(Refused::UnsupportedRequirement(format!("it requires {feature:?}")));
    }

    if by.purpose == Purpose::Install {
        // 11 expiry against the floor's lower bound only
        if let Some(expires_at) = manifest.expires_at().filter(|at| *at <= lower) {
            return Err(Refused::Expired(format!("expired at {expires_at}; it is at least {lower}")));
        }
        // 12 order
        if by.trust.order(&manifest, digest)? == Order::AlreadyInstalled {
            return Ok(Verdict::AlreadyInstalled(digest));
        }
    }

    // 13 entry table, Σ len = payload_len
    let table = manifest.entries(head.preamble().payload_len())?;

    // 14 stream blobs through one 64 KiB buffer, hash, compare
    let payload = head.preamble().head_len();
    let mut buffer = vec![0; 64 << 10];
    for entry in &table {
        check_blob(&mut *source.blob(entry, payload).map_err(unread)?, entry, &mut buffer, |_| ())?;
    }

    if bundle_type == BundleType::Release {
        let verified = Verified { digest, manifest, signers, head, entries: Entries::new(), policy: table };
        return Ok(Verdict::Release(Box::new(verified)));
    }

    // 15 parse every kind, cross-references, weak keys; what is parsed is hashed again as it is read
    if let (BundleType::Revocation, [entry]) = (bundle_type, &*table) {
        // A list is never held as a whole: it has no entries for the slot, which takes them from the source too.
        let before = trust.binding_list().filter(|_| by.purpose == Purpose::Install);
        let mut blob = Hashed::of(source.blob(entry, payload).map_err(unread)?, entry);
        let policy = list::read(&mut blob, entry.len, before, lower)?;
        blob.check()?;
        let verified = Verified { digest, manifest, signers, head, entries: Entries::new(), policy };
        return Ok(Verdict::Revocations(Box::new(verified)));
    }
    let mut entries = Entries::new();
    for entry in &table {
        let mut blob = Vec::with_capacity(usize::try_from(entry.len).unwrap_or(0));
        let mut from = source.blob(entry, payload).map_err(unread)?;
        check_blob(&mut *from, entry, &mut buffer, |part| blob.extend_from_slice(part))?;
        entries.insert(entry.kind, blob);
    }
    if let Some(policy) = manifest.permit() {
        return Ok(Verdict::Permit(Box::new(Verified { digest, manifest, signers, head, entries, policy })));
    }
    // 16 run the bundle's own probes against the candidate policy: behind the seam too, after it has made one
    let policy = compile(&entries)?;
    Ok(Verdict::Accepted(Box::new(Verified { digest, manifest, signers, head, entries, policy })))
}

/// Reads a blob to its end; its length and digest must be the entry's.
fn check_blob(
    from: &mut dyn Read,
    entry: &Entry,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8]),
) -> Result<(), Refused> {
    let mut hash = Context::new(&SHA256);
    let mut left = entry.len;
    loop {
        let part = match from.read(buffer) {
            Ok(0) => break,
            Ok(n) => &buffer[..n],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Refused::SourceIo(format!("reading entry {}: {error}", entry.kind))),
        };
        left = left.checked_sub(part.len() as u64).ok_or_else(|| mismatch(entry))?;
        hash.update(part);
        each(part);
    }
    if left > 0 || hash.finish().as_ref() != entry.sha256.0 {
        return Err(mismatch(entry));
    }
    Ok(())
}

/// A blob that is hashed as it is read.
pub(super) struct Hashed<'e, R> {
    from: R,
    entry: &'e Entry,
    hash: Context,
    read: u64,
}

impl<'e, R: Read> Hashed<'e, R> {
    pub(super) fn of(from: R, entry: &'e Entry) -> Self {
        Self { from, entry, hash: Context::new(&SHA256), read: 0 }
    }

    /// Whether it was the entry, all of it and nothing else.
    pub(super) fn check(mut self) -> Result<(), Refused> {
        let unread = |error| Refused::SourceIo(format!("reading entry {}: {error}", self.entry.kind));
        let more = self.from.read(&mut [0]).map_err(unread)?;
        let whole = more == 0 && self.read == self.entry.len && self.hash.finish().as_ref() == self.entry.sha256.0;
        if whole { Ok(()) } else { Err(mismatch(self.entry)) }
    }
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        self.read = self.read.saturating_add(n as u64);
        Ok(n)
    }
}

fn mismatch(entry: &Entry) -> Refused {
    Refused::EntryDigestMismatch(format!("the bytes of {} are not those that were signed", entry.kind))
}
