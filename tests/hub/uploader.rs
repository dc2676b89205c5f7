//! An uploader of the test device, over a backlog without a disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tidegate::keys::PublicKey;
use tidegate::telemetry::Heartbeats;
use tidegate::units::Span;
use tidegate::upload::{Clock, Config, Identity, Status, Uplink, Wakes, Worker};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::scene::{DEADLINE, Shelf, device};

/// An uploader that runs; aborted when dropped.
pub(crate) struct Uploader {
    pub(crate) shelf: Shelf,
    pub(crate) hubs: watch::Sender<Arc<[PublicKey]>>,
    pub(crate) wakes: Wakes,
    pub(crate) uplink: Arc<Uplink>,
    status: watch::Receiver<Status>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Uploader {
    pub(crate) fn start(config: Config, shelf: Shelf, hub: PublicKey) -> Self {
        Self::by_clock(config, Box::new(|| None), None, shelf, hub)
    }

    /// With a clock for its windows, and a file for the bytes of the day.
    pub(crate) fn by_clock(config: Config, clock: Clock, file: Option<PathBuf>, shelf: Shelf, hub: PublicKey) -> Self {
        let hubs = watch::Sender::new(Arc::from([hub]));
        let wakes = Wakes::default();
        let uplink = Uplink::new(&config, clock, file).expect("the configuration is right");
        let identity = Identity::new(&device());
        let worker = Worker::new(config, &uplink, shelf.clone(), &identity, hubs.subscribe(), wakes.clone())
            .expect("the configuration is right")
            .expect("it names a hub");
        let status = worker.status();
        let hearts = Heartbeats::new(Instant::now(), DEADLINE);
        let [upload, chores] = ["upload", "uplink"].map(|task| hearts.register(task, Instant::now()));
        let (upload, chores) = (tokio::spawn(worker.run(upload)), tokio::spawn(Arc::clone(&uplink).run(chores)));
        Self { shelf, hubs, wakes, uplink, status, tasks: [upload, chores] }
    }

    pub(crate) async fn until(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let reached = tokio::time::timeout(DEADLINE, self.status.wait_for(what)).await;
        *reached.expect("it comes to that").expect("the uploader lives")
    }
}

/// A configuration with which a test need not wait.
pub(crate) fn config(hub: String) -> Config {
    let (retry_base, retry_cap) = (Span::millis(5), Span::millis(50));
    Config { hubs: vec![hub], retry_base, retry_cap, interval: Span::secs(3600), ..Config::default() }
}
