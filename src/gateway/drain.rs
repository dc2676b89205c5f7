//! Start and stop: threads up in order, connections told to end, the rest broken off at the deadline.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};

use super::listener::{Accepted, Listener};
use super::meter::Intake;
use super::worker::{self, Settings};
use super::{Config, Counters, Error, Shared};
use crate::telemetry::Heart;

/// Connections that may wait for one worker to take them.
const HANDOVER: usize = 64;

/// A gateway that serves. Dropping it stops it at once, and breaks off what is in flight.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<Option<Instant>>,
    acceptor: Option<JoinHandle<std::io::Result<()>>>,
    workers: Vec<JoinHandle<std::io::Result<usize>>>,
}

/// How a gateway stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were broken off at the deadline.
    pub broken_off: usize,
    /// Threads that had ended before, by an error or a panic.
    pub dead_threads: usize,
}

pub(super) fn start(
    config: &Config,
    listeners: Vec<Listener>,
    shared: &Shared,
    intakes: Vec<Box<dyn Intake>>,
) -> Result<Running, Error> {
    let settings = Settings::from(config);
    let room = Arc::new(Semaphore::new(usize::try_from(config.limits.connections.max(1)).unwrap_or(usize::MAX)));
    let (stop, stopped) = watch::channel(None);
    let mut running = Running { stop, acceptor: None, workers: Vec::new() };
    let mut senders = Vec::new();
    for (number, intake) in intakes.into_iter().enumerate() {
        let (sender, accepted) = mpsc::channel(HANDOVER);
        let (shared, stopped) = (shared.clone(), stopped.clone());
        let name = format!("gateway-{number}");
        let heart = shared.hearts.register(name.clone(), Instant::now());
        let thread = std::thread::Builder::new().name(name);
        let runtime = runtime().map_err(Error::Thread)?;
        let worker = thread.spawn(move || worker::run(runtime, settings, shared, intake, accepted, stopped, heart));
        running.workers.push(worker.map_err(Error::Thread)?);
        senders.push(sender);
    }
    let counters = Arc::clone(&shared.counters);
    let heart = shared.hearts.register("accept", Instant::now());
    let thread = std::thread::Builder::new().name("accept".into());
    let runtime = runtime().map_err(Error::Thread)?;
    let acceptor = thread.spawn(move || accept(&runtime, listeners, senders.into(), room, counters, stopped, heart));
    running.acceptor = Some(acceptor.map_err(Error::Thread)?);
    Ok(running)
}

/// Made before anything is accepted: callers may take all descriptors that are left.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn accept(
    runtime: &Runtime,
    listeners: Vec<Listener>,
    workers: Arc<[mpsc::Sender<Accepted>]>,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
    mut stop: watch::Receiver<Option<Instant>>,
    heart: Heart,
) -> std::io::Result<()> {
    runtime.block_on(heart.during(async {
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listeners {
            accepting.spawn(listener.accept(Arc::clone(&workers), Arc::clone(&room), Arc::clone(&counters)));
        }
        tokio::select! {
            _ = stop.wait_for(Option::is_some) => {}
            Some(_) = accepting.join_next() => {}
        }
    }));
    // A listener ends by itself when the workers do, which is after the stop.
    if stop.borrow().is_none() {
        return Err(std::io::Error::other("a listener has ended"));
    }
    heart.retire();
    Ok(())
}

impl Running {
    /// Stops accepting, lets the requests in flight end within `within`, and breaks off the rest. Blocks so long.
    #[must_use]
    pub fn drain(mut self, within: Duration) -> Drained {
        let now = Instant::now();
        self.stop(now.checked_add(within).unwrap_or(now))
    }

    fn stop(&mut self, deadline: Instant) -> Drained {
        let _ = self.stop.send(Some(deadline));
        let mut drained = Drained { broken_off: 0, dead_threads: 0 };
        match self.acceptor.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(_)) | Err(_)) => drained.dead_threads += 1,
        }
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(Ok(left)) => drained.broken_off += left,
                Ok(Err(_)) | Err(_) => drained.dead_threads += 1,
            }
        }
        drained
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}
