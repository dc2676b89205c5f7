//! `tidegate revoke`: a list of revocations, which reaches devices apart from their policy. It is signed as a policy is.
//!
//! A list is whole: it takes the place of the one before it, and must take away all that that one does and that still
//! counts. Whether it does is judged here by the device's own comparison, so no list leaves the desk that devices
//! would refuse.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use super::bundle::{chain, entries, read_bundle};
use super::root::read_root;
use super::{now, print, source};
use crate::bundle::EntryKind;
use crate::bundle::container::BundleType;
use crate::bundle::entry::{CutOff, CutOffKind, HashedId, Issuers, Revocations};
use crate::bundle::manifest::{Author, Manifest, Target};
use crate::bundle::pack::{self, Draft};
use crate::disk;
use crate::policy::revocations::{Kind, RevokedId};
use crate::units::UnixSeconds;

/// Make a list of what is revoked, or the next one after it.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").args(["jti", "sub", "client", "kid"]).multiple(true))]
#[command(after_help = "Examples:\n  tidegate revoke policy -o list-1.tgb\n  \
                        tidegate revoke --previous list-1.tgb --root policy/root.json -o list-2.tgb \\\n    \
                        --issuer https://tokens.example.com --sub mallory --before 2026-01-31T12:00:00Z")]
pub(super) struct Revoke {
    /// A policy folder: the list is its revocations.toml, and what the flags add. Without one the list is the one
    /// before it, and what the flags add.
    policy: Option<PathBuf>,
    /// Where the list is written.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The list that devices have: the new one must take away all that it does.
    #[arg(long, value_name = "FILE", required_unless_present = "policy")]
    previous: Option<PathBuf>,
    /// Take over the rows of the list before it, where a policy folder is given too.
    #[arg(long, requires = "previous")]
    keep: bool,
    /// Who issued the tokens: the name of an issuer of the folder, or its exact iss.
    #[arg(long, requires = "whose")]
    issuer: Option<String>,
    /// A token's jti; may be given several times.
    #[arg(long, requires = "issuer")]
    jti: Vec<String>,
    /// A subject; may be given several times.
    #[arg(long, requires = "issuer")]
    sub: Vec<String>,
    /// A client; may be given several times.
    #[arg(long, requires = "issuer")]
    client: Vec<String>,
    /// A key's id, with --before; may be given several times.
    #[arg(long, requires = "before", requires = "issuer")]
    kid: Vec<String>,
    /// Only tokens that were issued before this moment: a cut-off, which costs a row for any number of tokens.
    #[arg(long, value_name = "TIME", value_parser = super::moment, requires = "issuer")]
    before: Option<UnixSeconds>,
    /// When the last of these tokens has expired, so that the row may go. Default: never.
    #[arg(long, value_name = "TIME", value_parser = super::moment, requires = "issuer", conflicts_with = "before")]
    until: Option<UnixSeconds>,
    /// Its sequence number. Default: one more than that of the list before it, else 1.
    #[arg(long)]
    seq: Option<u64>,
    /// Why, for the journal of every device.
    #[arg(long, default_value = "")]
    reason: String,
    /// The root document. Default: root.json in the folder.
    #[arg(long, value_name = "FILE", required_unless_present = "policy")]
    root: Option<PathBuf>,
    /// The roots that it brings, each signed in full.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    root_chain: Vec<PathBuf>,
    /// The time to write into it, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
}

