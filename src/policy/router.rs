//! From host, path and method to a route.
//!
//! A path is matched as it stands on the wire, so [`check_path`] first refuses every spelling that an
//! upstream could read as another path than the one that was matched here.

use std::collections::BTreeMap;
use std::fmt;

use super::{Method, MethodSet, RouteIndex};

/// The compiled table.
#[derive(Default)]
pub struct Router {
    /// Tables of the hosts that are named, sorted by host.
    hosts: Vec<(Box<str>, Table)>,
    any_host: Table,
    /// By the numbers in the tables: a table has room for four at each of its nodes.
    resources: Vec<Resource>,
}

/// From a path to a resource.
type Table = matchit::Router<u32>;

/// Why nothing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss<'r> {
    /// No template matches: 404.
    NoRoute,
    /// A template matches, but not the method: 405 with this `Allow`.
    Method {
        /// The methods that would do, as the header gives them.
        allow: &'r str,
    },
}

/// Two routes that would both answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern} conflicts with another route of the same shape and method on this host")]
pub struct RouteConflict {
    /// The pattern that could not be added.
    pub pattern: String,
}

/// One template on one host: a route for each method that it answers.
#[derive(Debug, Clone, Default)]
struct Resource {
    routes: [Option<RouteIndex>; Method::ALL.len()],
    allow: Box<str>,
}

impl Router {
    /// Builds the table from `(hosts, base path, template, methods, route)`; no hosts: any host.
    pub fn build<'a>(
        routes: impl Iterator<Item = (&'a [Box<str>], &'a str, &'a str, MethodSet, RouteIndex)>,
    ) -> Result<Self, RouteConflict> {
        let mut tables: BTreeMap<Box<str>, BTreeMap<String, Resource>> = BTreeMap::new();
        for (hosts, base, template, methods, route) in routes {
            let any = [Box::default()];
            for host in if hosts.is_empty() { &any } else { hosts } {
                let table = tables.entry(host.clone()).or_default();
                for pattern in patterns(base, template) {
                    let resource = table.entry(pattern.clone()).or_default();
                    if !resource.add(methods, route) {
                        return Err(RouteConflict { pattern });
                    }
                }
            }
        }
        let mut router = Self::default();
        for (host, table) in tables {
            let mut compiled = Table::new();
            for (pattern, mut resource) in table {
                resource.finish();
                let number = u32::try_from(router.resources.len()).expect("the entry's size limit bounds the routes");
                compiled.insert(pattern.clone(), number).map_err(|_| RouteConflict { pattern })?;
                router.resources.push(resource);
            }
            if host.is_empty() { router.any_host = compiled } else { router.hosts.push((host, compiled)) }
        }
        Ok(router)
    }

    /// The route of a request. `host` is without its port, in any case; a host's own routes win over
    /// those for any host.
    pub fn find(&self, host: &str, path: &str, method: Option<Method>) -> Result<RouteIndex, Miss<'_>> {
        let own = self.hosts.binary_search_by(|(name, _)| cmp_ignoring_case(name, host)).ok();
        let own = own.and_then(|at| self.hosts[at].1.at(path).ok());
        let number = match own {
            Some(matched) => *matched.value,
            None => *self.any_host.at(path).map_err(|_| Miss::NoRoute)?.value,
        };
        let resource = &self.resources[number as usize];
        let route = method.and_then(|method| resource.routes[method as usize]);
        route.ok_or(Miss::Method { allow: &resource.allow })
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({} named hosts)", self.hosts.len())
    }
}

impl Resource {
    /// Adds `route` under `methods`; false if one of them has a route already.
    fn add(&mut self, methods: MethodSet, route: RouteIndex) -> bool {
        methods.iter().all(|method| {
            let place = &mut self.routes[method as usize];
            place.is_none() && place.replace(route).is_none()
        })
    }

