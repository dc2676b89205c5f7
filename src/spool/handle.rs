//! The spool as the rest of the daemon sees it.
//!
//! Every call but `start`, `intake` and `stop` only sends a message to the writer thread, or leaves it
//! where that finds it, so all of them may be made on a reactor thread.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

use crate::ids::{Digest, StreamId};
use crate::keys::SigningKey;
use crate::spool::backlog::{Backlog, Cursor, Stock, Unavailable, UsageFile};
use crate::spool::lane::Lane;
pub use crate::spool::writer::Waiting;
use crate::spool::writer::{Command, Shared, Writer};
use crate::spool::{Config, Error, Intake};
use crate::telemetry::Heart;

/// Commands that may wait for the writer thread.
const COMMANDS_LIMIT: usize = 64;

/// The binary that serves as the spool's child, and what makes it call [`super::child::run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Path of the binary; `/proc/self/exe` is this one, also after it was replaced on the disk.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// How the spool is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The stream that files go into now; `None` until the spool was opened for the first time in this run.
    pub stream: Option<StreamId>,
    /// Sealed files that wait for a receipt.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// The disk that they take, by which the backlog is limited.
    pub disk_bytes: u64,
    /// Records that were written in full since the start.
    pub appended: u64,
    /// Records that went into a sum since the start.
    pub rolled_up: u64,
    /// Records that could not even be summed since the start; a gap tells them.
    pub lost: u64,
    /// Bytes of records that wait to be sealed.
    pub open_bytes: u64,
    /// Bytes of records that a power cut would take now.
    pub unsynced_bytes: u64,
    /// The last thing that went wrong, until it works again.
    pub last_error: Option<String>,
}

/// The running spool.
#[derive(Debug)]
pub struct Spool {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    waiting: watch::Receiver<Waiting>,
    lanes: Mutex<Vec<Arc<Lane>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Spool {
    /// Starts the spool in `folder` for `workers` workers. What an earlier run left in the open logs is
    /// sealed at once, beside the traffic. Files are signed by `device`.
    pub fn start(
        config: &Config,
        folder: &Path,
        device: &SigningKey,
        program: Program,
        workers: u16,
    ) -> Result<Self, Error> {
        let (commands, orders) = sync_channel(COMMANDS_LIMIT);
        let (told, waiting) = watch::channel(Waiting::default());
        let shared = Arc::<Shared>::default();
        let (config, seed, ours) = (config.clone(), *device.seed(), Arc::clone(&shared));
        let writer = Writer::start(config, folder, seed, program, workers, told, ours)?;
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || writer.run(&orders));
        let thread = Mutex::new(Some(thread.map_err(Error::System)?));
        Ok(Self { commands, shared, waiting, lanes: Mutex::default(), thread })
    }

    /// The intake of a worker, from 0; each worker takes its own once. Blocks while it makes its files.
    #[must_use]
    pub fn intake(&self, worker: u16) -> Intake {
        let (reply, answer) = channel();
        let sent = self.commands.send(Command::Register { worker, reply });
        let intake = sent.ok().and_then(|()| answer.recv().ok()).unwrap_or_else(Intake::lost);
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&intake.lane));
        intake
    }

    /// Seals what there is, without waiting for its time.
    pub fn seal_now(&self) {
        // A stopped spool does not, and a writer that has so many commands before it will come to it by itself.
        let _ = self.commands.try_send(Command::SealNow { done: None });
    }

    /// As [`Self::seal_now`]; the end of it can be awaited, whether it could be done or not.
    pub fn sealed(&self) -> impl Future<Output = ()> + Send + 'static {
        let (done, end) = oneshot::channel();
        let _ = self.commands.try_send(Command::SealNow { done: Some(done) });
        async move { end.await.unwrap_or_default() }
    }

    /// Tells whether the hub can be reached: files are sealed sooner then.
    pub fn hub_in_reach(&self, in_reach: bool) {
        self.shared.in_reach.store(in_reach, Ordering::Relaxed);
    }

    /// Tells the manifest digest of the policy bundle in force; files name it.
    pub fn policy_is(&self, manifest: Digest) {
        *self.shared.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some(manifest);
    }

    /// Changes whenever a file is sealed or acknowledged: the uploader waits on it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Waiting> {
        self.waiting.clone()
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        let waiting = self.waiting.borrow().clone();
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: fn(&Lane) -> u64| lanes.iter().map(|lane| of(lane)).sum();
        Status {
            stream: waiting.stream,
            files: waiting.files,
            bytes: waiting.bytes,
            disk_bytes: waiting.disk_bytes,
            appended: sum(|lane| lane.appended.load(Ordering::Relaxed)),
            rolled_up: sum(|lane| lane.rolled_up.load(Ordering::Relaxed)),
            lost: sum(|lane| lane.lost.load(Ordering::Relaxed)),
            open_bytes: waiting.open_bytes,
            unsynced_bytes: self.shared.watch.unsynced(),
            last_error: waiting.last_error,
        }
    }

    /// Lets the writer thread show that it lives; without it nothing is sealed or synced, and in the end only counted.
    pub fn watched(&self, heart: Heart) {
        let _ = self.commands.send(Command::Watched(heart)); // a stopped one drops the heart, which tells
    }

    /// Stops in order; drop the intakes before. What is not sealed stays in the open logs, synced, for
    /// the next start: so this is quick. Blocks until the child has gone.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the spool's writer thread panicked");
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Backlog for Spool {
    fn waiting(&self) -> Option<Stock> {
        let waiting = self.waiting.borrow();
        waiting.is_known.then_some(Stock { files: waiting.files, bytes: waiting.bytes })
    }

    async fn oldest(&self, after: Option<Cursor>) -> Result<Option<UsageFile>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command::Oldest { after, reply }).map_err(|_| Unavailable)?;
        answer.await.unwrap_or(Err(Unavailable))
    }

    async fn acknowledge(&self, at: Cursor, digest: &Digest) -> Result<(), Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command::Acknowledge { at, digest: *digest, reply }).map_err(|_| Unavailable)?;
        answer.await.unwrap_or(Err(Unavailable))
    }
}
