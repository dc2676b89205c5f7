//! Steps 13 to 16: the entry table, the payload, what routes, plans and probes mean; `keys` and `tables` are apart.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate::bundle::{EntryKind, canonical};
use tidegate::keys::sha256;

use super::sound::{self, POLICY, Parts};
use super::{Folder, refused};

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("entries", slug, name, about, bytes)
}

/// The next policy, whose entry table is another.
fn table(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Vec<Value>)) -> Folder {
    let bytes = sound::with_manifest(|m| change(m["entries"].as_array_mut().expect("a list")));
    case(slug, name, about, bytes)
}

fn renamed(slug: &str, about: &str, name: &str) -> Folder {
    table(slug, "EntryName", about, |entries| entries[0]["name"] = name.into())
}

fn tables() -> Vec<Folder> {
    let next = || sound::policy(sound::SEQ + 1, "next");
    let flipped = |at: usize| {
        let mut bundle = next();
        bundle[at] ^= 1;
        bundle
    };
    let payload = next().len() - sound::next().payload.len();
    vec![
        table("none", "EntryCount", "No entry.", Vec::clear),
        table("seven", "EntryCount", "More entries than there are kinds.", |entries| {
            *entries = vec![entries[0].clone(); 7]
        }),
        table("kind-of-the-future", "EntryKindUnknown", "A kind that there is not.", |entries| {
            entries[0]["kind"] = "weather".into()
        }),
        table(
            "kind-a-path",
            "EntryKindUnknown",
            "A kind that is a path: on disk a blob has the name of its kind.",
            |entries| entries[0]["kind"] = "../../etc/passwd".into(),
        ),
        table("kind-in-capitals", "EntryKindUnknown", "A kind in other letters.", |entries| {
            entries[0]["kind"] = "Routes".into()
        }),
        table("kind-head", "EntryKindUnknown", "A kind of the name of a slot's other file.", |entries| {
            entries[0]["kind"] = "head".into()
        }),
        table("routes-twice", "EntryDuplicate", "Two entries of one kind, the second of nothing.", |entries| {
            let mut twice = entries[0].clone();
            (twice["len"], twice["sha256"]) = (0.into(), json!(sha256(b"")));
            entries.push(twice);
        }),
        renamed("name-a-path", "A name that is a path.", "../../../etc/passwd"),
        renamed("name-hidden", "A name that begins with a dot.", ".routes"),
        renamed("name-empty", "No name.", ""),
        renamed("name-of-65", "A name one letter over its limit.", &"x".repeat(65)),
        renamed("name-in-capitals", "A name in capitals.", "Routes"),
        renamed("name-with-nul", "A name that a C program would read as another.", "routes\0.sh"),
        table("one-over-its-limit", "EntryTooLarge", "Issuers of one byte over their limit.", |entries| {
            entries[1]["len"] = (EntryKind::Issuers.limit() + 1).into()
        }),
        table("of-2-53", "EntryTooLarge", "An entry of 2^53 bytes.", |entries| {
            entries[0]["len"] = (1_u64 << 53).into()
        }),
        table("one-byte-short", "PayloadLengthMismatch", "The entries end one byte before the payload.", |entries| {
            let len = entries[2]["len"].as_u64().expect("a length");
            entries[2]["len"] = (len - 1).into();
        }),
        table("one-byte-over", "PayloadLengthMismatch", "The entries end one byte behind the payload.", |entries| {
            let len = entries[2]["len"].as_u64().expect("a length");
            entries[2]["len"] = (len + 1).into();
        }),
        table(
            "byte-between-entries",
            "EntryDigestMismatch",
            "A byte of one entry is counted to the next.",
            |entries| {
                let [first, second] = [0, 1].map(|at| entries[at]["len"].as_u64().expect("a length"));
                (entries[0]["len"], entries[1]["len"]) = ((first - 1).into(), (second + 1).into());
            },
        ),
        table("digest-of-another", "EntryDigestMismatch", "The digests of two entries are exchanged.", |entries| {
            let first = entries[0]["sha256"].take();
            entries[0]["sha256"] = entries[1]["sha256"].take();
            entries[1]["sha256"] = first;
        }),
        table(
            "entries-exchanged",
            "EntryDigestMismatch",
            "Two entries stand in the other order than their blobs.",
            |entries| entries.swap(0, 1),
        ),
        case(
            "first-bit",
            "EntryDigestMismatch",
            "The first byte of the payload was altered on the way.",
            flipped(payload),
        ),
        case(
            "last-bit",
            "EntryDigestMismatch",
            "The last byte of the payload was altered on the way.",
            flipped(next().len() - 1),
        ),
        case(
            "payload-of-another",
            "EntryDigestMismatch",
            "A signed head with the payload of another policy of the same length.",
            {
                let text = String::from_utf8(sound::next().payload).expect("text").replace("127.0.0.1", "127.0.0.9");
                Parts { payload: text.into_bytes(), ..sound::next() }.signed(&POLICY)
            },
        ),
    ]
}

