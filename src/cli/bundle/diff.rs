//! `bundle diff`: what changes from one bundle or policy folder to another, for a person who has to sign.
//!
//! Rows are compared by what names them: a route by API, methods and template, a key by issuer and key id. Names of
//! several parts are quoted, so that no two rows share one. Whatever opens or closes a way in is listed whole; of the
//! long tables (applications, consumer keys, subscriptions, revoked ids) the first [`LISTED`] rows, and how many there
//! are. Nothing is vouched for, but that what is shown is what the manifest names: a blob of another digest is refused.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::inspect::{blobs, target};
use super::kept::{PRIVACY, kept};
use super::listing::{certificate, kind_name};
use super::read_bundle;
use crate::bundle::container::BundleType;
use crate::bundle::entry::{Issuers, JsonEntry as _, Probes, Revocations, Routes, Subscriptions, Throttle};
use crate::bundle::manifest::Manifest;
use crate::bundle::{Entries, EntryKind, Refused, pack};
use crate::cli::{print, source};
use crate::keys::sha256;
use crate::policy::Privacy;

/// So many rows of a long table are listed.
pub(super) const LISTED: usize = 20;
/// The tables that may have very many rows.
const LONG: [&str; 4] = ["applications", "consumer keys", "subscriptions", "revoked ids"];

/// Show what changes from one bundle or policy folder to another.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Diff {
    /// A bundle, or a policy folder.
    old: PathBuf,
    /// Likewise.
    new: PathBuf,
    /// As JSON, with every row.
    #[arg(long)]
    json: bool,
    /// Every row of the long tables too.
    #[arg(long)]
    all: bool,
}

pub(super) fn run(diff: &Diff) -> anyhow::Result<()> {
    let changes = Changes::between(&Side::read(&diff.old)?, &Side::read(&diff.new)?)?;
    if diff.json {
        println!("{:#}", changes.as_json());
    } else {
        print!("{}", changes.text(if diff.all { usize::MAX } else { LISTED }));
    }
    Ok(())
}

/// Members by name, as text.
type Fields = BTreeMap<String, String>;

/// Members that differ: name, before, after.
type Differences = Vec<(String, String, String)>;

/// What is compared.
pub(super) struct Side {
    bundle_type: BundleType,
    manifest: Fields,
    parts: BTreeMap<&'static str, BTreeMap<String, Fields>>,
}

/// What differs.
pub(super) struct Changes {
    manifest: Differences,
    parts: Vec<(&'static str, Part)>,
}

#[derive(Default)]
struct Part {
    added: Vec<(String, Fields)>,
    removed: Vec<(String, Fields)>,
    changed: Vec<(String, Differences)>,
}

impl Side {
    fn read(path: &Path) -> anyhow::Result<Self> {
        if !path.is_dir() {
            return Self::of(&read_bundle(path)?).with_context(|| format!("bundle {}", path.display()));
        }
        let source = source::read(path)?;
        let deployment = &source.deployment;
        let manifest = fields([
            ("deployment", deployment.name.clone()),
            ("security floor", deployment.security_floor.to_string()),
            ("target", target(&deployment.target)),
            ("requires", String::new()),
        ]);
        Ok(Self { bundle_type: BundleType::Policy, manifest, parts: parts(&source.entries())? })
    }

