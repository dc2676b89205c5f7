//! Assembly: builds the parts, starts the tasks, drains them in order. The only module that may import all.
//!
//! ```text
//! start   key ─▶ importer (state folder, slots, time) ─▶ spool ─▶ gateway ─▶ uploader ─▶ admin ─▶ READY
//! stop    SIGTERM ─▶ importer (a trial's note closed) ─▶ time floor written ─▶ gateway drains ─▶ uploader ─▶ spool ─▶ end
//! ```
//!
//! Threads: this one runs admin, uploader, signals and the watchdog on one runtime; each gateway worker
//! has its own; imports block on a thread of their own, and so does the spool's writer. This thread stands behind the
//! workers ([`NICE`]): what it uploads takes no time from requests that they could use.

mod answers;
mod card;
mod check;
mod imports;
mod notify;
mod sockets;
mod timekeeper;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::bundle::{self, DeviceFacts, Importer, Opened, Origin};
use crate::config::Config;
use crate::disk::Disk;
use crate::gateway::{self, Gateway};
use crate::ids::DeviceId;
use crate::keys::PublicKey;
use crate::spool::protocol::BundleKind;
use crate::spool::{self, Spool};
use crate::store::device_key;
use crate::store::time::TimeFile;
use crate::telemetry::{self, Heartbeats, Standstill};
use crate::throttle::Throttle;
use crate::{admin, exit, token, upload};
use timekeeper::Timekeeper;

pub use check::{check, probe};

/// How often systemd is told how it goes where no watchdog asks for more.
const FEED: Duration = Duration::from_secs(5);
/// How long a task may show no progress before the watchdog is fed no more: longer than a slow card takes for one step.
const SILENCE: Duration = Duration::from_secs(60);

/// How far this thread stands behind those that serve requests, as nice(1) counts: a quarter of what one of them has where
/// they want all there is, with which it still feeds the watchdog.
const NICE: i32 = 5;

/// How long all but the drain may take at the end: what the unit gives (`TimeoutStopSec`).
const DOWN: Duration = Duration::from_secs(30);

