//! From host, path and method to a route.
//!
//! A tree of path segments in flat slices: a route takes some 200 bytes, a look-up allocates nothing. Where several
//! templates fit a path, the host's own win over those for any host; then, at the first segment in which they differ, a
//! literal, then a parameter with more text before it, then with more text after it, then `*`. No two shapes are equal in
//! that, so nothing is ambiguous. A look-up meets a node once at most, and is as deep as the longest template.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use super::{Method, MethodSet, RouteIndex};

/// The compiled table.
pub struct Router {
    /// Roots of the hosts that are named, sorted by host.
    hosts: Box<[(Box<str>, u32)]>,
    any_host: u32,
    nodes: Box<[Node]>,
    edges: Box<[Edge]>,
    /// The texts of the edges.
    texts: Box<str>,
    resources: Box<[Resource]>,
    /// What `Allow` says of the methods of a resource.
    allows: Box<[(MethodSet, Box<str>)]>,
}

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

/// No resource, no route.
const NONE: u32 = u32::MAX;

/// Where a path stands after some of its segments.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Its edges: from `literals` those of literals, sorted; from `parameters` to `end` the others, in the order in which
    /// they are tried.
    literals: u32,
    parameters: u32,
    end: u32,
    /// The resource of the template that ends here.
    here: u32,
    /// The resource of the template whose `*` stands here.
    rest: u32,
}

/// A segment, and what comes after it: a literal, or a parameter with text before and after it.
#[derive(Debug, Clone, Copy)]
struct Edge {
    /// Where its text is; that after a parameter follows that before it.
    text: u32,
    before: u32,
    after: u32,
    to: u32,
}

/// One template on one host: a route for each method that it answers.
#[derive(Debug, Clone, Copy)]
struct Resource {
    routes: [RouteIndex; Method::ALL.len()],
    methods: MethodSet,
}

impl Router {
    /// Builds the table from `(hosts, base path, template, methods, route)`; no hosts: any host.
    pub fn build<'a>(
        routes: impl Iterator<Item = (&'a [Box<str>], &'a str, &'a str, MethodSet, RouteIndex)>,
    ) -> Result<Self, RouteConflict> {
        let mut rows = Vec::new();
        for (hosts, base, template, methods, route) in routes {
            for pattern in patterns(base, template) {
                let row = |host| Row { host, pattern: pattern.as_str().into(), methods, route };
                match hosts {
                    [] => rows.push(row("")),
                    hosts => rows.extend(hosts.iter().map(|host| row(host))),
                }
            }
        }
        rows.sort_unstable();
        let mut draft = Draft::default();
        let (mut hosts, mut any_host) = (Vec::new(), None);
        for of_host in rows.chunk_by(|a, b| a.host == b.host) {
            let root = draft.grow(of_host, 0)?;
            match of_host.first().map_or("", |row| row.host) {
                "" => any_host = Some(root),
                host => hosts.push((host.into(), root)),
            }
        }
        let any_host = any_host.map_or_else(|| draft.grow(&[], 0), Ok)?;
        let Draft { nodes, edges, texts, resources, allows } = draft;
        Ok(Self {
            hosts: hosts.into(),
            any_host,
            nodes: nodes.into(),
            edges: edges.into(),
            texts: texts.into(),
            resources: resources.into(),
            allows: allows.into(),
        })
    }

    /// The route of a request. `host` is without its port, in any case; a host's own routes win over
    /// those for any host.
    pub fn find(&self, host: &str, path: &str, method: Option<Method>) -> Result<RouteIndex, Miss<'_>> {
        let path = path.strip_prefix('/').ok_or(Miss::NoRoute)?;
        let own = self.hosts.binary_search_by(|(name, _)| cmp_ignoring_case(name, host)).ok();
        let own = own.and_then(|at| self.walk(self.hosts[at].1, path));
        let number = own.or_else(|| self.walk(self.any_host, path)).ok_or(Miss::NoRoute)?;
        let resource = &self.resources[number as usize];
        let route = method.map_or(NONE, |method| resource.routes[method as usize]);
        if route == NONE { Err(Miss::Method { allow: self.allow(resource.methods) }) } else { Ok(route) }
    }

    /// The resource of what is left of a path, the slash before it taken off.
    fn walk(&self, node: u32, path: &str) -> Option<u32> {
        let node = &self.nodes[node as usize];
        let (segment, left) = path.split_once('/').map_or((path, None), |(segment, left)| (segment, Some(left)));
        let onward = |edge: &Edge| match left {
            Some(left) => self.walk(edge.to, left),
            None => some(self.nodes[edge.to as usize].here),
        };
        let literals = &self.edges[node.literals as usize..node.parameters as usize];
        let literal = literals.binary_search_by(|edge| self.before(edge).cmp(segment)).ok();
        let parameters = &self.edges[node.parameters as usize..node.end as usize];
        literal
            .and_then(|at| onward(&literals[at]))
            .or_else(|| parameters.iter().filter(|edge| self.fits(edge, segment)).find_map(onward))
            .or_else(|| some(node.rest).filter(|_| !path.is_empty()))
    }

    /// Whether a segment is the parameter's, which takes one byte at least.
    fn fits(&self, edge: &Edge, segment: &str) -> bool {
        let taken = segment.strip_prefix(self.before(edge)).and_then(|rest| rest.strip_suffix(self.after(edge)));
        taken.is_some_and(|parameter| !parameter.is_empty())
    }

    fn before(&self, edge: &Edge) -> &str {
        &self.texts[edge.text as usize..][..edge.before as usize]
    }

    fn after(&self, edge: &Edge) -> &str {
        &self.texts[edge.text as usize..][edge.before as usize..][..edge.after as usize]
    }

    fn allow(&self, methods: MethodSet) -> &str {
        self.allows.iter().find(|(set, _)| *set == methods).map_or("", |(_, text)| text)
    }
}