    /// HEAD follows GET where it has no route of its own (RFC 9110, 9.3.2); then `Allow` is written.
    fn finish(&mut self) {
        let get = self.routes[Method::Get as usize];
        self.routes[Method::Head as usize] = self.routes[Method::Head as usize].or(get);
        let names: Vec<_> =
            Method::ALL.iter().filter(|m| self.routes[**m as usize].is_some()).map(|m| m.name()).collect();
        self.allow = names.join(", ").into();
    }
}

/// The patterns under which a template is found, parameters numbered so that only their place counts.
/// A template that ends in `/*` matches all below it, and what stands before it.
fn patterns(base: &str, template: &str) -> Vec<String> {
    let whole = |rest: &str| format!("{base}{rest}");
    let named = match template.strip_suffix("/*") {
        Some(stem) => vec![whole(stem), whole(&format!("{stem}/")), whole(&format!("{stem}/{{*}}"))],
        None if template == "/" && !base.is_empty() => vec![whole(""), whole("/")],
        None => vec![whole(template)],
    };
    named.into_iter().filter(|pattern| !pattern.is_empty()).map(|pattern| number_parameters(&pattern)).collect()
}

fn number_parameters(pattern: &str) -> String {
    let mut numbered = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut number = 0;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let star = if name.starts_with('*') { "*" } else { "" };
        numbered.push_str(&format!("{before}{{{star}p{number}}}"));
        number += 1;
        rest = after;
    }
    numbered.push_str(rest);
    numbered
}

fn cmp_ignoring_case(lower: &str, any: &str) -> std::cmp::Ordering {
    lower.bytes().cmp(any.bytes().map(|b| b.to_ascii_lowercase()))
}

/// Why a path is refused before it is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with `/`.
    #[error("the path does not begin with /")]
    NotAbsolute,
    /// It has a `.` or `..` segment, plain, encoded, or before a `;`.
    #[error("the path has a dot segment")]
    DotSegment,
    /// It has `//`, which many upstreams read as `/`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `%` without two hex digits, or `%` before a character that must stand plain: a letter, a digit,
    /// `-`, `.`, `_`, `/`, `\` or a control character.
    #[error("the path encodes a character that must not be encoded")]
    Encoding,
    /// A `\`, which some upstreams read as `/`.
    #[error("the path has a backslash")]
    Backslash,
    /// Without its `;parameters`, which many upstreams cut off, it is another route's.
    #[error("the path has a parameter that hides another route")]
    Parameter,
    /// Without its last `/`, which many upstreams do not mind, it is another route's.
    #[error("the path has a slash at its end that hides another route")]
    TrailingSlash,
}

/// The path as an upstream reads it that cuts off path parameters; `None` where it has none.
#[must_use]
pub fn without_parameters(path: &str) -> Option<String> {
    path.contains(';').then(|| {
        let plain = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        plain.collect::<Vec<_>>().join("/")
    })
}

/// Refuses every path that an upstream could read as another one. Takes the path alone, without the query.
pub fn check_path(path: &str) -> Result<(), BadPath> {
    let mut rest = path.as_bytes();
    if rest.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'/' => check_start(after)?,
            b'\\' => return Err(BadPath::Backslash),
            b'%' => {
                let [high, low, after @ ..] = after else { return Err(BadPath::Encoding) };
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(BadPath::Encoding);
                let encoded = (digit(*high)? << 4 | digit(*low)?) as u8;
                let plain = encoded.is_ascii_alphanumeric() || encoded.is_ascii_control();
                if plain || matches!(encoded, b'-' | b'.' | b'_' | b'/' | b'\\') {
                    return Err(BadPath::Encoding);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a segment may begin so: `rest` is what comes after its slash.
fn check_start(rest: &[u8]) -> Result<(), BadPath> {
    match rest {
        [b'/', ..] => Err(BadPath::EmptySegment),
        [b'.'] | [b'.', b'/' | b';', ..] | [b'.', b'.'] | [b'.', b'.', b'/' | b';', ..] => Err(BadPath::DotSegment),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
