//! The one thread that owns the ledger: SQLite never blocks the reactor.

use std::thread;

use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::ledger::{Device, Enrolled, Error, Ledger, Taken};
use crate::clock::Reading;
use crate::spool::segment::Verified;

/// A verified file on its way to the ledger.
struct Job {
    device: Device,
    file: Verified,
    bytes: Vec<u8>,
    reply: oneshot::Sender<Option<Taken>>,
}

/// The number of changes, and all devices.
type Devices = (u64, Vec<Enrolled>);

/// What the thread is asked for.
enum Order {
    Take(Box<Job>),
    DevicesSince(Option<u64>, oneshot::Sender<Option<Option<Devices>>>),
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Order>);

/// The ledger did not take the file; its thread has logged why. Nothing was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl Writer {
    /// Starts the thread. It ends when the last `Writer` is dropped and the queue is empty.
    pub(super) fn start(mut ledger: Ledger, queue: usize) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, mut jobs) = mpsc::channel::<Order>(queue);
        let thread = thread::Builder::new().name("ledger".into()).spawn(move || {
            while let Some(order) = jobs.blocking_recv() {
                let Job { device, file, bytes, reply } = match order {
                    Order::Take(job) => *job,
                    Order::DevicesSince(known, reply) => {
                        let devices = devices_since(&mut ledger, known);
                        if let Err(error) = &devices {
                            error!(%error, source = ?std::error::Error::source(error), "the ledger does not tell its devices");
                        }
                        let _ = reply.send(devices.ok());
                        continue;
                    }
                };
                let taken = ledger.take(&device, &file, &bytes, Reading::now().wall_ms);
                if let Err(error) = &taken {
                    error!(%error, source = ?std::error::Error::source(error), "the ledger did not take a file");
                }
                // An uploader that went away gets its receipt when it sends again.
                let _ = reply.send(taken.ok());
            }
        })?;
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

    /// Returns when the thread is gone, which only a defect makes happen while this handle lives.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

fn devices_since(ledger: &mut Ledger, known: Option<u64>) -> Result<Option<Devices>, Error> {
    let now = ledger.changes()?;
    if known == Some(now) { Ok(None) } else { Ok(Some((now, ledger.devices()?))) }
}