fn some(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({} named hosts, {} resources)", self.hosts.len(), self.resources.len())
    }
}

/// A pattern of a route on a host.
#[derive(PartialEq, Eq)]
struct Row<'a> {
    host: &'a str,
    pattern: Box<str>,
    methods: MethodSet,
    route: RouteIndex,
}

impl Row<'_> {
    fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.pattern.split('/').skip(1).map(Segment::of)
    }
}

impl Ord for Row<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let host = self.host.cmp(other.host);
        host.then_with(|| self.segments().cmp(other.segments())).then_with(|| self.route.cmp(&other.route))
    }
}

impl PartialOrd for Row<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A segment of a pattern; in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment<'p> {
    Literal(&'p str),
    /// The texts before and after it, each after its length.
    Parameter(Reverse<usize>, &'p str, Reverse<usize>, &'p str),
    Rest,
}

impl<'p> Segment<'p> {
    fn of(text: &'p str) -> Self {
        let parameter = text.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?.1)));
        match parameter {
            Some((before, after)) => Self::Parameter(Reverse(before.len()), before, Reverse(after.len()), after),
            None if text == "*" => Self::Rest,
            None => Self::Literal(text),
        }
    }
}

/// A table that is being made.
#[derive(Debug, Default)]
struct Draft {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    texts: String,
    resources: Vec<Resource>,
    allows: Vec<(MethodSet, Box<str>)>,
}

impl Draft {
    /// The node of rows that have their first `depth` segments in common, and all below it.
    fn grow(&mut self, rows: &[Row<'_>], depth: usize) -> Result<u32, RouteConflict> {
        let at = self.nodes.len();
        let first = count(self.edges.len());
        self.nodes.push(Node { literals: first, parameters: first, end: first, here: NONE, rest: NONE });
        // Sorted: what ends here, literals, parameters, the rest. The edges of a node are one slice, so they come first.
        let groups = || rows.chunk_by(|a, b| a.segments().nth(depth) == b.segments().nth(depth));
        for group in groups() {
            let segment = group.first().and_then(|row| row.segments().nth(depth));
            match segment {
                None => self.nodes[at].here = self.resource(group)?,
                Some(Segment::Rest) => self.nodes[at].rest = self.resource(group)?,
                Some(Segment::Literal(text)) => {
                    self.edge(text, "");
                    self.nodes[at].parameters += 1;
                }
                Some(Segment::Parameter(_, before, _, after)) => self.edge(before, after),
            }
        }
        self.nodes[at].end = count(self.edges.len());
        let below = groups().filter(|group| {
            let segment = group.first().and_then(|row| row.segments().nth(depth));
            matches!(segment, Some(Segment::Literal(_) | Segment::Parameter(..)))
        });
        for (edge, group) in (first as usize..).zip(below) {
            self.edges[edge].to = self.grow(group, depth + 1)?;
        }
        Ok(count(at))
    }

    fn edge(&mut self, before: &str, after: &str) {
        let text = count(self.texts.len());
        self.texts.extend([before, after]);
        self.edges.push(Edge { text, before: count(before.len()), after: count(after.len()), to: NONE });
    }

    /// The resource of rows of one shape.
    fn resource(&mut self, rows: &[Row<'_>]) -> Result<u32, RouteConflict> {
        let mut resource = Resource { routes: [NONE; Method::ALL.len()], methods: MethodSet::default() };
        for row in rows {
            if resource.methods.overlaps(row.methods) {
                return Err(RouteConflict { pattern: row.pattern.to_string() });
            }
            resource.methods = resource.methods.union(row.methods);
            row.methods.iter().for_each(|method| resource.routes[method as usize] = row.route);
        }
        // HEAD follows GET where it has no route of its own (RFC 9110, 9.3.2).
        let get = resource.routes[Method::Get as usize];
        if get != NONE && !resource.methods.contains(Method::Head) {
            resource.routes[Method::Head as usize] = get;
            resource.methods = resource.methods.with(Method::Head);
        }
        if !self.allows.iter().any(|(methods, _)| *methods == resource.methods) {
            let names: Vec<_> = resource.methods.iter().map(Method::name).collect();
            self.allows.push((resource.methods, names.join(", ").into()));
        }
        self.resources.push(resource);
        Ok(count(self.resources.len() - 1))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("the entry's size limit bounds the routes")
}

/// The patterns under which a template is found.
/// A template that ends in `/*` matches all below it, and what stands before it.
fn patterns(base: &str, template: &str) -> impl Iterator<Item = String> {
    let rests = match template.strip_suffix('*').and_then(|stem| stem.strip_suffix('/')) {
        Some(stem) => [Some((stem, "")), Some((stem, "/")), Some((stem, "/*"))],
        None if template == "/" && !base.is_empty() => [Some(("", "")), Some(("/", "")), None],
        None => [Some((template, "")), None, None],
    };
    let whole = rests.map(|rest| rest.map(|(stem, end)| [base, stem, end].concat()));
    whole.into_iter().flatten().filter(|pattern| !pattern.is_empty())
}

fn cmp_ignoring_case(lower: &str, any: &str) -> Ordering {
    lower.bytes().cmp(any.bytes().map(|b| b.to_ascii_lowercase()))
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
