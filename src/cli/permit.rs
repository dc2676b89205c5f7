//! `tidegate permit`: leave for exact devices to go from one exact policy or release to another, though it is older or another of
//! its number. It is signed as a policy is, and uses itself up. A security floor holds all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::bundle::{chain, read_bundle};
use super::root::read_root;
use super::{now, print};
use crate::bundle::container::BundleType;
use crate::bundle::manifest::{self, Author, Target};
use crate::bundle::pack::{self, Draft};
use crate::disk;
use crate::ids::{DeviceId, Digest};
use crate::units::UnixSeconds;

/// Make leave for exact devices to go to an exact bundle, though it is older.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate permit --device 0123456789abcdef0123456789abcdef --from policy-8.tgb --to policy-7.tgb \\\n    \
                        --root policy/root.json --author ops@example.com --reason \"8 breaks the till\" -o permit.tgb"
)]
pub(super) struct Permit {
    /// A device's id; may be given several times.
    #[arg(long, required = true, value_name = "ID")]
    device: Vec<DeviceId>,
    /// The bundle that serves on them: its digest or its file.
    #[arg(long, value_name = "DIGEST|FILE")]
    from: String,
    /// The bundle that may take its place: its digest or its file.
    #[arg(long, value_name = "DIGEST|FILE")]
    to: String,
    /// Where the permit is written.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The root document.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The roots that it brings, each signed in full.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    root_chain: Vec<PathBuf>,
    /// Who makes it, for the journal of the devices.
    #[arg(long)]
    author: String,
    /// Why, likewise.
    #[arg(long, default_value = "")]
    reason: String,
    /// Its sequence number, which a device takes only once. Default: the time, so that a later permit is a higher one.
    #[arg(long)]
    seq: Option<u64>,
    /// The moment after which it is not taken any more.
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    expires: Option<UnixSeconds>,
    /// The time to write into it, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
}

pub(super) fn run(permit: &Permit) -> anyhow::Result<()> {
    let now = permit.now.unwrap_or_else(now);
    let ((from, of), (to, to_of)) = (named(&permit.from)?, named(&permit.to)?);
    ensure!(
        of.zip(to_of).is_none_or(|(of, to_of)| of == to_of),
        "a permit leads from policy to policy, or from release to release"
    );
    ensure!(from != to, "--from and --to are one bundle: nothing is left to permit");
    let (root, links) = chain(&read_root(&permit.root)?, &permit.root_chain)?;
    let mut devices = permit.device.clone();
    devices.sort();
    devices.dedup();
    let draft = Draft {
        author: Author { who: permit.author.clone(), tool: super::TOOL.to_owned(), reason: permit.reason.clone() },
        target: Target::Devices(devices),
        seq: permit.seq.unwrap_or_else(|| now.unsigned_abs()),
        security_floor: 0,
        issued_at: now,
        expires_at: permit.expires,
        base: None,
        requires: Vec::new(),
        entries: BTreeMap::new(),
    };
    let bundle = draft.assemble_permit(manifest::Permit { from, to }, &root)?;
    let bundle = pack::with_chain(&bundle, &links)?;
    disk::replace(&permit.output, &bundle, 0o644).with_context(|| format!("writing {}", permit.output.display()))?;
    let rows = [
        ("permit", permit.output.display().to_string()),
        ("digest", pack::digest(&bundle)?.to_string()),
        ("seq", draft.seq.to_string()),
        ("from", from.to_string()),
        ("to", to.to_string()),
    ];
    print!("{}", print::pairs(&rows));
    println!("\nIt is not signed yet: tidegate bundle sign {} --key KEY", permit.output.display());
    Ok(())
}

/// The digest itself, or that of the bundle in a file, and its type.
fn named(text: &str) -> anyhow::Result<(Digest, Option<BundleType>)> {
    if let Ok(digest) = text.parse() {
        return Ok((digest, None));
    }
    let bundle = read_bundle(Path::new(text)).with_context(|| format!("{text:?} is neither a digest nor a bundle"))?;
    let kind = pack::head(&bundle)?.preamble().bundle_type;
    ensure!(
        matches!(kind, BundleType::Policy | BundleType::Release),
        "{text} is a {} bundle; a permit leads from policy to policy, or from release to release",
        kind.name()
    );
    Ok((pack::digest(&bundle)?, Some(kind)))
}
