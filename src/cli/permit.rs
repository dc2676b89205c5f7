//! `tidegate permit`: leave for exact devices to go from one exact policy or release to another, though it is older or another of
//! its number. It is signed as a policy is, and uses itself up. A security floor holds all the same.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::authored::Authored;
use super::bundle::read_bundle;
use super::print;
use crate::bundle::container::BundleType;
use crate::bundle::manifest::{self, Target};
use crate::bundle::pack;
use crate::ids::{DeviceId, Digest};

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
    /// Its sequence number, which a device takes only once. Default: the time, so that a later permit is a higher one.
    #[arg(long)]
    seq: Option<u64>,
    #[command(flatten)]
    authored: Authored,
}

pub(super) fn run(permit: &Permit) -> anyhow::Result<()> {
    let ((from, of), (to, to_of)) = (named(&permit.from)?, named(&permit.to)?);
    ensure!(
        of.zip(to_of).is_none_or(|(of, to_of)| of == to_of),
        "a permit leads from policy to policy, or from release to release"
    );
    ensure!(from != to, "--from and --to are one bundle: nothing is left to permit");
    let mut devices = permit.device.clone();
    devices.sort();
    devices.dedup();
    let seq = permit.seq.unwrap_or_else(|| permit.authored.now().unsigned_abs());
    let draft = permit.authored.draft(Target::Devices(devices), seq);
    let (bundle, _) = permit.authored.write(|root| Ok(draft.assemble_permit(manifest::Permit { from, to }, root)?))?;
    let output = permit.authored.output.display();
    let rows = [
        ("permit", output.to_string()),
        ("digest", pack::digest(&bundle)?.to_string()),
        ("seq", seq.to_string()),
        ("from", from.to_string()),
        ("to", to.to_string()),
    ];
    print!("{}", print::pairs(&rows));
    println!("\nIt is not signed yet: tidegate bundle sign {output} --key KEY");
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
