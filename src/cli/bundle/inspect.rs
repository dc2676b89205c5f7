//! `bundle inspect`: everything that a bundle says. It vouches for nothing; `bundle verify` does.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{read_bundle, read_root, root_beside};
use crate::bundle::container::{BundleType, Head};
use crate::bundle::entry::{Issuers, JsonEntry as _, Per, Revocations, Routes, Subscriptions, Throttle};
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
    let root = root.map(|path| read_root(&path)).transpose()?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&as_json(&bundle, root.as_ref())?)?);
        return Ok(());
    }
    print!("{}", summary(&bundle, root.as_ref())?);
    for (kind, blob) in blobs(&bundle)? {
        println!("\n{kind}");
        print!("{}", listing(kind, blob));
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
    let held = blobs(bundle)?;
    for entry in manifest.entries(head.preamble().payload_len())? {
        let blob = held.iter().find(|(kind, _)| *kind == entry.kind).map(|(_, blob)| *blob).unwrap_or_default();
        let fits = if sha256(blob) == entry.sha256 { "" } else { "; DOES NOT MATCH ITS DIGEST" };
        rows.push(("entry", format!("{}: {}, {} bytes{fits}", entry.kind, counted(entry.kind, blob), entry.len)));
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

fn target(target: &Target) -> String {
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

/// How much is in an entry.
fn counted(kind: EntryKind, blob: &[u8]) -> String {
    let text = match kind {
        EntryKind::Routes => Routes::from_bytes(blob).map(|routes| {
            let count: usize = routes.apis.iter().map(|api| api.routes.len()).sum();
            format!("{} APIs, {count} routes, {} upstreams", routes.apis.len(), routes.upstreams.len())
        }),
        EntryKind::Issuers => Issuers::from_bytes(blob).map(|entry| {
            let keys: usize = entry.issuers.iter().map(|issuer| issuer.keys.len()).sum();
            format!("{} issuers, {keys} keys", entry.issuers.len())
        }),
        EntryKind::Throttle => Throttle::from_bytes(blob).map(|entry| format!("{} plans", entry.plans.len())),
        EntryKind::Subscriptions => Subscriptions::from_bytes(blob).map(|entry| {
            let (applications, keys) = (entry.applications.len(), entry.keys.len());
            format!("{applications} applications, {keys} consumer keys, {} subscriptions", entry.subscriptions.len())
        }),
        EntryKind::Revocations => Revocations::from_bytes(blob)
            .map(|entry| format!("{} cut-offs, {} ids", entry.cut_offs.len(), entry.ids.len())),
        EntryKind::Probes => Ok("not read by this version".to_owned()),
    };
    text.unwrap_or_else(|error| format!("UNREADABLE: {error}"))
}

/// An entry line by line.
fn listing(kind: EntryKind, blob: &[u8]) -> String {
    let rows = match kind {
        EntryKind::Routes => Routes::from_bytes(blob).map(|entry| routes(&entry)),
        EntryKind::Issuers => Issuers::from_bytes(blob).map(|entry| issuers(&entry)),
        EntryKind::Throttle => Throttle::from_bytes(blob).map(|entry| plans(&entry)),
        EntryKind::Subscriptions => Subscriptions::from_bytes(blob).map(|entry| subscriptions(&entry)),
        EntryKind::Revocations => Revocations::from_bytes(blob).map(|entry| revocations(&entry)),
        EntryKind::Probes => Ok(Vec::new()),
    };
    match rows {
        Ok(rows) if rows.is_empty() => "  (none)\n".to_owned(),
        Ok(rows) => print::columns(&rows),
        Err(error) => format!("  UNREADABLE: {error}\n"),
    }
}

fn cells<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.to_vec()
}

fn optional(label: &str, value: Option<&String>) -> String {
    value.map(|value| format!("{label} {value}")).unwrap_or_default()
}

fn routes(entry: &Routes) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for api in &entry.apis {
        let hosts = if api.hosts.is_empty() { "any host".to_owned() } else { api.hosts.join(", ") };
        let subscribed = if api.subscription { "subscription wanted" } else { "no subscription wanted" };
        let mut facts = vec![
            hosts,
            format!("upstream {}", api.upstream),
            format!("issuers {}", api.issuers.join(", ")),
            subscribed.to_owned(),
            format!("token in {}", api.token_header),
        ];
        facts.extend(api.plan.iter().map(|plan| format!("plan {plan}")));
        facts.extend((!api.audiences.is_empty()).then(|| format!("audiences {}", api.audiences.join(", "))));
        facts.extend(api.forward_token.then(|| "token is forwarded".to_owned()));
        facts.extend((!api.strip_base_path).then(|| "base path is forwarded".to_owned()));
        facts.push(format!("bodies to {} bytes", api.max_body));
        rows.push(vec![format!("API {} {} at {:?}: {}", api.name, api.version, api.base_path, facts.join("; "))]);
        for route in &api.routes {
            let methods: Vec<_> = route.methods.iter().map(|method| method.name()).collect();
            let asks = match route.auth {
                crate::policy::Auth::None => "open to anybody".to_owned(),
                crate::policy::Auth::Token if route.scopes.is_empty() => "token".to_owned(),
                crate::policy::Auth::Token => format!("token with {}", route.scopes.join(" or ")),
            };
            let more = [optional("plan", route.plan.as_ref()), optional("upstream", route.upstream.as_ref())];
            let more: Vec<_> = more.into_iter().filter(|text| !text.is_empty()).collect();
            rows.push(cells(["  ".to_owned() + &route.template, methods.join(","), asks, more.join(", ")]));
        }
    }
    for upstream in &entry.upstreams {
        let timeouts =
            format!("{} ms to connect, {} ms to answer", upstream.connect_timeout_ms, upstream.response_timeout_ms);
        let endpoints = upstream.endpoints.join(", ");
        rows.push(vec![format!("upstream {}: {endpoints}; {timeouts}; {} CA(s)", upstream.name, upstream.ca.len())]);
    }
    widen(rows)
}

/// Lines of a single cell stand outside the columns.
fn widen(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let padded = print::columns(&rows.iter().filter(|row| row.len() > 1).cloned().collect::<Vec<_>>());
    let mut padded = padded.lines();
    let line = |row: Vec<String>| match row.len() {
        1 => row,
        _ => vec![padded.next().unwrap_or_default().trim_start_matches("  ").to_owned()],
    };
    rows.into_iter().map(line).collect()
}

fn issuers(entry: &Issuers) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for issuer in &entry.issuers {
        let life = issuer.max_lifetime_s.map_or_else(|| "any lifetime".to_owned(), |s| format!("lifetime to {s} s"));
        let demo = if issuer.allow_demo_keys { "; DEMO KEYS ALLOWED" } else { "" };
        let audiences = issuer.audiences.join(", ");
        rows.push(vec![format!(
            "issuer {}: iss {}; profile {}; audiences {audiences}; types {}; {life}{demo}",
            issuer.name,
            issuer.iss,
            issuer.profile,
            issuer.types.join(", "),
        )]);
        for key in &issuer.keys {
            let public =
                key.jwk.x.as_ref().or(key.jwk.n.as_ref()).map(|text| text.chars().take(24).collect::<String>());
            rows.push(cells([
                "  key".to_owned(),
                key.alg.clone(),
                key.kid.as_ref().map_or_else(|| "(no kid)".to_owned(), |kid| format!("kid {kid}")),
                optional("x5t", key.x5t.as_ref()),
                public.unwrap_or_default() + "…",
            ]));
        }
    }
    widen(rows)
}

