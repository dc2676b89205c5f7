//! OpenAPI and Swagger documents become routes; what is not taken over is said.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate::cli::{Import, Imported, import};

use crate::PACKAGE;

fn arguments(file: PathBuf) -> Import {
    let name = None;
    Import { file, into: None, name, version: None, base_path: None, upstream: None, issuer: vec!["site".into()] }
}

fn imported(text: &str) -> Result<Imported, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("document");
    fs::write(&file, text).expect("written");
    import(&arguments(file)).map_err(|error| format!("{error:#}"))
}

fn report(imported: &Imported) -> String {
    imported.report.join("\n")
}

/// A file of the peer's examples, where they are there.
fn peer(name: &str) -> Option<Imported> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/peer/wso2/openapi"));
    if !folder.is_dir() {
        crate::skipped(&format!(
            "{} is absent; it comes with the shared test data, not with the project",
            folder.display()
        ));
        return None;
    }
    Some(import(&arguments(folder.join(name))).unwrap_or_else(|error| panic!("{name}: {error:#}")))
}

/// The API's fields and its routes, as `METHODS PATH auth scopes plan`.
fn routes(imported: &Imported) -> (toml::Table, Vec<String>) {
    let table: toml::Table = imported.text.parse().expect("an import is TOML");
    let texts = |route: &toml::Table, name: &str| {
        let list = route.get(name).and_then(toml::Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(",")
    };
    let text =
        |route: &toml::Table, name: &str| route.get(name).and_then(toml::Value::as_str).unwrap_or("-").to_owned();
    let line = |route: &toml::Value| {
        let route = route.as_table().expect("a route is a table");
        let (methods, scopes) = (texts(route, "methods"), texts(route, "scopes"));
        let (path, auth, plan) = (text(route, "path"), text(route, "auth"), text(route, "plan"));
        format!("{methods} {path} {auth} [{scopes}] {plan}")
    };
    let routes = table["routes"].as_array().expect("routes are a list").iter().map(line).collect();
    (table, routes)
}

/// How many operations each document has, counted by hand.
const OPERATIONS: [(&str, usize); 14] = [
    ("advance_config", 3),
    ("common_api", 21),
    ("cors_sample", 21),
    ("disable_security", 2),
    ("endpoints_by_reference", 12),
    ("fail_over", 1),
    ("fault_responses", 1),
    ("load_balance", 1),
    ("per_resource_endpoint", 2),
    ("petstore_basic", 2),
    ("petstore_swagger3", 20),
    ("security_sample", 2),
    ("throttle", 2),
    ("validation_api", 20),
];

#[test]
fn all_fourteen_documents_of_the_peer_import_with_every_operation() {
    for (name, operations) in OPERATIONS {
        let Some(imported) = peer(&format!("{name}.yaml")) else { return };
        let routes = routes(&imported).0["routes"].as_array().cloned().unwrap_or_default();
        let methods: usize = routes.iter().filter_map(|route| route["methods"].as_array()).map(Vec::len).sum();
        assert_eq!(methods, operations, "{name}");
    }
}

#[test]
fn security_is_read_for_the_closed_side() {
    let Some(document) = peer("disable_security.yaml") else { return };
    let (api, lines) = routes(&document);
    assert_eq!(lines, ["GET /pet/findByStatus none [] -", "GET /pet/{petId} - [] -"]);
    assert_eq!((api["base_path"].as_str(), api["token_header"].as_str()), (Some("/petstore/v2"), Some("auth")));

    let document = peer("security_sample.yaml").expect("the folder is there");
    assert_eq!(routes(&document).1, ["GET /pet/findByStatus - [] -", "GET /pet/{petId} - [read write] -"]);
    assert!(report(&document).contains("GET /pet/findByStatus: names no security; a token is asked for"));
}

/// `security` of the one operation of a document, in YAML: what the route asks, and what is reported of it.
fn asked(security: &str) -> (String, String) {
    let document = imported(&format!(
        "openapi: 3.1.0\ninfo: {{title: T, version: 1}}\nservers: [{{url: 'http://h'}}]\n\
         components: {{securitySchemes: {{o: {{type: oauth2}}, p: {{type: openIdConnect}}, \
         b: {{type: http, scheme: bearer}}, k: {{type: apiKey}}}}}}\npaths: {{/a: {{get: {{security: {security}}}}}}}"
    ));
    let document = document.unwrap_or_else(|error| panic!("{security}: {error}"));
    let (_, lines) = routes(&document);
    (lines.join("; ").replace("GET /a ", "").replace(" -", ""), report(&document))
}

#[test]
fn only_what_says_that_it_is_open_is_open() {
    for open in ["[]", "[{}]", "[{}, {}]"] {
        assert_eq!(asked(open), ("none []".to_owned(), String::new()), "{open}");
    }
    for (malformed, scopes, told) in [
        ("[o]", "[]", "security lists something that is not {scheme: [scopes]}"),
        ("['']", "[]", "security lists something that is not"),
        ("[[]]", "[]", "security lists something that is not"),
        ("[~]", "[]", "security lists something that is not"),
        ("[{}, o]", "[]", "security lists something that is not"),
        ("[o, {o: [r]}]", "[r]", "security lists something that is not"),
        ("~", "[]", "security is not a list; a token is asked for"),
        ("{o: [r]}", "[]", "security is not a list"),
        ("'none'", "[]", "security is not a list"),
        ("false", "[]", "security is not a list"),
        ("[{}, {o: [r]}]", "[r]", "lets callers in with or without security; a token is asked for"),
    ] {
        let (route, report) = asked(malformed);
        assert_eq!(route, format!("- {scopes}"), "{malformed}");
        assert!(report.contains(told), "{malformed}: {report}");
    }
}

#[test]
fn what_a_route_cannot_ask_for_is_closed_and_said() {
    for (security, scopes, told) in [
        ("[{o: 'a b'}]", "[a b]", "the scopes of o are not a list of names; read as a, b"),
        ("[{o: ['a b']}]", "[a b]", "read as a, b"),
        // An alternative without scopes.
        ("[{b: []}, {o: [r]}]", "[r]", "has an alternative without scopes"),
        ("[{o: []}, {o: [r]}]", "[r]", "has an alternative without scopes"),
        ("[{k: []}, {o: [r]}]", "[r]", "takes an API key (k); a token is asked for in its place"),
        // Roles, and what is no list.
        ("[{b: [admin]}]", "[admin]", "asks b for the roles admin; they are asked for as scopes"),
        ("[{k: [admin]}]", "[admin]", "asks k for the roles admin"),
        ("[{o: admin}]", "[admin]", "the scopes of o are not a list of names; read as admin"),
        ("[{o: [7]}]", "[7]", "the scopes of o are not a list of names; read as 7"),
        ("[{o: }]", "[]", "the scopes of o are not a list of names; read as none"),
        ("[{u: [r]}]", "[r]", "names the security scheme u, which the document does not define"),
    ] {
        let (route, report) = asked(security);
        assert_eq!(route, format!("- {scopes}"), "{security}");
        assert!(report.contains(told), "{security}: {report}");
    }
    // What can be said is said as it stands.
    for (security, scopes) in [
        ("[{o: [a]}, {p: [b]}]", "[a,b]"),
        ("[{o: [a, b]}, {o: [a]}]", "[a]"),
        ("[{b: []}]", "[]"),
        // Wanted together, in one scheme and in two.
        ("[{o: [write, read]}]", "[read write]"),
        ("[{o: [a], p: [b]}]", "[a b]"),
        ("[{o: [a, b]}, {p: [c]}]", "[a b,c]"),
    ] {
        assert_eq!(asked(security), (format!("- {scopes}"), String::new()), "{security}");
    }
}

#[test]
fn tiers_base_paths_and_dangling_references_are_taken_as_they_stand() {
    let Some(document) = peer("throttle.yaml") else { return };
    let (api, lines) = routes(&document);
    assert_eq!(lines, ["GET /pet/{petId} - [] 3PerMin", "GET /store/order/{orderId} - [] NonExistingPolicy"]);
    assert_eq!(api["upstreams"]["petstoreapi"]["endpoints"][0].as_str(), Some("https://localhost:2380/v2"));
    assert!(report(&document).contains("names the security scheme petstore_auth, which the document does not define"));
    assert!(report(&document).contains("x-wso2-sandbox-endpoints"));

    let document = peer("fault_responses.yaml").expect("the folder is there");
    let (api, lines) = routes(&document);
    assert_eq!((api["base_path"].as_str(), api["plan"].as_str()), (Some(""), Some("15PerMin")));
    assert_eq!(lines, ["GET /* - [] -"]);

    let document = peer("cors_sample.yaml").expect("the folder is there");
    assert!(report(&document).contains("x-wso2-cors is not taken over"), "{}", report(&document));
}

#[test]
fn endpoints_of_operations_references_and_time_outs_become_upstreams() {
    let Some(document) = peer("endpoints_by_reference.yaml") else { return };
    let (api, _) = routes(&document);
    let upstreams = api["upstreams"].as_table().expect("upstreams");
    assert_eq!(upstreams["petstoreapi-myendpoint3"]["endpoints"].as_array().map(Vec::len), Some(2));
    let own: Vec<_> = api["routes"].as_array().expect("routes").iter().filter_map(|r| r.get("upstream")).collect();
    assert!(own.iter().any(|name| name.as_str() == Some("petstoreapi-myendpoint3")), "{own:?}");

    let document = peer("advance_config.yaml").expect("the folder is there");
    let (api, _) = routes(&document);
    assert_eq!(api["upstreams"]["advanceendpoint-timeout"]["response_timeout"].as_str(), Some("3000ms"));
    assert!(report(&document).contains("advanceEndpointConfig.circuitBreaker is not taken over"));
}

#[test]
fn the_shipped_petstore_imports_with_its_scopes_and_its_open_route() {
    let document = import(&arguments(Path::new(PACKAGE).join("config/petstore.yaml"))).expect("it imports");
    let (api, lines) = routes(&document);
    assert_eq!((api["name"].as_str(), api["base_path"].as_str()), (Some("Petstore"), Some("/petstore/1.0.0")));
    assert_eq!(
        lines,
        [
            "GET /hours none [] -",
            "GET /inventory - [] -",
            "POST /orders - [orders:write] -",
            "GET /orders/{orderId} - [orders:read,orders:write] -",
            "GET /pets - [pets:read] -",
            "POST /pets - [pets:write] -",
            "GET /pets/{petId} - [pets:read] -",
            "DELETE /pets/{petId} - [pets:write] -",
        ]
    );
}

#[test]
fn swagger_2_in_json_gives_host_base_path_and_scopes() {
    let document = imported(
        r#"{"swagger":"2.0","info":{"title":"Old API","version":"1.2"},"host":"127.0.0.1:9000","basePath":"/v2/",
        "schemes":["http"],"securityDefinitions":{"o":{"type":"oauth2"},"k":{"type":"apiKey"}},"security":[{"k":[]}],
        "paths":{"/a":{"get":{"security":[{"o":["r"]}]},"trace":{}},"/b":{"post":{},"delete":{}},"/c":{"get":{"security":[]}},
        "/bad/{a}{b}":{"get":{}}}}"#,
    )
    .expect("it imports");
    let (api, lines) = routes(&document);
    assert_eq!(api["base_path"].as_str(), Some("/v2"));
    assert_eq!(api["upstreams"]["old-api"]["endpoints"][0].as_str(), Some("http://127.0.0.1:9000/v2"));
    assert_eq!(lines, ["GET /a - [r] -", "POST,DELETE /b - [] -", "GET /c none [] -"]);
    let report = report(&document);
    assert!(report.contains("TRACE /a: cannot be routed"), "{report}");
    assert!(report.contains("/bad/{a}{b}: a segment has one {parameter} at most; left out"), "{report}");
    assert!(report.contains("takes an API key (k)"), "{report}");
}

