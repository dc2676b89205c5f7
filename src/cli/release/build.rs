//! `release build`: packages become an unsigned release, one entry an architecture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::bundle::EntryKind;
use crate::bundle::container::{BundleType, MAX_PAYLOAD};
use crate::bundle::manifest::{Manifest, Target};
use crate::bundle::pack::{self, Draft};
use crate::cli::authored::Authored;
use crate::cli::bundle::read_bundle;
use crate::cli::print;
use crate::disk::read_limited;
use crate::ids::DeviceId;

/// What a release replaces.
const PACKAGE: &str = "tidegate";

/// Make an unsigned release of packages.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Build {
    /// A package, one for each architecture; its architecture and version are asked of dpkg-deb. As ARCH=FILE (amd64, arm64,
    /// armhf) it is not looked into.
    #[arg(required = true, value_name = "DEB|ARCH=DEB")]
    packages: Vec<String>,
    /// The version of all of them.
    #[arg(long)]
    version: String,
    /// The release before it: this one has the next sequence number.
    #[arg(long, value_name = "FILE", required_unless_present = "seq")]
    previous: Option<PathBuf>,
    /// Its sequence number; releases count for themselves. 1 for the first.
    #[arg(long, conflicts_with = "previous")]
    seq: Option<u64>,
    /// Releases below this number are never installed again after it, with a permit neither. Default: that of the release
    /// before it.
    #[arg(long, value_name = "SEQ")]
    security_floor: Option<u64>,
    /// A device's id; may be given several times. Default: every device of the deployment.
    #[arg(long, value_name = "ID")]
    device: Vec<DeviceId>,
    /// A label that a device must have, KEY=VALUE; of one key several values may be given.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::cli::pair, conflicts_with = "device")]
    label: Vec<(String, String)>,
    #[command(flatten)]
    authored: Authored,
}

pub(super) fn run(build: &Build) -> anyhow::Result<()> {
    let mut entries = BTreeMap::new();
    for package in &build.packages {
        let (kind, path) = architecture(package, &build.version)?;
        let bytes = read_limited(&path, MAX_PAYLOAD).with_context(|| format!("package {}", path.display()))?;
        ensure!(bytes.starts_with(b"!<arch>\n"), "{} is not a Debian package", path.display());
        let before = entries.insert(kind, (kind.name().to_owned(), bytes));
        ensure!(before.is_none(), "two packages for {kind}: a release has one for each architecture");
    }
    let previous = build.previous.as_deref().map(read_release).transpose()?;
    let seq = match (build.seq, &previous) {
        (Some(seq), _) => seq,
        (None, Some(previous)) => {
            previous.seq().checked_add(1).context("there is no sequence number after the last")?
        }
        (None, None) => bail!("name the release before it with --previous, or its number with --seq"),
    };
    let floor = build.security_floor.or(previous.map(|previous| previous.security_floor())).unwrap_or(0);
    let draft = Draft { security_floor: floor, entries, ..build.authored.draft(target(build), seq) };
    let (bundle, root) = build.authored.write(|root| Ok(draft.assemble_release(&build.version, root)?))?;
    let output = build.authored.output.display();
    let architectures: Vec<&str> = draft.entries.keys().map(|kind| kind.name()).collect();
    let rows = [
        ("release", format!("{output} ({} bytes)", bundle.len())),
        ("digest", pack::digest(&bundle)?.to_string()),
        ("version", build.version.clone()),
        ("seq", seq.to_string()),
        ("for", format!("{}, root version {}", root.deployment(), root.version())),
        ("packages", architectures.join(", ")),
    ];
    print!("{}", print::pairs(&rows));
    println!("\nIt is not signed yet: tidegate bundle sign {output} --key KEY");
    Ok(())
}

fn target(build: &Build) -> Target {
    if !build.device.is_empty() {
        let mut devices = build.device.clone();
        devices.sort();
        devices.dedup();
        return Target::Devices(devices);
    }
    if build.label.is_empty() {
        return Target::All;
    }
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in &build.label {
        labels.entry(key.clone()).or_default().push(value.clone());
    }
    Target::Labels(labels)
}

/// The release before it, by its manifest.
fn read_release(path: &Path) -> anyhow::Result<Manifest> {
    let bundle = read_bundle(path)?;
    let head = pack::head(&bundle).with_context(|| path.display().to_string())?;
    let kind = head.preamble().bundle_type;
    ensure!(kind == BundleType::Release, "{} is a {} bundle, not a release", path.display(), kind.name());
    Ok(Manifest::parse(head.manifest(), kind)?)
}

/// The architecture of a package, and where it is.
fn architecture(package: &str, version: &str) -> anyhow::Result<(EntryKind, PathBuf)> {
    let kind = |name: &str| EntryKind::from_name(name).filter(|kind| kind.is_package());
    let unknown = |name: &str| format!("{name:?} is no architecture of a release: amd64, arm64 and armhf are");
    if let Some((name, path)) = package.split_once('=').filter(|(name, _)| !name.contains('/')) {
        return Ok((kind(name).with_context(|| unknown(name))?, path.into()));
    }
    let said = fields(Path::new(package))?;
    let field = |name: &str| said.get(name).map(String::as_str).unwrap_or_default();
    let (is, of) = (field("Package"), field("Version"));
    ensure!(is == PACKAGE, "{package} is the package {is:?}; a release is of {PACKAGE:?}");
    ensure!(of == version, "{package} has version {of:?}; the release has {version:?}");
    let name = field("Architecture");
    Ok((kind(name).with_context(|| unknown(name))?, package.into()))
}

/// What dpkg-deb says of a package.
fn fields(package: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let asked =
        Command::new("dpkg-deb").arg("--field").arg(package).args(["Package", "Version", "Architecture"]).output();
    let asked = match asked {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "there is no dpkg-deb on this machine to look into {0}: name its architecture, ARCH={0}",
                package.display()
            )
        }
        asked => asked.context("dpkg-deb")?,
    };
    let complaint = String::from_utf8_lossy(&asked.stderr);
    ensure!(asked.status.success(), "{}: {}", package.display(), print::visible(complaint.trim()));
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    let pairs = said.lines().filter_map(|line| line.split_once(": "));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
