//! From the verified entries of a bundle to the policy in force: steps 15 and 16 of the verification.
//!
//! Every reference is resolved to an index here, once; a name that nothing carries, an overlap, a key
//! that is not sound refuse the bundle as a whole. Pure; called by `verify` through its seam, by the
//! daemon and by the operator's command alike.

mod issuers;

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use base64::Engine as _;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::entry::{self, EntryError, JsonEntry as _};
use super::error::SemanticProblem;
use super::manifest::{Entries, EntryKind};
use super::probe;
use crate::policy::issuer::Issuer;
use crate::policy::revocations::{Builder as RevocationsBuilder, Kind, Revocations, RevokedId};
use crate::policy::{
    Api, ApiIndex, Auth, Endpoint, IssuerIndex, Limit, MethodSet, NameHash, Plan, PlanIndex, Policy, Privacy, Route,
    RouteIndex, Router, Standing, Subscribers, SubscribersBuilder, Upstream, UpstreamIndex, Window, check_path,
};

/// Longest name of an API, version, plan, upstream, issuer, application or consumer, in bytes: what a usage record holds.
pub const NAME_LIMIT: usize = 128;
/// Longest base path, path template, consumer key, scope or audience, in bytes.
pub const TEXT_LIMIT: usize = 256;
/// Most limits of a plan: four plans can meet one request, and the throttle looks at sixteen limits.
const PLAN_LIMITS: usize = 4;
/// Largest request body that an API may allow, in bytes.
const MAX_BODY: u64 = 1 << 40;
/// Longest time-out, in milliseconds.
const MAX_TIMEOUT_MS: u64 = 3_600_000;

/// Makes the policy, or says the first thing that is wrong with it.
pub fn compile(entries: &Entries) -> Result<Policy, SemanticProblem> {
    let required = |kind: EntryKind| entries.get(&kind).ok_or_else(|| invalid(format!("there is no entry {kind}")));
    let read = |kind: EntryKind| move |error: EntryError| invalid(format!("entry {kind}: {error}"));
    let routes = entry::Routes::from_bytes(required(EntryKind::Routes)?).map_err(read(EntryKind::Routes))?;
    let throttle = entry::Throttle::from_bytes(required(EntryKind::Throttle)?).map_err(read(EntryKind::Throttle))?;
    // What is there must be a table: no bytes are no empty one.
    let revocations = match entries.get(&EntryKind::Revocations) {
        None => Revocations::default(),
        Some(bytes) => revocations(&entry::RevocationRows::from_bytes(bytes).map_err(read(EntryKind::Revocations))?),
    };

    let plans = throttle.plans.iter().map(plan).collect::<Result<Box<[_]>, _>>()?;
    let plan_names = Names::of("plan", plans.iter().map(|plan| &*plan.name))?;
    let upstreams = routes.upstreams.iter().map(upstream).collect::<Result<Box<[_]>, _>>()?;
    let upstream_names = Names::of("upstream", upstreams.iter().map(|upstream| &*upstream.name))?;
    let pinned = issuers::pinned(required(EntryKind::Issuers)?)?;
    let issuer_names = Names::of("issuer", pinned.all().iter().map(Issuer::name))?;
    let names = Scope { plans: &plan_names, upstreams: &upstream_names, issuers: &issuer_names };

    let mut apis = Vec::with_capacity(routes.apis.len());
    let mut compiled = Vec::new();
    let privacy = routes.usage.or(Privacy::default());
    for (index, wire) in (0..).zip(&routes.apis) {
        apis.push(api(wire, &names, privacy)?);
        for wire_route in &wire.routes {
            compiled.push(route(index, wire, wire_route, &names)?);
        }
    }
    let router = router(&routes.apis, &apis, &compiled)?;
    drop(routes);
    let subscribers = subscribers(entries.get(&EntryKind::Subscriptions), &apis, &plan_names)?;
    let policy = Policy {
        revocations,
        apis: apis.into(),
        routes: compiled.into(),
        upstreams,
        plans,
        subscribers,
        router,
        issuers: pinned,
        privacy,
    };

    // 16 run the bundle's own probes against the candidate policy
    if let Some(probes) = entries.get(&EntryKind::Probes) {
        probe::run(&policy, &entry::Probes::from_bytes(probes).map_err(read(EntryKind::Probes))?)?;
    }
    Ok(policy)
}

