//! Fetches what the hub has for this device, and drops it into the inbox: from there on it is as any other bundle.
//!
//! At a start, when the link is back, when the hub hints at something new, when what was refused may be good now, and
//! now and then; of each kind only what is not known already (ETag). A task and a connection of its own, so that it
//! is in the way of no request and no upload. Nothing is parsed here, and nothing believed but a length: the importer
//! judges.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{HeaderMap, Response, StatusCode, header};
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use super::client::{Connection, retry_after};
use super::hubs::Hubs;
use super::{Config, Error, Failure, Identity, Known, Link, Status, Uplink, retry};
use crate::disk;
use crate::ids::{DeviceId, Digest};
use crate::keys::{PublicKey, random};
use crate::spool::protocol::BundleKind;
use crate::telemetry::Heart;

/// Bytes that are written at a time.
const CHUNK: usize = 256 << 10;
/// How often it is looked at least whether the hub may be called again.
const LOOK: Duration = Duration::from_secs(60);
/// What must stay free beside the file, its private copy and its slot, in bytes.
const RESERVE: u64 = 4 << 20;
/// A file that is not whole. The inbox takes no hidden ones.
const PART: &str = ".pull.part";

/// Where fetched files go.
#[derive(Debug, Clone)]
pub struct Shelf {
    /// The inbox.
    pub inbox: PathBuf,
    /// Most bytes of a file.
    pub most: u64,
}

/// Whether a connection can take the next request.
struct IsIdle(bool);

/// Everything that the task needs.
#[derive(Debug)]
pub struct Puller {
    centre: Hubs,
    uplink: Arc<Uplink>,
    /// What a hub that is busy asked for.
    asked: Option<Duration>,
    device: PublicKey,
    shelf: Shelf,
    known: Arc<Known>,
    link: watch::Receiver<Status>,
    hint: Arc<Notify>,
    config: Config,
}

impl Puller {
    /// Checks the configuration; `None` if it names no hub or wants no pull. `known` is what need not be fetched,
    /// `link` how it goes with uploads, `hint` wakes it.
    pub fn new(
        config: Config,
        uplink: &Arc<Uplink>,
        identity: &Identity,
        shelf: Shelf,
        known: Arc<Known>,
        link: watch::Receiver<Status>,
        hint: Arc<Notify>,
    ) -> Result<Option<Self>, Error> {
        let centre = Hubs::new(&config, uplink, Some(identity))?.filter(|_| config.pull);
        let (uplink, device) = (Arc::clone(uplink), identity.public());
        Ok(centre.map(|centre| Self { centre, uplink, asked: None, device, shelf, known, link, hint, config }))
    }

