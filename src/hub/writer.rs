//! The one thread that owns the ledger: SQLite never blocks the reactor.

use std::thread;

use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::ledger::{Device, Ledger, Taken};
use crate::clock::Reading;
use crate::spool::segment::Verified;

/// A verified file on its way to the ledger.
struct Job {
    device: Device,
    file: Verified,
    bytes: Vec<u8>,
    reply: oneshot::Sender<Option<Taken>>,
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Job>);

/// The ledger did not take the file; its thread has logged why. Nothing was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl Writer {
    /// Starts the thread. It ends when the last `Writer` is dropped and the queue is empty.
    pub(super) fn start(mut ledger: Ledger, queue: usize) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, mut jobs) = mpsc::channel::<Job>(queue);
        let thread = thread::Builder::new().name("ledger".into()).spawn(move || {
            while let Some(Job { device, file, bytes, reply }) = jobs.blocking_recv() {
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
        self.0.send(Job { device, file, bytes, reply }).await.map_err(|_| Failed)?;
        answer.await.ok().flatten().ok_or(Failed)
    }

    /// Returns when the thread is gone, which only a defect makes happen while this handle lives.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}
