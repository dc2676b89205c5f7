use super::entry::*;
use super::*;
use crate::policy::{Miss, Uncertain};

/// A sound bundle's entries, before they are written.
#[derive(Clone)]
struct Source {
    routes: entry::Routes,
    issuers: entry::Issuers,
    throttle: entry::Throttle,
    subscriptions: entry::Subscriptions,
    revocations: entry::Revocations,
}

impl Source {
    fn sound() -> Self {
        let route = |template: &str, methods: &[crate::policy::Method]| entry::Route {
            auth: Auth::Token,
            methods: methods.to_vec(),
            plan: None,
            revocations_max_age_s: None,
            scopes: vec!["read:pets".into()],
            template: template.into(),
            uncertain: Uncertain::Allow,
            upstream: None,
        };
        let api = entry::Api {
            audiences: vec![],
            base_path: "/pets/1".into(),
            forward_token: false,
            hosts: vec![],
            issuers: vec!["site".into()],
            max_body: 1024,
            name: "pets".into(),
            plan: None,
            routes: vec![
                route("/pet/{id}", &[crate::policy::Method::Get]),
                route("/*", &[crate::policy::Method::Post]),
            ],
            strip_base_path: true,
            subscription: true,
            token_header: "authorization".into(),
            upstream: "shop".into(),
            usage: entry::Usage::default(),
            version: "1".into(),
        };
        let upstream = entry::Upstream {
            ca: vec![],
            connect_timeout_ms: 1000,
            endpoints: vec!["http://127.0.0.1:8080/v2".into()],
            keep_host: false,
            name: "shop".into(),
            response_timeout_ms: 1000,
        };
        let x = crate::keys::SigningKey::from_seed(&[7; 32]).expect("a key").public();
        let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(x.raw());
        let jwk = entry::Jwk { crv: Some("Ed25519".into()), e: None, kty: "OKP".into(), n: None, x: Some(x), y: None };
        let issuer = entry::Issuer {
            absent_type: false,
            allow_demo_keys: false,
            audiences: vec!["edge".into()],
            claims: entry::Claims { application: vec![], scope: String::new() },
            iss: "https://site.example".into(),
            keys: vec![entry::Key { alg: "EdDSA".into(), jwk, kid: Some("k1".into()), x5t: None }],
            max_lifetime_s: None,
            name: "site".into(),
            profile: "strict".into(),
            types: vec!["at+jwt".into(), "jwt".into()],
        };
        let limit = |count, per| entry::Limit { burst: None, count, per };
        let gold = entry::Plan { limits: vec![limit(10, Per::Second), limit(1000, Per::Day)], name: "gold".into() };
        let application =
            |name: &str| entry::Application { name: name.into(), consumer: "acme".into(), plan: String::new() };
        let subscription = entry::Subscription {
            application: 0,
            api: "pets".into(),
            version: "1".into(),
            plan: "gold".into(),
            blocked: false,
        };
        Self {
            routes: entry::Routes { apis: vec![api], upstreams: vec![upstream], usage: entry::Usage::default() },
            issuers: entry::Issuers { issuers: vec![issuer] },
            throttle: entry::Throttle { plans: vec![gold] },
            subscriptions: entry::Subscriptions {
                applications: vec![application("app")],
                keys: vec![ConsumerKey { key: "client-1".into(), application: 0 }],
                subscriptions: vec![subscription],
            },
            revocations: entry::Revocations::default(),
        }
    }

    fn entries(&self) -> Entries {
        Entries::from([
            (EntryKind::Routes, self.routes.to_bytes()),
            (EntryKind::Issuers, self.issuers.to_bytes()),
            (EntryKind::Throttle, self.throttle.to_bytes()),
            (EntryKind::Subscriptions, self.subscriptions.to_bytes()),
            (EntryKind::Revocations, self.revocations.to_bytes()),
        ])
    }
}

fn refusal(change: impl FnOnce(&mut Source)) -> SemanticProblem {
    let mut source = Source::sound();
    change(&mut source);
    compile(&source.entries()).expect_err("refused")
}

#[test]
fn a_sound_bundle_becomes_a_policy_with_every_reference_resolved() {
    let policy = compile(&Source::sound().entries()).expect("sound");
    let found = policy.router.find("any.example", "/pets/1/pet/7", Some(crate::policy::Method::Get)).expect("a route");
    let route = policy.route(found);
    assert_eq!(&*policy.api(route.api).name, "pets");
    assert_eq!(&*policy.upstream(route.upstream).endpoints[0].prefix, "/v2");
    let miss = policy.router.find("any.example", "/pets/2", Some(crate::policy::Method::Get));
    assert_eq!(miss, Err(Miss::NoRoute));
    let subscriber = policy.subscribers.find("client-1", route.api).expect("known");
    let subscription = subscriber.subscription.expect("subscribed");
    assert_eq!(policy.plan(subscription.plan).limits.len(), 2);
    assert_eq!(policy.issuers.at(policy.api(route.api).issuers[0]).expect("pinned").name(), "site");
}