    /// Fetches until it is dropped; safe at any moment. `heart` beats with each step and in the waits between.
    pub async fn run(mut self, heart: Heart) {
        let mut failures = 0_u32;
        self.sweep().await;
        loop {
            let random = random::<8>().map_or(u64::MAX, u64::from_ne_bytes);
            let Config { pull_interval, retry_base, .. } = self.config;
            let wait = match heart.during(self.round()).await {
                Ok(()) => {
                    failures = 0;
                    // Between a half and the whole, so that a fleet that started together does not ask together.
                    let half = pull_interval.0 / 2;
                    half + retry::delay(1, random, half, half, None)
                }
                // Nothing failed: it is looked again as soon as the hub may be called.
                Err(failure) if failure.is_held() && self.uplink.held().is_some() => {
                    let wait = self.uplink.held().map_or(LOOK, |(_, wait)| wait);
                    wait.min(LOOK) + retry::delay(1, random, retry_base.0, LOOK, None)
                }
                Err(failure) => {
                    failures = failures.saturating_add(1);
                    debug!(%failure, failures, "nothing is fetched from the hub");
                    retry::delay(failures, random, retry_base.0, pull_interval.0, self.centre.wait())
                }
            };
            let idle = async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = is_back(&mut self.link) => {}
                    () = self.hint.notified() => {}
                    () = self.known.again.notified() => {}
                }
            };
            heart.during(idle).await;
            heart.beat(Instant::now());
        }
    }

    /// One hub after the other, until one had all that it has fetched.
    async fn round(&mut self) -> Result<(), Failure> {
        let mut failure = Failure::Busy;
        for place in self.centre.due() {
            failure = match self.fetch_all(place).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let asked = self.asked.take();
            self.centre.put_off(place, asked, self.config.retry_cap.0);
            if !failure.moves_on() {
                break;
            }
        }
        Err(failure)
    }

    /// Every kind. What is wrong with one of them keeps none behind it from coming; the connection is not used again.
    async fn fetch_all(&mut self, place: usize) -> Result<(), Failure> {
        let (mut idle, mut failed) = (None, None);
        for kind in BundleKind::ALL {
            let mut connection = match idle.take() {
                Some(connection) => connection,
                None => self.centre.connect(place).await?,
            };
            match self.fetch(place, &mut connection, kind).await {
                Ok(IsIdle(is_idle)) => idle = Some(connection).filter(|_| is_idle),
                Err(failure @ (Failure::UnknownDevice | Failure::Unproven | Failure::Busy)) => return Err(failure),
                Err(failure) if failure.is_held() && self.uplink.held().is_some() => return Err(failure),
                Err(failure) => {
                    debug!(kind = kind.name(), %failure, "this kind is not fetched from the hub");
                    failed = failed.or(Some(failure));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// One kind, if the hub has another one than those that are known.
    async fn fetch(&mut self, place: usize, connection: &mut Connection, kind: BundleKind) -> Result<IsIdle, Failure> {
        let id = DeviceId::from(self.device.id());
        let known = self.known.of(kind);
        let response = connection.get(&self.device, &kind.path(id), &known).await?;
        match response.status() {
            StatusCode::OK => {}
            // An older hub has nothing there either.
            StatusCode::NOT_MODIFIED | StatusCode::NOT_FOUND => {
                return connection.drain(response).await.map(|()| IsIdle(true));
            }
            StatusCode::FORBIDDEN => return Err(Failure::UnknownDevice),
            StatusCode::UNAUTHORIZED => return Err(Failure::Unproven),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                self.asked = retry_after(response.headers());
                return Err(Failure::Busy);
            }
            _ => return Err(Failure::UnexpectedStatus),
        }
        let digest = tag(response.headers()).ok_or(Failure::BadAnswer)?;
        if known.contains(&digest) {
            return Ok(IsIdle(false)); // the hub sends it all the same: nobody reads that
        }
        let part = self.shelf.inbox.join(PART);
        let copied = connection.moving(self.copy(response, part.clone())).await.unwrap_or(Err(Failure::RequestTimeout));
        let length = match copied {
            Ok(length) => length,
            Err(failure) => {
                self.sweep().await;
                return Err(failure);
            }
        };
        let name = format!("pull={}={}-{}.{}", self.centre.name(place), kind.name(), digest, kind.ending());
        let whole = self.shelf.inbox.join(name);
        on_disk(move || fs::rename(&part, &whole).and_then(|()| disk::sync_parent(&whole))).await?;
        info!(kind = kind.name(), %digest, length, "fetched from the hub; the importer judges it");
        let known = Arc::clone(&self.known);
        on_disk(move || {
            known.fetched(kind, digest);
            Ok(())
        })
        .await?;
        Ok(IsIdle(true))
    }

    /// The answer's body into a new file, as far as it may be long; its length.
    async fn copy(&self, response: Response<Incoming>, part: PathBuf) -> Result<u64, Failure> {
        let most = self.shelf.most;
        let claimed =
            response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let claimed: u64 = claimed.unwrap_or(most);
        if claimed > most {
            return Err(Failure::BadAnswer);
        }
        // Rather not begun than broken off: a part of it is good for nothing.
        if !self.uplink.has_room(claimed) {
            return Err(Failure::DailyLimit);
        }
        // The file here, the importer's copy, the slot.
        let needed = claimed.saturating_mul(3).saturating_add(RESERVE);
        let inbox = self.shelf.inbox.clone();
        let mut file = on_disk(move || {
            if disk::free_bytes(&inbox)? < needed {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let _ = fs::remove_file(&part); // of a fetch that was cut off
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)
        })
        .await?;
        let (mut body, mut buffer, mut length) = (response.into_body(), Vec::with_capacity(CHUNK), 0_u64);
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|_| Failure::Closed)?.into_data().unwrap_or_default();
            length = length.saturating_add(data.len() as u64);
            if length > most {
                return Err(Failure::BadAnswer);
            }
            buffer.extend_from_slice(&data);
            if buffer.len() >= CHUNK {
                file = write(file, std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK))).await?;
            }
        }
        let file = write(file, buffer).await?;
        on_disk(move || file.sync_all()).await?; // a power cut must not leave a name without what it names
        Ok(length)
    }

    /// Removes what is left of a fetch that was cut off.
    async fn sweep(&self) {
        let part = self.shelf.inbox.join(PART);
        let _ = on_disk(move || fs::remove_file(part)).await; // it is not there, or the next fetch tells what is wrong
    }
}

async fn write(mut file: File, bytes: Vec<u8>) -> Result<File, Failure> {
    on_disk(move || file.write_all(&bytes).map(|()| file)).await
}

/// On a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.ok().and_then(Result::ok).ok_or(Failure::Inbox)
}

/// Until uploads go through again after they did not.
async fn is_back(link: &mut watch::Receiver<Status>) {
    let mut was_down = !link.borrow_and_update().link.is_in_reach();
    while link.changed().await.is_ok() {
        let now = link.borrow_and_update().link;
        if was_down && now == Link::Up {
            return;
        }
        was_down = !now.is_in_reach();
    }
    std::future::pending().await
}

/// The identity that the hub names in its strong ETag.
fn tag(headers: &HeaderMap) -> Option<Digest> {
    headers.get(header::ETAG)?.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}