/// The next policy after `change`: step 15 refuses what it means.
fn spoilt(slug: &str, about: &str, change: fn(&mut Value)) -> Folder {
    case(slug, "SemanticInvalid", about, sound::compiled(change, |text| text))
}

fn edited(slug: &str, about: &str, from: &'static str, to: &'static str) -> Folder {
    let edit = move |text: String| text.replace(from, to);
    case(slug, "SemanticInvalid", about, sound::compiled(|_| (), edit))
}

fn api(policy: &mut Value) -> &mut Value {
    &mut policy["routes"]["apis"][0]
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    value.as_array_mut().expect("a list")
}

fn policies() -> Vec<Folder> {
    let without = |slug: &str, about: &str, kind: EntryKind| {
        let mut entries = crate::world::entries(|_| (), |text| text);
        entries.remove(&kind);
        case(slug, "SemanticInvalid", about, sound::with_entries(entries))
    };
    vec![
        case(
            "routes-of-0",
            "SemanticInvalid",
            "An entry of routes of no bytes.",
            sound::with_entry(EntryKind::Routes, Vec::new()),
        ),
        case(
            "subscriptions-of-0",
            "SemanticInvalid",
            "An entry of subscriptions of no bytes: no table, and no word that nobody subscribes.",
            sound::with_entry(EntryKind::Subscriptions, Vec::new()),
        ),
        case(
            "revocations-of-0",
            "SemanticInvalid",
            "An entry of revocations of no bytes: taken for an empty table it would give back what is revoked.",
            sound::with_entry(EntryKind::Revocations, Vec::new()),
        ),
        case(
            "probes-of-0",
            "SemanticInvalid",
            "An entry of probes of no bytes.",
            sound::with_entry(EntryKind::Probes, Vec::new()),
        ),
        without("without-routes", "A policy without routes.", EntryKind::Routes),
        without("without-issuers", "A policy without issuers.", EntryKind::Issuers),
        without("without-plans", "A policy without plans.", EntryKind::Throttle),
        case("probes-alone", "SemanticInvalid", "A bundle of probes and nothing to try them on.", {
            let bytes = canonical::write(&json!({"probes": []})).expect("canonical");
            sound::with_entries(BTreeMap::from([(EntryKind::Probes, ("probes".to_owned(), bytes))]))
        }),
        spoilt("upstream-missing", "An API of an upstream that is not there.", |p| api(p)["upstream"] = "gone".into()),
        spoilt("issuer-missing", "An API of an issuer that is not there.", |p| api(p)["issuers"] = json!(["nobody"])),
        spoilt("plan-missing", "An API of a plan that is not there.", |p| api(p)["plan"] = "iron".into()),
        spoilt("token-without-issuer", "A route that wants tokens, of an API that no issuer signs for.", |p| {
            api(p)["issuers"] = json!([])
        }),
        spoilt("route-twice", "One template and method twice: which rules hold would be chance.", |p| {
            let route = api(p)["routes"][0].clone();
            list(&mut api(p)["routes"]).push(route);
        }),
        spoilt("templates-alike", "Two templates that the same paths fit.", |p| {
            let mut route = api(p)["routes"][0].clone();
            (route["template"], route["auth"]) = ("/{other}".into(), "none".into());
            route["scopes"] = json!([]);
            list(&mut api(p)["routes"]).push(route);
        }),
        spoilt("template-dot-dot", "A template with dot segments.", |p| {
            api(p)["routes"][0]["template"] = "/../{id}".into()
        }),
        spoilt("template-query", "A template with a query.", |p| api(p)["routes"][0]["template"] = "/a?b".into()),
        spoilt("base-path-dot-dot", "A base path with dot segments.", |p| api(p)["base_path"] = "/a/..".into()),
        spoilt("base-path-slash", "A base path that ends in a slash.", |p| api(p)["base_path"] = "/pets/".into()),
        spoilt("open-with-scopes", "A route that wants scopes and no token.", |p| {
            api(p)["routes"][0]["auth"] = "none".into()
        }),
        spoilt("method-unknown", "A method that there is not.", |p| api(p)["routes"][0]["methods"] = json!(["FETCH"])),
        spoilt("no-methods", "A route of no methods.", |p| api(p)["routes"][0]["methods"] = json!([])),
        spoilt("uncertain-unknown", "A word for uncertain times that there is not.", |p| {
            api(p)["routes"][0]["uncertain"] = "maybe".into()
        }),
        spoilt("header-line-feed", "A token header that would begin another one.", |p| {
            api(p)["token_header"] = "authorization\r\nx-admin".into()
        }),
        spoilt("endpoint-file", "An upstream that is a file.", |p| {
            p["routes"]["upstreams"][0]["endpoints"] = json!(["file:///etc/passwd"])
        }),
        spoilt("endpoint-user", "An upstream whose address holds a password.", |p| {
            p["routes"]["upstreams"][0]["endpoints"] = json!(["http://a:b@127.0.0.1"])
        }),
        spoilt("no-endpoints", "An upstream of no endpoints.", |p| {
            p["routes"]["upstreams"][0]["endpoints"] = json!([])
        }),
        spoilt("ca-no-certificate", "A certificate that is none.", |p| {
            p["routes"]["upstreams"][0]["ca"] = json!(["AAAA"])
        }),
        spoilt("api-name-control-character", "An API whose name begins a line of its own in a log.", |p| {
            api(p)["name"] = "a\n".into()
        }),
        spoilt("api-name-delete", "An API whose name has the control character DEL.", |p| {
            api(p)["name"] = "a\u{7f}".into()
        }),
        spoilt("api-name-c1", "An API whose name has a control character above ASCII.", |p| {
            api(p)["name"] = "a\u{9b}".into()
        }),
        spoilt("api-name-of-spaces", "An API of a name that nobody sees.", |p| api(p)["name"] = "  ".into()),
        spoilt("open-with-revocations", "A route that wants to know what is revoked, and no token.", |p| {
            let route = &mut api(p)["routes"][0];
            (route["auth"], route["scopes"]) = ("none".into(), json!([]));
            route["revocations_max_age_s"] = 60.into();
        }),
        spoilt("method-twice", "A method twice.", |p| api(p)["routes"][0]["methods"] = json!(["GET", "GET"])),
        spoilt("methods-unsorted", "Methods out of their order.", |p| {
            api(p)["routes"][0]["methods"] = json!(["POST", "GET"])
        }),
        spoilt("method-connect", "A method that cannot be routed.", |p| {
            api(p)["routes"][0]["methods"] = json!(["CONNECT"])
        }),
        spoilt("template-of-257", "A template one byte over its limit.", |p| {
            api(p)["routes"][0]["template"] = format!("/{}", "a".repeat(256)).into()
        }),
        spoilt("template-two-parameters", "Two parameters in one segment.", |p| {
            api(p)["routes"][0]["template"] = "/{a}-{b}".into()
        }),
        spoilt("template-star-inside", "All below, and something behind it.", |p| {
            api(p)["routes"][0]["template"] = "/a/*/b".into()
        }),
        spoilt("template-star-in-part", "A star within a segment.", |p| api(p)["routes"][0]["template"] = "/a*".into()),
        spoilt("base-path-of-257", "A base path one byte over its limit.", |p| {
            api(p)["base_path"] = format!("/{}", "a".repeat(256)).into()
        }),
        spoilt("host-of-254", "A host one byte over its limit.", |p| api(p)["hosts"] = json!(["h".repeat(254)])),
        spoilt("header-of-65", "A token header one letter over its limit.", |p| {
            api(p)["token_header"] = "x".repeat(65).into()
        }),
        spoilt("header-in-capitals", "A token header in capitals, which no request has.", |p| {
            api(p)["token_header"] = "Authorization".into()
        }),
        spoilt("scope-of-257", "A scope one byte over its limit.", |p| {
            api(p)["routes"][0]["scopes"] = json!(["s".repeat(257)])
        }),
        spoilt("scopes-two-spaces", "Scopes that are wanted together, with two spaces between them.", |p| {
            api(p)["routes"][0]["scopes"] = json!(["read  write"])
        }),
        spoilt("audience-of-257", "An audience one byte over its limit.", |p| {
            api(p)["audiences"] = json!(["a".repeat(257)])
        }),
        spoilt("quota-with-burst", "A quota with a burst: only a rate has one.", |p| {
            p["throttle"]["plans"][0]["limits"] = json!([{"burst": 5, "count": 5, "per": "day"}])
        }),
        spoilt("burst-of-0", "A rate that nothing may come at.", |p| {
            p["throttle"]["plans"][0]["limits"] = json!([{"burst": 0, "count": 5, "per": "second"}])
        }),
        spoilt("rate-of-2-32", "A rate one above the largest.", |p| {
            p["throttle"]["plans"][0]["limits"] = json!([{"count": 1_u64 << 32, "per": "second"}])
        }),
        spoilt("https-without-ca", "An upstream by TLS that pins nobody who may vouch for it.", |p| {
            p["routes"]["upstreams"][0]["endpoints"] = json!(["https://shop.example"])
        }),
        spoilt("api-name-of-129", "A name that no usage record can hold.", |p| api(p)["name"] = "a".repeat(129).into()),
        spoilt(
            "usage-of-nothing",
            "An API that says of nothing what records keep: a second form of not saying it.",
            |p| api(p)["usage"] = json!({}),
        ),
        spoilt("usage-of-nothing-anywhere", "The same of all APIs.", |p| p["routes"]["usage"] = json!({})),
        spoilt(
            "usage-of-no-word",
            "A way of keeping principals that is not one: an address can be cut, a name cannot.",
            |p| api(p)["usage"] = json!({"principal": "truncated"}),
        ),
        spoilt("usage-in-capitals", "A way of keeping addresses in other letters.", |p| {
            api(p)["usage"] = json!({"address": "Absent"})
        }),
        spoilt("usage-never-rotated", "Hashes that stay the same for ever.", |p| {
            p["routes"]["usage"] = json!({"rotate": "never"})
        }),
        spoilt("usage-of-the-future", "Something else that records could keep.", |p| {
            api(p)["usage"] = json!({"headers": "clear"})
        }),
        spoilt("host-in-capitals", "A host that no request matches.", |p| api(p)["hosts"] = json!(["API.example"])),
        spoilt("host-with-path", "A host that is a path.", |p| api(p)["hosts"] = json!(["a/b"])),
        spoilt("body-over", "A request body without a limit that means anything.", |p| {
            api(p)["max_body"] = ((1_u64 << 40) + 1).into()
        }),
        spoilt("timeout-over", "A time-out of weeks.", |p| {
            p["routes"]["upstreams"][0]["response_timeout_ms"] = 3_600_001.into()
        }),
        spoilt("timeout-of-0", "A time-out of nothing: no request would be answered.", |p| {
            p["routes"]["upstreams"][0]["connect_timeout_ms"] = 0.into()
        }),
        spoilt("scopes-unsorted", "Scopes that are wanted together, out of order.", |p| {
            api(p)["routes"][0]["scopes"] = json!(["write read"])
        }),
        spoilt("endpoint-line-feed", "An upstream whose address would begin another header.", |p| {
            p["routes"]["upstreams"][0]["endpoints"] = json!(["http://127.0.0.1/\r\nx: y"])
        }),
        spoilt("endpoint-port", "An upstream of a port that there is not.", |p| {
            p["routes"]["upstreams"][0]["endpoints"] = json!(["http://127.0.0.1:65536"])
        }),
        spoilt("apis-unsorted", "APIs out of order.", |p| list(&mut p["routes"]["apis"]).reverse()),
        spoilt("api-twice", "One API twice.", |p| {
            let twice = api(p).clone();
            list(&mut p["routes"]["apis"]).insert(0, twice);
        }),
        spoilt("upstreams-unsorted", "Upstreams out of order.", |p| {
            let mut other = p["routes"]["upstreams"][0].clone();
            other["name"] = "a".into();
            list(&mut p["routes"]["upstreams"]).push(other);
        }),
        spoilt("plans-unsorted", "Plans out of order.", |p| {
            list(&mut p["throttle"]["plans"]).push(json!({"limits": [], "name": "a"}));
        }),
        spoilt("plan-of-five-limits", "More limits than a plan has.", |p| {
            let limit = p["throttle"]["plans"][0]["limits"][0].clone();
            p["throttle"]["plans"][0]["limits"] = vec![limit; 5].into();
        }),
        spoilt("limit-of-0", "A limit that lets nothing through.", |p| {
            p["throttle"]["plans"][0]["limits"][0]["count"] = 0.into()
        }),
        edited("integer-over-2-53", "A limit of 2^53 + 1.", ":1000,\"per\"", ":9007199254740993,\"per\""),
        edited("integer-over-2-63", "A limit of 2^64 - 1.", ":1000,\"per\"", ":18446744073709551615,\"per\""),
        edited("minus-zero", "A limit of minus zero.", ":1000,\"per\"", ":-0,\"per\""),
        edited("exponent", "A limit with an exponent.", ":1000,\"per\"", ":1e3,\"per\""),
        edited("white-space", "A space between a key and its value.", "\"name\":\"gold\"", "\"name\": \"gold\""),
        edited("not-json", "A key without quotes.", "\"plans\"", "plans"),
        edited("member-twice", "A name twice.", "\"name\":\"gold\"", "\"name\":\"gold\",\"name\":\"gold\""),
        edited(
            "member-twice-escaped",
            "A name twice, once with an escaped letter.",
            "\"name\":\"gold\"",
            "\"name\":\"gold\",\"\\u006eame\":\"iron\"",
        ),
        edited("escaped-letter", "A letter as an escape.", "\"name\":\"gold\"", "\"name\":\"gol\\u0064\""),
        edited(
            "unknown-member",
            "A member that format 1 does not have.",
            "\"name\":\"gold\"",
            "\"name\":\"gold\",\"priority\":1",
        ),
        case("deep-nesting", "SemanticInvalid", "Two hundred brackets, where a text belongs.", {
            sound::compiled(|_| (), |text| text.replace("\"gold\"}", &"[".repeat(200)))
        }),
    ]
}

