//! `time sign`: one more holder of the root reads what it says, and signs.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::{finish, read_root, summary};
use crate::bundle::reset::{MAX_FILE, TimeReset};
use crate::cli::PassphraseSource;
use crate::disk::read_limited;

/// Add signatures to a time reset that others have signed.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Sign {
    /// The time reset; it is written over.
    file: PathBuf,
    /// The root document of the devices.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A key of the role root; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// Sign it: without this it is only shown.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &Sign) -> anyhow::Result<()> {
    let root = read_root(&arguments.root)?;
    let named = || format!("time reset {}", arguments.file.display());
    let file = read_limited(&arguments.file, MAX_FILE).with_context(named)?;
    let (reset, signers) = TimeReset::inspect(&file, &root).with_context(named)?;
    print!("{}", summary(&reset));
    for key in &signers.keys {
        println!("signed by {}", root.holder(*key).unwrap_or("a key without a name"));
    }
    if !arguments.yes {
        bail!("not signed: read what is shown above, then run the same command again with --yes");
    }
    finish(file, &root, (&arguments.key, &arguments.passphrase), &arguments.file)
}