/// The names that an API may refer to.
struct Scope<'n> {
    plans: &'n Names<'n>,
    upstreams: &'n Names<'n>,
    issuers: &'n Names<'n>,
}

/// Names of one kind and their positions.
struct Names<'n> {
    kind: &'static str,
    places: HashMap<&'n str, u32>,
}

impl<'n> Names<'n> {
    fn of(kind: &'static str, names: impl Iterator<Item = &'n str>) -> Result<Self, SemanticProblem> {
        let mut places = HashMap::new();
        for (index, name) in (0..).zip(names) {
            check_name(kind, name)?;
            if places.insert(name, index).is_some() {
                return Err(invalid(format!("two {kind}s are called {name:?}")));
            }
        }
        Ok(Self { kind, places })
    }

    fn find(&self, name: &str, whose: impl Display) -> Result<u32, SemanticProblem> {
        let unknown = || invalid(format!("{whose} refers to the {} {name:?}, which is not in the bundle", self.kind));
        self.places.get(name).copied().ok_or_else(unknown)
    }
}

fn plan(wire: &entry::Plan) -> Result<Plan, SemanticProblem> {
    if wire.limits.len() > PLAN_LIMITS {
        return Err(invalid(format!("plan {:?} has more than {PLAN_LIMITS} limits", wire.name)));
    }
    let limits = wire.limits.iter().map(|limit| {
        let whose = format!("plan {:?}", wire.name);
        if limit.count == 0 {
            return Err(invalid(format!("{whose} has a limit of 0; block the subscription instead")));
        }
        let rate = |per: Duration| {
            let count =
                u32::try_from(limit.count).map_err(|_| invalid(format!("{whose} has a rate over {}", u32::MAX)))?;
            match limit.burst.unwrap_or(count) {
                0 => Err(invalid(format!("{whose} has a burst of 0, which lets nothing through"))),
                burst => Ok(Limit::Rate { count, per, burst }),
            }
        };
        let quota = |window| match limit.burst {
            Some(_) => Err(invalid(format!("{whose} has a quota with a burst; only a rate has one"))),
            None => Ok(Limit::Quota { count: limit.count, window }),
        };
        match limit.per {
            entry::Per::Second => rate(Duration::from_secs(1)),
            entry::Per::Minute => rate(Duration::from_secs(60)),
            entry::Per::Hour => quota(Window::Hour),
            entry::Per::Day => quota(Window::Day),
            entry::Per::Month => quota(Window::Month),
        }
    });
    Ok(Plan {
        name: wire.name.as_str().into(),
        hash: NameHash::of(&[&wire.name]),
        limits: limits.collect::<Result<_, _>>()?,
    })
}