/// A probe of the sound policy that comes out as it expects.
pub fn probe(name: &str) -> Value {
    json!({
        "at": 1_700_000_000, "expect": {"result": "TokenMissing", "route": "/{id}"}, "method": "GET", "name": name,
        "path": "/pets/1",
    })
}

pub fn probed(probes: &[Value]) -> Vec<u8> {
    sound::with_entry(EntryKind::Probes, canonical::write(&json!({"probes": probes})).expect("canonical"))
}

fn probes() -> Vec<Folder> {
    let with = |slug: &str, name: &str, about: &str, change: fn(&mut Value)| {
        let mut probe = probe("one");
        change(&mut probe);
        case(&format!("probe-{slug}"), name, about, probed(&[probe]))
    };
    let many: Vec<Value> = (0..257).map(|at| probe(&format!("{at:03}"))).collect();
    vec![
        with("let-in-without-token", "ProbeFailed", "A probe that should be let in without a token.", |p| {
            p["expect"]["result"] = "Admitted".into()
        }),
        with(
            "garbage-token",
            "ProbeFailed",
            "A probe with garbage for a token, which is refused otherwise than it says.",
            |p| {
                p["headers"] = json!([{"name": "authorization", "value": "Bearer x.y.z"}]);
            },
        ),
        with("other-route", "ProbeFailed", "A probe that takes another route than it says.", |p| {
            p["expect"]["route"] = "/{name}".into()
        }),
        with("for-an-application", "ProbeFailed", "A probe that is counted for nobody, and says for whom.", |p| {
            p["expect"]["application"] = "till".into()
        }),
        with("not-published", "ProbeFailed", "A probe of a path that is not published.", |p| {
            p["path"] = "/parrots/1".into()
        }),
        with("no-such-method", "ProbeFailed", "A probe of a method that the route does not have.", |p| {
            p["method"] = "DELETE".into()
        }),
        with(
            "no-such-result",
            "ProbeFailed",
            "A probe that expects escape codes for a result: what is told of it must be harmless.",
            |p| {
                p["expect"]["result"] = "\u{1b}[2J\n".repeat(100).into();
            },
        ),
        with(
            "header-in-capitals",
            "SemanticInvalid",
            "A probe with a header in capitals, which no request would have.",
            |p| {
                p["headers"] = json!([{"name": "Authorization", "value": "Bearer x.y.z"}]);
            },
        ),
        with("without-name", "SemanticInvalid", "A probe without a name.", |p| p["name"] = "".into()),
        with("unknown-member", "SemanticInvalid", "A probe with a member more.", |p| p["when"] = 1.into()),
        with("before-1970", "SemanticInvalid", "A probe of before 1970.", |p| p["at"] = (-1).into()),
        case("probes-of-one-name", "SemanticInvalid", "Two probes of one name.", probed(&[probe("one"), probe("one")])),
        case("probes-unsorted", "SemanticInvalid", "Probes out of order.", probed(&[probe("two"), probe("one")])),
        case("probes-257", "SemanticInvalid", "One probe over the limit: each may cost a signature.", probed(&many)),
        case("probe-last-of-many", "ProbeFailed", "The last of as many probes as may be comes out otherwise.", {
            let mut probes = many[..256].to_vec();
            probes[255]["expect"]["result"] = "NoRoute".into();
            probed(&probes)
        }),
    ]
}

pub fn cases() -> Vec<Folder> {
    [tables(), policies(), probes()].concat()
}