/// Why the daemon does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`device_key::DeviceKeyError`].
    #[error(transparent)]
    DeviceKey(#[from] device_key::DeviceKeyError),
    /// See [`bundle::OpenError`].
    #[error(transparent)]
    Bundle(#[from] bundle::OpenError),
    /// See [`gateway::Error`].
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// See [`spool::Error`].
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// See [`upload::Error`].
    #[error(transparent)]
    Upload(#[from] upload::Error),
    /// See [`admin::Error`].
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// See [`telemetry::Error`].
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// A folder or file cannot be used: check its owner, rights and disk.
    #[error("{0}: {1}")]
    Path(PathBuf, #[source] std::io::Error),
    /// The system gives no thread, runtime or signal.
    #[error("cannot start")]
    System(#[source] std::io::Error),
    /// A defect: report what the log says of it.
    #[error("{0}; its log says why: please report it")]
    Broken(Standstill),
}

impl Error {
    /// The exit code: 78 where only a person can help, so that systemd waits for one.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bundle(bundle::OpenError::Root(_) | bundle::OpenError::NoRoot(..) | bundle::OpenError::Newer)
            | Self::Admin(admin::Error::NotASocket { .. })
            | Self::Upload(_)
            | Self::Gateway(gateway::Error::Tls(_)) => exit::CONFIG,
            Self::DeviceKey(device_key::DeviceKeyError::Exposed { .. }) => exit::NO_PERMISSION,
            Self::DeviceKey(device_key::DeviceKeyError::Malformed { .. }) => exit::DATA,
            Self::Path(..) | Self::Spool(_) | Self::Bundle(_) => exit::IO,
            Self::Broken(_) => exit::SOFTWARE,
            _ => exit::UNAVAILABLE,
        }
    }
}

/// Serves until SIGTERM or SIGINT. `spool_child` is the argument that makes this binary the spool's child.
pub fn run(config: Config, spool_child: &str) -> Result<(), Error> {
    telemetry::start(&config.telemetry)?;
    token::install();
    if let Err(error) = check::raise_descriptors() {
        warn!(%error, "there may be too few descriptors: the limit could not be raised");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
    runtime.block_on(serve(config, spool_child))
}

async fn serve(config: Config, spool_child: &str) -> Result<(), Error> {
    let started = Instant::now();
    let hearts = Heartbeats::new(started, SILENCE);
    let mut signals = Signals::new().map_err(Error::System)?;

    // Who this device is.
    state_folder(&config.state).map_err(|error| Error::Path(config.state.clone(), error))?;
    let key = device_key::open(&config.state, credentials().as_deref())?;
    // Its labels come from its enrolment, which the importer keeps.
    let device = DeviceFacts { id: DeviceId::from(key.public().id()), labels: BTreeMap::new() };
    let device_id = device.id;
    info!(device = %device_id, version = env!("CARGO_PKG_VERSION"), "starting");

    // What it trusts, and what served last: verified again.
    let settings = bundle::Settings {
        state: config.state.clone(),
        root: config.trust.root.clone(),
        device,
        trial: config.trust.trial.0,
    };
    let disk: Arc<dyn Disk> = Arc::new(crate::disk::Machine);
    let now = timekeeper::moment(&config.time.trust);
    let Opened { mut importer, serving, list, origin, unrecorded } =
        Importer::open(disk, settings, bundle::compile, &now)?;
    say_origin(&origin);
    if let Some(error) = unrecorded {
        warn!(%error, "the start could not be written into the journal or the time floor; serving all the same");
    }
    let card = card::look(&config.state, &mut importer, &now);
    let hub_keys: Arc<[PublicKey]> = importer.hub_keys().cloned().collect();
    let time_file = importer.time();
    let mut timekeeper = Timekeeper::new(importer.time(), &config.time);

    // Usage, from the first request on.
    let program = spool::Program { path: "/proc/self/exe".into(), arguments: vec![spool_child.to_owned()] };
    let workers = config.gateway.worker_count();
    let spool = Arc::new(Spool::start(&config.spool, &config.state.join("spool"), &key, program, workers)?);
    spool.watched(hearts.register("spool", Instant::now()));

    // What the hub need not send again.
    let known = [
        (BundleKind::Enrolment, importer.enrolled()),
        (BundleKind::Revocation, list.as_ref().map(|list| list.digest)),
        (BundleKind::Policy, serving.as_ref().map(|active| active.digest)),
    ];
    let in_force = known.into_iter().filter_map(|(kind, digest)| Some((kind, digest?))).collect();
    let known = Arc::new(upload::Known::open(config.state.join("fetched.json"), in_force));

    let outcomes = Arc::new(imports::Outcomes::new());
    outcomes.card.store(Arc::new(card));
    outcomes.labels.store(Arc::new(importer.device().labels.clone()));
    if let Some(list) = list {
        outcomes.put_list_in_force(list);
    }
    if let Some(active) = serving {
        let at = importer.time().floor().bounds(&now.reading, now.trusted).lower;
        spool.policy_is(outcomes.put_in_force(active, at, importer.on_trial()));
    }

    // Everything that can be refused is made before the first connection is taken.
    let shared = gateway::Shared {
        policy: Arc::clone(&outcomes.policy),
        throttle: Arc::new(Throttle::new(config.throttle)),
        time: timekeeper.state(),
        counters: Arc::default(),
        origin: Instant::now(),
        pseudonyms: Arc::new(key.mac_key(gateway::PSEUDONYMS)),
        hearts: hearts.clone(),
    };
    let wall = now.reading.wall_ms.div_euclid(1_000);
    let inbox = bundle::inbox::Inbox::open(&config.inbox, &config.state.join("rejected"), wall)
        .map_err(|error| Error::Path(config.inbox.clone(), error))?;
    let wakes = upload::Wakes::default();
    let kick = Arc::clone(&wakes.kick);
    let (rotated_hubs, hubs) = watch::channel(hub_keys);
    let known_hubs = hubs.clone();
    let identity = upload::Identity::new(&key);
    let uplink =
        upload::Uplink::new(&config.upload, timekeeper::clock(timekeeper.state()), Some(config.state.join("traffic")))?;
    let settings = config.upload.clone();
    let uploader = upload::Worker::new(settings, &uplink, Arc::clone(&spool), &identity, hubs, wakes.clone())?;
    let puller = match &uploader {
        Some(uploader) => {
            let shelf = upload::Shelf { inbox: config.inbox.clone(), most: bundle::container::MAX_FILE };
            upload::Puller::new(
                config.upload.clone(),
                &uplink,
                &identity,
                shelf,
                Arc::clone(&known),
                uploader.status(),
                Arc::clone(&wakes.bundles),
            )?
        }
        None => None,
    };
    let listener = upload::Listener::new(config.upload.clone(), &uplink, &identity, Arc::clone(&wakes.bundles))?;
    let doors = admin::Doors::open(&config.admin)?;
    let listeners = sockets::open(&config.gateway.listeners)?;

    // Requests.
    let intakes = (0..workers).map(|worker| Box::new(spool.intake(worker)) as Box<dyn gateway::Intake>).collect();
    let gateway = Gateway::start(&config.gateway, listeners, &shared, intakes)?;

    // Bundles.
    let work = imports::Work {
        importer,
        inbox,
        key,
        state: config.state.clone(),
        outcomes: Arc::clone(&outcomes),
        spool: Arc::clone(&spool),
        hubs: rotated_hubs,
        known,
        time: config.time.trust.clone(),
        shown: timekeeper.state(),
        heart: hearts.register("imports", Instant::now()),
        hearts: hearts.clone(),
        panics: telemetry::panics(),
    };
    let imports = imports::Imports::start(work).map_err(Error::System)?;

    // Questions.
    let daemon = Arc::new(answers::Daemon {
        started,
        device: device_id,
        outcomes,
        counters: shared.counters,
        throttle: shared.throttle,
        time: timekeeper.state(),
        spool: Arc::clone(&spool),
        hub_keys: known_hubs,
        upload: uploader.as_ref().map(upload::Worker::status),
        events: listener.as_ref().map(upload::Listener::status),
        uplink: Arc::clone(&uplink),
        hubs: config.upload.hubs.clone(),
        hearts: hearts.clone(),
        metrics: std::sync::OnceLock::new(),
    });
    answers::Daemon::declare_metrics(&daemon);
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let answers = doors.serve(Arc::<answers::Daemon>::clone(&daemon), async {
        let _ = closed.await;
    });
    let heart = hearts.register("admin", Instant::now());
    let mut tasks = vec![tokio::spawn(async move { heart.during(answers).await })];

    // Usage, to the hub.
    if let Some(uploader) = uploader {
        let relay = relay(Arc::clone(&spool), wakes, uploader.status(), time_file);
        let heart = hearts.register("relay", Instant::now());
        tasks.push(tokio::spawn(async move { heart.during(relay).await }));
        let heart = hearts.register_slow("upload", config.upload.step(), Instant::now());
        tasks.push(tokio::spawn(uploader.run(heart)));
        tasks.push(tokio::spawn(Arc::clone(&uplink).run(hearts.register("uplink", Instant::now()))));
    }
    if let Some(puller) = puller {
        let heart = hearts.register_slow("pull", config.upload.step(), Instant::now());
        tasks.push(tokio::spawn(puller.run(heart)));
    }
    if let Some(listener) = listener {
        let heart = hearts.register_slow("events", config.upload.step(), Instant::now());
        tasks.push(tokio::spawn(listener.run(heart)));
    }

    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        warn!(%error, "uploads do not stand behind requests");
    }
    let supervisor = notify::Supervisor::new();
    supervisor.ready(&daemon.line());
    info!(startup_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), "ready");
    if let Err(broken) = attend(&mut signals, &mut timekeeper, &spool, &daemon, &supervisor, &kick).await {
        imports.abandon();
        return Err(Error::Broken(broken));
    }

    // Down, in order. First what a SIGKILL would harm, should the supervisor not wait: a policy on trial would be blamed
    // for it. Then no new requests and no uploads; the spool last, for they feed it.
    let within = config.gateway.timeouts.drain.0;
    supervisor.stopping(within.saturating_add(DOWN));
    info!("stopping");
    if tokio::task::spawn_blocking(move || imports.stop()).await.is_err() {
        error!("the imports could not be ended");
    }
    if let Err(error) = timekeeper.close() {
        warn!(%error, "the time floor could not be written");
    }
    info!(?within, "requests in flight may end");
    match tokio::task::spawn_blocking(move || gateway.drain(within)).await {
        Ok(drained) if drained.broken_off == 0 && drained.dead_threads == 0 => {}
        Ok(drained) => warn!(broken_off = drained.broken_off, dead_threads = drained.dead_threads, "drained in part"),
        Err(error) => error!(%error, "the gateway could not be drained"),
    }
    let _ = close.send(());
    for task in tasks {
        task.abort(); // safe at any moment: what was not acknowledged is sent again
    }
    uplink.save();
    spool.stop(); // the runtime has nothing left to do meanwhile
    info!("stopped");
    Ok(())
}

/// The folder of what systemd gives this service to keep secret.
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The state folder, for this user's eyes only where it is made here.
fn state_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What the daemon is told from outside. Made before it is ready: from then on a signal must not end it unheard.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }
}

