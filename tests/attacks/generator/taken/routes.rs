//! Step 15: entries of routes and plans, each just inside of what is refused.

use serde_json::{Value, json};

use super::super::Folder;
use super::{meaning, twin};

fn api(policy: &mut Value) -> &mut Value {
    &mut policy["routes"]["apis"][0]
}

fn route(policy: &mut Value) -> &mut Value {
    &mut api(policy)["routes"][0]
}

fn upstream(policy: &mut Value) -> &mut Value {
    &mut policy["routes"]["upstreams"][0]
}

fn plan(policy: &mut Value) -> &mut Value {
    &mut policy["throttle"]["plans"][0]
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    value.as_array_mut().expect("a list")
}

/// The first API's routes are of these templates.
fn templates(slug: &str, about: &str, templates: &[&str]) -> Folder {
    meaning(slug, about, |p| {
        let like = route(p).clone();
        api(p)["routes"] =
            templates.iter().map(|text| twin(&like, |route| route["template"] = (*text).into())).collect();
    })
}

fn paths() -> Vec<Folder> {
    vec![
        templates("template-all", "A template that takes all.", &["/*"]),
        templates("template-all-below", "A template that takes all below a path.", &["/a/b/*"]),
        templates("template-root", "The shortest template.", &["/"]),
        templates("template-slash-at-end", "Templates with and without a slash at their end.", &["/a", "/a/"]),
        templates("template-part", "A parameter that is a part of its segment.", &["/a-{id}.json"]),
        templates(
            "template-parameters",
            "A parameter in each of three segments, and all below.",
            &["/{a}/b{b}/{c}c/*"],
        ),
        templates(
            "templates-that-overlap",
            "Templates that may take the same request, and are of other shapes.",
            &["/*", "/{id}", "/a{id}", "/a{id}b", "/{id}b", "/ab"],
        ),
        templates(
            "template-characters",
            "Letters, escapes and signs that a path may have.",
            &["/.well-known/a%20b;v=1/caf%C3%A9/@~!$&'()+,=:_-", "/..."],
        ),
        templates(
            "template-parameter-name",
            "A parameter named by letters, digits, dash, dot, underscore.",
            &["/{a.B-9_}"],
        ),
        templates(
            "template-of-256",
            "A template of as many bytes as it may have.",
            &[&format!("/{}", "a".repeat(255))],
        ),
        meaning("template-on-two-hosts", "One template of two APIs, each for a host of its own.", |p| {
            for (api, host) in list(&mut p["routes"]["apis"]).iter_mut().zip(["a.example", "b.example"]) {
                (api["base_path"], api["hosts"]) = ("".into(), json!([host]));
            }
        }),
        meaning("template-of-any-host-too", "One template of two APIs, one of which is for a host.", |p| {
            api(p)["hosts"] = json!(["a.example"]);
            for api in list(&mut p["routes"]["apis"]) {
                api["base_path"] = "/both".into();
            }
        }),
        meaning("template-by-methods", "One template twice, for other methods.", |p| {
            let other = twin(route(p), |route| route["methods"] = json!(["POST"]));
            list(&mut api(p)["routes"]).push(other);
        }),
        meaning("base-path-of-none", "An API without a base path.", |p| api(p)["base_path"] = "".into()),
        meaning("base-path-of-256", "A base path of as many bytes as it may have.", |p| {
            api(p)["base_path"] = format!("/{}", "b".repeat(255)).into();
        }),
        meaning("hosts", "Hosts of letters, digits and dashes, one as long as may be, and addresses.", |p| {
            api(p)["hosts"] = json!(["api-1.example", "10.0.0.1", "::1", "h".repeat(253)]);
        }),
    ]
}

