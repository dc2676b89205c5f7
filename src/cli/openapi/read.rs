//! What a gateway needs of a document: base path, upstreams, routes, limits.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::document::parse;
use super::upstreams::{Upstreams, servers};
use super::{Import, OpenapiError, Overrides, Route, Upstream, security, slug};
use crate::cli::source::template_fault;
use crate::policy::{Endpoint, Method, check_path};

const ENDPOINTS: &str = "x-wso2-production-endpoints";
const TIER: &str = "x-wso2-throttling-tier";
const DISABLE: &str = "x-wso2-disable-security";
/// Members of the document that are read here.
const TOP: [&str; 18] = [
    "openapi",
    "swagger",
    "info",
    "servers",
    "host",
    "basePath",
    "schemes",
    "paths",
    "security",
    "components",
    "securityDefinitions",
    "x-wso2-basePath",
    "x-wso2-endpoints",
    "x-wso2-auth-header",
    "x-wso2-sandbox-endpoints",
    ENDPOINTS,
    TIER,
    DISABLE,
];
/// Members of an operation that are read here.
const OPERATION: [&str; 5] = ["security", ENDPOINTS, TIER, DISABLE, "x-wso2-sandbox-endpoints"];
const METHODS: [(&str, Option<Method>); 8] = [
    ("get", Some(Method::Get)),
    ("head", Some(Method::Head)),
    ("post", Some(Method::Post)),
    ("put", Some(Method::Put)),
    ("patch", Some(Method::Patch)),
    ("delete", Some(Method::Delete)),
    ("options", Some(Method::Options)),
    ("trace", None),
];
/// Most places that one note of the report names.
const PLACES: usize = 4;

/// What a person should know, each thing once, with the places that it is about.
#[derive(Debug, Default)]
struct Notes(BTreeMap<String, Vec<String>>);

impl Notes {
    fn add(&mut self, place: &str, message: impl Into<String>) {
        let places = self.0.entry(message.into()).or_default();
        if !places.iter().any(|other| other == place) {
            places.push(place.to_owned());
        }
    }

    fn into_report(self) -> Vec<String> {
        let line = |(message, places): (String, Vec<String>)| {
            let shown: Vec<_> = places.iter().take(PLACES).map(String::as_str).collect();
            let more = places.len().saturating_sub(PLACES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}: {message}", shown.join(", "))
        };
        self.0.into_iter().map(line).collect()
    }
}

/// Reads a document; `over` wins over what it says.
pub(in crate::cli) fn read(bytes: &[u8], over: &Overrides) -> Result<Import, OpenapiError> {
    let document = parse(bytes)?;
    let version = |name| document.get(name).map(text_of);
    match (version("openapi"), version("swagger")) {
        (Some(version), None) if version.starts_with("3.") => {}
        (None, Some(version)) if version == "2.0" => {}
        _ => return Err(OpenapiError::NotOpenapi),
    }
    let info = |name| document.get("info").and_then(|info| info.get(name)).map(text_of).filter(|text| !text.is_empty());
    let missing = |what, flag| OpenapiError::Missing { what, flag };
    let name = over.name.clone().or_else(|| info("title")).ok_or(missing("title", "--name"))?.trim().to_owned();
    let version = over.version.clone().or_else(|| info("version")).ok_or(missing("version", "--version"))?;

    let mut notes = Notes::default();
    let mut upstreams = Upstreams::new(&document, &slug(&name));
    let (server, server_path) = servers(&document, |text| notes.add("document", text));
    let base_path = base_path(&document, over, server_path, &name, &version, &mut notes)?;
    let upstream = api_upstream(&document, over, server, &mut upstreams, &mut notes)?;
    let token_header = document.get("x-wso2-auth-header").and_then(Value::as_str).map(str::to_ascii_lowercase);
    let plan = document.get(TIER).map(text_of);
    if document.get("x-wso2-sandbox-endpoints").is_some() {
        notes.add("document", "x-wso2-sandbox-endpoints: there is no sandbox; left out");
    }
    let routes = routes(&document, &upstream, &mut upstreams, &mut notes);
    if routes.is_empty() {
        return Err(OpenapiError::NoRoute);
    }
    unused(&document, &mut notes);
    Ok(Import {
        name,
        version: version.trim().to_owned(),
        base_path,
        token_header,
        plan,
        upstream,
        upstreams: upstreams.all,
        routes,
        report: notes.into_report(),
    })
}

/// A text, or a number that was meant as one.
pub(super) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn base_path(
    document: &Value,
    over: &Overrides,
    server_path: Option<String>,
    name: &str,
    version: &str,
    notes: &mut Notes,
) -> Result<String, OpenapiError> {
    let wso2 = document.get("x-wso2-basePath").and_then(Value::as_str).map(|path| path.replace("{version}", version));
    let path = over.base_path.clone().or(wso2).or(server_path).unwrap_or_else(|| {
        notes.add("document", "says no base path; one is made of the API's name");
        format!("/{}", slug(name))
    });
    let path = path.strip_suffix("/*").unwrap_or(&path).trim_end_matches('/');
    let plain = path.is_empty()
        || check_path(path).is_ok() && path.chars().all(|c| c.is_ascii_graphic() && !"{}*?#".contains(c));
    if plain { Ok(path.to_owned()) } else { Err(OpenapiError::Missing { what: "base path", flag: "--base-path" }) }
}

