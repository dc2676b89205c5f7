//! Pairs of routes where one path meets both, and whoever comes by it is judged by other rules than the other says. Pure.
//!
//! All APIs that answer on a common host are looked at together, by the full paths of their routes, which stand in a tree
//! of segments: each route meets what lies on its own way through it, so that ten thousand take no time.

use std::collections::{BTreeMap, BTreeSet};

use super::lint::title;
use crate::bundle::entry::{Api, Route, Routes};

/// What is to be known of each pair.
pub(super) fn overlaps(entry: &Routes) -> Vec<String> {
    let routes: Vec<(&Api, &Route)> =
        entry.apis.iter().flat_map(|api| api.routes.iter().map(move |route| (api, route))).collect();
    let paths: Vec<Vec<String>> = routes.iter().map(|(api, route)| paths(&api.base_path, &route.template)).collect();
    let mut tree = Node::default();
    let mut found = Vec::new();
    for (at, (api, route)) in routes.iter().enumerate() {
        let mut met = BTreeSet::new();
        for path in &paths[at] {
            tree.meet(&segments(path), &mut met);
        }
        let others = met.into_iter().filter_map(|other| routes.get(other));
        found.extend(others.filter_map(|other| told(*other, (api, route))));
        for path in &paths[at] {
            tree.add(&segments(path), at);
        }
    }
    found
}

/// The paths of a template as the router has them: `/*` matches what stands before it too, and `/` the base alone.
fn paths(base: &str, template: &str) -> Vec<String> {
    let rest = match template.strip_suffix("/*") {
        Some(stem) => vec![stem.to_owned(), format!("{stem}/"), template.to_owned()],
        None if template == "/" && !base.is_empty() => vec![String::new(), template.to_owned()],
        None => vec![template.to_owned()],
    };
    rest.into_iter().map(|rest| format!("{base}{rest}")).filter(|path| !path.is_empty()).collect()
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

/// What there is to say of two routes that one path fits.
fn told((one_api, one): (&Api, &Route), (other_api, other): (&Api, &Route)) -> Option<String> {
    let is_any = |api: &Api| api.hosts.is_empty();
    let share_host = is_any(one_api) || is_any(other_api) || one_api.hosts.iter().any(|h| other_api.hosts.contains(h));
    let share_method = one.methods.iter().any(|method| other.methods.contains(method));
    if !share_host || !share_method || rules(one_api, one) == rules(other_api, other) {
        return None;
    }
    let (one_title, other_title) = (title(one_api), title(other_api));
    if one_title == other_title {
        let (one, other) = (&one.template, &other.template);
        let counts = "whose rules differ; the more exact one counts";
        // Of one shape and method is refused by its own name.
        return (one != other).then(|| format!("{one_title}: some paths fit both {one:?} and {other:?}, {counts}"));
    }
    let counts = match (is_any(one_api), is_any(other_api)) {
        (false, true) => format!("on the hosts of {one_title} its own counts"),
        (true, false) => format!("on the hosts of {other_title} its own counts"),
        _ => "the more exact one counts".to_owned(),
    };
    let whole = |api: &Api, route: &Route| format!("{}{}", api.base_path, route.template);
    let (one, other) = (whole(one_api, one), whole(other_api, other));
    Some(format!(
        "some paths fit both {one:?} of {one_title} and {other:?} of {other_title}, whose rules differ; {counts}"
    ))
}

/// All by which a request is judged and where it goes.
fn rules<'a>(api: &'a Api, route: &'a Route) -> impl PartialEq + use<'a> {
    let of_route = (route.auth, &route.scopes, &route.plan, route.uncertain, route.revocations_max_age_s);
    let of_api = (&api.issuers, &api.audiences, &api.plan, api.subscription, &api.token_header);
    (of_route, of_api, route.upstream.as_ref().unwrap_or(&api.upstream))
}

/// Segments of paths, and which routes end there.
#[derive(Debug, Default)]
struct Node<'p> {
    plain: BTreeMap<&'p str, Node<'p>>,
    /// Segments with a parameter; `*` among them.
    open: BTreeMap<&'p str, Node<'p>>,
    routes: Vec<usize>,
}

