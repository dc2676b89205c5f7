//! What devices fetch: of each kind the newest that names them, from one folder that the operator fills. Where the newest
//! policy is one that a permit leads away from, the one to which it leads.
//!
//! The simplest form: the folder is looked through again every few seconds, by heads; labels of devices are those of
//! their enrolments in the same folder. Nothing is verified here but whose word an enrolment is, where the hub was given
//! the root. Devices verify, and whoever can write the folder can at most keep newer bundles from them. A file is put in by a rename, as everywhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use http_body_util::{Either, Full};
use hyper::{HeaderMap, Response, StatusCode, header};
use tokio::sync::Semaphore;
use tracing::warn;

use super::body::{Answer, FileBody};
use super::refusal::Refusal;
use crate::bundle::container::{BundleType, Head, MAX_FILE, MAX_ROOT};
use crate::bundle::document::{Document, DocumentKind, MAX_DOCUMENT};
use crate::bundle::enrolment::{Enrolment, Labels, Signed};
use crate::bundle::manifest::{DeviceFacts, Manifest, Permit, Target};
use crate::bundle::root::{Role, RootDocument};
use crate::disk;
use crate::ids::{DeviceId, Digest};
use crate::keys::sha256;
use crate::spool::protocol::{BUNDLE_TYPE, BundleKind};

/// How old the list of the folder may be; and while another thread makes the next.
const FRESH: Duration = Duration::from_secs(2);
const STALE: Duration = Duration::from_secs(20);
/// Most bundles and documents of the folder that are looked at, in the order of their names.
const MAX_FILES: usize = 4_096;
/// Files on their way out at a time; more get 503.
const READERS: usize = 64;

/// The folder.
#[derive(Debug)]
pub(super) struct Bundles {
    folder: PathBuf,
    /// The file of the newest root.
    root: Option<PathBuf>,
    /// The last list, which everybody takes as it is.
    list: Mutex<Option<Arc<List>>>,
    /// Held by whoever makes the next.
    looking: Mutex<()>,
    readers: Arc<Semaphore>,
}

/// What is in it, as of a moment.
#[derive(Debug)]
struct List {
    at: Instant,
    /// By which enrolments are ordered.
    root: Option<RootDocument>,
    files: BTreeMap<PathBuf, Listed>,
    /// How many files were left out.
    left_out: usize,
}

/// A file, as it was when its head was read; `None` where it is nothing for devices.
#[derive(Debug, Clone)]
struct Listed {
    written: Written,
    item: Option<Arc<Item>>,
}

/// What differs in a file that another one has replaced: inode, length and time.
type Written = (u64, u64, i64, i64);

/// Whose word an enrolment is, by the root that the hub was given. The least first: devices take one of the policy role
/// whatever number the hub's has. What the root does not vouch for comes last, for devices may have it from an older one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    #[default]
    Unjudged,
    Hub,
    Policy,
}

/// A file for devices.
#[derive(Debug)]
struct Item {
    path: PathBuf,
    kind: BundleKind,
    /// Whose word it is, for enrolments; epoch; number.
    place: (Word, u64, u64),
    digest: Digest,
    target: Target,
    labels: Labels,
    permit: Option<Permit>,
}

