//! `root sign`: shows what a root changes, asks, signs. Several people do it in turn, each on a machine of their own.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::changes::changes;
use super::{counted, previous_beside, read_root, read_signed, signatures_of};
use crate::bundle::succession;
use crate::cli::confirm::Confirm;
use crate::cli::passphrase::PassphraseSource;
use crate::cli::print;
use crate::disk;

/// Sign a root, after showing what it changes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Sign {
    /// The root; its signatures lie beside it in a file that ends in .sigs.
    root: PathBuf,
    /// A key file; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The root that it follows. Default: root-N.json or root.json beside it, whichever is one version less.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

pub(super) fn run(sign: &Sign) -> anyhow::Result<()> {
    let mut signed = read_signed(&sign.root)?;
    let root = signed.root().clone();
    let previous = sign.previous.clone().or_else(|| previous_beside(&sign.root, &root));
    let old = previous.map(|path| read_root(&path)).transpose()?;
    let version = root.version();
    if old.is_none() && version > 1 {
        bail!("version {version} follows a root, and without that nobody sees what changes: name it with --previous");
    }
    old.as_ref().map(|old| succession::check(old, &root)).transpose()?;
    // What was signed before must be sound: a wrong signature would spoil the chain for everybody after.
    signed.signers(old.as_ref())?;
    let rows = [
        ("root", format!("version {version} of deployment {}", root.deployment())),
        ("digest", root.digest().to_string()),
        ("epoch", root.epoch().to_string()),
        ("issued at", print::moment(root.issued_at())),
    ];
    print!("{}", print::pairs(&rows));
    match &old {
        Some(old) => print!("\nchanges against version {} ({})\n{}", old.version(), old.digest(), changes(old, &root)),
        None => println!("\nThe first root: `tidegate root show {}` shows all of it.", sign.root.display()),
    }
    let keys = sign.key.iter().map(|path| sign.passphrase.open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
    sign.confirm.check(root.digest(), &names.join(", "))?;
    keys.iter().try_for_each(|key| signed.sign(old.as_ref(), &key.key))?;
    let beside = signatures_of(&sign.root);
    disk::replace(&beside, &signed.block(), 0o644).with_context(|| format!("writing {}", beside.display()))?;
    let signers = signed.signers(old.as_ref())?;
    println!("\nSigned: {}", beside.display());
    for (judge, signers) in old.iter().zip(&signers.by_old).chain([(&root, &signers.by_new)]) {
        println!("  by version {}'s root keys: {}", judge.version(), print::visible(&counted(signers, judge)));
    }
    if signers.are_enough() {
        println!("It is complete: tidegate bundle build DIR -o FILE --root-chain {}", sign.root.display());
    } else {
        println!("Pass both files on: more of the root keys must sign.");
    }
    Ok(())
}
