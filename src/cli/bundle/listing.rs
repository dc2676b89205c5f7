//! The entries of a bundle as a person reads them. Whatever is signed is in these lines: where `--json` has a member,
//! it is here too; of a CA, its fingerprint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::kept;
use crate::bundle::entry::{
    CutOffKind, Issuers, JsonEntry as _, Limit, Per, Plan, Probe, Probes, Revocations, Routes, Subscriptions, Throttle,
};
use crate::bundle::manifest::EntryKind;
use crate::cli::print;
use crate::keys::sha256;
use crate::policy::{Auth, Privacy, Uncertain};
use crate::units::Span;

/// How much is in an entry.
pub(super) fn counted(kind: EntryKind, blob: &[u8]) -> String {
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
        EntryKind::Probes => Probes::from_bytes(blob).map(|entry| format!("{} probes", entry.probes.len())),
        EntryKind::Amd64 | EntryKind::Arm64 | EntryKind::Armhf => return "a package".to_owned(),
    };
    text.unwrap_or_else(|error| format!("UNREADABLE: {error}"))
}

/// An entry line by line, all of it.
pub(super) fn listing(kind: EntryKind, blob: &[u8]) -> String {
    let rows = match kind {
        EntryKind::Routes => Routes::from_bytes(blob).map(|entry| routes(&entry)),
        EntryKind::Issuers => Issuers::from_bytes(blob).map(|entry| issuers(&entry)),
        EntryKind::Throttle => Throttle::from_bytes(blob).map(|entry| plans(&entry)),
        EntryKind::Subscriptions => Subscriptions::from_bytes(blob).map(|entry| subscriptions(&entry)),
        EntryKind::Revocations => Revocations::from_bytes(blob).map(|entry| revocations(&entry)),
        EntryKind::Probes => Probes::from_bytes(blob).map(|entry| probes(&entry)),
        EntryKind::Amd64 | EntryKind::Arm64 | EntryKind::Armhf => {
            return format!("  a package of {} bytes: `dpkg-deb --info` shows it\n", blob.len());
        }
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

fn probes(entry: &Probes) -> Vec<Vec<String>> {
    let row = |probe: &Probe| {
        let mut facts = vec![format!("expect {}", probe.expect.result), format!("at {}", probe.at)];
        facts.extend(probe.expect.route.iter().map(|route| format!("route {route}")));
        facts.extend(probe.expect.application.iter().map(|name| format!("application {name}")));
        facts.extend(probe.headers.iter().map(|field| format!("with {}: {}", field.name, field.value)));
        cells([probe.name.clone(), format!("{} {}{}", probe.method, probe.host, probe.path), facts.join(", ")])
    };
    entry.probes.iter().map(row).collect()
}

fn routes(entry: &Routes) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for api in &entry.apis {
        let hosts = if api.hosts.is_empty() { "any host".to_owned() } else { api.hosts.join(", ") };
        let subscribed = if api.subscription { "subscription wanted" } else { "no subscription wanted" };
        let mut facts = vec![
            hosts,
            format!("upstream {}", api.upstream),
            format!("issuers {}", if api.issuers.is_empty() { "none".to_owned() } else { api.issuers.join(", ") }),
            subscribed.to_owned(),
            format!("token in {}", api.token_header),
        ];
        facts.extend(api.plan.iter().map(|plan| format!("plan {plan}")));
        facts.extend((!api.audiences.is_empty()).then(|| format!("audiences {}", api.audiences.join(", "))));
        facts.extend(api.forward_token.then(|| "token is forwarded".to_owned()));
        facts.extend((!api.strip_base_path).then(|| "base path is forwarded".to_owned()));
        facts.push(format!("bodies to {} bytes", api.max_body));
        facts.push(kept::line(api.usage, entry.usage.or(Privacy::default())));
        rows.push(vec![format!("API {:?} {:?} at {:?}: {}", api.name, api.version, api.base_path, facts.join("; "))]);
        for route in &api.routes {
            let methods: Vec<_> = route.methods.iter().map(|method| method.name()).collect();
            let asks = match route.auth {
                Auth::None => "open to anybody".to_owned(),
                Auth::Token if route.scopes.is_empty() => "token".to_owned(),
                Auth::Token => format!("token with {}", route.scopes.join(" or ")),
            };
            let uncertain = match route.uncertain {
                Uncertain::Allow => "uncertain allow",
                Uncertain::Bound => "uncertain bound",
                Uncertain::Deny => "uncertain deny",
            };
            let mut more = vec![uncertain.to_owned()];
            more.extend(
                route.revocations_max_age_s.map(|age| format!("revocations not older than {}", Span::secs(age))),
            );
            more.extend(route.plan.iter().map(|plan| format!("plan {plan}")));
            more.extend(route.upstream.iter().map(|upstream| format!("upstream {upstream}")));
            rows.push(cells(["  ".to_owned() + &route.template, methods.join(","), asks, more.join(", ")]));
        }
    }
    rows.push(vec![format!("by default, and of what no API takes: {}", kept::line(entry.usage, Privacy::default()))]);
    for upstream in &entry.upstreams {
        let timeouts =
            format!("{} ms to connect, {} ms to answer", upstream.connect_timeout_ms, upstream.response_timeout_ms);
        let endpoints = upstream.endpoints.join(", ");
        let host =
            if upstream.keep_host { "the caller's Host is forwarded" } else { "the endpoint's Host is forwarded" };
        rows.push(vec![format!("upstream {}: {endpoints}; {timeouts}; {host}", upstream.name)]);
        rows.extend(upstream.ca.iter().map(|ca| vec![format!("  ca sha256 {}", certificate(ca))]));
    }
    widen(rows)
}

/// The fingerprint of a certificate, as `openssl x509 -fingerprint -sha256` has it.
pub(super) fn certificate(text: &str) -> String {
    STANDARD.decode(text).map_or_else(|_| format!("UNREADABLE {text}"), |der| sha256(&der).to_string())
}

/// Lines of a single cell stand outside the columns.
fn widen(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let padded = print::columns(&rows.iter().filter(|row| row.len() > 1).cloned().collect::<Vec<_>>());
    let mut padded = padded.lines();
    let line = |row: Vec<String>| match row.len() {
        1 => row,
        _ => vec![padded.next().and_then(|line| line.strip_prefix("  ")).unwrap_or_default().to_owned()],
    };
    rows.into_iter().map(line).collect()
}

fn issuers(entry: &Issuers) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for issuer in &entry.issuers {
        let life = issuer.max_lifetime_s.map_or_else(|| "any lifetime".to_owned(), |s| format!("lifetime to {s} s"));
        let absent = if issuer.absent_type { " or none" } else { "" };
        let application = match &issuer.claims.application[..] {
            [] => "application in the profile's own claims".to_owned(),
            claims => format!("application in {}", claims.join(", ")),
        };
        let audiences = if issuer.audiences.is_empty() {
            "any audience".to_owned()
        } else {
            format!("audiences {}", issuer.audiences.join(", "))
        };
        let mut facts = vec![
            format!("iss {}", issuer.iss),
            format!("profile {}", issuer.profile),
            audiences,
            format!("types {}{absent}", issuer.types.join(", ")),
            life,
            application,
            format!("scopes in {}", issuer.claims.scope),
        ];
        facts.extend(issuer.allow_demo_keys.then(|| "DEMO KEYS ALLOWED".to_owned()));
        rows.push(vec![format!("issuer {}: {}", issuer.name, facts.join("; "))]);
        for key in &issuer.keys {
            let kid = key.kid.as_ref().map_or_else(|| "no kid".to_owned(), |kid| format!("kid {kid}"));
            let mut facts = vec![key.alg.clone(), kid];
            facts.extend(key.x5t.iter().map(|x5t| format!("x5t {x5t}")));
            facts.push(serde_json::to_string(&key.jwk).unwrap_or_else(|error| format!("UNREADABLE: {error}")));
            rows.push(vec![format!("  key {}", facts.join("; "))]);
        }
    }
    rows
}

