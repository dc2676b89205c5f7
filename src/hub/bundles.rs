//! What devices fetch: of each kind the newest that names them, from one folder that the operator fills.
//!
//! The simplest form: the folder is looked through again every few seconds, by heads; labels of devices are those of
//! their enrolments in the same folder. Nothing is verified here. Devices verify, and whoever can write the folder can
//! at most keep newer bundles from them. A file is put in by a rename, as everywhere.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{Either, Full};
use hyper::{HeaderMap, Response, StatusCode, header};
use tokio::sync::Semaphore;
use tracing::warn;

use super::body::{Answer, FileBody};
use super::refusal::Refusal;
use crate::bundle::container::{BundleType, Head, MAX_FILE};
use crate::bundle::document::{Document, DocumentKind, MAX_DOCUMENT};
use crate::bundle::enrolment::{Enrolment, Labels};
use crate::bundle::manifest::{DeviceFacts, Manifest, Target};
use crate::ids::{DeviceId, Digest};
use crate::keys::sha256;
use crate::spool::protocol::{BUNDLE_TYPE, BundleKind};

/// How old the list of the folder may be.
const FRESH: Duration = Duration::from_secs(2);
/// Most files of the folder that are looked at.
const MAX_FILES: usize = 4_096;
/// Files on their way out at a time; more get 503.
const READERS: usize = 64;

/// The folder.
#[derive(Debug)]
pub(super) struct Bundles {
    folder: PathBuf,
    list: Mutex<Option<(Instant, Arc<Vec<Item>>)>>,
    readers: Arc<Semaphore>,
}

/// One file of it.
#[derive(Debug)]
struct Item {
    path: PathBuf,
    kind: BundleKind,
    place: (u64, u64),
    digest: Digest,
    target: Target,
    labels: Labels,
}

impl Bundles {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, list: Mutex::default(), readers: Arc::new(Semaphore::new(READERS)) }
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
        let found = tokio::task::spawn_blocking(move || shelf.find(device, kind, known.as_deref())).await;
        let Some((tag, file)) = found.map_err(|_| Refusal::Overloaded)? else { return Err(Refusal::NotFound) };
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
            let facts = facts(&list, device);
            let found = BundleKind::ALL.into_iter().filter_map(|kind| newest(&list, kind, &facts));
            found.flat_map(|item| item.digest.0).collect::<Vec<u8>>()
        });
        let names = names.await.ok().filter(|names| !names.is_empty())?;
        sha256(&names).to_string().get(..16).map(str::to_owned)
    }

    /// The tag, and the file with its length unless the device has it.
    fn find(&self, device: DeviceId, kind: BundleKind, known: Option<&str>) -> Option<(String, Option<(File, u64)>)> {
        let list = self.list();
        let item = newest(&list, kind, &facts(&list, device))?;
        let tag = format!("\"{}\"", item.digest);
        if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
            return Some((tag, None));
        }
        // It may have been replaced since it was listed: the device judges it, and the tag is right the next time.
        let file = File::open(&item.path).ok()?;
        let length = file.metadata().ok()?.len();
        (length <= MAX_FILE).then_some((tag, Some((file, length))))
    }

    fn list(&self) -> Arc<Vec<Item>> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, items)) = list.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Arc::clone(items);
        }
        let items = Arc::new(look(&self.folder));
        *list = Some((Instant::now(), Arc::clone(&items)));
        items
    }
}

fn newest<'a>(list: &'a [Item], kind: BundleKind, facts: &DeviceFacts) -> Option<&'a Item> {
    let meant = list.iter().filter(|item| item.kind == kind && item.target.names(facts));
    meant.max_by_key(|item| item.place)
}

/// The device, with the labels of its newest enrolment.
fn facts(list: &[Item], device: DeviceId) -> DeviceFacts {
    let bare = DeviceFacts { id: device, labels: Labels::new() };
    let labels = newest(list, BundleKind::Enrolment, &bare).map(|item| item.labels.clone());
    DeviceFacts { labels: labels.unwrap_or_default(), ..bare }
}

fn look(folder: &Path) -> Vec<Item> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            warn!(%error, folder = %folder.display(), "the folder of bundles cannot be read");
            return Vec::new();
        }
    };
    let paths = entries.take(MAX_FILES).filter_map(|entry| Some(entry.ok()?.path()));
    let meant = paths.filter(|path| {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && path.extension().is_some_and(|ending| ending == "tgb" || ending == "tgd") && path.is_file()
    });
    meant.filter_map(|path| read(path).ok().flatten()).collect()
}

/// What a file is; `None` where it is nothing for devices.
fn read(path: PathBuf) -> io::Result<Option<Item>> {
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
            place: (epoch, seq),
            digest: document.digest(),
            target: Target::Devices(vec![device]),
            labels,
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
    let (place, digest) = ((manifest.epoch(), manifest.seq()), sha256(head.manifest()));
    Ok(Some(Item { path, kind, place, digest, target: manifest.target, labels: Labels::new() }))
}
