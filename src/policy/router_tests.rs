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
    assert_eq!(router(&rows).err().map(|e| e.pattern), Some("/pet/{p0}".into()));
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
fn a_path_that_an_upstream_could_read_otherwise_is_refused() {
    for (path, why) in [
        ("*", BadPath::NotAbsolute),
        ("", BadPath::NotAbsolute),
        ("/a/../b", BadPath::DotSegment),
        ("/a/..", BadPath::DotSegment),
        ("/.", BadPath::DotSegment),
        ("/a/..;x=1/b", BadPath::DotSegment),
        ("/a/%2e%2E/b", BadPath::Encoding),
        ("/a/.%2e/b", BadPath::Encoding),
        ("//a", BadPath::EmptySegment),
        ("/a//b", BadPath::EmptySegment),
        ("/a%2fb", BadPath::Encoding),
        ("/a%5Cb", BadPath::Encoding),
        ("/%61dmin", BadPath::Encoding),
        ("/a%00", BadPath::Encoding),
        ("/a%", BadPath::Encoding),
        ("/a%2", BadPath::Encoding),
        ("/a%g0", BadPath::Encoding),
        ("/a\\b", BadPath::Backslash),
    ] {
        assert_eq!(check_path(path), Err(why), "{path}");
    }
    for path in ["/", "/a", "/a/", "/a/...", "/.well-known/x", "/a%20b", "/%7Euser", "/caf%C3%A9", "/a;v=1"] {
        assert_eq!(check_path(path), Ok(()), "{path}");
    }
}