impl<'p> Node<'p> {
    fn add(&mut self, path: &[&'p str], route: usize) {
        let Some((segment, rest)) = path.split_first() else { return self.routes.push(route) };
        let children = if is_open(segment) { &mut self.open } else { &mut self.plain };
        children.entry(segment).or_default().add(rest, route);
    }

    /// The routes that a path can take which fits `path` too.
    fn meet(&self, path: &[&str], met: &mut BTreeSet<usize>) {
        let Some((segment, rest)) = path.split_first() else { return met.extend(&self.routes) };
        if *segment == "*" {
            return self.children().for_each(|(_, child)| child.all(met));
        }
        if let Some(child) = self.plain.get(segment) {
            child.meet(rest, met);
        }
        if is_open(segment) {
            self.plain.iter().filter(|(plain, _)| fits(segment, plain)).for_each(|(_, child)| child.meet(rest, met));
        }
        for (open, child) in &self.open {
            if *open == "*" {
                met.extend(&child.routes);
            } else if fits(open, segment) {
                child.meet(rest, met);
            }
        }
    }

    fn children(&self) -> impl Iterator<Item = (&&'p str, &Self)> {
        self.plain.iter().chain(&self.open)
    }

    fn all(&self, met: &mut BTreeSet<usize>) {
        met.extend(&self.routes);
        self.children().for_each(|(_, child)| child.all(met));
    }
}

fn is_open(segment: &str) -> bool {
    segment == "*" || segment.contains('{')
}

/// Whether what stands before and after a segment's parameter leaves room for `text`, which may have one itself.
fn fits(segment: &str, text: &str) -> bool {
    let Some((before, (_, after))) = segment.split_once('{').and_then(|(a, rest)| Some((a, rest.split_once('}')?)))
    else {
        return false;
    };
    match text.split_once('{').and_then(|(a, rest)| Some((a, rest.split_once('}')?.1))) {
        None => text.len() > before.len() + after.len() && text.starts_with(before) && text.ends_with(after),
        Some((a, b)) => (before.starts_with(a) || a.starts_with(before)) && (after.ends_with(b) || b.ends_with(after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::entry::Usage;
    use crate::policy::{Auth, Method, Uncertain};

    fn route(template: &str, auth: Auth) -> Route {
        Route {
            auth,
            methods: vec![Method::Get],
            plan: None,
            revocations_max_age_s: None,
            scopes: Vec::new(),
            template: template.to_owned(),
            uncertain: Uncertain::Allow,
            upstream: None,
        }
    }

    fn api(name: &str, base: &str, hosts: &[&str], routes: Vec<Route>) -> Api {
        Api {
            audiences: Vec::new(),
            base_path: base.to_owned(),
            forward_token: false,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            issuers: Vec::new(),
            max_body: 0,
            name: name.to_owned(),
            plan: None,
            routes,
            strip_base_path: true,
            subscription: false,
            token_header: "authorization".to_owned(),
            upstream: "u".to_owned(),
            usage: Usage::default(),
            version: "1".to_owned(),
        }
    }

    fn found(apis: Vec<Api>) -> Vec<String> {
        overlaps(&Routes { apis, ..Routes::default() })
    }

    #[test]
    fn templates_overlap_where_one_path_fits_both() {
        for (one, other, is) in [
            ("/pet/{id}", "/pet/findByStatus", true),
            ("/pet/{id}", "/pet/{name}", true),
            ("/pet/{id}", "/pets/1", false),
            ("/pet/{id}", "/pet/{id}/photo", false),
            ("/pet/*", "/pet/{id}/photo", true),
            ("/pet/*", "/pet", true),
            ("/pet/*", "/pets", false),
            ("/*", "/pet", true),
            ("/*", "/{id}/*", true),
            ("/pet/a-{id}", "/pet/a-1", true),
            ("/pet/a-{id}", "/pet/b-1", false),
            ("/pet/a-{id}", "/pet/a-", false),
            ("/pet/a-{id}", "/pet/{id}-b", true),
            ("/pet/a-{id}", "/pet/b-{id}", false),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                let routes = vec![route(one, Auth::None), route(other, Auth::Token)];
                assert_eq!(found(vec![api("a", "", &[], routes)]).len(), usize::from(is), "{one} {other}");
            }
        }
    }

    #[test]
    fn apis_that_share_a_host_overlap_by_their_full_paths() {
        let pair = |hosts: [&[&str]; 2], admin: &str| {
            let shop = api("shop", "/shop", hosts[0], vec![route("/*", Auth::None)]);
            found(vec![shop, api("admin", admin, hosts[1], vec![route("/{x}", Auth::Token)])])
        };
        let told = pair([&[], &[]], "/shop/admin");
        assert!(
            matches!(&*told, [one] if one.contains("\"/shop/*\" of API \"shop\"")
            && one.contains("\"/shop/admin/{x}\" of API \"admin\"") && one.ends_with("the more exact one counts")),
            "{told:?}"
        );
        assert!(pair([&[], &[]], "/shops/admin").is_empty(), "the control");
        assert_eq!(pair([&["a", "b"], &["b", "c"]], "/shop/admin").len(), 1);
        assert!(pair([&["a"], &["b"]], "/shop/admin").is_empty());
        let told = pair([&["a"], &[]], "/shop/admin");
        assert!(
            matches!(&*told, [one] if one.ends_with("on the hosts of API \"shop\" \"1\" its own counts")),
            "{told:?}"
        );
        assert_eq!(pair([&["a"], &[]], "/shop").len(), 1);
    }

    #[test]
    fn every_rule_of_a_route_and_of_its_api_counts() {
        type Change = fn(&mut Api);
        let changes: [Change; 9] = [
            |_| (),
            |api| api.routes[0].uncertain = Uncertain::Deny,
            |api| api.routes[0].revocations_max_age_s = Some(60),
            |api| api.routes[0].scopes = vec!["admin".to_owned()],
            |api| api.routes[0].plan = Some("gold".to_owned()),
            |api| api.routes[0].upstream = Some("v".to_owned()),
            |api| api.issuers = vec!["site".to_owned()],
            |api| api.subscription = true,
            |api| api.audiences = vec!["edge".to_owned()],
        ];
        for (number, change) in changes.iter().enumerate() {
            let one = api("one", "/a", &[], vec![route("/{x}", Auth::Token)]);
            let mut other = api("other", "/a", &[], vec![route("/b", Auth::Token)]);
            change(&mut other);
            assert_eq!(found(vec![one, other]).len(), usize::from(number > 0), "{number}");
        }
    }

    #[test]
    fn ten_thousand_routes_take_no_time() {
        let many = |name: &str| {
            let routes = (0..100).map(|n| route(&format!("/things-{n}/{{id}}"), Auth::Token)).collect();
            api(name, &format!("/api/{name}"), &[], routes)
        };
        let begun = std::time::Instant::now();
        assert!(found((0..100).map(|n| many(&n.to_string())).collect()).is_empty());
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}
