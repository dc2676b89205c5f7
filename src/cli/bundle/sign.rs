//! `bundle sign`: shows what would be signed, asks, signs. Several people do it in turn, or several keys at once.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::{inspect, read_bundle, read_root, root_beside};
use crate::bundle::keyfile::AuthorKey;
use crate::bundle::pack;
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
    /// The root document. Default: root.json of the folder that the key's folder lies in.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Sign without asking.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(sign: &Sign) -> anyhow::Result<()> {
    let root = sign.root.clone().or_else(|| sign.key.iter().find_map(|key| root_beside(key)));
    let root = read_root(&root.context("no root.json lies beside the key: name it with --root")?)?;
    let mut bundle = read_bundle(&sign.bundle)?;
    print!("{}", inspect::summary(&bundle, Some(&root))?);
    println!("\nAll that is in it: tidegate bundle inspect {}", sign.bundle.display());
    let named = |path: &PathBuf| AuthorKey::open(path).with_context(|| format!("key {}", path.display()));
    let keys = sign.key.iter().map(named).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
    if !sign.yes && !confirmed(&names.join(", "))? {
        bail!("not signed");
    }
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

fn confirmed(names: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "not signed: standard input is not a terminal, so nobody can confirm; read what is shown above, then run \
             the same command again with --yes"
        );
    }
    print!("\nSign this as {names}? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
