//! The seeds that are made: of each target what is taken, and beside it what is almost.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidegate::bundle::EntryKind;
use tidegate::bundle::entry::{CutOff, CutOffKind, HashedId, Revocations};
use tidegate::bundle::{canonical, pack, reset};

use crate::targets::token::{CERTIFICATE, MALLORY, OLD, STOLEN, sign};
use crate::targets::world::{AT, GOLDEN, device, payload};
use crate::targets::{blobs, documents, start, token, usage};

/// One seed.
pub struct Named {
    pub target: &'static str,
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Whether the target says that something was taken.
    pub taken: bool,
}

/// All of them.
pub static NAMED: LazyLock<Vec<Named>> = LazyLock::new(|| {
    [containers(), manifests(), roots(), tokens(), entries(), papers(), starts(), files()]
        .into_iter()
        .flatten()
        .collect()
});

type Seeds = Vec<Named>;

fn seeds(target: &'static str, all: Vec<(bool, &'static str, Vec<u8>)>) -> Seeds {
    all.into_iter().map(|(taken, name, bytes)| Named { target, name, bytes, taken }).collect()
}

/// The manifest of a bundle, changed.
pub fn manifest(bundle: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = canonical::read(pack::head(bundle).expect("a bundle").manifest()).expect("canonical");
    change(&mut value);
    canonical::write(&value).expect("it has a form")
}

/// The second form of target `container`.
fn signed(kind: u8, signers: &[u8], flags: u8, manifest: &[u8], payload: &[u8]) -> Vec<u8> {
    let mask = signers.iter().fold(0, |mask, seed| mask | 1 << (seed - 1));
    [&[kind, mask, flags][..], manifest, &[0], payload].concat()
}

fn containers() -> Seeds {
    let golden = &*GOLDEN;
    let mut flipped = golden.policy.clone();
    *flipped.last_mut().expect("it has bytes") ^= 1;
    let policy = |change: fn(&mut Value)| manifest(&golden.policy, change);
    let blob = payload(&golden.policy);
    let list = |seq: u64| manifest(&golden.list, |list| list["seq"] = seq.into());
    let table = payload(&golden.list);
    let shorter = Revocations::default().to_bytes();
    let permit = manifest(&golden.permit, |_| ());
    let document = &golden.reset[14..golden.reset.len() - 1 - 2 * 96];
    let next = policy(|policy| policy["seq"] = 8.into());
    let later = manifest(&golden.policy, |policy| (policy["epoch"], policy["root_version"]) = (2.into(), 4.into()));
    seeds(
        "container",
        vec![
            (true, "golden-policy", golden.policy.clone()),
            (true, "golden-list", golden.list.clone()),
            (true, "golden-permit", golden.permit.clone()),
            (true, "golden-reset", golden.reset.clone()),
            (true, "golden-chain", pack::with_chain(&golden.policy, &golden.links[..1]).expect("it fits")),
            (true, "golden-chain-of-a-new-epoch", pack::with_chain(&golden.policy, &golden.links).expect("it fits")),
            (false, "flipped-bit", flipped),
            (false, "cut-off", golden.policy[..golden.policy.len() / 2].to_vec()),
            (true, "signed-policy", signed(0, &[4, 5], 16, &policy(|_| ()), blob)),
            (true, "signed-policy-after-another", signed(0, &[5, 6], 17, &next, blob)),
            (
                true,
                "signed-policy-for-all",
                signed(0, &[4, 5, 6], 16, &policy(|p| p["target"] = json!({"all": true})), blob),
            ),
            (true, "signed-policy-after-a-rotation", signed(0, &[4, 6], 20, &policy(|_| ()), blob)),
            (true, "signed-policy-of-a-new-epoch", signed(0, &[4, 6], 25, &later, blob)),
            (false, "signed-policy-by-one", signed(0, &[4, 1, 2, 3, 7, 8], 16, &policy(|_| ()), blob)),
            (false, "signed-policy-broken", signed(0, &[4, 5], 18, &policy(|_| ()), blob)),
            (false, "signed-policy-of-other-bytes", signed(0, &[4, 5], 0, &policy(|_| ()), &[blob, &[1]].concat())),
            (
                false,
                "signed-policy-again",
                signed(0, &[4, 5], 17, &policy(|p| p["expires_at"] = (AT + 5).into()), blob),
            ),
            (true, "signed-list", signed(1, &[7], 17, &list(3), table)),
            (false, "signed-list-shorter", {
                let shorter_manifest = manifest(&golden.list, |list| {
                    list["seq"] = 3.into();
                    list["entries"][0]["len"] = shorter.len().into();
                });
                signed(1, &[7], 17, &shorter_manifest, &shorter)
            }),
            (true, "signed-permit", signed(2, &[7], 1, &permit, b"")),
            (false, "signed-permit-where-nothing-serves", signed(2, &[7], 0, &permit, b"")),
            (false, "signed-release", signed(3, &[7], 0, &policy(|p| p["type"] = "release".into()), blob)),
            (true, "signed-reset", signed(4, &[1, 3], 0, document, b"")),
            (false, "signed-reset-by-the-policy-role", signed(4, &[3, 4, 5, 6], 0, document, b"")),
            (false, "reset-cut-off", [&reset::MAGIC[..], &[0, 1, 0, 0]].concat()),
        ],
    )
}