fn upstream(wire: &entry::Upstream) -> Result<Upstream, SemanticProblem> {
    let whose = format!("upstream {:?}", wire.name);
    if wire.endpoints.is_empty() {
        return Err(invalid(format!("{whose} has no endpoint")));
    }
    let endpoint = |url: &String| Endpoint::parse(url).map_err(|bad| invalid(format!("{whose}: {url:?} {bad}")));
    let endpoints = wire.endpoints.iter().map(endpoint).collect::<Result<Box<[_]>, _>>()?;
    let certificate = |text: &String| {
        let der = base64::engine::general_purpose::STANDARD.decode(text);
        let der = der.map_err(|_| invalid(format!("{whose} has a certificate that is not base64")))?;
        let sound = RootCertStore::empty().add(CertificateDer::from(der.as_slice()));
        sound.map_err(|error| invalid(format!("{whose} has a certificate that nothing can chain to: {error}")))?;
        Ok(der.into_boxed_slice())
    };
    let ca = wire.ca.iter().map(certificate).collect::<Result<Box<[_]>, _>>()?;
    if endpoints.iter().any(|endpoint| endpoint.tls) && ca.is_empty() {
        return Err(invalid(format!("{whose} is reached by https and pins no certificate authority")));
    }
    let timeout = |what: &str, ms: u64| match ms {
        1..=MAX_TIMEOUT_MS => Ok(Duration::from_millis(ms)),
        _ => Err(invalid(format!("{whose} has a {what} time-out outside 1 ms to 1 h"))),
    };
    Ok(Upstream {
        name: wire.name.as_str().into(),
        endpoints,
        connect_timeout: timeout("connect", wire.connect_timeout_ms)?,
        response_timeout: timeout("response", wire.response_timeout_ms)?,
        keep_host: wire.keep_host,
        ca,
    })
}

fn api(wire: &entry::Api, names: &Scope<'_>, otherwise: Privacy) -> Result<Api, SemanticProblem> {
    let whose = api_title(wire);
    check_name("API", &wire.name)?;
    check_name("version", &wire.version)?;
    let base = wire.base_path.as_str();
    if !base.is_empty()
        && (base.len() > TEXT_LIMIT
            || base.ends_with('/')
            || base.contains(|c: char| "{}*?# ".contains(c) || c.is_control())
            || check_path(base).is_err())
    {
        return Err(invalid(format!(
            "{whose} has the base path {base:?}, which is not a plain absolute path of at most {TEXT_LIMIT} bytes"
        )));
    }
    let host = |host: &String| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_' | b':');
        !host.is_empty() && host.len() <= 253 && host.bytes().all(plain)
    };
    if let Some(bad) = wire.hosts.iter().find(|name| !host(name)) {
        return Err(invalid(format!("{whose} has the host {bad:?}; write it in lower case, without a port")));
    }
    if !is_header_name(&wire.token_header) {
        return Err(invalid(format!("{whose} takes its token from {:?}, which is no header", wire.token_header)));
    }
    if wire.max_body > MAX_BODY {
        return Err(invalid(format!("{whose} allows bodies over {MAX_BODY} bytes")));
    }
    check_texts(&whose, "audience", &wire.audiences)?;
    names.upstreams.find(&wire.upstream, &whose)?;
    let issuers = wire.issuers.iter().map(|name| {
        let number = names.issuers.find(name, &whose)?;
        IssuerIndex::try_from(number).map_err(|_| invalid(format!("{whose} names too many issuers")))
    });
    let issuers = issuers.collect::<Result<Box<[_]>, _>>()?;
    if issuers.is_empty() && wire.routes.iter().any(|route| route.auth == Auth::Token) {
        return Err(invalid(format!("{whose} wants tokens and names no issuer")));
    }
    Ok(Api {
        name: wire.name.as_str().into(),
        version: wire.version.as_str().into(),
        hash: NameHash::of(&[&wire.name, &wire.version]),
        base_path: base.into(),
        strip_base_path: wire.strip_base_path,
        issuers,
        audiences: wire.audiences.iter().map(|audience| audience.as_str().into()).collect(),
        token_header: wire.token_header.as_str().into(),
        forward_token: wire.forward_token,
        needs_subscription: wire.subscription,
        plan: wire.plan.as_ref().map(|name| names.plans.find(name, &whose)).transpose()?,
        max_body: wire.max_body,
        privacy: wire.usage.or(otherwise),
    })
}

