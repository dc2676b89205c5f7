//! The one thread that owns the ledger: a store never blocks the reactor.
//!
//! It takes what waits as one batch, up to a bound, commits once, and only then answers each: what one sync costs is
//! shared by all who wait for it.

use std::thread;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::ledger::{Device, Enrolled, Error, Heard, Incoming, Ledger, Taken};
use crate::clock::Reading;
use crate::spool::segment::Verified;

/// Most files in a batch, and bytes after which it has no further one; those in memory are limited before.
const FILES: usize = 64;
const BYTES: usize = 16 << 20;

/// A verified file on its way to the ledger.
#[derive(Debug)]
struct Job {
    device: Device,
    file: Verified,
    bytes: Vec<u8>,
    reply: oneshot::Sender<Option<Taken>>,
}

/// The number of changes, and all devices.
type Devices = (u64, Vec<Enrolled>);

/// What the thread is asked for.
#[derive(Debug)]
enum Order {
    Take(Box<Job>),
    DevicesSince(Option<u64>, oneshot::Sender<Option<Option<Devices>>>),
    Touch(Vec<Heard>),
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Order>);

/// The ledger did not do it; its thread has logged why. Nothing was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl Writer {
    /// Starts the thread. It ends when the last `Writer` is dropped and the queue is empty.
    pub(super) fn start(ledger: Ledger, queue: usize) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, orders) = mpsc::channel(queue);
        let thread = thread::Builder::new().name("ledger".into()).spawn(move || run(ledger, orders))?;
        Ok((Self(sender), thread))
    }

    /// Gives a file to the ledger and waits until it is durable.
    pub(super) async fn take(&self, device: Device, file: Verified, bytes: Vec<u8>) -> Result<Taken, Failed> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Order::Take(Box::new(Job { device, file, bytes, reply }))).await.map_err(|_| Failed)?;
        answer.await.ok().flatten().ok_or(Failed)
    }

    /// All devices, and the number of their changes, unless that still is `known`.
    pub(super) async fn devices_since(&self, known: Option<u64>) -> Result<Option<Devices>, Failed> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Order::DevicesSince(known, reply)).await.map_err(|_| Failed)?;
        answer.await.ok().flatten().ok_or(Failed)
    }

    /// These devices were heard of. `false` where the thread is busy: tell it again.
    pub(super) fn touch(&self, heard: Vec<Heard>) -> bool {
        self.0.try_send(Order::Touch(heard)).is_ok()
    }

    /// Returns when the thread is gone, which only a defect makes happen while this handle lives.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

fn run(mut ledger: Ledger, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.blocking_recv() {
        let mut next = Some(order);
        while let Some(order) = next.take() {
            match order {
                Order::Take(job) => {
                    let (batch, after) = gather(*job, &mut orders);
                    take(&mut ledger, batch);
                    next = after;
                }
                Order::DevicesSince(known, reply) => {
                    let devices = devices_since(&mut ledger, known).inspect_err(say);
                    let _ = reply.send(devices.ok());
                }
                Order::Touch(heard) => {
                    let _ = ledger.touch(&heard, Reading::now().wall_ms).inspect_err(say);
                }
            }
        }
    }
}

/// The files that wait with this one, and the order that ended them.
fn gather(first: Job, orders: &mut mpsc::Receiver<Order>) -> (Vec<Job>, Option<Order>) {
    let mut bytes = first.bytes.len();
    let mut batch = vec![first];
    while batch.len() < FILES && bytes < BYTES {
        match orders.try_recv() {
            Ok(Order::Take(job)) => {
                bytes += job.bytes.len();
                batch.push(*job);
            }
            Ok(other) => return (batch, Some(other)),
            Err(_) => break,
        }
    }
    (batch, None)
}

fn take(ledger: &mut Ledger, batch: Vec<Job>) {
    let result = ledger.take(&incoming(&batch), Reading::now().wall_ms).inspect_err(say);
    match result {
        Ok(taken) => {
            for (job, taken) in batch.into_iter().zip(taken) {
                // An uploader that went away gets its receipt when it sends again.
                let _ = job.reply.send(Some(taken));
            }
        }
        // One alone may fit where all together did not, and none suffers for another's.
        Err(_) if batch.len() > 1 => {
            warn!(files = batch.len(), "each is tried by itself");
            batch.into_iter().for_each(|job| take(ledger, vec![job]));
        }
        Err(_) => batch.into_iter().for_each(|job| drop(job.reply.send(None))),
    }
}

fn incoming(batch: &[Job]) -> Vec<Incoming<'_>> {
    batch.iter().map(|Job { device, file, bytes, .. }| Incoming { device, file, bytes }).collect()
}

fn devices_since(ledger: &mut Ledger, known: Option<u64>) -> Result<Option<Devices>, Error> {
    let now = ledger.changes()?;
    if known == Some(now) { Ok(None) } else { Ok(Some((now, ledger.devices()?))) }
}

fn say(error: &Error) {
    error!(%error, source = ?std::error::Error::source(error), "the ledger did not do what it was asked");
}