fn manifests() -> Seeds {
    let golden = &*GOLDEN;
    let of = |bundle: &[u8]| manifest(bundle, |_| ());
    let text = String::from_utf8(of(&golden.policy)).expect("text");
    seeds(
        "manifest",
        vec![
            (true, "policy", of(&golden.policy)),
            (true, "list", of(&golden.list)),
            (true, "permit", of(&golden.permit)),
            (true, "every-member", {
                manifest(&golden.policy, |policy| {
                    policy["base"] = "0".repeat(64).into();
                    policy["requires"] = json!(["a", "b.c"]);
                    policy["target"] = json!({"devices": [device().id]});
                })
            }),
            (
                true,
                "escapes",
                manifest(&golden.policy, |policy| {
                    policy["author"]["reason"] = "é \" \\ \u{7f}".trim_end_matches('\u{7f}').into()
                }),
            ),
            (true, "largest-integers", manifest(&golden.policy, |policy| policy["seq"] = (1_u64 << 53).into())),
            (false, "larger-integer", text.replace("\"seq\":7", "\"seq\":9007199254740993").into_bytes()),
            (false, "fraction", text.replace("\"seq\":7", "\"seq\":7.0").into_bytes()),
            (false, "minus-zero", text.replace("\"seq\":7", "\"seq\":-0").into_bytes()),
            (false, "white-space", text.replace("\"seq\":7", "\"seq\": 7").into_bytes()),
            (false, "a-member-twice", text.replace("\"seq\":7", "\"seq\":7,\"seq\":7").into_bytes()),
            (false, "needless-escape", text.replace("harbour", "h\\u0061rbour").into_bytes()),
            (false, "null", text.replace("\"seq\":7", "\"seq\":null").into_bytes()),
            (false, "unknown-member", text.replace("\"seq\":7", "\"seq\":7,\"sez\":1").into_bytes()),
            (false, "root", golden.root.bytes().to_vec()),
            (false, "nested", [[b'['; 130], [b']'; 130]].concat()),
            (false, "control-characters", b"\"\\u0000\\b\\t\\n\\f\\r\\u001f/\xc3\xa9\"".to_vec()),
        ],
    )
}

fn roots() -> Seeds {
    let golden = &*GOLDEN;
    let chain = |links: &[Vec<u8>]| [&[0][..], &links.concat()].concat();
    let rows = |rows: &[[u8; 8]]| [&[1][..], &rows.concat()].concat();
    let next = [1, 0, 0b111, 2, 0b11, 0, 0, 0];
    let with = |at: usize, value: u8| {
        let mut row = next;
        row[at] = value;
        row
    };
    let mut backwards = golden.links.clone();
    backwards.reverse();
    seeds(
        "roots",
        vec![
            (true, "golden-chain", chain(&golden.links)),
            (true, "golden-link", chain(&golden.links[..1])),
            (false, "backwards", chain(&backwards)),
            (false, "with-a-hole", chain(&golden.links[1..])),
            (true, "document", golden.root.bytes().to_vec()),
            (true, "document-of-version-4", golden.roots[1].bytes().to_vec()),
            (true, "signed-next", rows(&[next])),
            (true, "signed-six", rows(&[next; 6])),
            (true, "signed-other-holders", rows(&[[1, 1, 0b1111_0000, 3, 0b0111_0011, 0, 0, 36], next])),
            (false, "signed-by-one", rows(&[with(4, 0b1)])),
            (false, "signed-by-the-old-alone", rows(&[with(2, 0b1110_0000)])),
            (false, "signed-by-the-new-alone", rows(&[[1, 0, 0b1110_0000, 2, 0b1110_0000, 0, 0, 0]])),
            (false, "broken-signature", rows(&[[1, 0, 0b111, 2, 0b111, 0b100, 0, 9]])),
            (true, "broken-signature-of-a-stranger", rows(&[[1, 0, 0b111, 2, 0b1000_0011, 0b1000_0000, 0, 9]])),
            (false, "two-versions-on", rows(&[with(0, 2)])),
            (false, "fork", rows(&[with(0, 0)])),
            (false, "older-and-fork", rows(&[with(0, 0xff), next])),
            (false, "earlier-epoch", rows(&[with(1, 0xff)])),
            (false, "other-deployment", rows(&[with(6, 1)])),
            (false, "far-ahead", rows(&[with(7, 250)])),
            (true, "far-ahead-in-steps", rows(&[with(7, 36); 6])),
        ],
    )
}