fn route(index: ApiIndex, api: &entry::Api, wire: &entry::Route, names: &Scope<'_>) -> Result<Route, SemanticProblem> {
    let whose = format!("{}, route {:?}", api_title(api), wire.template);
    check_template(&wire.template).map_err(|problem| invalid(format!("{whose} {problem}")))?;
    let methods: MethodSet = wire.methods.iter().copied().collect();
    if methods.is_empty() || !wire.methods.is_sorted_by(|a, b| a < b) {
        return Err(invalid(format!("{whose} has no methods, or not each once and in order")));
    }
    for together in &wire.scopes {
        let scopes: Vec<_> = together.split(' ').collect();
        scopes.iter().try_for_each(|scope| check_text(&format!("{whose}: the scope"), scope))?;
        if !scopes.is_sorted_by(|a, b| a < b) {
            return Err(invalid(format!("{whose} wants scopes together that are not each there once and in order")));
        }
    }
    if wire.auth == Auth::None && wire.revocations_max_age_s.is_some() {
        return Err(invalid(format!("{whose} wants fresh revocations but no token")));
    }
    if wire.auth == Auth::None && !wire.scopes.is_empty() {
        return Err(invalid(format!("{whose} wants scopes but no token")));
    }
    let upstream: UpstreamIndex = names.upstreams.find(wire.upstream.as_ref().unwrap_or(&api.upstream), &whose)?;
    let plan: Option<PlanIndex> = wire.plan.as_ref().map(|name| names.plans.find(name, &whose)).transpose()?;
    Ok(Route {
        api: index,
        template: wire.template.as_str().into(),
        methods,
        auth: wire.auth,
        scopes: wire.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        plan,
        upstream,
        uncertain: wire.uncertain,
        revocations_max_age_s: wire.revocations_max_age_s,
    })
}

fn router(wire: &[entry::Api], apis: &[Api], routes: &[Route]) -> Result<Router, SemanticProblem> {
    let hosts: Vec<Box<[Box<str>]>> =
        wire.iter().map(|api| api.hosts.iter().map(|host| host.as_str().into()).collect()).collect();
    let rows = routes.iter().zip(0..).map(|(route, index): (&Route, RouteIndex)| {
        let api = route.api as usize;
        (&*hosts[api], &*apis[api].base_path, &*route.template, route.methods, index)
    });
    Router::build(rows).map_err(|conflict| invalid(conflict.to_string()))
}

/// `entry` is its bytes; none: nobody is subscribed to anything.
fn subscribers(entry: Option<&Vec<u8>>, apis: &[Api], plans: &Names<'_>) -> Result<Subscribers, SemanticProblem> {
    let api_places: HashMap<(&str, &str), ApiIndex> =
        (0..).zip(apis).map(|(index, api)| ((&*api.name, &*api.version), index)).collect();
    if api_places.len() != apis.len() {
        return Err(invalid("two APIs have the same name and version".to_owned()));
    }
    let unread = |error: EntryError| invalid(format!("entry {}: {error}", EntryKind::Subscriptions));
    let rows = entry.map(|entry| entry::Rows::new(entry)).transpose().map_err(unread)?;
    let mut builder = SubscribersBuilder::default();
    for row in rows.into_iter().flatten() {
        match row.map_err(unread)? {
            entry::Row::Application { name, consumer, plan } => {
                check_name("application", name)?;
                if !consumer.is_empty() {
                    check_name("consumer", consumer)?;
                }
                let find = |plan| plans.find(plan, format_args!("application {name:?}"));
                let plan = if plan.is_empty() { None } else { Some(find(plan)?) };
                builder.application(name, consumer, plan);
            }
            entry::Row::Key { key, application } => {
                check_text("a consumer key", key)?;
                builder.key(key, application);
            }
            entry::Row::Subscription { application, api, version, plan, blocked } => {
                let whose = format_args!("a subscription of application {application}");
                let plan = plans.find(plan, whose)?;
                let unknown = || format!("{whose} refers to the API {api:?} {version:?}, which is not in the bundle");
                let api = api_places.get(&(api, version)).copied().ok_or_else(|| invalid(unknown()))?;
                let standing = if blocked { Standing::Blocked } else { Standing::Active };
                builder.subscription(application, api, plan, standing);
            }
        }
    }
    builder.build().map_err(|twice| invalid(format!("{twice:?} stands twice in the subscriptions")))
}

