//! `bundle sign`: shows what would be signed, asks, signs. Several people do it in turn, or several keys at once.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::diff::{Changes, LISTED, Side};
use super::{inspect, newest_root, read_bundle, read_root, root_beside};
use crate::bundle::container::BundleType;
use crate::bundle::pack;
use crate::cli::confirm::Confirm;
use crate::cli::passphrase::PassphraseSource;
use crate::disk;

/// Add signatures to a bundle, after showing what is signed.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Sign {
    /// The bundle, unsigned or signed by others already.
    bundle: PathBuf,
    /// A key file; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Where the signed bundle is written. Default: over the bundle.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The bundle before it, to show what changes. Not asked for with --yes.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// There is none before it.
    #[arg(long, conflicts_with = "previous")]
    first: bool,
    /// The root document. Default: root.json of the folder that the key's folder lies in.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

pub(super) fn run(sign: &Sign) -> anyhow::Result<()> {
    let root = sign.root.clone().or_else(|| sign.key.iter().find_map(|key| root_beside(key)));
    let pinned = read_root(&root.context("no root.json lies beside the key: name it with --root")?)?;
    let mut bundle = read_bundle(&sign.bundle)?;
    let root = newest_root(&bundle, pinned)?;
    print!("{}", inspect::summary(&bundle, Some(&root))?);
    println!("\nAll that is in it: tidegate bundle inspect {}", sign.bundle.display());
    // What the manifest does not name is no part of what is signed, and must not be read as such.
    let drafted = Side::of(&bundle)?;
    match &sign.previous {
        Some(path) => {
            print!("\nchanges against {}\n{}", path.display(), changes(&read_bundle(path)?, &bundle, &drafted)?)
        }
        None if sign.first => println!("\nThe first of its kind, with nothing to compare it with."),
        None if sign.confirm.asks_nobody() => {
            println!("\nNot compared with the bundle before it: --previous FILE does.")
        }
        None => bail!(
            "not signed: what it changes is not known; name the bundle before it, from your own copies, with --previous \
             FILE, or say --first where there is none"
        ),
    }
    let keys = sign.key.iter().map(|path| sign.passphrase.open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
    sign.confirm.check(pack::digest(&bundle)?, &names.join(", "))?;
    for key in &keys {
        bundle = pack::sign(&bundle, &root, &key.key)?;
    }
    let output = sign.output.as_ref().unwrap_or(&sign.bundle);
    disk::replace(output, &bundle, 0o644).with_context(|| format!("writing {}", output.display()))?;
    let signers = pack::signers(&bundle, &root)?;
    let (have, need) = (signers.keys.len(), signers.threshold);
    println!("\nSigned: {} has {have} of {need} signatures", output.display());
    match need.checked_sub(have) {
        None | Some(0) => println!("It is complete."),
        Some(missing) => println!("Pass it on: {missing} more of the role must sign."),
    }
    Ok(())
}

/// What changes against the bundle before; refuses what devices that have that one would refuse.
fn changes(previous: &[u8], bundle: &[u8], drafted: &Side) -> anyhow::Result<String> {
    let changes = Changes::between(&Side::of(previous)?, drafted)?;
    if pack::head(bundle)?.preamble().bundle_type == BundleType::Revocation {
        pack::check_list(previous, bundle)?;
    }
    Ok(changes.text(LISTED))
}