impl Bundles {
    pub(super) fn new(folder: PathBuf, root: Option<PathBuf>) -> Self {
        Self {
            folder,
            root,
            list: Mutex::default(),
            looking: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// The newest of `kind` for `device`: 200, 304 where it has that one, 404 where there is none. Where it is not
    /// `is_known` otherwise, its enrolment in the folder says that it is one of ours.
    pub(super) async fn answer(
        self: Arc<Self>,
        device: DeviceId,
        is_known: bool,
        kind: BundleKind,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let reader = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        let shelf = Arc::clone(&self);
        let found = tokio::task::spawn_blocking(move || shelf.find(device, is_known, kind, known.as_deref()));
        let (tag, file) = found.await.map_err(|_| Refusal::Overloaded)??;
        let response = Response::builder().header(header::ETAG, tag);
        let response = match file {
            None => response.status(StatusCode::NOT_MODIFIED).body(Either::Left(Full::default())),
            Some((file, length)) => response
                .header(header::CONTENT_TYPE, BUNDLE_TYPE)
                .body(Either::Right(FileBody::new(file, length, reader))),
        };
        Ok(response.expect("a digest and constants are header values"))
    }

    /// A name for what there is for `device` now; `None` where there is nothing.
    pub(super) async fn hint(self: Arc<Self>, device: DeviceId) -> Option<String> {
        let names = tokio::task::spawn_blocking(move || {
            let list = self.list();
            let facts = list.facts(device);
            let found = BundleKind::ALL.into_iter().filter_map(|kind| list.meant(kind, &facts));
            found.flat_map(|item| item.digest.0).collect::<Vec<u8>>()
        });
        let names = names.await.ok().filter(|names| !names.is_empty())?;
        sha256(&names).to_string().get(..16).map(str::to_owned)
    }

    /// The tag, and the file with its length unless the device has it.
    fn find(
        &self,
        device: DeviceId,
        is_known: bool,
        kind: BundleKind,
        known: Option<&str>,
    ) -> Result<(String, Option<(File, u64)>), Refusal> {
        let list = self.list();
        if !is_known && list.enrolment(device).is_none() {
            return Err(Refusal::UnknownDevice);
        }
        let item = list.meant(kind, &list.facts(device)).ok_or(Refusal::NotFound)?;
        let tag = format!("\"{}\"", item.digest);
        if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
            return Ok((tag, None));
        }
        // It may have been replaced since it was listed: the device judges it, and the tag is right the next time.
        let opened = File::open(&item.path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.ok().filter(|(length, _)| *length <= MAX_FILE).ok_or(Refusal::NotFound)?;
        Ok((tag, Some((file, length))))
    }

    /// One that is not old, or is being replaced by another thread right now.
    fn list(&self) -> Arc<List> {
        let last = || self.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_fresh = |list: &Arc<List>| list.at.elapsed() < FRESH;
        let old = last();
        if let Some(list) = old.as_ref().filter(|list| is_fresh(list)) {
            return Arc::clone(list);
        }
        let looking = match (self.looking.try_lock(), old) {
            (Err(TryLockError::WouldBlock), Some(old)) if old.at.elapsed() < STALE => return old,
            (Err(TryLockError::WouldBlock), _) => self.looking.lock().unwrap_or_else(PoisonError::into_inner),
            (Err(TryLockError::Poisoned(poisoned)), _) => poisoned.into_inner(),
            (Ok(looking), _) => looking,
        };
        let old = last();
        if let Some(list) = old.as_ref().filter(|list| is_fresh(list)) {
            return Arc::clone(list);
        }
        let list = Arc::new(look(&self.folder, self.root.as_deref(), old.as_deref()));
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&list));
        drop(looking);
        list
    }
}

impl List {
    /// The newest of a kind; of policies the one to which the device's newest permit leads from there.
    fn meant(&self, kind: BundleKind, facts: &DeviceFacts) -> Option<&Item> {
        let newest = self.newest(kind, facts)?;
        let permit = self.newest(BundleKind::Permit, facts).and_then(|item| item.permit);
        let permit = permit.filter(|permit| kind == BundleKind::Policy && permit.from == newest.digest);
        let led_to = permit.and_then(|Permit { to, .. }| {
            self.items().find(|item| item.kind == kind && item.digest == to && item.target.names(facts))
        });
        Some(led_to.unwrap_or(newest))
    }

    fn newest(&self, kind: BundleKind, facts: &DeviceFacts) -> Option<&Item> {
        let meant = self.items().filter(|item| item.kind == kind && item.target.names(facts));
        meant.max_by_key(|item| item.place)
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.files.values().filter_map(|listed| listed.item.as_deref())
    }

    /// The device, with the labels of its newest enrolment.
    fn facts(&self, device: DeviceId) -> DeviceFacts {
        let labels = self.enrolment(device).map(|item| item.labels.clone());
        DeviceFacts { id: device, labels: labels.unwrap_or_default() }
    }

    /// The enrolment that it would take.
    fn enrolment(&self, device: DeviceId) -> Option<&Item> {
        self.newest(BundleKind::Enrolment, &DeviceFacts { id: device, labels: Labels::new() })
    }
}

