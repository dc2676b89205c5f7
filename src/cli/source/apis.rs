//! `apis/*.toml`: an API, its routes, and the upstreams that any API may name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::Fields;
use super::keys;
use super::pages::Pages;
use super::problem::{Located, Names, Problems, Spot, Text};
use super::usage;
use crate::bundle::compile::TEXT_LIMIT;
use crate::bundle::entry::{Api, Route, Routes, Upstream};
use crate::policy::{Auth, Endpoint, Method, Uncertain, check_path};
use crate::units::{Bytes, Span};

/// The APIs by name, each with its versions.
pub(super) type ApiNames = BTreeMap<String, BTreeMap<String, Spot>>;

const AUTH: [(&str, Auth); 2] = [("token", Auth::Token), ("none", Auth::None)];
const UNCERTAIN: [(&str, Uncertain); 3] =
    [("allow", Uncertain::Allow), ("bound", Uncertain::Bound), ("deny", Uncertain::Deny)];
const MAX_BODY: Bytes = Bytes(10 << 20);
const CONNECT_TIMEOUT: Span = Span::secs(2);
const RESPONSE_TIMEOUT: Span = Span::secs(30);

/// What an API's references are looked up in.
struct Known<'k> {
    upstreams: Names,
    plans: &'k Names,
    issuers: &'k Names,
}

/// The entry, sorted.
pub(super) fn read(
    pages: &Pages,
    folder: &Path,
    plans: &Names,
    issuers: &Names,
    problems: &Problems,
) -> (Routes, ApiNames) {
    let tables: Vec<_> = pages.under("apis").map(|page| (page, page.parse(problems))).collect();
    let mut files: Vec<_> =
        tables.iter().map(|(page, table)| Fields::of_page(page, table, "an API", problems)).collect();
    let mut known = Known { upstreams: Names::new("upstream"), plans, issuers };
    let mut routes = Routes::default();
    for file in &mut files {
        for (name, fields) in file.tables("upstreams", "an upstream") {
            let upstream = upstream(name.value.clone(), fields, folder, problems);
            if known.upstreams.define(&name, problems) {
                routes.upstreams.push(upstream);
            }
        }
    }
    let mut names = ApiNames::new();
    let mut places = Places::new();
    for mut file in files {
        // A file may hold nothing but upstreams that several APIs share.
        if file.has("name") || !file.has("upstreams") {
            routes.apis.extend(api(&mut file, &known, &mut names, &mut places, problems));
        }
        file.finish();
    }
    routes.upstreams.sort_by(|a, b| a.name.cmp(&b.name));
    routes.apis.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    (routes, names)
}

fn upstream(name: String, mut fields: Fields<'_>, folder: &Path, problems: &Problems) -> Upstream {
    let endpoints = fields.texts("endpoints").unwrap_or_default();
    if endpoints.is_empty() {
        problems.report(fields.spot(), "an upstream needs endpoints = [\"http://127.0.0.1:9000\"]");
    }
    let mut tls = false;
    for text in &endpoints {
        match Endpoint::parse(&text.value) {
            Ok(endpoint) => tls |= endpoint.tls,
            Err(error) => problems.report(&text.spot, format!("endpoint {:?} {error}", text.value)),
        }
    }
    let mut ca = Vec::new();
    for file in fields.texts("ca").unwrap_or_default() {
        match keys::certificates(folder, &file.value) {
            Ok(certificates) => ca.extend(certificates.iter().map(|der| STANDARD.encode(der))),
            Err(error) => problems.report(&file.spot, format!("ca {:?}: {error}", file.value)),
        }
    }
    if tls && ca.is_empty() {
        let message = "an https endpoint needs ca = [\"FILE.pem\"]: the certificates that it must chain to";
        problems.report(fields.spot(), message);
    }
    let mut timeout = |field, default: Span| match fields.parsed::<Span>(field) {
        Some(span) if span.value.0.is_zero() => {
            problems.report(&span.spot, format!("{field} is zero: nothing could be forwarded"));
            default
        }
        span => span.map_or(default, |span| span.value),
    };
    let connect_timeout_ms = millis(timeout("connect_timeout", CONNECT_TIMEOUT));
    let response_timeout_ms = millis(timeout("response_timeout", RESPONSE_TIMEOUT));
    let keep_host = fields.flag("keep_host", false);
    fields.finish();
    let endpoints = endpoints.into_iter().map(|text| text.value).collect();
    Upstream { ca, connect_timeout_ms, endpoints, keep_host, name, response_timeout_ms }
}

fn millis(span: Span) -> u64 {
    u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX)
}

/// Scopes that are wanted together, as the entry has them: each once, in order, one space between.
fn one_form(together: &str) -> String {
    let scopes: BTreeSet<_> = together.split_whitespace().collect();
    scopes.into_iter().collect::<Vec<_>>().join(" ")
}

/// Where each (host, path with its parameters numbered, method) is answered.
type Places = BTreeMap<(String, String, Method), Spot>;