#[test]
fn what_records_keep_is_said_member_by_member_by_the_api_then_the_deployment_then_nobody() {
    use crate::policy::{KeepAddress, KeepPrincipal, Privacy, Rotate};
    let compiled = |api: entry::Usage, all: entry::Usage| {
        let mut source = Source::sound();
        (source.routes.apis[0].usage, source.routes.usage) = (api, all);
        let policy = compile(&source.entries()).expect("sound");
        (policy.apis[0].privacy, policy.privacy)
    };
    let unsaid = Privacy { principal: KeepPrincipal::Hashed, address: KeepAddress::Truncated, rotate: Rotate::Month };
    let nothing = entry::Usage::default();
    assert_eq!(compiled(nothing, nothing), (unsaid, unsaid));
    let api = entry::Usage { principal: Some(KeepPrincipal::Clear), ..nothing };
    assert_eq!(compiled(api, nothing), (Privacy { principal: KeepPrincipal::Clear, ..unsaid }, unsaid));
    let all = entry::Usage {
        address: Some(KeepAddress::Absent),
        principal: Some(KeepPrincipal::Absent),
        rotate: Some(Rotate::Day),
    };
    let said = Privacy { principal: KeepPrincipal::Absent, address: KeepAddress::Absent, rotate: Rotate::Day };
    assert_eq!(compiled(api, all), (Privacy { principal: KeepPrincipal::Clear, ..said }, said));
    assert_eq!(compiled(nothing, all), (said, said));
    let hashed = entry::Usage { address: Some(KeepAddress::Hashed), rotate: Some(Rotate::Month), ..nothing };
    let own = Privacy { address: KeepAddress::Hashed, rotate: Rotate::Month, ..said };
    assert_eq!(compiled(hashed, all), (own, said));
}

#[test]
fn an_api_that_does_not_say_what_records_keep_has_the_bytes_that_it_always_had() {
    let text = String::from_utf8(Source::sound().routes.to_bytes()).expect("JSON");
    assert!(!text.contains("usage"), "{text}");
    let second_form = text.replace("\"version\":", "\"usage\":{},\"version\":");
    assert!(entry::Routes::from_bytes(second_form.as_bytes()).is_err(), "there is one form of saying nothing");
}

#[test]
fn another_set_of_keys_is_another_generation() {
    let one = compile(&Source::sound().entries()).expect("sound").issuers.generation();
    let mut changed = Source::sound();
    changed.issuers.issuers[0].audiences.push("other".into());
    assert_ne!(compile(&changed.entries()).expect("sound").issuers.generation(), one);
    assert_eq!(compile(&Source::sound().entries()).expect("sound").issuers.generation(), one);
}

type Change = fn(&mut Source);

