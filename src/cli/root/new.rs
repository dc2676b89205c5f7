//! `root new`: the first root, from public halves alone.

use std::path::PathBuf;

use super::{Roles, threshold, with_role};
use crate::bundle::root::{Role, RootDocument, RootDraft};
use crate::cli::{init, print};
use crate::clock::Reading;
use crate::units::UnixSeconds;

/// Make a first root from the public halves of keys that were made elsewhere.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct New {
    /// Where it is written; the signatures come beside it.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The deployment's name: what all devices under one root share.
    #[arg(long)]
    deployment: String,
    /// A role for the key in a file, ROLE=FILE.pub; may be given several times, also for one key.
    #[arg(long, required = true, value_name = "ROLE=FILE", value_parser = with_role)]
    add: Vec<(Role, String)>,
    /// How many keys of a role must sign, ROLE=N. Default: 1.
    #[arg(long, value_name = "ROLE=N", value_parser = threshold)]
    threshold: Vec<(Role, usize)>,
    /// The time to write into it, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
}

pub(super) fn run(new: &New) -> anyhow::Result<()> {
    let mut roles = Roles::default();
    new.add.iter().try_for_each(|(role, file)| roles.add(*role, file))?;
    new.threshold.iter().try_for_each(|(role, threshold)| roles.threshold(*role, *threshold))?;
    let (keys, roles) = roles.into_parts();
    let issued_at = new.now.unwrap_or_else(|| Reading::now().wall_ms.div_euclid(1000));
    let deployment = new.deployment.clone();
    let root = RootDocument::build(RootDraft { deployment, epoch: 1, version: 1, issued_at, keys, roles })?;
    init::create(&new.output, root.bytes(), 0o644)?;
    let output = new.output.display();
    let rows = [("root", format!("{output}, version 1")), ("digest", root.digest().to_string())];
    print!("{}", print::pairs(&rows));
    let threshold = root.threshold(Role::Root).unwrap_or(0);
    println!(
        "\nDevices are given this file as it is. So that everybody sees who stands behind it, {threshold} of its root"
    );
    println!("keys sign it in turn: tidegate root sign {output} --key KEY");
    Ok(())
}
