//! The way to the spool: through the admin socket of a daemon that runs, or by the spool's lock where none does. Never both.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Runtime;

use crate::admin::{SpoolStatus, client};
use crate::bundle::root::{Role, RootDocument};
use crate::bundle::scan::known_root;
use crate::cli::SPOOL_CHILD;
use crate::cli::root::read_root;
use crate::config::{Config, Problems, Usb};
use crate::ids::{DeviceId, Digest};
use crate::keys::{PublicKey, sha256};
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::segment::Unverified;
use crate::spool::{self, Program, Spool};
use crate::stick::{Source, SourceFailed};
use crate::store::device_key;

/// Seals at most so often before files are read: what a killed daemon left is one or two files.
const SEALS_LIMIT: u32 = 64;

/// Which daemon's spool.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct At {
    /// The daemon's configuration: it names the admin socket, the state folder and the root.
    #[arg(long, value_name = "FILE", default_value = "/etc/tidegate/tidegated.toml")]
    config: PathBuf,
}

/// The usage of this device.
#[derive(Debug)]
pub(in crate::cli) struct Usage {
    pub(in crate::cli) device: DeviceId,
    config: Config,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// A daemon runs: it alone reads and deletes.
    Daemon { socket: PathBuf, spool: Box<SpoolStatus> },
    /// None does, and the spool is locked.
    Alone(Arc<Spool>),
}

impl At {
    /// Opens the way.
    pub(in crate::cli) fn open(&self, runtime: &Runtime) -> anyhow::Result<Usage> {
        let (config, problems) = Config::read(&self.config, std::env::vars_os());
        let Some(config) = config else { return Err(Problems(problems).into()) };
        let socket = config.admin.socket.clone();
        match runtime.block_on(client::status(&socket)) {
            Ok(status) => {
                let (device, way) = (status.device, Way::Daemon { socket, spool: Box::new(status.spool) });
                Ok(Usage { device, config, way })
            }
            Err(client::Error::NotRunning { .. }) => {
                let (device, spool) = alone(&config, runtime)?;
                Ok(Usage { device, config, way: Way::Alone(Arc::new(spool)) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The spool itself, which is locked from here on. What is not sealed yet is.
fn alone(config: &Config, runtime: &Runtime) -> anyhow::Result<(DeviceId, Spool)> {
    let folder = config.state.join("spool");
    let owner = std::fs::metadata(&folder).with_context(|| format!("there is no spool in {}", folder.display()))?.uid();
    // What another user makes there the daemon could not open afterwards.
    if owner != rustix::process::geteuid().as_raw() {
        let socket = config.admin.socket.display();
        let why = format!(
            "no daemon answers on {socket}, and the spool in {} belongs to user {owner}: start the daemon, or run this as \
             that user",
            folder.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why).into());
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let key = device_key::existing(&config.state, credentials.as_deref()).context(
        "without a daemon this command needs the device's key; start the daemon where it has it from systemd",
    )?;
    let program = Program { path: "/proc/self/exe".into(), arguments: vec![SPOOL_CHILD.to_owned()] };
    let spool = Spool::start(&config.spool, &folder, &key, program, 1).map_err(|error| match error {
        spool::Error::Locked(_) => {
            let socket = config.admin.socket.display();
            anyhow::Error::new(error).context(format!(
                "a daemon runs on this spool and does not answer on {socket}: name its own configuration with --config"
            ))
        }
        error => error.into(),
    })?;
    for _ in 0..SEALS_LIMIT {
        let before = spool.status().files;
        runtime.block_on(spool.sealed());
        if spool.status().files == before {
            break;
        }
    }
    if let Some(error) = spool.status().last_error {
        eprintln!("tidegate: {error}");
    }
    Ok((DeviceId::from(key.public().id()), spool))
}

impl Usage {
    /// The device's public key, where its file may be read.
    pub(in crate::cli) fn key(&self) -> Option<PublicKey> {
        device_key::existing(&self.config.state, None).ok().map(|key| key.public())
    }

    /// The newest root that this device knows.
    pub(in crate::cli) fn root(&self) -> anyhow::Result<RootDocument> {
        Ok(known_root(&read_root(&self.config.trust.root)?, &self.config.state))
    }

    /// The keys of its hub role.
    pub(in crate::cli) fn hubs(&self) -> anyhow::Result<Vec<PublicKey>> {
        Ok(self.root()?.role_keys(Role::Hub).cloned().collect())
    }

    /// What sticks may do here.
    pub(in crate::cli) fn usb(&self) -> &Usb {
        &self.config.usb
    }

    /// Whether a daemon runs, and what the spool said last of its disk and its troubles.
    pub(in crate::cli) fn state(&self) -> (bool, u64, Option<String>) {
        match &self.way {
            Way::Daemon { spool, .. } => (true, spool.disk_bytes, spool.last_error.clone()),
            Way::Alone(spool) => {
                let status = spool.status();
                (false, status.disk_bytes, status.last_error)
            }
        }
    }
}

impl Source for Usage {
    fn waiting(&self) -> Option<u64> {
        match &self.way {
            Way::Daemon { spool, .. } => Some(spool.backlog_files),
            Way::Alone(spool) => Source::waiting(spool),
        }
    }

    async fn next(&self, after: Option<Cursor>) -> Result<Option<UsageFile>, SourceFailed> {
        match &self.way {
            Way::Daemon { socket, .. } => next(socket, after).await,
            Way::Alone(spool) => Source::next(spool, after).await,
        }
    }

    async fn acknowledge(&self, at: Cursor, digest: &Digest, receipt: &[u8]) -> Result<(), SourceFailed> {
        match &self.way {
            Way::Daemon { socket, .. } => {
                client::receipt(socket, receipt).await.map_err(|error| SourceFailed(Box::new(error)))
            }
            Way::Alone(spool) => Source::acknowledge(spool, at, digest, receipt).await,
        }
    }
}

async fn next(socket: &Path, after: Option<Cursor>) -> Result<Option<UsageFile>, SourceFailed> {
    let found = client::next_file(socket, after).await.map_err(|error| SourceFailed(Box::new(error)))?;
    let Some(bytes) = found else { return Ok(None) };
    let header = *Unverified::parse(&bytes).map_err(|error| SourceFailed(Box::new(error)))?.claimed();
    let at = Cursor { stream: header.stream, seq: header.seq };
    Ok(Some(UsageFile { at, digest: sha256(&bytes), bytes: bytes.into() }))
}