/// Until a signal says stop: refreshes the time, feeds the watchdog while every task makes progress. A task that has ended
/// is an error where there is no watchdog to see to it: any supervisor starts again what exits.
async fn attend(
    signals: &mut Signals,
    timekeeper: &mut Timekeeper,
    spool: &Spool,
    daemon: &answers::Daemon,
    supervisor: &notify::Supervisor,
    kick: &Notify,
) -> Result<(), Standstill> {
    let Signals { term, int, hup } = signals;
    let mut sealing: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    let mut second = tokio::time::interval(timekeeper::REFRESH);
    let mut feed = tokio::time::interval(supervisor.feed.unwrap_or(FEED));
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
            // Bundles come through the inbox and settings need a restart; what HUP can do is not to wait.
            _ = hup.recv(), if sealing.is_none() => {
                supervisor.reloading();
                sealing = Some(Box::pin(spool.sealed()));
            }
            () = async { if let Some(end) = &mut sealing { end.await } }, if sealing.is_some() => {
                sealing = None;
                kick.notify_one();
                supervisor.ready(&daemon.line());
            }
            _ = second.tick() => timekeeper.refresh(daemon.judged()),
            _ = feed.tick() => {
                supervisor.status(&daemon.line());
                match daemon.hearts.all_fresh(Instant::now()) {
                    Ok(()) => supervisor.alive(),
                    Err(broken @ Standstill::Ended(_)) if supervisor.feed.is_none() => return Err(broken),
                    Err(why) => error!("{why}; the watchdog is not fed"),
                }
            }
        }
    }
}