fn api(
    fields: &mut Fields<'_>,
    known: &Known<'_>,
    names: &mut ApiNames,
    places: &mut Places,
    problems: &Problems,
) -> Option<Api> {
    let (name, version) = (fields.needed("name"), fields.needed("version"));
    let base_path = base_path(fields, problems);
    let hosts = hosts(fields, problems);
    let upstream = fields.needed("upstream").filter(|name| known.upstreams.check(name, problems));
    let plan = plan(fields, known, problems);
    let issuers = fields.texts("issuers").unwrap_or_default();
    for issuer in &issuers {
        known.issuers.check(issuer, problems);
    }
    let audiences = values(fields.texts("audiences").unwrap_or_default());
    let token_header = token_header(fields, problems);
    let forward_token = fields.flag("forward_token", false);
    let subscription = fields.flag("subscription", true);
    let strip_base_path = fields.flag("strip_base_path", true);
    let max_body = fields.parsed::<Bytes>("max_body").map_or(MAX_BODY, |bytes| bytes.value).0;
    let defaults = Defaults {
        auth: fields.word("auth", &AUTH).unwrap_or_default(),
        scopes: fields.texts("scopes").unwrap_or_default(),
        uncertain: fields.word("uncertain", &UNCERTAIN).unwrap_or_default(),
        revocations_max_age_s: max_age(fields),
    };
    let usage = usage::read(fields);
    let mut routes = Vec::new();
    for row in fields.rows("routes", "a route") {
        let spot = row.spot().clone();
        if let Some(route) = route(row, &defaults, known, problems) {
            let full = format!("{base_path}{}", if route.template == "/" { "" } else { &route.template });
            let any_host = [String::new()];
            for host in if hosts.is_empty() { &any_host[..] } else { &hosts } {
                for method in &route.methods {
                    let place = (host.clone(), shape(&full), *method);
                    if let Some(first) = places.get(&place) {
                        let message = format!("{} {full} is already answered by the route at {first}", method.name());
                        problems.report(&spot, message);
                    } else {
                        places.insert(place, spot.clone());
                    }
                }
            }
            routes.push(route);
        }
    }
    if !fields.has("routes") {
        problems.report(fields.spot(), "an API needs at least one [[routes]]; path = \"/*\" takes everything");
    }
    if issuers.is_empty() && routes.iter().any(|route| route.auth == Auth::Token) {
        problems.report(fields.spot(), "an API whose routes want a token needs issuers = [\"NAME\"]");
    }
    let (name, version) = (name?, version?);
    let versions = names.entry(name.value.clone()).or_default();
    if let Some(first) = versions.get(&version.value) {
        problems.report(&name.spot, format!("API {:?} {:?} is already defined at {first}", name.value, version.value));
        return None;
    }
    versions.insert(version.value.clone(), name.spot);
    let mut issuers = values(issuers);
    issuers.sort();
    issuers.dedup();
    Some(Api {
        audiences,
        base_path,
        forward_token,
        hosts,
        issuers,
        max_body,
        name: name.value,
        plan,
        routes,
        strip_base_path,
        subscription,
        token_header,
        upstream: upstream?.value,
        usage,
        version: version.value,
    })
}

/// What a route takes from its API where it says nothing.
struct Defaults {
    auth: Auth,
    scopes: Vec<Text>,
    uncertain: Uncertain,
    revocations_max_age_s: Option<u64>,
}

fn max_age(fields: &mut Fields<'_>) -> Option<u64> {
    fields.parsed::<Span>("revocations_max_age").map(|span| span.value.0.as_secs())
}

fn route(mut fields: Fields<'_>, defaults: &Defaults, known: &Known<'_>, problems: &Problems) -> Option<Route> {
    let path = fields.needed("path").filter(|path| is_template(path, problems));
    let auth = fields.word("auth", &AUTH);
    let mut methods: Vec<Method> = Vec::new();
    if !fields.has("methods") {
        problems.report(fields.spot(), "a route needs methods = [\"GET\"]");
    }
    for text in fields.texts("methods").unwrap_or_default() {
        match Method::from_name(&text.value) {
            Some(method) if methods.contains(&method) => {
                problems.report(&text.spot, format!("method {} stands twice", text.value));
            }
            Some(method) => methods.push(method),
            None => problems.unknown(&text.spot, "method", &text.value, Method::ALL.iter().map(|m| m.name())),
        }
    }
    methods.sort_unstable();
    let scopes = fields.texts("scopes");
    if auth == Some(Auth::None) && scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) {
        problems.report(fields.spot(), "a route with auth = \"none\" cannot ask for scopes");
    }
    let auth = auth.unwrap_or(defaults.auth);
    let scopes = match auth {
        Auth::Token => scopes.unwrap_or_else(|| defaults.scopes.clone()),
        Auth::None => Vec::new(),
    };
    for together in scopes.iter().filter(|together| together.value.split_whitespace().next().is_none()) {
        problems.report(&together.spot, format!("{:?} holds no scope", together.value));
    }
    let plan = plan(&mut fields, known, problems);
    let upstream = fields.text("upstream").filter(|name| known.upstreams.check(name, problems));
    let uncertain = fields.word("uncertain", &UNCERTAIN).unwrap_or(defaults.uncertain);
    let own_age = max_age(&mut fields);
    // The API's default is for its routes with a token; an open one that asks for it itself is told of.
    let revocations_max_age_s = own_age.or(defaults.revocations_max_age_s.filter(|_| auth == Auth::Token));
    fields.finish();
    let mut scopes: Vec<String> = values(scopes).iter().map(|together| one_form(together)).collect();
    scopes.sort();
    scopes.dedup();
    let upstream = upstream.map(|name| name.value);
    Some(Route { auth, methods, plan, revocations_max_age_s, scopes, template: path?.value, uncertain, upstream })
}