/// Looks through the folder; the heads of files that are as they were are not read again.
fn look(folder: &Path, root: Option<&Path>, last: Option<&List>) -> List {
    let root = root.and_then(|path| {
        let unread = |error: &dyn std::fmt::Display| warn!(%error, path = %path.display(), "the root cannot be read");
        let root = read_root(path).inspect_err(|error| unread(error)).ok();
        root.or_else(|| last?.root.clone())
    });
    // What was judged by another root is judged anew.
    let last = last.filter(|last| last.root == root);
    let mut list = List { at: Instant::now(), root, files: BTreeMap::new(), left_out: 0 };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            warn!(%error, folder = %folder.display(), "the folder of bundles cannot be read");
            return list;
        }
    };
    let is_meant = |path: &PathBuf| {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && path.extension().is_some_and(|ending| ending == "tgb" || ending == "tgd")
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_meant).collect();
    paths.sort_unstable();
    list.left_out = paths.len().saturating_sub(MAX_FILES);
    if list.left_out > 0 && last.is_none_or(|last| last.left_out != list.left_out) {
        warn!(
            left_out = list.left_out,
            limit = MAX_FILES,
            "the folder of bundles has too many files; move old ones out"
        );
    }
    paths.truncate(MAX_FILES);
    for path in paths {
        let Some(metadata) = fs::metadata(&path).ok().filter(fs::Metadata::is_file) else { continue };
        let written = (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        let known = last.and_then(|last| last.files.get(&path)).filter(|listed| listed.written == written);
        let listed = match known {
            Some(known) => known.clone(),
            None => match read(path.clone(), list.root.as_ref()) {
                Ok(item) => Listed { written, item: item.map(Arc::new) },
                Err(_) => continue, // perhaps it can be read the next time
            },
        };
        list.files.insert(path, listed);
    }
    list
}

/// The root document in a file.
pub(super) fn read_root(path: &Path) -> io::Result<RootDocument> {
    let bytes = disk::read_limited(path, u64::from(MAX_ROOT) + 1)?;
    RootDocument::from_file(&bytes).map_err(io::Error::other)
}

/// What a file is; `None` where it is nothing for devices.
fn read(path: PathBuf, root: Option<&RootDocument>) -> io::Result<Option<Item>> {
    let mut file = File::open(&path)?;
    let length = file.metadata()?.len();
    if path.extension().is_some_and(|ending| ending == "tgd") {
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
        let Ok(document) = Document::parse(&bytes) else { return Ok(None) };
        let Ok(enrolment) = document.read::<Enrolment>() else { return Ok(None) };
        let Enrolment { device, epoch, seq, labels, .. } = enrolment;
        let item = Item {
            path,
            kind: BundleKind::Enrolment,
            place: (root.map_or(Word::Unjudged, |root| word(&document, root)), epoch, seq),
            digest: document.digest(),
            target: Target::Devices(vec![device]),
            labels,
            permit: None,
        };
        return Ok(Some(item).filter(|_| document.kind() == DocumentKind::Enrolment));
    }
    let Ok(head) = Head::read(&mut file, length) else { return Ok(None) };
    let bundle_type = head.preamble().bundle_type;
    let kind = match bundle_type {
        BundleType::Policy => BundleKind::Policy,
        BundleType::Revocation => BundleKind::Revocation,
        BundleType::Permit => BundleKind::Permit,
        BundleType::Release => return Ok(None),
    };
    let Ok(manifest) = Manifest::parse(head.manifest(), bundle_type) else { return Ok(None) };
    let (place, digest) = ((Word::default(), manifest.epoch(), manifest.seq()), sha256(head.manifest()));
    let (permit, labels) = (manifest.permit(), Labels::new());
    Ok(Some(Item { path, kind, place, digest, target: manifest.target, labels, permit }))
}

