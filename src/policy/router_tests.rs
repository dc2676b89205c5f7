use super::*;

type Row = (&'static [&'static str], &'static str, &'static str, &'static [Method]);

fn router(rows: &[Row]) -> Result<Router, RouteConflict> {
    let rows: Vec<_> = rows
        .iter()
        .zip(0..)
        .map(|((hosts, base, template, methods), route)| {
            let hosts: Vec<Box<str>> = hosts.iter().map(|h| Box::from(*h)).collect();
            (hosts, *base, *template, methods.iter().copied().collect::<MethodSet>(), route)
        })
        .collect();
    Router::build(
        rows.iter().map(|(hosts, base, template, methods, route)| (&**hosts, *base, *template, *methods, *route)),
    )
}

fn find(router: &Router, host: &str, path: &str, method: Method) -> Option<RouteIndex> {
    router.find(host, path, Some(method)).ok()
}

#[test]
fn a_literal_wins_over_a_parameter_and_a_parameter_over_the_rest() {
    let router = router(&[
        (&[], "/p/1", "/pet/{id}", &[Method::Get]),
        (&[], "/p/1", "/pet/find", &[Method::Get]),
        (&[], "/p/1", "/*", &[Method::Get]),
    ])
    .expect("no conflict");
    assert_eq!(find(&router, "h", "/p/1/pet/7", Method::Get), Some(0));
    assert_eq!(find(&router, "h", "/p/1/pet/find", Method::Get), Some(1));
    assert_eq!(find(&router, "h", "/p/1/store/a/b", Method::Get), Some(2));
    assert_eq!(find(&router, "h", "/p/1", Method::Get), Some(2));
    assert_eq!(find(&router, "h", "/p/1/", Method::Get), Some(2));
    assert_eq!(find(&router, "h", "/p/2/pet/7", Method::Get), None);
}

#[test]
fn templates_of_one_shape_share_a_resource_whatever_their_parameters_are_called() {
    let rows: [Row; 2] = [(&[], "", "/pet/{id}", &[Method::Get]), (&[], "", "/pet/{name}", &[Method::Delete])];
    let router = router(&rows).expect("no conflict");
    assert_eq!(find(&router, "h", "/pet/7", Method::Get), Some(0));
    assert_eq!(find(&router, "h", "/pet/7", Method::Head), Some(0), "HEAD follows GET");
    assert_eq!(find(&router, "h", "/pet/7", Method::Delete), Some(1));
    assert_eq!(router.find("h", "/pet/7", Some(Method::Put)), Err(Miss::Method { allow: "GET, HEAD, DELETE" }));
    assert_eq!(router.find("h", "/pet/7", None), Err(Miss::Method { allow: "GET, HEAD, DELETE" }));
}

#[test]
fn the_same_method_twice_on_one_shape_is_a_conflict() {
    let rows: [Row; 2] = [(&[], "", "/pet/{id}", &[Method::Get]), (&[], "", "/pet/{name}", &[Method::Get])];
    assert_eq!(router(&rows).err().map(|e| e.pattern), Some("/pet/{name}".into()));
}

#[test]
fn a_host_has_routes_of_its_own_and_those_of_any_host() {
    let rows: [Row; 2] = [(&["a.example"], "", "/x", &[Method::Get]), (&[], "", "/{any}", &[Method::Get])];
    let router = router(&rows).expect("no conflict");
    assert_eq!(find(&router, "A.Example", "/x", Method::Get), Some(0));
    assert_eq!(find(&router, "a.example", "/y", Method::Get), Some(1));
    assert_eq!(find(&router, "b.example", "/x", Method::Get), Some(1));
}