fn plan(fields: &mut Fields<'_>, known: &Known<'_>, problems: &Problems) -> Option<String> {
    fields.text("plan").filter(|name| known.plans.check(name, problems)).map(|name| name.value)
}

fn values(texts: Vec<Text>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

fn base_path(fields: &mut Fields<'_>, problems: &Problems) -> String {
    let Some(Located { value, spot }) = fields.text("base_path") else {
        if !fields.has("base_path") {
            problems.report(fields.spot(), "an API needs base_path = \"/…\"; base_path = \"\" for none");
        }
        return String::new();
    };
    let path = value.strip_suffix('/').unwrap_or(&value);
    let bad = match check_path(if path.is_empty() { "/" } else { path }) {
        Err(why) => Some(why.to_string()),
        Ok(()) if path.contains(['{', '}', '*', '?', '#']) || !path.chars().all(|c| c.is_ascii_graphic()) => {
            Some("only plain ASCII stands in a base path, without { } * ? #".to_owned())
        }
        Ok(()) => None,
    };
    if let Some(why) = bad {
        problems.report(&spot, format!("base_path {value:?}: {why}"));
    }
    path.to_owned()
}

fn hosts(fields: &mut Fields<'_>, problems: &Problems) -> Vec<String> {
    let mut hosts = Vec::new();
    for host in fields.texts("hosts").unwrap_or_default() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        let with_port = host.value.rsplit_once(':').is_some_and(|(name, _)| !name.contains(':'));
        if host.value.is_empty() || with_port || !host.value.chars().all(plain) {
            problems.report(&host.spot, format!("host {:?}: write a host name without scheme and port", host.value));
        }
        hosts.push(host.value.to_ascii_lowercase());
    }
    hosts.sort();
    hosts.dedup();
    hosts
}

fn token_header(fields: &mut Fields<'_>, problems: &Problems) -> String {
    let Some(text) = fields.text("token_header") else { return "authorization".to_owned() };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.value.is_empty() || !text.value.chars().all(plain) {
        problems.report(&text.spot, format!("token_header {:?}: write a header name, \"x-api-token\"", text.value));
    }
    text.value.to_ascii_lowercase()
}

fn is_template(path: &Text, problems: &Problems) -> bool {
    let fault = template_fault(&path.value);
    if let Err(why) = &fault {
        problems.report(&path.spot, format!("path {:?}: {why}", path.value));
    }
    fault.is_ok()
}

/// Whether `path` is a template: at most one `{name}` a segment, and `*` as the last one; `Err` says why not.
pub(in crate::cli) fn template_fault(path: &str) -> Result<(), String> {
    let plain = path.replace(['{', '}'], "");
    check_path(&plain).map_err(|why| why.to_string())?;
    if path.len() > TEXT_LIMIT || !plain.chars().all(|c| c.is_ascii_graphic() && c != '?' && c != '#') {
        return Err(format!("write at most {TEXT_LIMIT} bytes of plain ASCII, without query and fragment"));
    }
    let mut names = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == "*" && segments.peek().is_none() {
            continue;
        }
        if segment.contains('*') {
            return Err("* stands alone, as the last segment".into());
        }
        let Some((before, rest)) = segment.split_once('{') else {
            if segment.contains('}') {
                return Err("has a } without its {".into());
            }
            continue;
        };
        let (name, after) = rest.split_once('}').ok_or("has a { without its }")?;
        if before.contains('}') || after.contains(['{', '}']) {
            return Err("a segment has one {parameter} at most".into());
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || !name.bytes().all(plain) || names.contains(&name) {
            return Err("each {parameter} needs a name of its own, of letters, digits, dash, dot and underscore".into());
        }
        names.push(name);
    }
    Ok(())
}

/// The template with every parameter alike: two templates of one shape match the same paths.
fn shape(template: &str) -> String {
    let mut shape = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        shape.push_str(before);
        shape.push_str("{}");
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    shape + rest
}