/// The second form of target `token`.
fn at(flags: u8, [lower, upper]: [i64; 2], header: &Value, claims: &Value) -> Vec<u8> {
    let moment = [lower.to_be_bytes(), upper.to_be_bytes()].concat();
    [&[flags][..], &moment, header.to_string().as_bytes(), &[0], claims.to_string().as_bytes()].concat()
}

fn tokens() -> Seeds {
    let golden = &*token::GOLDEN;
    let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"});
    let claims = |name: &str| {
        json!({"iss": format!("https://{name}.example"), "sub": "alice", "aud": ["edge", "pier"], "jti": "one", "azp": "till-1",
               "exp": OLD.1 + 3_600, "nbf": OLD.1, "iat": OLD.1, "scope": "read write"})
    };
    let site = |change: fn(&mut Value)| {
        let mut claims = claims("site");
        change(&mut claims);
        claims
    };
    let now = [OLD.1 + 5; 2];
    let mut other = golden[0].clone();
    *other.last_mut().expect("it has bytes") = b'!';
    let legacy = json!({"alg": "EdDSA", "x5t": "NTAx", "typ": "JWT"});
    let api_key =
        json!({"iss": "https://legacy.example", "aud": "till-1", "consumerKey": "till-1", "iat": OLD.1 * 1_000});
    let bound = |digest: [u8; 32]| {
        let mut claims = claims("site");
        claims["cnf"] = json!({"x5t#S256": URL_SAFE_NO_PAD.encode(digest)});
        claims
    };
    seeds(
        "token",
        vec![
            (true, "golden-site", golden[0].clone()),
            (true, "golden-yard", golden[1].clone()),
            (true, "golden-legacy", golden[2].clone()),
            (true, "golden-legacy-with-less-padding", golden[2].strip_suffix(b"==").expect("it is padded").to_vec()),
            (false, "golden-site-padded", [&golden[0][..], b"=="].concat()),
            (false, "golden-site-changed", other),
            (
                false,
                "of-a-stranger",
                sign(3, header.to_string().as_bytes(), claims("site").to_string().as_bytes(), false),
            ),
            (false, "alg-none", format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#)).into_bytes()),
            (true, "signed-site", at(0, now, &header, &claims("site"))),
            (true, "signed-yard", at(1, now, &header, &claims("yard"))),
            (true, "signed-legacy", at(2 | 4, now, &legacy, &claims("legacy"))),
            (true, "signed-legacy-api-key", at(2 | 4 | 8, now, &json!({"alg": "EdDSA"}), &api_key)),
            (true, "signed-by-floor", at(8, [0, 0], &header, &claims("site"))),
            (true, "signed-at-the-least-moment", at(8, [i64::MIN; 2], &header, &claims("site"))),
            (true, "signed-between-all-moments", at(0, [i64::MIN, i64::MAX], &header, &claims("site"))),
            (false, "signed-at-the-last-moment", at(0, [i64::MAX; 2], &header, &claims("site"))),
            (false, "signed-expired", at(0, [OLD.1 + 3_660; 2], &header, &claims("site"))),
            (true, "signed-just-not-expired", at(0, [OLD.1 + 3_659; 2], &header, &claims("site"))),
            (false, "signed-not-yet-valid", at(0, [OLD.1 - 61; 2], &header, &claims("site"))),
            (
                true,
                "signed-of-the-last-second",
                at(0, [253_402_300_799; 2], &header, &site(|c| c["exp"] = 253_402_300_799_i64.into())),
            ),
            (true, "signed-with-fractions", at(0, now, &header, &site(|c| c["exp"] = 1_800_003_600.75.into()))),
            (false, "signed-revoked", at(0, now, &header, &site(|c| c["sub"] = MALLORY.into()))),
            (false, "signed-stolen", at(0, now, &header, &site(|c| c["jti"] = STOLEN.into()))),
            (true, "signed-at-a-cut-off", at(0, now, &header, &site(|c| c["azp"] = OLD.0.into()))),
            (false, "signed-before-a-cut-off", {
                at(0, now, &header, &site(|c| (c["azp"], c["iat"]) = (OLD.0.into(), (OLD.1 - 1).into())))
            }),
            (true, "signed-bound", at(16, now, &header, &bound(CERTIFICATE))),
            (false, "signed-bound-to-another", at(16, now, &header, &bound([8; 32]))),
            (false, "signed-bound-and-not-shown", at(0, now, &header, &bound(CERTIFICATE))),
            (
                false,
                "signed-crit",
                at(0, now, &json!({"alg": "EdDSA", "kid": "k1", "typ": "JWT", "crit": ["exp"]}), &claims("site")),
            ),
            (false, "signed-as-another-issuer", at(0, now, &header, &claims("yard"))),
            (false, "signed-for-somebody-else", at(0, now, &header, &site(|c| c["aud"] = "shop".into()))),
            (false, "signed-lives-too-long", {
                let mut claims = claims("yard");
                claims["exp"] = (OLD.1 + 3_601).into();
                at(1, now, &header, &claims)
            }),
            (false, "signed-a-member-twice", {
                let text = claims("site").to_string().replacen('{', "{\"\\u0065xp\":0,", 1);
                let whole = at(0, now, &header, &Value::Null);
                [whole.strip_suffix(b"null").expect("null"), text.as_bytes()].concat()
            }),
            (
                false,
                "signed-nested",
                at(0, now, &header, &site(|c| c["deep"] = (0..16).fold(json!(1), |deep, _| json!([deep])))),
            ),
        ],
    )
}

fn entries() -> Seeds {
    let golden = &*blobs::ENTRIES;
    let one = |kind: EntryKind, flags: u8, bytes: &[u8]| {
        let number = EntryKind::ALL.iter().position(|other| *other == kind).expect("it is one of all");
        [&[u8::try_from(number).expect("there are six") | flags][..], bytes].concat()
    };
    let several = |kinds: &[EntryKind]| {
        let part = |kind: &EntryKind| {
            let length = u16::try_from(golden[kind].len()).expect("short").to_be_bytes();
            let mut part = one(*kind, 0, &length);
            part.extend_from_slice(&golden[kind]);
            part
        };
        [vec![6], kinds.iter().flat_map(part).collect()].concat()
    };
    let json = |kind: EntryKind| serde_json::from_slice::<Value>(&golden[&kind]).expect("JSON");
    let routes = |change: fn(&mut Value)| {
        let mut routes = json(EntryKind::Routes);
        change(&mut routes);
        routes.to_string().into_bytes()
    };
    let templates = routes(|routes| {
        let like = routes["apis"][0]["routes"][0].clone();
        let with = |template: &str| {
            let mut route = like.clone();
            route["template"] = template.into();
            route
        };
        routes["apis"][0]["routes"] =
            ["/", "/{id}", "/{id}/a", "/b/{id}.json", "/d/x{id}y/*", "/c/*", "/b/c"].map(with).to_vec().into();
        routes["apis"][1]["base_path"] = "".into();
        routes["apis"][1]["routes"][0]["template"] = "/*".into();
        routes["apis"][1]["routes"][0]["auth"] = "none".into();
        routes["apis"][1]["routes"][0]["scopes"] = json!([]);
        routes["apis"][0]["hosts"] = json!(["shop.example"]);
    });
    let probes = json!({"probes": [{
        "at": AT, "expect": {"result": "TokenMissing", "route": "/{id}"}, "host": "any", "method": "GET", "name": "shut",
        "path": "/pets/1"
    }]});
    let cut_off = |kind, value: &str| CutOff { kind, issuer: "site".into(), value: value.into(), before: AT };
    let revocations = Revocations {
        cut_offs: vec![
            cut_off(CutOffKind::Subject, "a"),
            cut_off(CutOffKind::Client, "site"),
            CutOff { before: i64::MIN, ..cut_off(CutOffKind::Key, "k1") },
        ],
        ids: [0, 1, 3, u64::MAX].map(|hash| HashedId { hash, until: AT }).to_vec(),
    };
    let paths = b"\0/pets/7\0/pets/7;a=b\0/pets//7\0/pets/%2e\0/shop/\0client-1\0any:80\0[::1]:80\0a@b\0/";
    seeds(
        "blobs",
        vec![
            (true, "routes", one(EntryKind::Routes, 0, &golden[&EntryKind::Routes])),
            (true, "routes-and-paths", one(EntryKind::Routes, 0, &[&golden[&EntryKind::Routes][..], paths].concat())),
            (true, "routes-of-every-template", one(EntryKind::Routes, 8, &templates)),
            (true, "routes-and-a-token", {
                one(EntryKind::Routes, 0, &[&golden[&EntryKind::Routes][..], b"\0", blobs::TOKEN.as_bytes()].concat())
            }),
            (false, "routes-not-in-form", one(EntryKind::Routes, 0, &[b" ", &golden[&EntryKind::Routes][..]].concat())),
            (
                false,
                "routes-that-overlap",
                one(EntryKind::Routes, 8, &routes(|r| r["apis"][1]["base_path"] = "/pets".into())),
            ),
            (
                false,
                "routes-to-nowhere",
                one(EntryKind::Routes, 8, &routes(|r| r["apis"][0]["upstream"] = "gone".into())),
            ),
            (true, "issuers", one(EntryKind::Issuers, 0, &golden[&EntryKind::Issuers])),
            (true, "issuers-to-be-formed", one(EntryKind::Issuers, 8, &golden[&EntryKind::Issuers])),
            (true, "throttle", one(EntryKind::Throttle, 0, &golden[&EntryKind::Throttle])),
            (true, "throttle-of-every-limit", {
                let limit = |per: &str| json!({"count": 5, "per": per});
                let limits = ["second", "minute", "hour", "month"].map(limit).to_vec();
                let plans = json!({"plans": [{"limits": limits, "name": "gold"}, {"limits": [], "name": "free"}]});
                one(EntryKind::Throttle, 8, plans.to_string().as_bytes())
            }),
            (true, "subscriptions", one(EntryKind::Subscriptions, 0, &golden[&EntryKind::Subscriptions])),
            (true, "revocations", one(EntryKind::Revocations, 0, &golden[&EntryKind::Revocations])),
            (true, "revocations-of-every-kind", one(EntryKind::Revocations, 0, &revocations.to_bytes())),
            (true, "probes", one(EntryKind::Probes, 8, probes.to_string().as_bytes())),
            (
                false,
                "probes-that-fail",
                one(EntryKind::Probes, 8, probes.to_string().replace("Missing", "Expired").as_bytes()),
            ),
            (true, "several", several(&[EntryKind::Routes, EntryKind::Subscriptions, EntryKind::Revocations])),
            (true, "nothing-said", vec![6]),
        ],
    )
}

fn papers() -> Seeds {
    let [receipt, request, enrolment] = &*documents::DOCUMENTS;
    let body = |kind: usize, change: fn(&mut Value)| {
        let mut body = documents::BODIES[kind].clone();
        change(&mut body);
        canonical::write(&body).expect("it has a form")
    };
    let signed = |kind: usize, mask: u8, device: u8, change| {
        [&[u8::try_from(kind).expect("one of three"), mask, device][..], &body(kind, change)].concat()
    };
    let mut flipped = enrolment.clone();
    flipped[10] ^= 1;
    let policy = 0b1_1000;
    let unchanged = |_: &mut Value| ();
    let okp = r#"{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let jwks = format!(r#"{{"keys":[{}]}}"#, okp.replacen('{', r#"{"kid":"a","#, 1));
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    seeds(
        "documents",
        vec![
            (true, "golden-receipt", receipt.clone()),
            (true, "golden-request", request.clone()),
            (true, "golden-enrolment", enrolment.clone()),
            (false, "flipped-bit", flipped),
            (false, "cut-off", request[..request.len() - 2].to_vec()),
            (true, "signed-receipt", signed(0, 0, 1, unchanged)),
            (false, "signed-receipt-by-two", signed(0, 1, 1, unchanged)),
            (true, "signed-request", signed(1, 0, 1, unchanged)),
            (false, "signed-request-by-another", signed(1, 1, 0, unchanged)),
            (true, "signed-enrolment", signed(2, policy, 0, unchanged)),
            (true, "signed-enrolment-by-everybody", signed(2, 0xff, 1, |body| body["labels"] = json!({}))),
            (false, "signed-enrolment-by-one", signed(2, 0b1000, 1, unchanged)),
            (false, "signed-enrolment-of-a-later-root", signed(2, policy, 0, |body| body["root_version"] = 3.into())),
            (
                false,
                "signed-enrolment-of-another-key",
                signed(2, policy, 0, |body| body["device"] = "0".repeat(32).into()),
            ),
            (true, "keys-jwk", okp.into()),
            (true, "keys-jwks", jwks.into()),
            (true, "keys-pem", pem.into()),
            (false, "keys-private", okp.replacen('{', r#"{"d":"AA","#, 1).into()),
            (false, "keys-symmetric", br#"{"k":"AAAA","kty":"oct"}"#.to_vec()),
            (false, "keys-rsa-too-short", br#"{"e":"AQAB","kty":"RSA","n":"wAAAAAAB"}"#.to_vec()),
            (true, "keys-p256", {
                let (x, y) =
                    ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).into()
            }),
        ],
    )
}

/// The body of a state record, as the table of `bundle/state.rs` draws it, up to a version's end.
fn state(version: u8, length: usize) -> Vec<u8> {
    let digest = |bundle: &[u8]| pack::digest(bundle).expect("a bundle").0.to_vec();
    let (policy, list, none) = (digest(&start::BUNDLES[1]), digest(&GOLDEN.list), vec![0; 32]);
    let number = |number: u64| number.to_be_bytes().to_vec();
    let mut body = [
        vec![version],
        [number(1), number(8), policy.clone(), number(3), policy, none.clone()].concat(),
        [number(3), GOLDEN.roots[0].digest().0.to_vec(), number(3), number(0)].concat(),
        [number(2), list.clone(), list, number(3), number(0), none.clone(), none.clone(), none].concat(),
        vec![1],
        vec![0; 512],
    ]
    .concat();
    body.truncate(length);
    [&[0, 1][..], &body].concat()
}

fn starts() -> Seeds {
    let file = |number: u8, how: u8, bytes: &[u8]| [&[16 + number, how][..], bytes].concat();
    let mut all = vec![
        (true, "state-version-3", state(3, usize::MAX)),
        (false, "state-of-a-bundle-that-is-not-there", {
            let mut gone = state(3, usize::MAX);
            gone[2 + 57] ^= 1;
            gone
        }),
        (true, "state-version-2", state(2, 361)),
        (true, "state-version-1", state(1, 121)),
        (false, "state-of-a-newer-version", state(4, usize::MAX)),
        (false, "state-cut-off", state(3, 200)),
        (false, "state-of-ones", [&[0, 0, 3][..], &[0xff; 873]].concat()),
        (true, "enrolment-of-zeros", [&[1, 1][..], &[0; 64]].concat()),
        (true, "time-of-zeros", [&[2, 1][..], &[0; 96]].concat()),
        (true, "time-of-ones", [&[2, 1, 1][..], &[0xff; 95]].concat()),
        (true, "trial-of-many-ends", [&[3, 1, 1][..], &[0; 48], &[0xff, 1]].concat()),
    ];
    let names = [
        "file-0-gone",
        "file-1-gone",
        "file-2-gone",
        "file-3-gone",
        "file-4-gone",
        "file-5-gone",
        "file-6-gone",
        "file-7-gone",
    ];
    all.extend((0..).zip(names).map(|(number, name)| (true, name, file(number, 2, b""))));
    seeds("start", all)
}

/// Columns of these sections, the others empty.
fn columns(sections: &[(usize, &[u8])]) -> Vec<u8> {
    let section = |at: usize| sections.iter().find(|(number, _)| *number == at).map_or(&[][..], |(_, bytes)| bytes);
    let all = || (0..19).map(section);
    let len = |section: &[u8]| u32::try_from(section.len()).expect("a short section").to_be_bytes();
    all().flat_map(len).chain(all().flatten().copied()).collect()
}

fn files() -> Seeds {
    let [golden, second, tombstone] = &*usage::GOLDEN;
    let laid = |flags: u8, first: u8, rest: &[u8]| [&[flags, first][..], rest].concat();
    let made = |rest: &[u8]| laid(0, 0, rest);
    let header = |file: &[u8]| file[24..][..usize::from(file[15])].to_vec();
    let with_header = |flags: u8, header: &[u8], rest: &[u8]| {
        let len = u8::try_from(header.len()).expect("a short header");
        [&[usage::HEADER | flags, len][..], header, rest].concat()
    };
    let frame = |file: &[u8]| {
        let len = usize::try_from(u32::from_be_bytes(file[16..20].try_into().expect("a length"))).expect("short");
        let body = &file[24 + usize::from(file[15])..][..len];
        [&file[20..24], body].concat()
    };
    let own = frame(golden);
    let mut flipped = golden.clone();
    flipped[100] ^= 1;
    let mut longer = own.clone();
    longer[3] ^= 1;
    let mut less = header(golden);
    let at = less.len() - 14;
    less[at] -= 1; // requests: before others (1) and two times (6 each)
    let many = |entry: &[u8], times: usize| entry.repeat(times);
    let gap = [&[11, 2, 1, 0, 2, 1][..], &[0xff; 4], &[0x0f]].concat();
    let bomb = |raw: &[u8]| {
        let frame = zstd::bulk::compress(raw, 19).expect("it compresses");
        laid(usage::BODY, 0, &[&u32::try_from(raw.len()).expect("short").to_be_bytes()[..], &frame].concat())
    };
    let zeros = columns(&[(0, &many(&[0; 5], 10_000)), (1, &many(&[0; 4], 10_000)), (2, &many(&[0], 10_000))]);
    let with_a_row = |rows: usize| columns(&[(18, &many(&[6, 2, 6, 1, 4, 1, 7], rows))]);
    seeds(
        "usage",
        vec![
            (true, "golden", golden.clone()),
            (true, "golden-second", second.clone()),
            (true, "golden-tombstone", tombstone.clone()),
            (false, "flipped-bit", flipped),
            (false, "cut-off", golden[..golden.len() - 1].to_vec()),
            (false, "longer", [&golden[..], &[0]].concat()),
            (true, "signed", made(&usage::columns(0))),
            (true, "signed-later", laid(0, 7, &usage::columns(1))),
            (true, "signed-tombstone", laid(usage::TOMBSTONE, 0x24, &usage::columns(2))),
            (false, "signed-tombstone-with-requests", laid(usage::TOMBSTONE, 0, &usage::columns(0))),
            (false, "signed-by-another", laid(usage::ANOTHER_KEY, 0, &usage::columns(0))),
            (false, "signed-and-altered", laid(usage::ALTERED, 0, &usage::columns(0))),
            (true, "signed-with-its-header", with_header(usage::BODY, &header(golden), &own)),
            (false, "signed-with-one-request-less", with_header(usage::BODY, &less, &own)),
            (false, "signed-with-the-header-of-another", with_header(usage::BODY, &header(second), &own)),
            (true, "signed-with-its-body", laid(usage::BODY, 0, &own)),
            (false, "signed-with-another-length", laid(usage::BODY, 0, &longer)),
            (false, "signed-with-two-frames", laid(usage::BODY, 0, &[&own[..], &own[4..]].concat())),
            (false, "signed-nothing", made(&columns(&[]))),
            (false, "signed-short-table", made(&[0; 75])),
            (true, "signed-one-gap", made(&with_a_row(1))),
            (false, "signed-a-gap-of-a-long-number", made(&columns(&[(18, &gap)]))),
            (
                false,
                "signed-a-dictionary-too-long",
                bomb(&columns(&[(2, &many(&[0], 10_001)), (18, &with_a_row(1)[76..])])),
            ),
            (true, "signed-the-most-rows", bomb(&with_a_row(10_000))),
            (false, "signed-a-row-too-many", bomb(&with_a_row(10_001))),
            (false, "signed-full-dictionaries-of-nothing", bomb(&zeros)),
            (
                true,
                "signed-full-dictionaries",
                bomb(&[&zeros[..72], &7_u32.to_be_bytes(), &zeros[76..], &with_a_row(1)[76..]].concat()),
            ),
            (false, "signed-all-zeros", bomb(&vec![0; 2 << 20])),
        ],
    )
}
