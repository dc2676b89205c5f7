//! One request to the hub: path, device, body, every check of the usage file, the ledger, the receipt.
//!
//! What can be refused without the body is refused without it: an upload that shows the file's signature has a place only
//! after that was checked over the file's head, and those that do not share half of the places, for anybody can name a
//! device. No step takes more memory than the
//! limits of a usage file, and only a fixed number of files is in memory at once.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::body::{Answer, whole};
use super::bundles::Bundles;
use super::config::device_key;
use super::ledger::{Device, Taken};
use super::refusal::Refusal;
use super::requests::{LENGTH_LIMIT, Requests};
use super::time::Timestamps;
use super::writer::Writer;
use crate::ids::{DeviceId, unhex};
use crate::spool::backlog::Cursor;
use crate::spool::chain::Verdict;
use crate::spool::protocol::{
    BUNDLES_HINT, BundleKind, DEVICE_KEY, RECEIPT_TYPE, REQUESTS, SIGNATURE, read_bundle_path, read_time_path,
    read_usage_path,
};
use crate::spool::segment::{self, FILE_LIMIT, SIGNATURE_LEN, Unverified, Verified};

/// Most devices that `enrol = "any"` lets in.
const GUESTS_LIMIT: usize = 10_000;

/// What must come of a body in each `body_timeout`, in bytes.
const PROGRESS: usize = 1 << 10;
/// How often a refusal that anybody can cause is logged.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Everything that requests share.
#[derive(Debug)]
pub(super) struct Ingest {
    /// By id; grows only where `guests` is set.
    devices: RwLock<HashMap<DeviceId, Device>>,
    guests: bool,
    pub(super) bundles: Option<Arc<Bundles>>,
    pub(super) requests: Option<Arc<Requests>>,
    writer: Writer,
    uploads: Semaphore,
    /// Places for uploads of which nobody knows whose they are.
    unproven: Semaphore,
    /// Who sends a body now; at most [`UPLOADS_EACH`] times each, so that none takes all places.
    senders: Mutex<Vec<DeviceId>>,
    body_timeout: Duration,
    strangers: Mutex<Seldom>,
    askers: Mutex<Seldom>,
    time: Timestamps,
}

/// The most bodies that one device may send at a time: one, and one more whose connection broke unseen.
const UPLOADS_EACH: usize = 2;

/// A device's place among the senders, for as long as it lives.
struct Sender<'a> {
    senders: &'a Mutex<Vec<DeviceId>>,
    device: DeviceId,
}

impl<'a> Sender<'a> {
    fn enter(senders: &'a Mutex<Vec<DeviceId>>, device: DeviceId) -> Option<Self> {
        let mut now = senders.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = now.iter().filter(|sender| **sender == device).count() < UPLOADS_EACH;
        has_room.then(|| {
            now.push(device);
            Self { senders, device }
        })
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        let mut now = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = now.iter().position(|sender| *sender == self.device) {
            now.swap_remove(at);
        }
    }
}

impl Ingest {
    pub(super) fn new(
        devices: HashMap<DeviceId, Device>,
        guests: bool,
        writer: Writer,
        uploads: usize,
        body_timeout: Duration,
        time: Timestamps,
    ) -> Self {
        let unproven = Semaphore::new(uploads.div_ceil(2));
        let (devices, uploads, senders) = (RwLock::new(devices), Semaphore::new(uploads), Mutex::default());
        let (strangers, askers, bundles, requests) = (Mutex::default(), Mutex::default(), None, None);
        Self {
            devices,
            guests,
            bundles,
            requests,
            writer,
            uploads,
            unproven,
            senders,
            body_timeout,
            strangers,
            askers,
            time,
        }
    }

