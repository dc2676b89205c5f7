//! The installer's part that judges and records: called by systemd/release as root.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::bundle::Refused;
use crate::bundle::installer::{Installer, Taken};
use crate::cli::root::read_root;
use crate::cli::{Refusal, print};

/// Where the installer works.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Folders {
    /// The installer's own folder.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate-release")]
    folder: PathBuf,
    /// The daemon's state folder.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate")]
    state: PathBuf,
    /// The root document that was pinned to this device.
    #[arg(long, value_name = "FILE", default_value = "/etc/tidegate/root.json")]
    root: PathBuf,
}

impl Folders {
    fn open(&self) -> anyhow::Result<Installer> {
        let opened = Installer::open(&self.folder, &self.state, read_root(&self.root)?);
        opened.with_context(|| format!("the installer's folder {}", self.folder.display()))
    }
}

/// Says in one line what became of the release; a refusal is exit code 65.
pub(super) fn take(folders: &Folders) -> anyhow::Result<()> {
    let Taken { permit, release } = folders.open()?.take().with_context(|| folders.folder.display().to_string())?;
    let mut done = Ok(());
    let mut refused = |what: &str, why: &Refused| {
        println!("{what}: {}: {}", why.name(), print::visible(&why.to_string()));
        done = Err(Refusal.into());
    };
    match &permit {
        Some(Err(why)) => refused("permit", why),
        Some(Ok(())) => println!("permit: Permitted: it waits for the release that it names"),
        None => {}
    }
    match &release {
        Some(Err(why)) => refused("release", why),
        Some(Ok(Some(next))) => println!("release: Taken: version {}", next.version),
        Some(Ok(None)) => println!("release: AlreadyInstalled: in force already"),
        None => {}
    }
    done
}

pub(super) fn installed(folders: &Folders) -> anyhow::Result<()> {
    folders.open()?.installed().with_context(|| folders.folder.display().to_string())
}

pub(super) fn failed(folders: &Folders) -> anyhow::Result<()> {
    folders.open()?.failed().with_context(|| folders.folder.display().to_string())
}
