//! What devices fetch: of each kind the newest that names them, from one folder that the operator fills. Where the newest
//! policy is one that a permit leads away from, the one to which it leads.
//!
//! The folder's time is looked at four times a second, and what lies in it when that has changed, and now and then; by
//! heads, on a thread that may wait for the disk. Requests take the last list as it is. Labels of devices are those of
//! their enrolments in the same folder. Nothing is verified here but whose word an enrolment is, where the hub was
//! given the root. Devices verify, and whoever can write the folder can at most keep newer bundles from them. A file is
//! put in by a rename, as everywhere.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
use hyper::{HeaderMap, Response, StatusCode, header};
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::body::{Answer, AnswerBody, FileBody};
use super::refusal::Refusal;
use crate::bundle::container::{BundleType, Head, MAX_FILE, MAX_ROOT};
use crate::bundle::document::{Document, DocumentKind, MAX_DOCUMENT};
use crate::bundle::enrolment::{Enrolment, Labels, Signed};
use crate::bundle::manifest::{DeviceFacts, Manifest, Permit, Target};
use crate::bundle::root::{Role, RootDocument};
use crate::disk;
use crate::ids::{DeviceId, Digest};
use crate::keys::{PublicKey, sha256};
use crate::spool::protocol::{BUNDLE_TYPE, BundleKind};

/// How often the folder's own time is looked at.
const GLANCE: Duration = Duration::from_millis(250);
/// After this it is looked through whatever its time says: a file may be written in place, a disk may have no such time.
const LOOK: Duration = Duration::from_secs(5);
/// A change so shortly before the look may be one of two that the disk's clock cannot tell apart.
const GRAIN: Duration = Duration::from_secs(1);
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
    list: watch::Sender<Arc<List>>,
    /// What the last look went by.
    looked: Mutex<Looked>,
    /// Devices that hold a stream of events, and how many each.
    followed: Mutex<HashMap<DeviceId, usize>>,
    readers: Arc<Semaphore>,
}

/// When the folder was looked through, and what it and the root were like.
#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Instant,
    wall: SystemTime,
    written: [Option<(u64, SystemTime)>; 2],
}

/// What is in it, as of a moment.
#[derive(Debug, Default)]
pub(super) struct List {
    /// By which enrolments are ordered.
    root: Option<RootDocument>,
    files: BTreeMap<PathBuf, Listed>,
    /// How many files were left out.
    left_out: usize,
    /// Of each device the enrolment that it would take.
    enrolments: HashMap<DeviceId, Arc<Item>>,
    /// All that is no enrolment.
    others: Vec<Arc<Item>>,
    /// What devices with a stream of events are told.
    hints: HashMap<DeviceId, String>,
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
    /// Of an enrolment.
    key: Option<PublicKey>,
}

