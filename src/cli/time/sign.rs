//! `time sign`: one more holder of the root reads what it says, and signs.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Holders, finish, summary};
use crate::bundle::reset::{MAX_FILE, TimeReset};
use crate::cli::root::read_root;
use crate::disk::read_limited;

/// Add signatures to a time reset that others have signed.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Sign {
    /// The time reset; it is written over.
    file: PathBuf,
    #[command(flatten)]
    holders: Holders,
}

pub(super) fn run(arguments: &Sign) -> anyhow::Result<()> {
    let root = read_root(&arguments.holders.root)?;
    let named = || format!("time reset {}", arguments.file.display());
    let file = read_limited(&arguments.file, MAX_FILE).with_context(named)?;
    let (reset, signers) = TimeReset::inspect(&file, &root).with_context(named)?;
    print!("{}", summary(&file, &reset)?);
    for key in &signers.keys {
        println!("signed by {}", root.holder(*key).unwrap_or("a key without a name"));
    }
    finish(file, &root, &arguments.holders, &arguments.file)
}