#[test]
fn what_does_not_hold_together_is_refused_and_the_detail_names_it() {
    let cases: [(&str, Change); 38] = [
        ("upstream \"gone\"", |s| s.routes.apis[0].upstream = "gone".into()),
        ("upstream \"gone\"", |s| s.routes.apis[0].routes[0].upstream = Some("gone".into())),
        ("plan \"gone\"", |s| s.routes.apis[0].plan = Some("gone".into())),
        ("plan \"gone\"", |s| s.subscriptions.subscriptions[0].plan = "gone".into()),
        ("plan \"gone\"", |s| s.subscriptions.applications[0].plan = "gone".into()),
        ("issuer \"gone\"", |s| s.routes.apis[0].issuers = vec!["gone".into()]),
        ("names no issuer", |s| s.routes.apis[0].issuers.clear()),
        ("API \"gone\"", |s| s.subscriptions.subscriptions[0].api = "gone".into()),
        ("base path", |s| s.routes.apis[0].base_path = "/a/".into()),
        ("base path", |s| s.routes.apis[0].base_path = "a".into()),
        ("base path", |s| s.routes.apis[0].base_path = "/a b".into()),
        ("base path", |s| s.routes.apis[0].base_path = "/a\u{1}".into()),
        ("base path", |s| s.routes.apis[0].base_path = format!("/{}", "a".repeat(TEXT_LIMIT))),
        ("control character", |s| s.routes.apis[0].routes[0].template = "/a\u{1}".into()),
        ("maximum lifetime", |s| s.issuers.issuers[0].max_lifetime_s = Some(0)),
        ("base path", |s| s.routes.apis[0].base_path = "/a/../b".into()),
        ("host", |s| s.routes.apis[0].hosts = vec!["Upper.example".into()]),
        ("header", |s| s.routes.apis[0].token_header = "X Y".into()),
        ("two parameters", |s| s.routes.apis[0].routes[0].template = "/{a}{b}".into()),
        ("parameter", |s| s.routes.apis[0].routes[0].template = "/{}".into()),
        ("without its }", |s| s.routes.apis[0].routes[0].template = "/{a".into()),
        ("whole last segment", |s| s.routes.apis[0].routes[0].template = "/a*".into()),
        ("no path", |s| s.routes.apis[0].routes[0].template = "pet".into()),
        ("in order", |s| s.routes.apis[0].routes[0].methods.clear()),
        ("conflicts", |s| s.routes.apis[0].routes[1] = s.routes.apis[0].routes[0].clone()),
        ("scopes but no token", |s| s.routes.apis[0].routes[0].auth = Auth::None),
        ("fresh revocations but no token", |s| {
            let route = &mut s.routes.apis[0].routes[0];
            (route.auth, route.revocations_max_age_s) = (Auth::None, Some(1));
            route.scopes.clear();
        }),
        ("no endpoint", |s| s.routes.upstreams[0].endpoints.clear()),
        ("http://", |s| s.routes.upstreams[0].endpoints = vec!["ftp://x".into()]),
        ("pins no certificate", |s| s.routes.upstreams[0].endpoints = vec!["https://x".into()]),
        ("not base64", |s| s.routes.upstreams[0].ca = vec!["?".into()]),
        ("nothing can chain to", |s| s.routes.upstreams[0].ca = vec!["AAAA".into()]),
        ("once and in order", |s| s.routes.apis[0].routes[0].scopes = vec!["b a".into()]),
        ("the scope \"\"", |s| s.routes.apis[0].routes[0].scopes = vec!["a  b".into()]),
        ("time-out", |s| s.routes.upstreams[0].connect_timeout_ms = 0),
        ("more than 4 limits", |s| {
            let limit = s.throttle.plans[0].limits[0].clone();
            s.throttle.plans[0].limits.extend(vec![limit; 3]);
        }),
        ("limit of 0", |s| s.throttle.plans[0].limits[0].count = 0),
        ("quota with a burst", |s| s.throttle.plans[0].limits[1].burst = Some(1)),
    ];
    for (part, change) in cases {
        match refusal(change) {
            SemanticProblem::SemanticInvalid(detail) => assert!(detail.contains(part), "{part:?} is not in {detail:?}"),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[test]
fn keys_that_protect_nothing_are_refused_by_their_own_names() {
    let weak = refusal(|s| s.issuers.issuers[0].keys[0].jwk.x = Some("A".repeat(43)));
    assert!(matches!(weak, SemanticProblem::WeakKey(_)), "{weak:?}");
    let twice = refusal(|s| {
        let key = s.issuers.issuers[0].keys[0].clone();
        s.issuers.issuers[0].keys.push(key);
    });
    assert!(matches!(twice, SemanticProblem::DuplicateKid(_)), "{twice:?}");
    let hmac = refusal(|s| s.issuers.issuers[0].keys[0].alg = "HS256".into());
    assert!(matches!(hmac, SemanticProblem::SemanticInvalid(_)), "{hmac:?}");
}

#[test]
fn a_missing_a_cut_and_a_loose_entry_are_refused() {
    for kind in [EntryKind::Routes, EntryKind::Issuers, EntryKind::Throttle] {
        let mut entries = Source::sound().entries();
        entries.remove(&kind);
        assert!(compile(&entries).is_err(), "{kind} is missing");
    }
    for kind in [EntryKind::Routes, EntryKind::Issuers, EntryKind::Throttle, EntryKind::Subscriptions] {
        let mut entries = Source::sound().entries();
        let bytes = entries.get_mut(&kind).expect("there");
        bytes.truncate(bytes.len() - 1);
        assert!(compile(&entries).is_err(), "{kind} is cut");
    }
    // No bytes are no table: taken for an empty one they would give back what was revoked.
    for kind in EntryKind::ALL {
        let mut entries = Source::sound().entries();
        entries.insert(kind, Vec::new());
        assert!(compile(&entries).is_err(), "{kind} is empty");
    }
    let mut entries = Source::sound().entries();
    entries.get_mut(&EntryKind::Routes).expect("there").push(b' ');
    assert!(compile(&entries).is_err(), "white space after the JSON");
}

#[test]
fn a_key_that_no_token_can_name_and_a_claim_that_is_no_path_are_refused_at_the_desk() {
    let with_kid = |kid: &str| {
        let mut source = Source::sound();
        source.issuers.issuers[0].keys[0].kid = Some(kid.into());
        compile(&source.entries()).map(|_| ())
    };
    assert_eq!(with_kid(&"k".repeat(256)), Ok(()));
    for kid in ["", "a\nb", &"k".repeat(257)] {
        let refused = with_kid(kid).expect_err("no token can name it");
        assert!(format!("{refused:?}").contains("no token can name it"), "{kid:?}: {refused:?}");
    }
    let refused = refusal(|source| source.issuers.issuers[0].keys[0].x5t = Some("\t".into()));
    assert!(format!("{refused:?}").contains("no token can name it"), "{refused:?}");

    let with_claim = |claim: &str| {
        let mut source = Source::sound();
        source.issuers.issuers[0].claims.application = vec![claim.into()];
        compile(&source.entries()).map(|_| ())
    };
    for claim in ["azp", "/application/uuid", "http://wso2.org/claims/applicationid"] {
        assert_eq!(with_claim(claim), Ok(()), "{claim}");
    }
    for claim in ["/azp", "/", "//", "/azp/", "//uuid"] {
        let refused = with_claim(claim).expect_err("it would be a claim of that very name");
        assert!(format!("{refused:?}").contains("a path is of two names"), "{claim}: {refused:?}");
    }
}
