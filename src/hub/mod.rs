//! The centre: takes in usage files and gives every record to its store exactly once.
//!
//! ```text
//! serve (TLS) ─▶ door (device, proof) ─▶ ingest ─▶ (verify) ─▶ writer thread ─▶ ledger: SQLite, or a ClickHouse that
//!               │                                          several hubs share ─▶ signed receipt
//!               ├─▶ time ─▶ signed time; leases ─▶ signed part of a quota
//!               ├─▶ bundles: what devices fetch; events: that there is something new
//!               └─▶ requests: what devices ask to be, for a person
//! fleet: a page for people, on a listener of its own
//! ```
//!
//! A file is taken only from the device whose key signed it, and acknowledged only when it is durable.
//! Nothing of this is linked into the daemon. Called by `tidegate-hub` and by `tidegate demo`.
//!
//! Invariant: a record is in the sink if and only if its file is in the ledger, and a receipt was sent
//! only for a file that is.

mod body;
mod bundles;
mod command;
mod config;
mod devices;
mod door;
mod events;
mod export;
mod fleet;
mod http;
mod import;
mod ingest;
mod leases;
mod ledger;
mod proof;
mod queue;
mod rate;
mod refusal;
mod report;
mod requests;
mod seldom;
mod serve;
mod time;
mod tls;
mod writer;

use std::net::SocketAddr;

pub use command::{add_device, check, devices, revoke_device};
pub use config::{Config, DeviceEntry, Enrol, Fleet, Quota, Tls, Window, read_key};
pub use export::{Export, Exported, Streams, export_wso2};
pub use import::{Error as ImportError, Imported, Outcome, import, usage_key};
pub use ledger::{By, Device, Enrolled};
pub use report::{By as ReportBy, Day, Error as ReportError, Format, Period, Query, Subject, report};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
pub use serve::Hub;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Files that are open beside connections: the ledger, a bundle for each reader, the runtime's own.
const DESCRIPTORS: u64 = 128;

/// Why the hub does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`config::Error`].
    #[error(transparent)]
    Config(#[from] config::Error),
    /// See [`ledger::Error`].
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The address is taken, or needs a privilege: choose another.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The system has no thread left.
    #[error("cannot start the ledger's thread")]
    Thread(#[source] std::io::Error),
    /// The system gives no runtime or signals.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    /// The ledger's thread panicked: a defect. Nothing unacknowledged is lost; start again.
    #[error("the ledger's thread stopped")]
    LedgerStopped,
}

impl Error {
    /// Whether only a person can help: then a supervisor should not try again.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Config(_) => true,
            Self::Ledger(error) => error.is_configuration(),
            _ => false,
        }
    }
}

/// Runs a hub on this thread until SIGTERM or SIGINT. `ready` is told the address once it listens.
pub fn run(config: Config, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    raise_descriptors(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(Error::Start)?;
        let mut int = signal(SignalKind::interrupt()).map_err(Error::Start)?;
        let hub = Hub::bind(config).await?;
        let address = hub.local_addr()?;
        info!(%address, "listening");
        ready(address);
        hub.serve(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        })
        .await
    })
}

/// Takes all the descriptors that the system gives: most supervisors set far less for those who do not ask.
fn raise_descriptors(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_ok()
    {
        limit.current = limit.maximum;
    }
    let needed = config.connections as u64 + DESCRIPTORS;
    if let Some(limit) = limit.current.filter(|limit| *limit < needed) {
        warn!(limit, needed, "too few descriptors for so many connections: raise the limit (LimitNOFILE= of the unit)");
    }
}
