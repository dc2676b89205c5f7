//! Where each request goes, and who may ask: path, device, proof. What is refused is refused here, by name.
//!
//! ```text
//! request ─▶ path ─▶ device (known, not revoked) ─▶ proof ─▶ bundles, events, leases, time
//!                       └─▶ usage files, which their own signature proves (`ingest`)
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use super::body::{Answer, Reply, whole};
use super::bundles::Bundles;
use super::config::device_key;
use super::devices::Devices;
use super::events::Stream;
use super::ingest::{Ingest, read_whole};
use super::leases::{self, Leases};
use super::ledger::Device;
use super::proof::{Proofs, Shown};
use super::queue::Queue;
use super::refusal::Refusal;
use super::requests::{LENGTH_LIMIT, Requests};
use super::seldom::Seldom;
use super::time::Timestamps;
use crate::clock::Reading;
use crate::ids::DeviceId;
use crate::keys::PublicKey;
use crate::spool::protocol::{
    BACKLOG, BUNDLES_HINT, DEVICE_KEY, LEASE_TYPE, RECEIPT_TYPE, REQUESTS, read_bundle_path, read_events_path,
    read_lease_path, read_time_path, read_usage_path,
};

/// Everything that requests share.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) devices: Devices,
    pub(super) proofs: Proofs,
    pub(super) bundles: Option<Arc<Bundles>>,
    pub(super) requests: Option<Arc<Requests>>,
    pub(super) leases: Option<Arc<Leases>>,
    pub(super) time: Timestamps,
    pub(super) ingest: Ingest,
    /// Places for streams of events.
    pub(super) streams: Arc<Semaphore>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) queue: Mutex<Queue>,
    pub(super) strangers: Mutex<Seldom>,
    pub(super) askers: Mutex<Seldom>,
}