#[test]
fn a_way_that_ends_nowhere_leaves_the_others_open() {
    let router = router(&[
        (&[], "", "/a/b/c", &[Method::Get]),
        (&[], "", "/a/{x}/d", &[Method::Get]),
        (&[], "", "/{y}/b/e", &[Method::Get]),
        (&[], "", "/a/*", &[Method::Get]),
        (&[], "", "/img-{x}.png", &[Method::Get]),
        (&[], "", "/img-{x}", &[Method::Get]),
        (&[], "", "/{x}.png", &[Method::Get]),
    ])
    .expect("no conflict");
    for (path, route) in [
        ("/a/b/c", Some(0)),
        ("/a/b/d", Some(1)),
        ("/a/b/e", Some(3)),
        ("/z/b/e", Some(2)),
        ("/a/b/c/d", Some(3)),
        ("/img-7.png", Some(4)),
        ("/img-.png", Some(5)),
        ("/img-", None),
        ("/7.png", Some(6)),
        (".png", None),
        ("/.png", None),
        ("", None),
    ] {
        assert_eq!(find(&router, "h", path, Method::Get), route, "{path}");
    }
}

#[test]
fn the_longest_template_that_a_policy_may_have_is_found() {
    let template = "/a".repeat(128);
    let router = Router::build([(&[][..], "", &*template, MethodSet::default().with(Method::Get), 7)].into_iter());
    assert_eq!(find(&router.expect("no conflict"), "h", &template, Method::Get), Some(7));
}

/// What [`Router`] promises, from the templates alone: of all that fit, the first in order.
fn by_the_rule(templates: &[String], path: &str) -> Option<usize> {
    let rank = |segment: &str| match segment.split_once('{').map(|(a, rest)| (a, &rest[rest.find('}').unwrap() + 1..]))
    {
        None if segment == "*" => (2, 0, 0),
        None => (0, 0, 0),
        Some((before, after)) => (1, usize::MAX - before.len(), usize::MAX - after.len()),
    };
    let fits = |segment: &str, part: &str| match segment.split_once('{') {
        None => segment == part,
        Some((before, rest)) => {
            let after = &rest[rest.find('}').unwrap() + 1..];
            part.len() > before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
        }
    };
    let expanded = templates.iter().enumerate().flat_map(|(at, template)| match template.strip_suffix("/*") {
        Some(stem) => vec![(at, stem.to_owned()), (at, format!("{stem}/")), (at, template.clone())],
        None => vec![(at, template.clone())],
    });
    let parts: Vec<_> = path.split('/').collect();
    let fitting = expanded.filter(|(_, pattern)| {
        let segments: Vec<_> = pattern.split('/').collect();
        match segments.split_last() {
            Some((&"*", stem)) => {
                parts.len() > stem.len()
                    && !parts[stem.len()..].join("/").is_empty()
                    && stem.iter().zip(&parts).all(|(segment, part)| fits(segment, part))
            }
            _ => parts.len() == segments.len() && segments.iter().zip(&parts).all(|(s, p)| fits(s, p)),
        }
    });
    fitting.min_by_key(|(_, pattern)| pattern.split('/').map(rank).collect::<Vec<_>>()).map(|(at, _)| at)
}

proptest::proptest! {
    #[test]
    fn what_wins_is_what_the_rule_says(
        templates in proptest::collection::vec("(/(a|b|ab|\\{x\\}|a\\{x\\}|\\{x\\}b|a\\{x\\}b|ab\\{x\\})){1,4}(/\\*|/)?", 1..12),
        paths in proptest::collection::vec("(/(a|b|ab|aab|abb|x|axb|xb|ax)){0,5}/?", 1..40),
    ) {
        let get = MethodSet::default().with(Method::Get);
        let mut known: Vec<String> = Vec::new();
        for template in templates {
            let built = |all: &[String]| {
                Router::build(all.iter().zip(0..).map(|(t, at)| (&[][..], "", t.as_str(), get, at)))
            };
            known.push(template);
            if built(&known).is_err() {
                known.pop();
            }
        }
        let router = Router::build(known.iter().zip(0..).map(|(t, at)| (&[][..], "", t.as_str(), get, at)));
        let router = router.expect("no conflict");
        for path in paths {
            let wins = by_the_rule(&known, &path).map(|at| at as u32);
            proptest::prop_assert_eq!(find(&router, "h", &path, Method::Get), wins, "{} of {:?}", path, known);
        }
    }
}