pub(super) fn run(revoke: &Revoke) -> anyhow::Result<()> {
    let now = revoke.now.unwrap_or_else(now);
    let previous = revoke.previous.as_ref().map(|path| anyhow::Ok((read_list(path)?, read_bundle(path)?)));
    let previous = previous.transpose()?;
    let folder = revoke.policy.as_ref().map(|folder| source::read(folder)).transpose()?;
    let before = previous.as_ref().map(|((manifest, list), _)| (manifest, list));
    let (author, target, mut list, issuers) = match (folder, before) {
        (Some(folder), _) => {
            let deployment = folder.deployment;
            (deployment.author, deployment.target, folder.revocations, Some(folder.issuers))
        }
        (None, Some((manifest, _))) => {
            (manifest.author().who.clone(), manifest.target.clone(), Revocations::default(), None)
        }
        (None, None) => bail!("name a policy folder, or the list before it with --previous"),
    };
    if let Some((_, old)) = before.filter(|_| revoke.keep || issuers.is_none()) {
        list.ids.extend(old.ids.iter().filter(|id| id.until > now));
        list.cut_offs.extend(old.cut_offs.iter().cloned());
    }
    add(revoke, issuers.as_ref(), now, &mut list)?;
    source::in_order(&mut list);

    let beside = revoke.policy.as_ref().map(|folder| folder.join("root.json"));
    let root = revoke.root.clone().or(beside).context("name the root with --root")?;
    let (root, links) = chain(&read_root(&root)?, &revoke.root_chain)?;
    let next = match before {
        Some((manifest, _)) => manifest.seq().checked_add(1).context("there is no sequence number after the last")?,
        None => 1,
    };
    let draft = draft(&list, author, &revoke.reason, target, revoke.seq.unwrap_or(next), now);
    let bundle = pack::with_chain(&draft.assemble_list(&root)?, &links)?;
    if let Some((_, before)) = &previous {
        pack::check_list(before, &bundle)?;
    }
    disk::replace(&revoke.output, &bundle, 0o644).with_context(|| format!("writing {}", revoke.output.display()))?;
    let rows = [
        ("list", format!("{} ({} bytes)", revoke.output.display(), bundle.len())),
        ("digest", pack::digest(&bundle)?.to_string()),
        ("seq", draft.seq.to_string()),
        ("for", format!("{}, root version {}", root.deployment(), root.version())),
        ("holds", format!("{} ids, {} cut-offs", list.ids.len(), list.cut_offs.len())),
    ];
    print!("{}", print::pairs(&rows));
    if previous.is_none() && revoke.seq.is_none() {
        eprintln!("note: this is the first list; if devices have one already, name it with --previous");
    }
    println!("\nIt is not signed yet: tidegate bundle sign {} --key KEY", revoke.output.display());
    Ok(())
}

/// A list by its manifest and rows.
fn read_list(path: &std::path::Path) -> anyhow::Result<(Manifest, Revocations)> {
    let bundle = read_bundle(path)?;
    let named = || format!("list {}", path.display());
    let head = pack::head(&bundle).with_context(named)?;
    let kind = head.preamble().bundle_type;
    ensure!(
        kind == BundleType::Revocation,
        "{} is a {} bundle, not a list of revocations",
        path.display(),
        kind.name()
    );
    let manifest = Manifest::parse(head.manifest(), kind).with_context(named)?;
    let blob = entries(path)?.remove(&EntryKind::Revocations).unwrap_or_default();
    Ok((manifest, Revocations::from_bytes(&blob).with_context(named)?))
}

/// The rows that the flags say.
fn add(revoke: &Revoke, issuers: Option<&Issuers>, now: UnixSeconds, list: &mut Revocations) -> anyhow::Result<()> {
    let Some(issuer) = &revoke.issuer else { return Ok(()) };
    let iss = match issuers {
        None => issuer,
        Some(known) => match known.issuers.iter().find(|known| known.name == *issuer || known.iss == *issuer) {
            Some(known) => &known.iss,
            None => bail!("the policy folder has no issuer {issuer:?}, neither by name nor by iss"),
        },
    };
    let Some(before) = revoke.before else {
        let until = revoke.until.unwrap_or(i64::MAX);
        ensure!(until > now, "--until has passed: the row would take nothing away");
        for (kind, values) in [(Kind::Jti, &revoke.jti), (Kind::Sub, &revoke.sub), (Kind::Client, &revoke.client)] {
            list.ids.extend(values.iter().map(|value| HashedId { hash: RevokedId::of(kind, iss, value).0, until }));
        }
        return Ok(());
    };
    ensure!(
        revoke.jti.is_empty(),
        "--before cuts off subjects, clients and keys; a single token is revoked without it"
    );
    ensure!(before <= now, "the cut-off lies in the future: tokens that are made until then would be refused");
    let kinds =
        [(CutOffKind::Subject, &revoke.sub), (CutOffKind::Client, &revoke.client), (CutOffKind::Key, &revoke.kid)];
    for (kind, values) in kinds {
        let row = |value: &String| CutOff { kind, issuer: iss.clone(), value: value.clone(), before };
        list.cut_offs.extend(values.iter().map(row));
    }
    Ok(())
}

fn draft(list: &Revocations, who: String, reason: &str, target: Target, seq: u64, now: UnixSeconds) -> Draft {
    let kind = EntryKind::Revocations;
    Draft {
        author: Author { who, tool: super::TOOL.to_owned(), reason: reason.to_owned() },
        target,
        seq,
        security_floor: 0,
        issued_at: now,
        expires_at: None,
        base: None,
        requires: Vec::new(),
        entries: [(kind, (kind.name().to_owned(), list.to_bytes()))].into(),
    }
}
