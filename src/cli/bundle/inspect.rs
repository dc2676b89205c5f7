//! `bundle inspect`: everything that a bundle says. It vouches for nothing; `bundle verify` does.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::listing::{counted, kind_name, listing};
use super::{newest_root, read_bundle, read_root, root_beside};
use crate::bundle::Refused;
use crate::bundle::container::{BundleType, Head};
use crate::bundle::entry::{Revocations, Subscriptions};
use crate::bundle::manifest::{EntryKind, Manifest, Target};
use crate::bundle::pack;
use crate::bundle::root::{Role, RootDocument};
use crate::cli::print;
use crate::keys::sha256;

/// Show everything that a bundle says, without judging it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Inspect {
    /// The bundle.
    bundle: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// A root document, to name the signers and check their signatures.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

pub(super) fn run(arguments: &Inspect) -> anyhow::Result<()> {
    let bundle = read_bundle(&arguments.bundle)?;
    let root = arguments.root.clone().or_else(|| root_beside(&arguments.bundle));
    let root = root.map(|path| anyhow::Ok(newest_root(&bundle, read_root(&path)?)?)).transpose()?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&as_json(&bundle, root.as_ref())?)?);
        return Ok(());
    }
    print!("{}", summary(&bundle, root.as_ref())?);
    let (head, manifest) = opened(&bundle)?;
    let held = blobs(&bundle)?;
    for entry in manifest.entries(head.preamble().payload_len())? {
        println!("\n{} ({:?}, sha256 {})", entry.kind, entry.name, entry.sha256);
        let blob = held.iter().find(|(kind, _)| *kind == entry.kind).map(|(_, blob)| *blob).unwrap_or_default();
        print!("{}", listing(entry.kind, blob));
    }
    println!("\nNothing of this is vouched for: `tidegate bundle verify` judges it.");
    Ok(())
}

fn opened(bundle: &[u8]) -> anyhow::Result<(Head, Manifest)> {
    let head = pack::head(bundle)?;
    let manifest = Manifest::parse(head.manifest(), head.preamble().bundle_type)?;
    Ok((head, manifest))
}

/// The entries that the file really holds, by kind.
pub(super) fn blobs(bundle: &[u8]) -> anyhow::Result<Vec<(EntryKind, &[u8])>> {
    let (head, manifest) = opened(bundle)?;
    let payload = bundle.get(head.bytes().len()..).unwrap_or_default();
    let entries = manifest.entries(head.preamble().payload_len())?;
    let blob = |offset: u64, len: u64| {
        let start = usize::try_from(offset).ok()?;
        payload.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    };
    Ok(entries.iter().filter_map(|entry| Some((entry.kind, blob(entry.offset, entry.len)?))).collect())
}

/// What is being signed, on one screen.
pub(super) fn summary(bundle: &[u8], root: Option<&RootDocument>) -> anyhow::Result<String> {
    let (head, manifest) = opened(bundle)?;
    let author = manifest.author();
    let expires = manifest.expires_at().map_or_else(|| "never".to_owned(), print::moment);
    let reason = if author.reason.is_empty() { "(none given)" } else { &author.reason };
    let mut rows = vec![
        ("type", head.preamble().bundle_type.name().to_owned()),
        ("digest", sha256(head.manifest()).to_string()),
        ("deployment", manifest.deployment().to_owned()),
        ("seq", manifest.seq().to_string()),
        ("security floor", manifest.security_floor().to_string()),
        ("epoch", format!("{}, root version {}", manifest.epoch(), manifest.root_version())),
        ("author", format!("{}, with {}", author.who, author.tool)),
        ("reason", reason.to_owned()),
        ("issued at", print::moment(manifest.issued_at())),
        ("expires at", expires),
        ("target", target(&manifest.target)),
    ];
    let requires: Vec<_> = manifest.requires().collect();
    if !requires.is_empty() {
        rows.push(("requires", requires.join(", ")));
    }
    rows.extend(manifest.base().map(|base| ("base", base.to_string())));
    rows.extend(manifest.version().map(|version| ("version", version.to_owned())));
    if let Some(permit) = manifest.permit() {
        rows.extend([("from bundle", permit.from.to_string()), ("to bundle", permit.to.to_string())]);
    }
    let held = blobs(bundle)?;
    for entry in manifest.entries(head.preamble().payload_len())? {
        let blob = held.iter().find(|(kind, _)| *kind == entry.kind).map(|(_, blob)| *blob).unwrap_or_default();
        let fits = if sha256(blob) == entry.sha256 { "" } else { "; DOES NOT MATCH ITS DIGEST" };
        rows.push(("entry", format!("{}: {}, {} bytes{fits}", entry.kind, counted(entry.kind, blob), entry.len)));
    }
    let chain = head.chain()?;
    if !chain.is_empty() {
        let versions = chain.iter().map(|link| Ok(RootDocument::parse(link.document)?.version().to_string()));
        rows.push(("root chain", format!("version {}", versions.collect::<Result<Vec<_>, Refused>>()?.join(", "))));
    }
    let signatures = head.signatures()?;
    if signatures.is_empty() {
        rows.push(("signed by", "nobody yet".to_owned()));
    }
    for signature in &signatures {
        rows.push(("signed by", signer(&head, signature, root)));
    }
    if let Some(threshold) = root.and_then(|root| root.threshold(Role::of(head.preamble().bundle_type))) {
        rows.push(("needs", format!("{threshold} signature(s)")));
    }
    Ok(print::pairs(&rows))
}