fn terms() -> Vec<Folder> {
    vec![
        meaning("all-methods", "All methods that there are, in their order.", |p| {
            route(p)["methods"] = json!(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
        }),
        meaning("open-route", "A route that wants no token, of an API that no issuer signs for.", |p| {
            (route(p)["auth"], route(p)["scopes"]) = ("none".into(), json!([]));
            api(p)["issuers"] = json!([]);
        }),
        meaning("scopes-together", "Scopes that are wanted together, in order, or one of others, in no order.", |p| {
            route(p)["scopes"] = json!(["write", "admin read", "a".repeat(256)]);
        }),
        meaning("no-scopes", "A route that wants a token and no scope.", |p| route(p)["scopes"] = json!([])),
        meaning("uncertain-bound", "A route that wants bound tokens in uncertain times.", |p| {
            route(p)["uncertain"] = "bound".into()
        }),
        meaning("uncertain-deny", "A route that is closed in uncertain times.", |p| {
            route(p)["uncertain"] = "deny".into()
        }),
        meaning("revocations-fresh", "A route with tokens that wants to know what was revoked within a second.", |p| {
            route(p)["revocations_max_age_s"] = 1.into()
        }),
        meaning("route-of-its-own", "A route of its own upstream and plan.", |p| {
            let other = twin(upstream(p), |upstream| upstream["name"] = "tills".into());
            list(&mut p["routes"]["upstreams"]).push(other);
            (route(p)["upstream"], route(p)["plan"]) = ("tills".into(), "gold".into());
        }),
        meaning("api-of-no-plan", "An API of no plan, and of no routes.", |p| {
            drop(api(p).as_object_mut().expect("members").remove("plan"));
            api(p)["routes"] = json!([]);
        }),
        meaning("two-versions", "An API in two versions.", |p| {
            let other = twin(api(p), |api| (api["version"], api["base_path"]) = ("2".into(), "/pets/2".into()));
            list(&mut p["routes"]["apis"]).insert(1, other);
        }),
        meaning(
            "names-of-128",
            "Names of 128 bytes, of API, version, upstream, issuer and plan, and one with spaces.",
            |p| {
                let long = |letter: &str| letter.repeat(64);
                (api(p)["name"], api(p)["version"]) = (long("é").into(), long("ü").into());
                list(&mut p["routes"]["apis"]).reverse();
                p["issuers"]["issuers"][0]["name"] = long("ï").into();
                plan(p)["name"] = long("å").into();
                upstream(p)["name"] = format!("an upstream {}", "u".repeat(116)).into();
                for api in list(&mut p["routes"]["apis"]) {
                    (api["plan"], api["issuers"]) = (long("å").into(), json!([long("ï")]));
                    api["upstream"] = format!("an upstream {}", "u".repeat(116)).into();
                }
            },
        ),
        meaning("token-header", "A token header of its own, of 64 letters; the token goes on to the upstream.", |p| {
            api(p)["token_header"] = "x_-9".repeat(16).into();
            (api(p)["forward_token"], api(p)["strip_base_path"]) = (true.into(), false.into());
        }),
        meaning("audiences", "An API that wants audiences, one of 256 bytes.", |p| {
            api(p)["audiences"] = json!(["https://api.example/", "a".repeat(256)])
        }),
        meaning("usage-least", "Nothing of any person is kept, and hashes would last a day.", |p| {
            p["routes"]["usage"] = json!({"address": "absent", "principal": "absent", "rotate": "day"});
        }),
        meaning("usage-most", "All is kept by one API, and what is so without a word by all others.", |p| {
            api(p)["usage"] = json!({"address": "clear", "principal": "clear", "rotate": "month"});
            p["routes"]["usage"] = json!({"address": "truncated", "principal": "hashed", "rotate": "month"});
        }),
        meaning("usage-of-one-member", "One thing is said of an API, and another of all.", |p| {
            api(p)["usage"] = json!({"address": "hashed"});
            p["routes"]["usage"] = json!({"rotate": "day"});
        }),
        meaning("body-of-none", "No request body at all.", |p| api(p)["max_body"] = 0.into()),
        meaning("body-of-2-40", "The largest body that an API may allow.", |p| {
            api(p)["max_body"] = (1_u64 << 40).into()
        }),
        meaning("nothing", "No API, no upstream, no issuer, no plan: a policy that refuses all.", |p| {
            *p =
                json!({"issuers": {"issuers": []}, "routes": {"apis": [], "upstreams": []}, "throttle": {"plans": []}});
        }),
    ]
}

fn upstreams() -> Vec<Folder> {
    vec![
        meaning("endpoints", "Endpoints by name, by addresses of both kinds, with ports and with a path.", |p| {
            upstream(p)["endpoints"] = json!([
                "http://shop_1.local",
                "http://[::1]:65535/v2/a",
                "http://10.0.0.1:1",
                "http://10.0.0.1/a%20b/"
            ]);
        }),
        meaning("timeouts-shortest", "The shortest time-outs, and the caller's host kept.", |p| {
            (upstream(p)["connect_timeout_ms"], upstream(p)["response_timeout_ms"]) = (1.into(), 1.into());
            upstream(p)["keep_host"] = true.into();
        }),
        meaning("timeouts-longest", "The longest time-outs.", |p| {
            (upstream(p)["connect_timeout_ms"], upstream(p)["response_timeout_ms"]) =
                (3_600_000.into(), 3_600_000.into());
        }),
    ]
}

fn plans() -> Vec<Folder> {
    let limits = |slug: &str, about: &str, limits: Value| meaning(slug, about, |p| plan(p)["limits"] = limits);
    vec![
        limits("plan-unlimited", "A plan of no limits.", json!([])),
        limits(
            "plan-of-four-limits",
            "As many limits as a plan has, rates and quotas.",
            json!([
                {"burst": 1, "count": 5, "per": "second"},
                {"count": 100, "per": "minute"},
                {"count": 1_000, "per": "hour"},
                {"count": 9_000, "per": "month"},
            ]),
        ),
        limits(
            "limits-largest",
            "A rate of 2^32 - 1 with as large a burst, and quotas of 1 and of 2^53.",
            json!([
                {"burst": u32::MAX, "count": u32::MAX, "per": "minute"},
                {"count": 1, "per": "day"},
                {"count": 1_u64 << 53, "per": "month"},
            ]),
        ),
        limits(
            "burst-above-its-rate",
            "A burst above its rate, and two limits of one unit.",
            json!([{"burst": 50, "count": 5, "per": "second"}, {"count": 5, "per": "second"}]),
        ),
    ]
}

pub fn cases() -> Vec<Folder> {
    [paths(), terms(), upstreams(), plans()].concat()
}
