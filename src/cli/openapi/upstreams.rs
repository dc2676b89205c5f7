//! Where requests go: `servers`, `host` and `schemes`, and WSO2's endpoint extensions.

use std::collections::BTreeMap;

use serde_json::Value;

use super::read::text_of;
use super::{Upstream, slug};
use crate::policy::Endpoint;

/// The upstreams that were met, each with a name of its own.
#[derive(Debug)]
pub(super) struct Upstreams<'d> {
    document: &'d Value,
    prefix: String,
    pub(super) all: BTreeMap<String, Upstream>,
}

impl<'d> Upstreams<'d> {
    pub(super) fn new(document: &'d Value, prefix: &str) -> Self {
        Self { document, prefix: prefix.to_owned(), all: BTreeMap::new() }
    }

    /// Keeps `upstream`, under the name of an equal one where there is one.
    pub(super) fn keep(&mut self, wanted: &str, upstream: Upstream) -> String {
        if let Some((name, _)) = self.all.iter().find(|(_, other)| **other == upstream) {
            return name.clone();
        }
        let base = if wanted.is_empty() { self.prefix.clone() } else { format!("{}-{}", self.prefix, slug(wanted)) };
        let free = |name: &String| !self.all.contains_key(name);
        let numbered = (2..).map(|n| format!("{base}-{n}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(free).unwrap_or(base);
        self.all.insert(name.clone(), upstream);
        name
    }

    /// The upstream of an `x-wso2-production-endpoints`: `{urls: […]}`, or a reference into `x-wso2-endpoints`.
    pub(super) fn wso2(&mut self, value: &Value, wanted: &str, mut note: impl FnMut(String)) -> Option<String> {
        let (name, endpoints) = match value.as_str() {
            None => (wanted.to_owned(), value),
            Some(reference) => {
                let name = reference.strip_prefix("#/x-wso2-endpoints/").unwrap_or(reference);
                let defined = self.document.get("x-wso2-endpoints").and_then(Value::as_array);
                let Some(found) = defined.into_iter().flatten().find_map(|table| table.get(name)) else {
                    note(format!("refers to the endpoints {name:?}, which the document does not define; left out"));
                    return None;
                };
                (name.to_owned(), found)
            }
        };
        if endpoints.get("type").and_then(Value::as_str) == Some("failover") {
            note("fails over from one endpoint to the next; requests go round all of them".to_owned());
        }
        let mut response_timeout_ms = None;
        for (name, value) in endpoints.get("advanceEndpointConfig").and_then(Value::as_object).into_iter().flatten() {
            match (name.as_str(), whole(value)) {
                ("timeoutInMillis", Some(ms)) if ms > 0 => response_timeout_ms = Some(ms),
                _ => note(format!("advanceEndpointConfig.{name} is not taken over")),
            }
        }
        let urls = endpoints.get("urls").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let endpoints = usable(urls, &mut note);
        (!endpoints.is_empty()).then(|| self.keep(&name, Upstream { endpoints, response_timeout_ms }))
    }
}

/// A number, written as one or as text.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The URLs that can be forwarded to.
pub(super) fn usable<'u>(urls: impl Iterator<Item = &'u str>, mut note: impl FnMut(String)) -> Vec<String> {
    let mut usable: Vec<String> = Vec::new();
    for url in urls {
        match Endpoint::parse(url) {
            Ok(_) if usable.iter().any(|other| other == url) => {}
            Ok(_) => usable.push(url.to_owned()),
            Err(why) => note(format!("the endpoint {url:?} {why}; left out")),
        }
    }
    usable
}

/// The absolute URL of the first server, and the path of the first of all: `(Some(URL), path)`.
pub(super) fn servers(document: &Value, mut note: impl FnMut(String)) -> (Option<String>, Option<String>) {
    if document.get("swagger").is_some() {
        return swagger(document, note);
    }
    let servers = document.get("servers").and_then(Value::as_array).into_iter().flatten();
    let urls: Vec<_> = servers.filter_map(|server| Some((server, server.get("url")?.as_str()?))).collect();
    let Some((first, url)) = urls.first() else { return (None, None) };
    if urls.len() > 1 {
        let others: Vec<_> = urls.iter().skip(1).map(|(_, url)| *url).collect();
        note(format!("servers: the first is taken, not {}", others.join(", ")));
    }
    let url = filled(url, first.get("variables"));
    if url.starts_with('/') {
        return (None, Some(url));
    }
    let path = Endpoint::parse(&url).ok().map(|endpoint| endpoint.prefix.to_string());
    match path {
        Some(path) => (Some(url), Some(path)),
        None => {
            note(format!("servers: {url:?} cannot be forwarded to"));
            (None, None)
        }
    }
}

/// A server's URL with its variables' defaults.
fn filled(url: &str, variables: Option<&Value>) -> String {
    let mut url = url.to_owned();
    for (name, variable) in variables.and_then(Value::as_object).into_iter().flatten() {
        if let Some(default) = variable.get("default").map(text_of) {
            url = url.replace(&format!("{{{name}}}"), &default);
        }
    }
    url
}

fn swagger(document: &Value, mut note: impl FnMut(String)) -> (Option<String>, Option<String>) {
    let text = |name| document.get(name).and_then(Value::as_str);
    let base = text("basePath").map(|base| base.trim_end_matches('/').to_owned());
    let Some(host) = text("host") else { return (None, base) };
    let schemes = document.get("schemes").and_then(Value::as_array).into_iter().flatten();
    let schemes: Vec<_> = schemes.filter_map(Value::as_str).filter(|scheme| scheme.starts_with("http")).collect();
    let scheme = if schemes.is_empty() || schemes.contains(&"https") { "https" } else { "http" };
    if schemes.len() != 1 {
        note(format!("schemes: {scheme} is taken"));
    }
    let url = format!("{scheme}://{host}{}", base.as_deref().unwrap_or_default());
    if Endpoint::parse(&url).is_err() {
        note(format!("host: {url:?} cannot be forwarded to"));
        return (None, base);
    }
    (Some(url), Some(base.unwrap_or_default()))
}