fn api_upstream(
    document: &Value,
    over: &Overrides,
    server: Option<String>,
    upstreams: &mut Upstreams<'_>,
    notes: &mut Notes,
) -> Result<String, OpenapiError> {
    let missing = OpenapiError::Missing { what: "upstream", flag: "--upstream URL" };
    let plain = |url: String| Upstream { endpoints: vec![url], response_timeout_ms: None };
    if let Some(url) = &over.upstream {
        return match Endpoint::parse(url) {
            Ok(_) => Ok(upstreams.keep("", plain(url.clone()))),
            Err(_) => Err(missing),
        };
    }
    let wso2 = document.get(ENDPOINTS).and_then(|value| upstreams.wso2(value, "", |text| notes.add("document", text)));
    match (wso2, server) {
        (Some(name), Some(url)) => {
            notes.add("document", format!("{ENDPOINTS} is taken as upstream, not the server {url}"));
            Ok(name)
        }
        (Some(name), None) => Ok(name),
        (None, Some(url)) => Ok(upstreams.keep("", plain(url))),
        (None, None) => Err(missing),
    }
}

fn routes(document: &Value, api: &str, upstreams: &mut Upstreams<'_>, notes: &mut Notes) -> Vec<Route> {
    let nothing = Map::new();
    let paths = document.get("paths").and_then(Value::as_object).unwrap_or(&nothing);
    let mut routes: Vec<Route> = Vec::new();
    for (path, item) in paths.iter().filter(|(path, _)| !path.starts_with("x-")) {
        let Some(item) = item.as_object() else {
            notes.add(path, "is not an object; left out");
            continue;
        };
        if item.contains_key("$ref") {
            notes.add(path, "is a $ref to another place; left out");
        }
        if let Err(why) = template_fault(path) {
            notes.add(path, format!("{why}; left out"));
            continue;
        }
        let first = routes.len();
        for (word, method) in METHODS {
            let Some(operation) = item.get(word) else { continue };
            let place = format!("{} {path}", word.to_uppercase());
            let (Some(method), Some(operation)) = (method, operation.as_object()) else {
                notes.add(&place, "cannot be routed; left out");
                continue;
            };
            let rules = Operation { document, item, operation, place: &place };
            let route = rules.route(path, method, api, upstreams, notes);
            // Operations of one path with the same rules share a route.
            let same = |other: &&mut Route| {
                Route { methods: Vec::new(), ..(**other).clone() } == Route { methods: Vec::new(), ..route.clone() }
            };
            match routes.iter_mut().skip(first).find(same) {
                Some(other) => other.methods.push(method),
                None => routes.push(route),
            }
        }
    }
    routes
}

/// One operation, and where its rules may stand.
struct Operation<'d> {
    document: &'d Value,
    item: &'d Map<String, Value>,
    operation: &'d Map<String, Value>,
    place: &'d str,
}

impl Operation<'_> {
    /// The nearest say: the operation's, else its path's.
    fn own(&self, name: &str) -> Option<&Value> {
        self.operation.get(name).or_else(|| self.item.get(name))
    }

    fn route(&self, path: &str, method: Method, api: &str, upstreams: &mut Upstreams<'_>, notes: &mut Notes) -> Route {
        let disabled = self.own(DISABLE).or_else(|| self.document.get(DISABLE));
        let asked = if disabled == Some(&Value::Bool(true)) {
            notes.add(self.place, format!("{DISABLE}: open to anybody"));
            security::Asked::OPEN
        } else {
            let security = self.operation.get("security").or_else(|| self.document.get("security"));
            security::read(security, schemes(self.document), |text| notes.add(self.place, text))
        };
        let wanted = self.operation.get("operationId").and_then(Value::as_str).map(slug).unwrap_or_default();
        let endpoints = self.own(ENDPOINTS);
        let upstream = endpoints.and_then(|value| upstreams.wso2(value, &wanted, |text| notes.add(self.place, text)));
        if endpoints.is_some() && upstream.is_none() {
            notes.add(self.place, "its own endpoints are unusable; it goes to the API's upstream");
        }
        if self.own("x-wso2-sandbox-endpoints").is_some() {
            notes.add(self.place, "x-wso2-sandbox-endpoints: there is no sandbox; left out");
        }
        Route {
            path: path.to_owned(),
            methods: vec![method],
            auth: asked.auth,
            scopes: asked.scopes,
            plan: self.own(TIER).map(text_of),
            upstream: upstream.filter(|name| name != api),
        }
    }
}

fn schemes(document: &Value) -> &Value {
    let defined = document.get("components").and_then(|components| components.get("securitySchemes"));
    defined.or_else(|| document.get("securityDefinitions")).unwrap_or(&Value::Null)
}

/// Names every member that nothing was made of.
fn unused(document: &Value, notes: &mut Notes) {
    let members =
        |value: &Value| value.as_object().into_iter().flat_map(|table| table.keys().cloned()).collect::<Vec<_>>();
    for name in members(document).iter().filter(|name| !TOP.contains(&name.as_str())) {
        notes.add("document", format!("{name} is not taken over"));
    }
    let mut names = BTreeSet::new();
    for item in document.get("paths").and_then(Value::as_object).into_iter().flat_map(Map::values) {
        for (name, operation) in item.as_object().into_iter().flatten() {
            match METHODS.iter().any(|(word, _)| word == name) {
                true => names.extend(members(operation).into_iter().filter(|name| !OPERATION.contains(&name.as_str()))),
                false if !OPERATION.contains(&name.as_str()) => {
                    names.insert(name.clone());
                }
                false => {}
            }
        }
    }
    if !names.is_empty() {
        let names: Vec<_> = names.into_iter().collect();
        notes.add("operations", format!("not taken over, and not checked by the gateway: {}", names.join(", ")));
    }
}