fn plans(entry: &Throttle) -> Vec<Vec<String>> {
    let limit = |limit: &crate::bundle::entry::Limit| {
        let per = match limit.per {
            Per::Second => "second",
            Per::Minute => "minute",
            Per::Hour => "hour",
            Per::Day => "day",
            Per::Month => "month",
        };
        let burst = limit.burst.map(|burst| format!(" burst {burst}")).unwrap_or_default();
        format!("{}/{per}{burst}", limit.count)
    };
    let row = |plan: &crate::bundle::entry::Plan| {
        let limits: Vec<_> = plan.limits.iter().map(limit).collect();
        cells([plan.name.clone(), if limits.is_empty() { "no limit".to_owned() } else { limits.join(", ") }])
    };
    entry.plans.iter().map(row).collect()
}

fn subscriptions(entry: &Subscriptions) -> Vec<Vec<String>> {
    let name = |at: u32| entry.applications.get(at as usize).map_or("?", |row| row.name.as_str());
    let mut rows = Vec::new();
    for row in &entry.applications {
        let (consumer, plan) = (&row.consumer, &row.plan);
        rows.push(cells(["application".to_owned(), row.name.clone(), consumer.clone(), plan.clone(), String::new()]));
    }
    for row in &entry.keys {
        let application = name(row.application).to_owned();
        rows.push(cells(["key".to_owned(), application, row.key.clone(), String::new(), String::new()]));
    }
    for row in &entry.subscriptions {
        let api = format!("{} {}", row.api, row.version);
        let blocked = if row.blocked { "BLOCKED" } else { "" };
        let application = name(row.application).to_owned();
        rows.push(cells(["subscription".to_owned(), application, api, row.plan.clone(), blocked.to_owned()]));
    }
    rows
}

fn revocations(entry: &Revocations) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for row in &entry.cut_offs {
        let kind = format!("{:?}", row.kind).to_lowercase();
        let before = format!("issued before {}", print::moment(row.before));
        rows.push(cells(["cut-off".to_owned(), row.issuer.clone(), format!("{kind} {}", row.value), before]));
    }
    for row in &entry.ids {
        let until =
            if row.until == i64::MAX { "for ever".to_owned() } else { format!("until {}", print::moment(row.until)) };
        rows.push(cells(["id".to_owned(), format!("{:016x}", row.hash), until, String::new()]));
    }
    rows
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
                    "kind": format!("{:?}", row.kind).to_lowercase(), "iss": row.issuer, "value": row.value, "before": row.before,
                })).collect::<Vec<_>>(),
                "ids": entry.ids.iter().map(|row| json!({"hash": format!("{:016x}", row.hash), "until": row.until})).collect::<Vec<_>>(),
            })
        }
        _ => serde_json::from_slice(blob)?,
    })
}
