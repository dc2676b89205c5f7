//! `root rotate`: the next root. It is worth nothing until the thresholds of the old root and of its own have signed.

use std::path::PathBuf;

use anyhow::Context as _;

use super::changes::changes;
use super::{Roles, read_root, threshold, with_role};
use crate::bundle::root::{Role, RootDocument, RootDraft};
use crate::bundle::succession;
use crate::cli::{init, print};
use crate::clock::Reading;
use crate::units::UnixSeconds;

/// Make the next root: other keys, other thresholds, or a new epoch.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rotate {
    /// The root that it follows.
    root: PathBuf,
    /// Where the next one is written; the signatures come beside it.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Take a key out of all roles by its NAME or id, or out of one by ROLE=NAME; may be given several times.
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Give a role to the key in a file, ROLE=FILE.pub; after what is removed. May be given several times.
    #[arg(long, value_name = "ROLE=FILE", value_parser = with_role)]
    add: Vec<(Role, String)>,
    /// How many keys of a role must sign from here on, ROLE=N.
    #[arg(long, value_name = "ROLE=N", value_parser = threshold)]
    threshold: Vec<(Role, usize)>,
    /// Begin the sequence numbers of all devices anew: the way back from a number that went too far.
    #[arg(long)]
    new_epoch: bool,
    /// The time to write into it, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
}

pub(super) fn run(rotate: &Rotate) -> anyhow::Result<()> {
    let old = read_root(&rotate.root)?;
    let mut roles = Roles::of(old.draft());
    rotate.remove.iter().try_for_each(|name| roles.remove(name))?;
    rotate.add.iter().try_for_each(|(role, file)| roles.add(*role, file))?;
    rotate.threshold.iter().try_for_each(|(role, threshold)| roles.threshold(*role, *threshold))?;
    let (keys, roles) = roles.into_parts();
    let new = RootDocument::build(RootDraft {
        deployment: old.deployment().to_owned(),
        epoch: old.epoch().checked_add(rotate.new_epoch.into()).context("there is no epoch after this one")?,
        version: old.version().checked_add(1).context("there is no version after this one")?,
        issued_at: rotate.now.unwrap_or_else(|| Reading::now().wall_ms.div_euclid(1000)),
        keys,
        roles,
    })?;
    succession::check(&old, &new)?;
    init::create(&rotate.output, new.bytes(), 0o644)?;
    let output = rotate.output.display();
    let rows = [
        ("root", format!("{output}, version {} after version {}", new.version(), old.version())),
        ("digest", new.digest().to_string()),
    ];
    print!("{}\nchanges\n{}", print::pairs(&rows), changes(&old, &new));
    let needs = |root: &RootDocument| {
        let names: Vec<_> = root.role_keys(Role::Root).filter_map(|key| root.holder(key.id())).collect();
        let version = root.version();
        format!("{} of version {version}'s: {}", root.threshold(Role::Root).unwrap_or(0), names.join(", "))
    };
    println!("\nIt counts when these have signed, at least {} of them:", succession::signatures_needed(&old, &new));
    println!("  {}\n  {}", print::visible(&needs(&old)), print::visible(&needs(&new)));
    println!("each in turn with: tidegate root sign {output} --previous {} --key KEY", rotate.root.display());
    Ok(())
}
