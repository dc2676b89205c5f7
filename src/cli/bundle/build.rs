//! `bundle build`: policy folder → unsigned bundle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::read_root;
use crate::bundle::Refused;
use crate::bundle::compile::compile;
use crate::bundle::manifest::Author;
use crate::bundle::pack::{self, Draft};
use crate::bundle::root::RootDocument;
use crate::bundle::succession::{self, SignedRoot};
use crate::cli::root::read_signed;
use crate::cli::source::{self, Source};
use crate::cli::{TOOL, print};
use crate::clock::Reading;
use crate::disk;
use crate::ids::Digest;
use crate::units::UnixSeconds;

/// Compile a policy folder to an unsigned bundle.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Build {
    /// The policy folder.
    dir: PathBuf,
    /// Where the bundle is written.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Its sequence number. Default: one more than the last that was built from this folder.
    #[arg(long)]
    seq: Option<u64>,
    /// Why the policy changes, for the journal of every device.
    #[arg(long, default_value = "")]
    reason: String,
    /// The root document. Default: root.json in the folder.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The roots that it brings, each signed in full: the bundle is made for the newest, and a device with any root from
    /// the one before the first on can take it.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    root_chain: Vec<PathBuf>,
    /// The time to write into it, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
    /// Only a device that serves this bundle takes it: SHA-256 of that one's manifest. Default: whatever serves.
    #[arg(long, value_name = "DIGEST")]
    base: Option<Digest>,
}

pub(super) fn run(build: &Build) -> anyhow::Result<()> {
    let pinned = read_root(build.root.as_deref().unwrap_or(&build.dir.join("root.json")))?;
    let (root, links) = chain(&pinned, &build.root_chain)?;
    let source = source::read(&build.dir)?;
    for note in &source.notes {
        eprintln!("note: {note}");
    }
    let seq = match build.seq {
        Some(seq) => seq,
        None => source::last_seq(&build.dir)?.checked_add(1).context("there is no sequence number after the last")?,
    };
    let now = build.now.unwrap_or_else(|| Reading::now().wall_ms.div_euclid(1000));
    let bundle = pack::with_chain(&assemble(&source, &root, (seq, build.base), &build.reason, now)?, &links)?;
    let digest = pack::digest(&bundle)?;
    disk::replace(&build.output, &bundle, 0o644).with_context(|| format!("writing {}", build.output.display()))?;
    remember(&build.dir, seq)?;
    let rows = [
        ("bundle", format!("{} ({} bytes)", build.output.display(), bundle.len())),
        ("digest", digest.to_string()),
        ("seq", seq.to_string()),
        ("for", format!("{}, root version {}", root.deployment(), root.version())),
        ("holds", counts(&source)),
    ];
    print!("{}", print::pairs(&rows));
    if root.version() > 1 && links.is_empty() {
        eprintln!(
            "note: it brings no root, so only devices that have version {} take it; --root-chain brings the ones before",
            root.version()
        );
    }
    println!("\nIt is not signed yet: tidegate bundle sign {} --key KEY", build.output.display());
    Ok(())
}

/// The newest root of `pinned` and the files, and the links of a chain: each must follow the one before it.
pub(in crate::cli) fn chain(pinned: &RootDocument, files: &[PathBuf]) -> anyhow::Result<(RootDocument, Vec<Vec<u8>>)> {
    let mut roots = files.iter().map(|path| read_signed(path)).collect::<anyhow::Result<Vec<SignedRoot>>>()?;
    roots.sort_by_key(|signed| signed.root().version());
    succession::check_links(&roots)?;
    let links = roots.iter().map(SignedRoot::link).collect::<Result<Vec<_>, _>>()?;
    let rotated = succession::followed(pinned, &links.concat())?;
    Ok((rotated.into_iter().last().map_or_else(|| pinned.clone(), |last| last.root), links))
}

fn remember(folder: &Path, seq: u64) -> anyhow::Result<()> {
    source::remember_seq(folder, seq)
        .with_context(|| format!("remembering the sequence number in {}", folder.display()))
}

/// The unsigned bundle of a folder, judged by the daemon's own compiler first.
pub(in crate::cli) fn assemble(
    source: &Source,
    root: &RootDocument,
    (seq, base): (u64, Option<Digest>),
    reason: &str,
    now: UnixSeconds,
) -> anyhow::Result<Vec<u8>> {
    let deployment = &source.deployment;
    if deployment.name != root.deployment() {
        bail!("deployment.toml says {:?}, the root document {:?}", deployment.name, root.deployment());
    }
    let entries = source.entries();
    compile(&entries).map_err(Refused::from).context("no device would take this policy")?;
    let valid_for = deployment.valid_for.map(|span| i64::try_from(span.0.as_secs()).unwrap_or(i64::MAX));
    let named = entries.into_iter().map(|(kind, bytes)| (kind, (kind.name().to_owned(), bytes)));
    let draft = Draft {
        author: Author { who: deployment.author.clone(), tool: TOOL.to_owned(), reason: reason.to_owned() },
        target: deployment.target.clone(),
        seq,
        security_floor: deployment.security_floor,
        issued_at: now,
        expires_at: valid_for.map(|seconds| now.saturating_add(seconds)),
        base,
        requires: Vec::new(),
        entries: named.collect::<BTreeMap<_, _>>(),
    };
    Ok(draft.assemble(root)?)
}

fn counts(source: &Source) -> String {
    let routes: usize = source.routes.apis.iter().map(|api| api.routes.len()).sum();
    let revoked = source.revocations.ids.len() + source.revocations.cut_offs.len();
    [
        (source.routes.apis.len(), "APIs"),
        (routes, "routes"),
        (source.issuers.issuers.len(), "issuers"),
        (source.throttle.plans.len(), "plans"),
        (source.subscriptions.applications.len(), "applications"),
        (source.subscriptions.subscriptions.len(), "subscriptions"),
        (revoked, "revocations"),
    ]
    .map(|(count, what)| format!("{count} {what}"))
    .join(", ")
}
