//! `tidegate bundle`: a folder becomes a draft, a draft is signed by several people in turn, and anybody can look.

mod build;
mod check;
mod diff;
mod inspect;
mod kept;
mod lint;
mod listing;
mod overlap;
mod records;
mod sign;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Subcommand;

pub(super) use build::chain;

use super::root::read_root;
use crate::bundle::container::MAX_FILE;
use crate::bundle::root::RootDocument;
use crate::bundle::{Entries, Refused, reset, succession};
use crate::disk::read_limited;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Compile a policy folder to an unsigned bundle.
    #[command(after_help = "Example:\n  tidegate bundle build policy -o policy-7.tgb --reason \"new till\"")]
    Build(build::Build),
    /// Add signatures to a bundle, after showing what is signed.
    #[command(after_help = "Example:\n  tidegate bundle sign policy-7.tgb --key policy/keys/policy.key")]
    Sign(sign::Sign),
    /// Show everything that a bundle says, without judging it.
    #[command(after_help = "Example:\n  tidegate bundle inspect policy-7.tgb --json")]
    Inspect(inspect::Inspect),
    /// Show what changes from one bundle or policy folder to another.
    #[command(after_help = "Example:\n  tidegate bundle diff policy-6.tgb policy")]
    Diff(diff::Diff),
    /// Judge a bundle as a device would: exit code 0 or 65.
    #[command(
        after_help = "Example:\n  tidegate bundle verify policy-7.tgb --root policy/root.json --label site=north"
    )]
    Verify(verify::Verify),
    /// Look for what callers would find at request time: exit code 0, or 65 if there is an error.
    #[command(after_help = "Example:\n  tidegate bundle check policy --json")]
    Check(check::Check),
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Build(arguments) => build::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
    }
}

/// A whole bundle in memory.
pub(super) fn read_bundle(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = read_limited(path, MAX_FILE).with_context(|| format!("bundle {}", path.display()))?;
    ensure!(
        !bytes.starts_with(&reset::MAGIC),
        "{0} is a time reset, not a bundle: `tidegate time sign {0}` shows it before it signs",
        path.display()
    );
    Ok(bytes)
}

/// `root.json` of the policy folder that a key file lies in: `DIR/keys/policy.key` → `DIR/root.json`.
pub(super) fn root_beside(key: &Path) -> Option<PathBuf> {
    let folder = key.parent()?.parent()?;
    Some(folder.join("root.json")).filter(|path| path.is_file())
}

/// The newest root that a bundle leads to from `pinned`, by the signatures of its chain: what a device would judge by.
fn newest_root(bundle: &[u8], pinned: RootDocument) -> Result<RootDocument, Refused> {
    Ok(succession::brought(bundle, &pinned)?.pop().map_or(pinned, |last| last.root))
}

/// The entries of a bundle that nobody judged.
pub(super) fn entries(path: &Path) -> anyhow::Result<Entries> {
    let bundle = read_bundle(path)?;
    let blobs = inspect::blobs(&bundle).with_context(|| format!("bundle {}", path.display()))?;
    Ok(blobs.into_iter().map(|(kind, blob)| (kind, blob.to_vec())).collect())
}