impl Door {
    /// Answers one request; `key` is the one that the TLS handshake has shown.
    pub(super) async fn answer<B>(self: Arc<Self>, request: Request<B>, key: Option<&PublicKey>) -> Reply
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        if let Some(device) = read_events_path(request.uri().path()) {
            return match self.events(device, &request, key) {
                Ok(stream) => Reply::Events(Box::new(stream)),
                Err(refusal) => Reply::Answer(self.refuse(&refusal)),
            };
        }
        let answer = self.route(request, key).await;
        Reply::Answer(answer.unwrap_or_else(|refusal| self.refuse(&refusal)))
    }

    fn refuse(&self, refusal: &Refusal) -> Answer {
        let asked = refusal.is_shortage().then(|| {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.seconds(Instant::now())
        });
        whole(refusal.answer(asked))
    }

    async fn route<B>(self: &Arc<Self>, request: Request<B>, key: Option<&PublicKey>) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let path = request.uri().path();
        if path == "/livez" {
            return match *request.method() {
                Method::GET | Method::HEAD => Ok(whole(Response::new(Full::from("ok\n")))),
                _ => Err(Refusal::MethodNotAllowed("GET, HEAD")),
            };
        }
        if let Some((device, kind)) = read_bundle_path(path) {
            self.expect(&request, Method::GET, "GET")?;
            let bundles = self.bundles.clone().ok_or(Refusal::NotFound)?;
            self.prove(device, &request, key)?;
            return bundles.answer(device, kind, request.headers()).await;
        }
        if let Some(asked) = read_time_path(path) {
            self.expect(&request, Method::GET, "GET")?;
            self.prove(asked.device, &request, key)?;
            return Ok(whole(self.time.answer(&asked)));
        }
        if let Some((device, quota)) = read_lease_path(path) {
            self.expect(&request, Method::POST, "POST")?;
            let quota = quota.to_owned();
            return self.lease(device, &quota, request, key).await;
        }
        if path == REQUESTS {
            self.request(request).await?;
            let empty = Response::builder().status(StatusCode::NO_CONTENT).body(Full::default());
            return Ok(whole(empty.expect("a status alone is an answer")));
        }
        self.usage(request).await
    }

    fn expect<B>(&self, request: &Request<B>, method: Method, allow: &'static str) -> Result<(), Refusal> {
        if *request.method() == method { Ok(()) } else { Err(Refusal::MethodNotAllowed(allow)) }
    }

    /// The device that is enrolled, whoever asks.
    fn device<B>(&self, id: DeviceId, request: &Request<B>) -> Result<Arc<Device>, Refusal> {
        let list = self.bundles.as_ref().map(|bundles| bundles.list());
        self.devices.find(id, request.headers(), list.as_deref())
    }

    /// Whether a key is an enrolled device's.
    pub(super) fn knows(&self, key: &PublicKey) -> bool {
        let list = self.bundles.as_ref().map(|bundles| bundles.list());
        self.devices.find(DeviceId::from(key.id()), &HeaderMap::new(), list.as_deref()).is_ok()
    }

    /// That it is that device who asks. To fetch it is enough that anybody's enrolment lies in the folder.
    fn prove<B>(&self, id: DeviceId, request: &Request<B>, key: Option<&PublicKey>) -> Result<(), Refusal> {
        let named = || self.bundles.as_ref().and_then(|bundles| bundles.list().named(id));
        let owner = match self.device(id, request) {
            Ok(device) => device.key.clone(),
            Err(Refusal::UnknownDevice) => named().ok_or(Refusal::UnknownDevice)?,
            Err(refusal) => return Err(refusal),
        };
        let shown = Shown { key, method: request.method(), path: request.uri().path(), headers: request.headers() };
        self.proofs.check(&owner, shown, now())?;
        if self.proofs.are_required() {
            self.devices.hear(id, request.headers().get(BACKLOG)); // else anybody could say so
        }
        Ok(())
    }

    /// A stream of events, which lasts.
    fn events<B>(&self, id: DeviceId, request: &Request<B>, key: Option<&PublicKey>) -> Result<Stream, Refusal> {
        self.expect(request, Method::GET, "GET")?;
        let bundles = self.bundles.clone().ok_or(Refusal::NotFound)?;
        self.prove(id, request, key)?;
        let place = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        Ok(Stream {
            follower: bundles.follow(id),
            devices: self.devices.changes(),
            draining: self.draining.clone(),
            said: None,
            _place: place,
        })
    }

    /// A part of a quota. That it is the device who asks matters whatever the configuration says of proofs.
    async fn lease<B>(
        &self,
        id: DeviceId,
        quota: &str,
        request: Request<B>,
        key: Option<&PublicKey>,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let leases = self.leases.clone().ok_or(Refusal::NotFound)?;
        let device = self.device(id, &request)?;
        let shown = Shown { key, method: request.method(), path: request.uri().path(), headers: request.headers() };
        self.proofs.demand(&device.key, shown, now())?;
        let body = read_whole(request, leases::LENGTH_LIMIT, self.ingest.body_timeout).await?;
        let response = Response::builder().header(header::CACHE_CONTROL, "no-store");
        let response = match leases.answer(id, quota, &body, now()).await? {
            Some(lease) => response.header(header::CONTENT_TYPE, LEASE_TYPE).body(Full::from(lease)),
            None => response.status(StatusCode::NO_CONTENT).body(Full::default()),
        };
        Ok(whole(response.expect("the headers are constants")))
    }

    /// A device asks to be enrolled.
    async fn request<B>(&self, request: Request<B>) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let requests = self.requests.clone().ok_or(Refusal::NotFound)?;
        self.expect(&request, Method::PUT, "PUT")?;
        let bytes = read_whole(request, LENGTH_LIMIT, self.ingest.body_timeout).await?;
        let device = requests.keep(bytes).await?;
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unsaid) = askers.say(Instant::now()) {
            info!(%device, unsaid, "a device asks to be enrolled; its request waits for whoever enrols");
        }
        Ok(())
    }

    async fn usage<B>(&self, request: Request<B>) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let (id, at) = read_usage_path(request.uri().path()).ok_or(Refusal::NotFound)?;
        self.expect(&request, Method::PUT, "PUT")?;
        // Of a device that sends what an older key signed, the older one has no backlog.
        let shown = request.headers().get(DEVICE_KEY).and_then(|value| value.to_str().ok()).and_then(device_key);
        let told = shown.filter(|key| DeviceId::from(key.id()) == id).and(request.headers().get(BACKLOG).cloned());
        let taken = match self.device(id, &request) {
            Ok(device) => self.ingest.take(&device, &self.devices, at, request).await,
            Err(refusal) => Err(refusal),
        };
        let receipt = taken.inspect_err(|refusal| {
            let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(unsaid) = if refusal.is_anybodys() { strangers.say(Instant::now()) } else { Some(0) } {
                let name = refusal.name();
                warn!(device = %id, stream = %at.stream, seq = at.seq, name, unsaid, "a usage file is refused");
            }
        })?;
        if told.is_some() {
            self.devices.hear(id, told.as_ref());
        }
        let mut response = Response::builder().header(header::CONTENT_TYPE, RECEIPT_TYPE);
        if let Some(bundles) = &self.bundles {
            response = response.header(BUNDLES_HINT, bundles.list().hint(id));
        }
        Ok(whole(response.body(Full::from(receipt)).expect("a constant and hex digits are header values")))
    }
}

/// By the hub's clock.
fn now() -> i64 {
    Reading::now().wall_ms.div_euclid(1_000)
}