impl Bundles {
    /// Looks through `folder` for the first time.
    pub(super) fn open(folder: PathBuf, root: Option<PathBuf>) -> Self {
        let looked = Looked::now(&folder, root.as_deref());
        let list = look(&folder, root.as_deref(), None);
        Self {
            folder,
            root,
            list: watch::Sender::new(Arc::new(list)),
            looked: Mutex::new(looked),
            followed: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Looks again and again until it is dropped.
    pub(super) async fn tend(self: Arc<Self>) {
        let mut glance = tokio::time::interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            glance.tick().await;
            let shelf = Arc::clone(&self);
            // Where it panics the next look tells; the last list stays.
            let _ = tokio::task::spawn_blocking(move || shelf.glance()).await;
        }
    }

    /// Looks through the folder if there may be something new.
    fn glance(&self) {
        let now = Looked::now(&self.folder, self.root.as_deref());
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if !now.may_differ(&looked) {
            return;
        }
        *looked = now;
        let last = self.list();
        let mut list = look(&self.folder, self.root.as_deref(), Some(&last));
        if list.is_as(&last) {
            return;
        }
        let followed: Vec<DeviceId> = self.followed().keys().copied().collect();
        list.hints = followed.into_iter().map(|device| (device, list.hint(device))).collect();
        self.list.send_replace(Arc::new(list));
    }

    /// The last list.
    pub(super) fn list(&self) -> Arc<List> {
        Arc::clone(&self.list.borrow())
    }

    /// Tells `device` what there is for it, again and again.
    pub(super) fn follow(self: Arc<Self>, device: DeviceId) -> Follower {
        *self.followed().entry(device).or_default() += 1;
        Follower { device, list: self.list.subscribe(), shelf: self }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<DeviceId, usize>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest of `kind` for `device`: 200, 304 where it has that one, 404 where there is none.
    pub(super) async fn answer(
        self: Arc<Self>,
        device: DeviceId,
        kind: BundleKind,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let reader = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        let shelf = Arc::clone(&self);
        let found = tokio::task::spawn_blocking(move || shelf.find(device, kind, known.as_deref()));
        let (tag, file) = found.await.map_err(|_| Refusal::Overloaded)??;
        let response = Response::builder().header(header::ETAG, tag);
        let response = match file {
            None => response.status(StatusCode::NOT_MODIFIED).body(AnswerBody::Whole(Full::default())),
            Some((file, length)) => response
                .header(header::CONTENT_TYPE, BUNDLE_TYPE)
                .body(AnswerBody::File(FileBody::new(file, length, reader))),
        };
        Ok(response.expect("a digest and constants are header values"))
    }

    /// The tag, and the file with its length unless the device has it.
    fn find(
        &self,
        device: DeviceId,
        kind: BundleKind,
        known: Option<&str>,
    ) -> Result<(String, Option<(File, u64)>), Refusal> {
        let list = self.list();
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
}

/// One stream's side of the list.
#[derive(Debug)]
pub(super) struct Follower {
    device: DeviceId,
    list: watch::Receiver<Arc<List>>,
    shelf: Arc<Bundles>,
}

impl Follower {
    pub(super) fn device(&self) -> DeviceId {
        self.device
    }

    /// What there is for it now.
    pub(super) fn hint(&mut self) -> String {
        let list = Arc::clone(&self.list.borrow_and_update());
        list.hints.get(&self.device).cloned().unwrap_or_else(|| list.hint(self.device))
    }

    /// Until there is another list; `None` if there is none any more.
    pub(super) async fn changed(&mut self) -> Option<()> {
        self.list.changed().await.ok()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.shelf.followed().entry(self.device) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Looked {
    fn now(folder: &Path, root: Option<&Path>) -> Self {
        let written = |path: &Path| fs::metadata(path).and_then(|metadata| Ok((metadata.ino(), metadata.modified()?)));
        let written = [Some(folder), root].map(|path| written(path?).ok());
        Self { at: Instant::now(), wall: SystemTime::now(), written }
    }

    /// Whether the folder may hold something else now than when it was looked through.
    fn may_differ(&self, last: &Self) -> bool {
        let is_fresh = |written: &Option<(u64, SystemTime)>| {
            written.is_some_and(|(_, at)| last.wall.duration_since(at).is_ok_and(|age| age < GRAIN))
        };
        self.written != last.written
            || last.written.iter().any(is_fresh)
            || self.at.saturating_duration_since(last.at) >= LOOK
    }
}

impl List {
    /// The newest of a kind; of policies the one to which the device's newest permit leads from there.
    fn meant(&self, kind: BundleKind, facts: &DeviceFacts) -> Option<&Item> {
        let newest = self.newest(kind, facts)?;
        let permit = self.newest(BundleKind::Permit, facts).and_then(|item| item.permit);
        let permit = permit.filter(|permit| kind == BundleKind::Policy && permit.from == newest.digest);
        let led_to = permit.and_then(|Permit { to, .. }| {
            self.others.iter().find(|item| item.kind == kind && item.digest == to && item.target.names(facts))
        });
        Some(led_to.map_or(newest, Arc::as_ref))
    }

    fn newest(&self, kind: BundleKind, facts: &DeviceFacts) -> Option<&Item> {
        if kind == BundleKind::Enrolment {
            return self.enrolment(facts.id);
        }
        let meant = self.others.iter().filter(|item| item.kind == kind && item.target.names(facts));
        meant.max_by_key(|item| item.place).map(Arc::as_ref)
    }

    fn items(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.files.values().filter_map(|listed| listed.item.as_ref())
    }

    /// The device, with the labels of its newest enrolment.
    fn facts(&self, device: DeviceId) -> DeviceFacts {
        let labels = self.enrolment(device).map(|item| item.labels.clone());
        DeviceFacts { id: device, labels: labels.unwrap_or_default() }
    }

    /// The enrolment that it would take.
    fn enrolment(&self, device: DeviceId) -> Option<&Item> {
        self.enrolments.get(&device).map(Arc::as_ref)
    }

    /// The key of a device for whose enrolment the root vouches.
    pub(super) fn enrolled(&self, device: DeviceId) -> Option<PublicKey> {
        self.enrolment(device).filter(|item| item.place.0 != Word::Unjudged)?.key.clone()
    }

    /// The key of a device that has any enrolment: whoever fills the folder has named it.
    pub(super) fn named(&self, device: DeviceId) -> Option<PublicKey> {
        self.enrolment(device)?.key.clone()
    }

    /// What lies in a folder now.
    pub(super) fn of(folder: &Path, root: Option<&Path>) -> Self {
        look(folder, root, None)
    }

    /// Number and digest of the policy that `device` is to have.
    pub(super) fn policy(&self, device: DeviceId) -> Option<(u64, Digest)> {
        self.meant(BundleKind::Policy, &self.facts(device)).map(|item| (item.place.2, item.digest))
    }

    /// The number of a policy of the folder.
    pub(super) fn policy_number(&self, digest: &Digest) -> Option<u64> {
        let is_meant = |item: &&Arc<Item>| item.kind == BundleKind::Policy && item.digest == *digest;
        self.others.iter().find(is_meant).map(|item| item.place.2)
    }

    /// A name for what there is for `device`.
    pub(super) fn hint(&self, device: DeviceId) -> String {
        let facts = self.facts(device);
        let found = BundleKind::ALL.into_iter().filter_map(|kind| self.meant(kind, &facts));
        let names: Vec<u8> = found.flat_map(|item| item.digest.0).collect();
        sha256(&names).to_string()[..16].to_owned()
    }

    /// Whether nothing differs from another list.
    fn is_as(&self, other: &Self) -> bool {
        let files =
            |list: &Self| list.files.iter().map(|(path, listed)| (path.clone(), listed.written)).collect::<Vec<_>>();
        self.root == other.root && files(self) == files(other)
    }

    /// Puts in order what was found.
    fn sorted(mut self) -> Self {
        let (mut enrolments, mut others) = (HashMap::new(), Vec::new());
        for item in self.items() {
            let Some(device) = item.enrols() else {
                others.push(Arc::clone(item));
                continue;
            };
            let best = enrolments.entry(device).or_insert_with(|| Arc::clone(item));
            if best.place <= item.place {
                *best = Arc::clone(item);
            }
        }
        (self.enrolments, self.others) = (enrolments, others);
        self
    }
}

impl Item {
    /// Whom it enrols, if it is an enrolment.
    fn enrols(&self) -> Option<DeviceId> {
        self.key.as_ref().map(|key| key.id().into())
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
    let mut list = List { root, ..List::default() };
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
    list.sorted()
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
        let Ok(key) = enrolment.key() else { return Ok(None) };
        let Enrolment { device, epoch, seq, labels, .. } = enrolment;
        let item = Item {
            path,
            kind: BundleKind::Enrolment,
            place: (root.map_or(Word::Unjudged, |root| word(&document, root)), epoch, seq),
            digest: document.digest(),
            target: Target::Devices(vec![device]),
            labels,
            permit: None,
            key: Some(key),
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
    Ok(Some(Item { path, kind, place, digest, target: manifest.target, labels, permit, key: None }))
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
mod tests;