#[test]
fn a_version_stays_the_text_that_was_written() {
    let document = imported(
        "openapi: 3.1.0\ninfo: {title: T, version: 1.10}\nservers: [{url: 'http://h/{v}', variables: {v: {default: x}}}]\npaths: {/a: {get: {}}}",
    );
    let (api, _) = routes(&document.expect("it imports"));
    assert_eq!((api["version"].as_str(), api["base_path"].as_str()), (Some("1.10"), Some("/x")));
    let document = imported(
        "openapi: 3.1.0\ninfo: {title: T, version: 2}\nx-wso2-throttling-tier: 7\n\
         servers: [{url: 'http://h:{port}', variables: {port: {default: 8443}}}]\npaths: {/a: {get: {}}}",
    );
    let (api, _) = routes(&document.expect("it imports"));
    assert_eq!((api["version"].as_str(), api["plan"].as_str()), (Some("2"), Some("7")));
    assert_eq!(api["upstreams"]["t"]["endpoints"][0].as_str(), Some("http://h:8443"));
}

#[test]
fn a_yaml_bomb_is_refused_before_it_unfolds() {
    let mut bomb = String::from("openapi: 3.0.0\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..30 {
        let alias = format!("*a{},", n - 1).repeat(10);
        bomb.push_str(&format!("a{n}: &a{n} [{alias}]\n"));
    }
    let error = imported(&bomb).expect_err("refused");
    assert!(error.contains("stands for more than 500000 values"), "{error}");

    // Depth through aliases, each level within the limit in itself.
    let mut deep = String::from("openapi: 3.0.0\na0: &a0 x\n");
    for n in 1..50 {
        deep.push_str(&format!("a{n}: &a{n} {}*a{} {}\n", "[".repeat(50), n - 1, "]".repeat(50)));
    }
    let error = imported(&deep).expect_err("refused");
    assert!(error.contains("nested deeper than 100 levels"), "{error}");
    let error = imported("a: &a [*a]").expect_err("an alias to itself is refused");
    assert!(error.contains("not YAML"), "{error}");
}