/// What a list takes back, ready for look-up. Beside the rows it holds 8 bytes an id, and nothing twice.
pub(super) fn revocations(rows: &entry::RevocationRows<'_>) -> Revocations {
    let mut builder = RevocationsBuilder::with_capacity(rows.ids().len());
    for id in rows.ids() {
        builder.list(RevokedId(id.hash));
    }
    rows.cut_offs().for_each(|row| cut_off(&mut builder, &row));
    builder.build()
}

/// Adds a cut-off.
pub(super) fn cut_off(to: &mut RevocationsBuilder, row: &entry::CutOffRow<'_>) {
    let kind = match row.kind {
        entry::CutOffKind::Subject => Kind::Sub,
        entry::CutOffKind::Client => Kind::Client,
        entry::CutOffKind::Key => Kind::Kid,
    };
    to.cut_off(RevokedId::of(kind, row.issuer, row.value), row.before);
}

/// Stands for a parameter while a template is checked; a template cannot hold it.
const PARAMETER: char = '\u{1}';

/// `/`, or segments of which each is literal or has one `{parameter}`; the last may be `*`.
fn check_template(template: &str) -> Result<(), String> {
    if template.len() > TEXT_LIMIT {
        return Err(format!("is longer than {TEXT_LIMIT} bytes"));
    }
    if template.contains(char::is_control) {
        return Err("holds a control character, which no request's path has".to_owned());
    }
    let path = template.strip_suffix("/*").unwrap_or(template);
    let mut literal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("has a { without its }")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!("has the parameter {name:?}; use letters, digits, dash, dot and underscore"));
        }
        let same_segment = literal.rsplit('/').next().is_some_and(|segment| segment.contains(PARAMETER));
        if same_segment && !before.contains('/') {
            return Err("has two parameters in one segment".to_owned());
        }
        literal.push_str(before);
        literal.push(PARAMETER);
        rest = after;
    }
    literal.push_str(rest);
    if literal.contains(['}', '*', '?', '#', ' ']) {
        return Err(
            "holds a character that a path template cannot have; * stands only for the whole last segment".to_owned()
        );
    }
    if template == "/*" {
        return Ok(());
    }
    check_path(&literal.replace(PARAMETER, "x")).map_err(|bad| format!("is no path that a request can have: {bad}"))
}

fn check_texts(whose: &str, kind: &str, texts: &[String]) -> Result<(), SemanticProblem> {
    texts.iter().try_for_each(|text| check_text(&format!("{whose}: the {kind}"), text))
}

/// A text that tokens or requests are compared with: not empty, bounded, visible.
fn check_text(what: &str, text: &str) -> Result<(), SemanticProblem> {
    let sound = !text.is_empty() && text.len() <= TEXT_LIMIT && !text.chars().any(|c| c.is_control() || c == ' ');
    if sound {
        Ok(())
    } else {
        Err(invalid(format!("{what} {text:?} is empty, longer than {TEXT_LIMIT} bytes, or has spaces")))
    }
}

/// A name that people give: not empty, bounded, printable.
pub(super) fn check_name(kind: &str, name: &str) -> Result<(), SemanticProblem> {
    let sound = !name.trim().is_empty() && name.len() <= NAME_LIMIT && !name.chars().any(char::is_control);
    let problem =
        || invalid(format!("the {kind} {name:?} is empty, longer than {NAME_LIMIT} bytes, or has control characters"));
    if sound { Ok(()) } else { Err(problem()) }
}

fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    !name.is_empty() && name.len() <= 64 && name.bytes().all(token)
}

fn api_title(api: &entry::Api) -> String {
    format!("API {:?} {:?}", api.name, api.version)
}

pub(super) fn invalid(detail: String) -> SemanticProblem {
    SemanticProblem::SemanticInvalid(detail)
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