/// Between spool, uploader and time: a sealed file wakes the uploader; whether the hub is in reach sets how soon to
/// seal; what time the hub says it is raises the floor.
async fn relay(
    spool: Arc<Spool>,
    wakes: upload::Wakes,
    mut status: watch::Receiver<upload::Status>,
    time: Arc<TimeFile>,
) {
    let mut sealed = spool.changes();
    let mut hub_time = None;
    // Until a try has failed the hub is taken to be there: the first file tells.
    spool.hub_in_reach(true);
    loop {
        tokio::select! {
            changed = sealed.changed() => match changed {
                Ok(()) => wakes.sealed.notify_one(),
                Err(_) => return,
            },
            changed = status.changed() => match changed {
                Ok(()) => {
                    let now = *status.borrow_and_update();
                    spool.hub_in_reach(now.link.is_in_reach());
                    if now.hub_time != hub_time {
                        hub_time = now.hub_time;
                        timekeeper::hear_hub(&time, hub_time).await;
                    }
                }
                Err(_) => return,
            },
        }
    }
}

fn say_origin(origin: &Origin) {
    match origin {
        Origin::Fresh => warn!("safe mode: no bundle was ever accepted; drop one into the inbox"),
        Origin::Active => {}
        Origin::Previous(why) => {
            error!(result = why.name(), "the active bundle does not verify ({why}); the one before it serves")
        }
        Origin::NoList(why) => {
            let result = why.name();
            error!(
                result,
                "the list of revocations does not verify ({why}); safe mode until it or a later one is brought"
            )
        }
        Origin::Nothing(why) => {
            error!(result = why.name(), "no bundle verifies ({why}); safe mode until one is brought")
        }
    }
}

/// An error with its sources in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_person_can_help_waits_for_one_and_what_may_pass_is_tried_again() {
        let not_a_socket = admin::Error::NotASocket { path: "/run/tidegate".into() };
        for error in [Error::Bundle(bundle::OpenError::Newer), Error::Admin(not_a_socket)] {
            assert_eq!(error.exit_code(), exit::CONFIG, "{error}");
        }
        let in_use = admin::Error::SocketInUse { path: "/run/tidegate".into() };
        assert_eq!(Error::Admin(in_use).exit_code(), exit::UNAVAILABLE);
    }
}
