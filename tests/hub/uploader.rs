//! An uploader of the test device, over a backlog without a disk.

use std::sync::Arc;
use std::time::Instant;

use tidegate::keys::PublicKey;
use tidegate::telemetry::Heartbeats;
use tidegate::units::Span;
use tidegate::upload::{Config, Identity, Status, Wakes, Worker};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::scene::{DEADLINE, Shelf, device};

/// An uploader that runs; aborted when dropped.
pub(crate) struct Uploader {
    pub(crate) shelf: Shelf,
    pub(crate) hubs: watch::Sender<Arc<[PublicKey]>>,
    pub(crate) wakes: Wakes,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Uploader {
    pub(crate) fn start(config: Config, shelf: Shelf, hub: PublicKey) -> Self {
        let hubs = watch::Sender::new(Arc::from([hub]));
        let wakes = Wakes::default();
        let worker = Worker::new(config, shelf.clone(), &Identity::new(&device()), hubs.subscribe(), wakes.clone())
            .expect("the configuration is right")
            .expect("it names a hub");
        let status = worker.status();
        let heart = Heartbeats::new(Instant::now(), DEADLINE).register("upload", Instant::now());
        Self { shelf, hubs, wakes, status, task: tokio::spawn(worker.run(heart)) }
    }

    pub(crate) async fn until(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let reached = tokio::time::timeout(DEADLINE, self.status.wait_for(what)).await;
        *reached.expect("it comes to that").expect("the uploader lives")
    }
}

/// A configuration with which a test need not wait.
pub(crate) fn config(hub: String) -> Config {
    let (retry_base, retry_cap) = (Span::millis(5), Span::millis(50));
    Config { hub: Some(hub), retry_base, retry_cap, interval: Span::secs(3600), ..Config::default() }
}
