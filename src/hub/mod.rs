//! The centre: takes in usage files and gives every record to its store exactly once.
//!
//! ```text
//! serve ─▶ ingest ─▶ (verify) ─▶ writer thread ─▶ ledger: SQLite, or a ClickHouse that several hubs share ─▶ signed receipt
//!               ├─▶ time ─▶ signed time
//!               ├─▶ bundles: what devices fetch
//!               └─▶ requests: what devices ask to be, for a person
//! ```
//!
//! A file is taken only from the device whose key signed it, and acknowledged only when it is durable.
//! Nothing of this is linked into the daemon. Called by `tidegate-hub` and by `tidegate demo`.
//!
//! Invariant: a record is in the sink if and only if its file is in the ledger, and a receipt was sent
//! only for a file that is.

mod body;
mod bundles;
mod config;
mod ingest;
mod ledger;
mod refusal;
mod requests;
mod serve;
mod time;
mod writer;

use std::net::SocketAddr;

pub use config::{Config, DeviceEntry, Enrol, Tls, read_key};
pub use serve::Hub;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

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