#[test]
fn garbage_cut_and_huge_documents_are_refused_and_nothing_panics() {
    let whole = fs::read_to_string(Path::new(PACKAGE).join("config/petstore.yaml")).expect("the document");
    for cut in (0..whole.len()).step_by(41).filter(|cut| whole.is_char_boundary(*cut)) {
        let _ = imported(&whole[..cut]);
    }
    for (garbage, told) in [
        ("", "empty"),
        ("\0", "not"),
        ("{", "not JSON"),
        ("{\"a\":", "not JSON"),
        ("a: [", "not YAML"),
        ("a: 1\na: 2", "stands twice"),
        ("{\"openapi\": \"3.0.0\", \"security\": [{\"o\": []}], \"security\": []}", "\"security\" stands twice"),
        ("just text", "neither an OpenAPI 3 nor a Swagger 2"),
        ("swagger: '1.2'", "neither an OpenAPI 3 nor a Swagger 2"),
        ("openapi: 3.0.0", "no usable title: give --name"),
        ("openapi: 3.0.0\ninfo: {title: a, version: 1}", "no usable upstream: give --upstream URL"),
        ("openapi: 3.0.0\ninfo: {title: a, version: 1}\nservers: [{url: 'http://h'}]", "no path with a method"),
        (
            "openapi: 3.0.0\ninfo: {title: a, version: 1}\nx-wso2-basePath: '/a/../b'\nservers: [{url: 'http://h'}]",
            "no usable base path",
        ),
    ] {
        let error = imported(garbage).expect_err(garbage);
        assert!(error.contains(told), "{garbage:?}: {error}");
    }
    for deep in ["[", "{\"a\":"] {
        assert!(imported(&deep.repeat(100_000)).is_err());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let huge = folder.path().join("huge.yaml");
    fs::File::create(&huge).and_then(|file| file.set_len(8 << 30)).expect("a sparse file of 8 GiB");
    let error = import(&arguments(huge)).expect_err("refused");
    assert!(format!("{error:#}").contains("larger than 8388608 bytes"), "{error:#}");
}