    pub(super) async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        if let Some((device, kind)) = read_bundle_path(request.uri().path()) {
            if request.method() != Method::GET {
                return whole(Refusal::MethodNotAllowed("GET").answer());
            }
            let answer = self.bundle(device, kind, request.headers()).await;
            return answer.unwrap_or_else(|refusal| whole(refusal.answer()));
        }
        whole(self.small(request).await)
    }

    /// Whatever is answered in a few bytes.
    async fn small<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        if request.uri().path() == "/livez" {
            return match *request.method() {
                Method::GET | Method::HEAD => Response::new(Full::from("ok\n")),
                _ => Refusal::MethodNotAllowed("GET, HEAD").answer(),
            };
        }
        if let Some(asked) = read_time_path(request.uri().path()) {
            return match self.device(asked.device, request.headers()) {
                Ok(_) => self.time.answer(request.method(), &asked),
                Err(refusal) => refusal.answer(),
            };
        }
        if request.uri().path() == REQUESTS {
            let kept = self.request(request).await;
            return kept.map_or_else(Refusal::answer, |()| {
                let empty = Response::builder().status(StatusCode::NO_CONTENT).body(Full::default());
                empty.expect("a status alone is an answer")
            });
        }
        let Some((device, at)) = read_usage_path(request.uri().path()) else { return Refusal::NotFound.answer() };
        if request.method() != Method::PUT {
            return Refusal::MethodNotAllowed("PUT").answer();
        }
        match self.take(device, at, request).await {
            Ok(receipt) => {
                let mut response = Response::builder().header(header::CONTENT_TYPE, RECEIPT_TYPE);
                if let Some(hint) = self.hint(device).await {
                    response = response.header(BUNDLES_HINT, hint);
                }
                response.body(Full::from(receipt)).expect("a constant and hex digits are header values")
            }
            Err(refusal) => {
                let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(unsaid) = if refusal.is_anybodys() { strangers.say(Instant::now()) } else { Some(0) } {
                    let name = refusal.name();
                    warn!(%device, stream = %at.stream, seq = at.seq, name, unsaid, "a usage file is refused");
                }
                refusal.answer()
            }
        }
    }

    async fn take<B>(&self, device: DeviceId, at: Cursor, request: Request<B>) -> Result<Vec<u8>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let device = self.device(device, request.headers())?;
        let len = request.body().size_hint().exact().ok_or(Refusal::LengthRequired)?;
        if len > FILE_LIMIT as u64 {
            return Err(Refusal::FileTooLarge);
        }
        let shown =
            request.headers().get(SIGNATURE).and_then(|value| unhex::<SIGNATURE_LEN>(value.to_str().ok()?).ok());
        let mut body = pin!(Limited::new(request.into_body(), FILE_LIMIT));
        let mut bytes = Vec::new();
        let mut _unproven = None;
        if let Some(signature) = shown {
            let proof = async {
                loop {
                    match segment::is_begun_by(&bytes, &signature, &device.key) {
                        Some(true) => return Ok(()),
                        None if self.read(body.as_mut(), &mut bytes, 1).await? => {}
                        _ => return Err(Refusal::File(segment::Error::SignatureInvalid)),
                    }
                }
            };
            tokio::time::timeout(self.body_timeout, proof).await.map_err(|_| Refusal::BodyTimeout)??;
        } else {
            _unproven = Some(self.unproven.try_acquire().map_err(|_| Refusal::Overloaded)?);
        }
        let _permit = self.uploads.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let _sender = Sender::enter(&self.senders, device.id()).ok_or(Refusal::Overloaded)?;
        while self.read(body.as_mut(), &mut bytes, PROGRESS).await? {}

        let key = device.key.clone();
        let checked = tokio::task::spawn_blocking(move || check(&bytes, at, &key).map(|file| (file, bytes)));
        let (file, bytes) = checked.await.map_err(|_| Refusal::LedgerFailed)??;
        if device.came_by_itself {
            self.admit_guest(&device)?;
        }
        let (id, requests, others) = (device.id(), file.header().requests, file.header().others);
        match self.writer.take(device, file, bytes).await {
            Ok(Taken::Kept { receipt, verdict }) => {
                info!(device = %id, stream = %at.stream, seq = at.seq, requests, others, ?verdict, "has a usage file");
                Ok(receipt)
            }
            Ok(Taken::Apart(Verdict::ChainFork)) => Err(Refusal::ChainFork),
            Ok(Taken::Apart(_)) => Err(Refusal::PreviousMismatch),
            Err(_) => Err(Refusal::LedgerFailed),
        }
    }

    /// A device asks to be enrolled.
    async fn request<B>(&self, request: Request<B>) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let requests = self.requests.clone().ok_or(Refusal::NotFound)?;
        if request.method() != Method::PUT {
            return Err(Refusal::MethodNotAllowed("PUT"));
        }
        let len = request.body().size_hint().exact().ok_or(Refusal::LengthRequired)?;
        if len > LENGTH_LIMIT as u64 {
            return Err(Refusal::RequestTooLarge);
        }
        let mut body = pin!(Limited::new(request.into_body(), LENGTH_LIMIT));
        let mut bytes = Vec::new();
        while self.read(body.as_mut(), &mut bytes, PROGRESS).await? {}
        let device = requests.keep(bytes).await?;
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unsaid) = askers.say(Instant::now()) {
            info!(%device, unsaid, "a device asks to be enrolled; its request waits for whoever enrols");
        }
        Ok(())
    }

    async fn hint(&self, device: DeviceId) -> Option<String> {
        self.bundles.clone()?.hint(device).await
    }

    async fn bundle(&self, id: DeviceId, kind: BundleKind, headers: &HeaderMap) -> Result<Answer, Refusal> {
        let bundles = self.bundles.clone().ok_or(Refusal::NotFound)?;
        let is_known = self.device(id, headers).is_ok();
        bundles.answer(id, is_known, kind, headers).await
    }

    /// The enrolled device, or, where guests are let in, the one whose key the request shows.
    fn device(&self, id: DeviceId, headers: &HeaderMap) -> Result<Device, Refusal> {
        let known = self.devices.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(device) = known {
            return Ok(device);
        }
        let shown = headers.get(DEVICE_KEY).and_then(|value| value.to_str().ok()).and_then(device_key);
        match shown {
            Some(key) if self.guests && DeviceId::from(key.id()) == id => {
                Ok(Device { key, name: id.to_string(), came_by_itself: true })
            }
            _ => Err(Refusal::UnknownDevice),
        }
    }

    /// Remembers a guest, after its signature proved that it has the key.
    fn admit_guest(&self, device: &Device) -> Result<(), Refusal> {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        if devices.len() >= GUESTS_LIMIT && !devices.contains_key(&device.id()) {
            return Err(Refusal::UnknownDevice);
        }
        devices.entry(device.id()).or_insert_with(|| device.clone());
        Ok(())
    }

    /// Reads `more` bytes; `false` if the body ends before.
    async fn read<B>(&self, mut body: Pin<&mut Limited<B>>, bytes: &mut Vec<u8>, more: usize) -> Result<bool, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let enough = bytes.len() + more;
        let deadline = tokio::time::Instant::now() + self.body_timeout;
        while bytes.len() < enough {
            let frame = tokio::time::timeout_at(deadline, body.frame()).await;
            match frame.map_err(|_| Refusal::BodyTimeout)? {
                None => return Ok(false),
                Some(Err(_)) => return Err(Refusal::BodyCutOff),
                Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap_or_default()),
            }
        }
        Ok(true)
    }
}

/// Lets one line in [`LINE_EVERY`] into the log.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// How many lines were left out since the last, if it is time for one.
    fn say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LINE_EVERY) {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Every check that needs no state. CPU work: not for the reactor.
fn check(bytes: &[u8], at: Cursor, key: &crate::keys::PublicKey) -> Result<Verified, Refusal> {
    let file: Result<_, segment::Error> = Unverified::parse(bytes);
    let file = file.map_err(Refusal::File)?;
    let claimed = file.claimed();
    if (Cursor { stream: claimed.stream, seq: claimed.seq }) != at {
        return Err(Refusal::PathMismatch);
    }
    file.verify(key).map_err(Refusal::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_one_line_in_ten_seconds_and_the_next_one_counts_the_rest() {
        let (mut seldom, begun) = (Seldom::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(seldom.say(at(0)), Some(0));
        assert!((0..10).all(|second| seldom.say(at(second)).is_none()));
        assert_eq!((seldom.say(at(10)), seldom.say(at(11)), seldom.say(at(20))), (Some(10), None, Some(1)));
    }
}