fn signer(head: &Head, signature: &crate::bundle::container::Signature, root: Option<&RootDocument>) -> String {
    let Some(root) = root else { return format!("{} (not checked: no root given)", signature.key) };
    let bundle_type: BundleType = head.preamble().bundle_type;
    let key = root.role_keys(Role::of(bundle_type)).find(|key| key.id() == signature.key);
    match (key, root.holder(signature.key)) {
        (Some(key), Some(name)) if key.verifies(bundle_type.media_type(), head.manifest(), &signature.bytes) => {
            format!("{name} ({})", signature.key)
        }
        (Some(_), _) => format!("{} WRONG SIGNATURE", signature.key),
        (None, _) => format!("{} (not of this role in the root)", signature.key),
    }
}

pub(super) fn target(target: &Target) -> String {
    match target {
        Target::All => "every device of the deployment".to_owned(),
        Target::Devices(ids) => {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            format!("{} device(s): {}", ids.len(), ids.join(", "))
        }
        Target::Labels(labels) => {
            let one = |(key, values): (&String, &Vec<String>)| format!("{key} = {}", values.join(" or "));
            labels.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

fn as_json(bundle: &[u8], root: Option<&RootDocument>) -> anyhow::Result<Value> {
    let (head, _) = opened(bundle)?;
    let mut entries = serde_json::Map::new();
    for (kind, blob) in blobs(bundle)? {
        entries.insert(kind.name().to_owned(), entry_json(kind, blob)?);
    }
    let signatures = head.signatures()?;
    let signatures: Vec<_> = signatures
        .iter()
        .map(|signature| json!({"key": signature.key, "says": signer(&head, signature, root)}))
        .collect();
    Ok(json!({
        "digest": sha256(head.manifest()),
        "manifest": serde_json::from_slice::<Value>(head.manifest())?,
        "signatures": signatures,
        "entries": entries,
    }))
}

fn entry_json(kind: EntryKind, blob: &[u8]) -> anyhow::Result<Value> {
    Ok(match kind {
        EntryKind::Subscriptions => {
            let entry = Subscriptions::from_bytes(blob)?;
            let name = |at: u32| entry.applications.get(at as usize).map(|row| row.name.as_str());
            json!({
                "applications": entry.applications.iter().map(|row| json!({"name": row.name, "consumer": row.consumer, "plan": row.plan})).collect::<Vec<_>>(),
                "keys": entry.keys.iter().map(|row| json!({"key": row.key, "application": name(row.application)})).collect::<Vec<_>>(),
                "subscriptions": entry.subscriptions.iter().map(|row| json!({
                    "application": name(row.application), "api": row.api, "version": row.version, "plan": row.plan, "blocked": row.blocked,
                })).collect::<Vec<_>>(),
            })
        }
        EntryKind::Revocations => {
            let entry = Revocations::from_bytes(blob)?;
            json!({
                "cut_offs": entry.cut_offs.iter().map(|row| json!({
                    "kind": kind_name(row.kind), "iss": row.issuer, "value": row.value, "before": row.before,
                })).collect::<Vec<_>>(),
                "ids": entry.ids.iter().map(|row| json!({"hash": format!("{:016x}", row.hash), "until": row.until})).collect::<Vec<_>>(),
            })
        }
        EntryKind::Amd64 | EntryKind::Arm64 | EntryKind::Armhf => json!({"package_bytes": blob.len()}),
        _ => serde_json::from_slice(blob)?,
    })
}