fn word(document: &Document, root: &RootDocument) -> Word {
    match Enrolment::verify(document, root) {
        Ok(Signed { enrolment, .. }) if enrolment.epoch != root.epoch() => Word::Unjudged,
        Ok(Signed { role: Role::Policy, .. }) => Word::Policy,
        Ok(_) => Word::Hub,
        Err(_) => Word::Unjudged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::root::{RoleKeys, RootDraft};
    use crate::keys::SigningKey;

    #[test]
    fn what_is_left_out_is_counted_what_is_no_bundle_is_not_and_heads_are_read_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("written");
        for number in 0..MAX_FILES {
            put(&format!("a-{number}.tgb.result.json"), b"{}");
            put(&format!(".a-{number}.tgb"), b"");
        }
        let key = SigningKey::from_seed(&[1; 32]).expect("a key");
        let role = RoleKeys { keys: vec![0], threshold: 1 };
        let root = RootDocument::build(RootDraft {
            deployment: "harbour".into(),
            epoch: 1,
            version: 1,
            issued_at: 1,
            keys: vec![("ada".into(), key.public())],
            roles: BTreeMap::from([(Role::Root, role.clone()), (Role::Policy, role)]),
        })
        .expect("a sound root");
        let enrolment = |seq: u64| {
            let enrolment = Enrolment::new(&root, &key.public(), Labels::new(), seq, 1).expect("sound");
            Document::sign(DocumentKind::Enrolment, &enrolment, &key).expect("signed").to_bytes()
        };
        put("b.tgd", &enrolment(1));
        let first = look(folder.path(), None, None);
        assert_eq!((first.files.len(), first.items().count(), first.left_out), (1, 1, 0));

        let seqs = |list: &List| list.items().map(|item| item.place.2).collect::<Vec<_>>();
        put("c.tgd", &enrolment(2));
        let second = look(folder.path(), None, Some(&first));
        let [one, again] =
            [&first, &second].map(|list| list.files.values().next().and_then(|listed| listed.item.clone()));
        assert!(one.zip(again).is_some_and(|(one, again)| Arc::ptr_eq(&one, &again)), "its head is not read again");
        assert_eq!(seqs(&second), [1, 2]);
        put(".part", &enrolment(3));
        fs::rename(folder.path().join(".part"), folder.path().join("b.tgd")).expect("moved");
        assert_eq!(seqs(&look(folder.path(), None, Some(&second))), [3, 2], "another file");

        for number in 0..MAX_FILES {
            put(&format!("d-{number}.tgb"), b"");
        }
        let many = look(folder.path(), None, Some(&second));
        assert_eq!((many.files.len(), many.left_out, seqs(&many)), (MAX_FILES, 2, vec![3, 2]));
    }

    #[test]
    fn another_root_orders_enrolments_anew_and_one_that_cannot_be_read_leaves_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.json");
        let key = |seed: u8| SigningKey::from_seed(&[seed; 32]).expect("a key");
        let root = |policy: u8| {
            let role = |at| RoleKeys { keys: vec![at], threshold: 1 };
            RootDocument::build(RootDraft {
                deployment: "harbour".into(),
                epoch: 1,
                version: 1,
                issued_at: 1,
                keys: vec![("policy".into(), key(policy).public()), ("hub".into(), key(2).public())],
                roles: BTreeMap::from([(Role::Root, role(0)), (Role::Policy, role(0)), (Role::Hub, role(1))]),
            })
            .expect("a sound root")
        };
        for (name, by, seq) in [("policy.tgd", 1, 1), ("hub.tgd", 2, 5), ("other.tgd", 3, 9)] {
            let enrolment = Enrolment::new(&root(1), &key(7).public(), Labels::new(), seq, 1).expect("sound");
            let document = Document::sign(DocumentKind::Enrolment, &enrolment, &key(by)).expect("signed");
            fs::write(folder.path().join(name), document.to_bytes()).expect("written");
        }
        let device = DeviceId::from(key(7).public().id());
        let mut last = None;
        for (bytes, seq) in [(root(1).bytes(), 1), (root(4).bytes(), 5), (b"{", 5), (root(3).bytes(), 9)] {
            fs::write(&path, bytes).expect("written");
            let list = look(folder.path(), Some(&path), last.as_ref());
            assert_eq!(list.enrolment(device).map(|item| item.place.2), Some(seq));
            last = Some(list);
        }
    }
}