fn plans(entry: &Throttle) -> Vec<Vec<String>> {
    let limit = |limit: &Limit| {
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
    let row = |plan: &Plan| {
        let limits: Vec<_> = plan.limits.iter().map(limit).collect();
        cells([plan.name.clone(), if limits.is_empty() { "no limit".to_owned() } else { limits.join(", ") }])
    };
    entry.plans.iter().map(row).collect()
}

fn subscriptions(entry: &Subscriptions) -> Vec<Vec<String>> {
    let name = |at: u32| entry.applications.get(at as usize).map_or("?", |row| row.name.as_str());
    let mut rows = Vec::new();
    for row in &entry.applications {
        let labelled = |label, text: &str| if text.is_empty() { String::new() } else { format!("{label} {text}") };
        let (consumer, plan) = (labelled("consumer", &row.consumer), labelled("plan", &row.plan));
        rows.push(cells(["application".to_owned(), row.name.clone(), consumer, plan, String::new()]));
    }
    for row in &entry.keys {
        let application = name(row.application).to_owned();
        rows.push(cells(["key".to_owned(), application, row.key.clone(), String::new(), String::new()]));
    }
    for row in &entry.subscriptions {
        let api = format!("{:?} {:?}", row.api, row.version);
        let blocked = if row.blocked { "BLOCKED" } else { "" };
        let application = name(row.application).to_owned();
        let plan = format!("plan {}", row.plan);
        rows.push(cells(["subscription".to_owned(), application, api, plan, blocked.to_owned()]));
    }
    rows
}

pub(super) fn kind_name(kind: CutOffKind) -> &'static str {
    match kind {
        CutOffKind::Subject => "subject",
        CutOffKind::Client => "client",
        CutOffKind::Key => "key",
    }
}

fn revocations(entry: &Revocations) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for row in &entry.cut_offs {
        let kind = kind_name(row.kind);
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