    /// Of a bundle in memory.
    pub(super) fn of(bundle: &[u8]) -> anyhow::Result<Self> {
        let head = pack::head(bundle)?;
        let bundle_type = head.preamble().bundle_type;
        let manifest = Manifest::parse(head.manifest(), bundle_type)?;
        let held: Entries = blobs(bundle)?.into_iter().map(|(kind, blob)| (kind, blob.to_vec())).collect();
        for entry in manifest.entries(head.preamble().payload_len())? {
            if held.get(&entry.kind).is_none_or(|blob| sha256(blob) != entry.sha256) {
                bail!(Refused::EntryDigestMismatch(format!(
                    "the bytes of {} are not those that the manifest names",
                    entry.kind
                )));
            }
        }
        let requires: Vec<_> = manifest.requires().collect();
        let mut facts = fields([
            ("deployment", manifest.deployment().to_owned()),
            ("epoch", manifest.epoch().to_string()),
            ("root version", manifest.root_version().to_string()),
            ("seq", manifest.seq().to_string()),
            ("security floor", manifest.security_floor().to_string()),
            ("expires at", manifest.expires_at().map_or_else(|| "never".to_owned(), print::moment)),
            ("target", target(&manifest.target)),
            ("requires", requires.join(", ")),
            ("base", manifest.base().map(|base| base.to_string()).unwrap_or_default()),
        ]);
        if let Some(version) = manifest.version() {
            facts.extend(fields([("version", version.to_owned())]));
        }
        if let Some(permit) = manifest.permit() {
            facts.extend(fields([("permit from", permit.from.to_string()), ("permit to", permit.to.to_string())]));
        }
        Ok(Self { bundle_type, manifest: facts, parts: parts(&held)? })
    }
}

impl Changes {
    /// What is other in `new`. A fact that one side does not have (a folder has no number yet) is not compared.
    pub(super) fn between(old: &Side, new: &Side) -> anyhow::Result<Self> {
        if old.bundle_type != new.bundle_type {
            bail!(
                "a {} bundle and a {} bundle have nothing to compare",
                old.bundle_type.name(),
                new.bundle_type.name()
            );
        }
        let empty = BTreeMap::new();
        let names = old.parts.keys().chain(new.parts.keys()).collect::<std::collections::BTreeSet<_>>();
        let part = |name: &&'static str| {
            let [before, after] = [old, new].map(|side| side.parts.get(*name).unwrap_or(&empty));
            let rows = |these: &BTreeMap<String, Fields>, without: &BTreeMap<String, Fields>| {
                let only = these.iter().filter(|(row, _)| !without.contains_key(*row));
                only.map(|(row, fields)| (row.clone(), fields.clone())).collect()
            };
            let both = before.iter().filter_map(|(row, fields)| Some((row, fields, after.get(row)?)));
            let changed = both.filter(|(_, a, b)| a != b).map(|(row, a, b)| (row.clone(), differing(a, b, true)));
            let part = Part { added: rows(after, before), removed: rows(before, after), changed: changed.collect() };
            (*name, part)
        };
        let mut parts: Vec<_> = names.into_iter().map(part).filter(|(_, part)| part.count() > 0).collect();
        parts.sort_by_key(|(name, _)| *name != PRIVACY);
        Ok(Self { manifest: differing(&old.manifest, &new.manifest, false), parts })
    }

    /// Lines for a person, with the first `listed` rows of each long table.
    pub(super) fn text(&self, listed: usize) -> String {
        let mut text = String::new();
        for (name, from, to) in &self.manifest {
            let _ = writeln!(text, "~ {name}: {}", print::visible(&arrow(from, to)));
        }
        for (name, part) in &self.parts {
            let (added, removed, changed) = (part.added.len(), part.removed.len(), part.changed.len());
            let _ = writeln!(text, "{name}: {added} added, {removed} removed, {changed} changed");
            let listed = if LONG.contains(name) { listed } else { usize::MAX };
            for line in part.lines().take(listed) {
                let _ = writeln!(text, "  {}", print::visible(&line));
            }
            if part.count() > listed {
                let _ =
                    writeln!(text, "  … and {} more (`tidegate bundle diff --all` lists them)", part.count() - listed);
            }
        }
        if text.is_empty() { "nothing differs\n".to_owned() } else { text }
    }

