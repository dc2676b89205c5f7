//! One usage file: body, every check, the device's rate, the ledger, the receipt.
//!
//! What can be refused without the body is refused without it: an upload that shows the file's signature has a place only
//! after that was checked over the file's head, and those that do not share half of the places, for anybody can name a
//! device. No step takes more memory than the limits of a usage file, and only a fixed number of files is in memory at
//! once.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::body::Body;
use tokio::sync::Semaphore;
use tracing::info;

use super::devices::Devices;
use super::ledger::{Device, Taken};
use super::rate::Rates;
use super::refusal::Refusal;
use super::writer::Writer;
use crate::ids::{DeviceId, unhex};
use crate::keys::PublicKey;
use crate::spool::backlog::Cursor;
use crate::spool::chain::Verdict;
use crate::spool::protocol::SIGNATURE;
use crate::spool::segment::{self, FILE_LIMIT, SIGNATURE_LEN, Unverified, Verified};

/// What must come of a body in each `body_timeout`, in bytes.
const PROGRESS: usize = 1 << 10;

/// How long an upload that showed its signature waits for a place, first come, first served, before it is turned away.
const PLACE_WAIT: Duration = Duration::from_secs(2);

/// What all uploads share.
#[derive(Debug)]
pub(super) struct Ingest {
    writer: Writer,
    uploads: Semaphore,
    /// Places for uploads of which nobody knows whose they are.
    unproven: Semaphore,
    /// Who sends a body now; at most [`UPLOADS_EACH`] times each, so that none takes all places.
    senders: Mutex<Vec<DeviceId>>,
    rates: Mutex<Rates>,
    pub(super) body_timeout: Duration,
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
    pub(super) fn new(writer: Writer, uploads: usize, rates: Rates, body_timeout: Duration) -> Self {
        let unproven = Semaphore::new(uploads.div_ceil(2));
        let (uploads, senders) = (Semaphore::new(uploads), Mutex::default());
        Self { writer, uploads, unproven, senders, rates: Mutex::new(rates), body_timeout }
    }

    /// Takes the file of `device` that the request brings; the receipt.
    pub(super) async fn take<B>(
        &self,
        device: &Arc<Device>,
        devices: &Devices,
        at: Cursor,
        request: Request<B>,
    ) -> Result<Vec<u8>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
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
                        None if read(body.as_mut(), &mut bytes, 1, self.body_timeout).await? => {}
                        _ => return Err(Refusal::File(segment::Error::SignatureInvalid)),
                    }
                }
            };
            tokio::time::timeout(self.body_timeout, proof).await.map_err(|_| Refusal::BodyTimeout)??;
            self.count(device.id(), usize::try_from(len).unwrap_or(usize::MAX))?;
        } else {
            _unproven = Some(self.unproven.try_acquire().map_err(|_| Refusal::Overloaded)?);
        }
        let waits = if shown.is_some() { PLACE_WAIT } else { Duration::ZERO };
        let place = tokio::time::timeout(waits, self.uploads.acquire()).await;
        let _permit = place.map_err(|_| Refusal::Overloaded)?.map_err(|_| Refusal::Overloaded)?;
        let _sender = Sender::enter(&self.senders, device.id()).ok_or(Refusal::Overloaded)?;
        while read(body.as_mut(), &mut bytes, PROGRESS, self.body_timeout).await? {}

        let key = device.key.clone();
        let checked = tokio::task::spawn_blocking(move || check(&bytes, at, &key).map(|file| (file, bytes)));
        let (file, bytes) = checked.await.map_err(|_| Refusal::LedgerFailed)??;
        if shown.is_none() {
            self.count(device.id(), bytes.len())?;
        }
        if device.came_by_itself {
            devices.admit_guest(device)?;
        }
        let (id, requests, others) = (device.id(), file.header().requests, file.header().others);
        match self.writer.take(Device::clone(device), file, bytes).await {
            Ok(Taken::Kept { receipt, verdict }) => {
                info!(device = %id, stream = %at.stream, seq = at.seq, requests, others, ?verdict, "has a usage file");
                Ok(receipt)
            }
            Ok(Taken::Apart(Verdict::ChainFork)) => Err(Refusal::ChainFork),
            Ok(Taken::Apart(_)) => Err(Refusal::PreviousMismatch),
            Err(_) => Err(Refusal::LedgerFailed),
        }
    }

    /// Counts a file against the device's own rate.
    fn count(&self, device: DeviceId, length: usize) -> Result<(), Refusal> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(device, length, Instant::now()).map_err(Refusal::RateLimited)
    }
}

/// A body of at most `limit` bytes.
pub(super) async fn read_whole<B>(request: Request<B>, limit: usize, timeout: Duration) -> Result<Vec<u8>, Refusal>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let len = request.body().size_hint().exact().ok_or(Refusal::LengthRequired)?;
    if len > limit as u64 {
        return Err(Refusal::RequestTooLarge);
    }
    let mut body = pin!(Limited::new(request.into_body(), limit));
    let mut bytes = Vec::new();
    while read(body.as_mut(), &mut bytes, PROGRESS, timeout).await? {}
    Ok(bytes)
}

/// Reads `more` bytes within `timeout`; `false` if the body ends before.
async fn read<B>(
    mut body: Pin<&mut Limited<B>>,
    bytes: &mut Vec<u8>,
    more: usize,
    timeout: Duration,
) -> Result<bool, Refusal>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let enough = bytes.len() + more;
    let deadline = tokio::time::Instant::now() + timeout;
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

/// Every check that needs no state. CPU work: not for the reactor.
fn check(bytes: &[u8], at: Cursor, key: &PublicKey) -> Result<Verified, Refusal> {
    let file: Result<_, segment::Error> = Unverified::parse(bytes);
    let file = file.map_err(Refusal::File)?;
    let claimed = file.claimed();
    if (Cursor { stream: claimed.stream, seq: claimed.seq }) != at {
        return Err(Refusal::PathMismatch);
    }
    file.verify(key).map_err(Refusal::File)
}