    fn as_json(&self) -> Value {
        let differing = |(name, from, to): &(String, String, String)| (name.clone(), json!({"from": from, "to": to}));
        let part = |(name, part): &(&'static str, Part)| {
            let rows =
                |rows: &[(String, Fields)]| rows.iter().map(|(row, fields)| (row.clone(), json!(fields))).collect();
            let changed = part.changed.iter().map(|(row, fields)| {
                (row.clone(), fields.iter().map(differing).collect::<serde_json::Map<_, _>>().into())
            });
            let [added, removed]: [serde_json::Map<_, _>; 2] = [rows(&part.added), rows(&part.removed)];
            let changed: serde_json::Map<_, Value> = changed.collect();
            ((*name).to_owned(), json!({"added": added, "removed": removed, "changed": changed}))
        };
        json!({
            "manifest": self.manifest.iter().map(differing).collect::<serde_json::Map<_, _>>(),
            "parts": self.parts.iter().map(part).collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl Part {
    fn count(&self) -> usize {
        self.added.len() + self.removed.len() + self.changed.len()
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let row = |sign: &'static str| {
            move |(name, fields): &(String, Fields)| {
                let told = fields.iter().filter(|(_, value)| !value.is_empty());
                let told: Vec<_> = told.map(|(field, value)| format!("{field} {value}")).collect();
                if told.is_empty() { format!("{sign} {name}") } else { format!("{sign} {name}: {}", told.join("; ")) }
            }
        };
        let changed = |(name, fields): &(String, Differences)| {
            let told: Vec<_> = fields.iter().map(|(field, from, to)| format!("{field} {}", arrow(from, to))).collect();
            format!("~ {name}: {}", told.join("; "))
        };
        let (added, removed) = (self.added.iter().map(row("+")), self.removed.iter().map(row("-")));
        added.chain(removed).chain(self.changed.iter().map(changed))
    }
}

fn arrow(from: &str, to: &str) -> String {
    let told = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
    format!("{} → {}", told(from), told(to))
}

/// The fields that differ; one that only one side has too, if `missing` counts.
fn differing(old: &Fields, new: &Fields, missing: bool) -> Differences {
    let names = old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>();
    let field = |name: &String| {
        let (from, to) = (old.get(name), new.get(name));
        let counts = missing || (from.is_some() && to.is_some());
        let text = |side: Option<&String>| side.cloned().unwrap_or_default();
        (counts && from != to).then(|| (name.clone(), text(from), text(to)))
    };
    names.into_iter().filter_map(field).collect()
}

fn fields<const N: usize>(fields: [(&str, String); N]) -> Fields {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The members of what is serialised, but for some, as text.
fn members(of: &impl Serialize, without: &[&str]) -> anyhow::Result<Fields> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        // Where the joints would not be seen it stays a list.
        Value::Array(values)
            if values.iter().all(|value| value.as_str().is_some_and(|text| !text.contains([',', '"']))) =>
        {
            values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let Value::Object(members) = serde_json::to_value(of)? else { bail!("not an object") };
    let members = members.into_iter().filter(|(name, _)| !without.contains(&name.as_str()));
    Ok(members.map(|(name, value)| (name, text(value))).collect())
}

/// All rows of all entries, by table and by what names them.
fn parts(entries: &Entries) -> anyhow::Result<BTreeMap<&'static str, BTreeMap<String, Fields>>> {
    let mut parts: BTreeMap<&'static str, BTreeMap<String, Fields>> = BTreeMap::new();
    // A row must not take another's place: what is not shown is signed all the same.
    let mut say = |part: &'static str, name: String, fields: Fields| match parts.entry(part).or_default().entry(name) {
        Entry::Vacant(place) => {
            place.insert(fields);
            Ok(())
        }
        Entry::Occupied(there) => {
            bail!("{part}: {} stands twice in it, so what changes cannot be told; take one out", there.key())
        }
    };
    for (kind, blob) in entries {
        match kind {
            EntryKind::Routes => {
                let entry = Routes::from_bytes(blob)?;
                for api in &entry.apis {
                    let title = format!("{:?} {:?}", api.name, api.version);
                    for route in &api.routes {
                        let methods: Vec<_> = route.methods.iter().map(|method| method.name()).collect();
                        let name = format!("{title} {} {:?}", methods.join(","), route.template);
                        say("routes", name, members(route, &["methods", "template"])?)?;
                    }
                    let kept = kept(api.usage, entry.usage.or(Privacy::default()));
                    say(PRIVACY, title.clone(), fields(kept))?;
                    say("APIs", title, members(api, &["name", "version", "routes", "usage"])?)?;
                }
                let kept = kept(entry.usage, Privacy::default());
                say(PRIVACY, "by default, and of what no API takes".to_owned(), fields(kept))?;
                for upstream in &entry.upstreams {
                    let mut fields = members(upstream, &["name", "ca"])?;
                    let ca: Vec<_> = upstream.ca.iter().map(|ca| certificate(ca)).collect();
                    fields.insert("ca sha256".to_owned(), ca.join(", "));
                    say("upstreams", upstream.name.clone(), fields)?;
                }
            }
            EntryKind::Issuers => {
                for issuer in &Issuers::from_bytes(blob)?.issuers {
                    for key in &issuer.keys {
                        let jwk = serde_json::to_string(&key.jwk)?;
                        let unnamed = || format!("without kid {}", &sha256(jwk.as_bytes()).to_string()[..16]);
                        let kid = key.kid.as_ref().map_or_else(unnamed, |kid| format!("kid {kid:?}"));
                        say(
                            "issuer keys",
                            format!("{:?} {} {kid}", issuer.name, key.alg),
                            members(key, &["kid", "alg"])?,
                        )?;
                    }
                    say("issuers", issuer.name.clone(), members(issuer, &["name", "keys"])?)?;
                }
            }
            EntryKind::Throttle => {
                for plan in &Throttle::from_bytes(blob)?.plans {
                    say("plans", plan.name.clone(), members(plan, &["name"])?)?;
                }
            }
            EntryKind::Subscriptions => {
                let entry = Subscriptions::from_bytes(blob)?;
                let name = |at: u32| entry.applications.get(at as usize).map_or("?", |row| row.name.as_str());
                for row in &entry.applications {
                    let facts = [("consumer", row.consumer.clone()), ("plan", row.plan.clone())];
                    say("applications", row.name.clone(), fields(facts))?;
                }
                for row in &entry.keys {
                    let application = name(row.application).to_owned();
                    say("consumer keys", row.key.clone(), fields([("application", application)]))?;
                }
                for row in &entry.subscriptions {
                    let blocked = if row.blocked { "yes" } else { "" }.to_owned();
                    let title = format!("{:?} on {:?} {:?}", name(row.application), row.api, row.version);
                    say("subscriptions", title, fields([("plan", row.plan.clone()), ("blocked", blocked)]))?;
                }
            }
            EntryKind::Revocations => {
                let entry = Revocations::from_bytes(blob)?;
                for row in &entry.cut_offs {
                    let name = format!("{} {:?} of {:?}", kind_name(row.kind), row.value, row.issuer);
                    say("cut-offs", name, fields([("issued before", print::moment(row.before))]))?;
                }
                for row in &entry.ids {
                    let until = if row.until == i64::MAX { "for ever".to_owned() } else { print::moment(row.until) };
                    say("revoked ids", format!("{:016x}", row.hash), fields([("until", until)]))?;
                }
            }
            EntryKind::Probes => {
                for probe in &Probes::from_bytes(blob)?.probes {
                    say("probes", probe.name.clone(), members(probe, &["name"])?)?;
                }
            }
            EntryKind::Amd64 | EntryKind::Arm64 | EntryKind::Armhf => {
                let facts = [("bytes", blob.len().to_string()), ("sha256", sha256(blob).to_string())];
                say("packages", kind.name().to_owned(), fields(facts))?;
            }
        }
    }
    Ok(parts)
}
