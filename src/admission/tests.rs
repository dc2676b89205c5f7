use crate::policy::issuer::{Alg, Issuer, IssuerTerms, Issuers, Profile, TypSet};
use crate::policy::revocations::{Builder, Kind, Revocations, RevokedId};
use crate::policy::{Api, Endpoint, Limit, Plan, Router, SubscribersBuilder, Upstream, Window};
use crate::token::mint::MintKey;

use super::*;

fn key() -> MintKey {
    MintKey::generate(Alg::EdDsa).expect("random bytes").named("k")
}

fn issuer(name: &str, key: &MintKey) -> Issuer {
    let terms = IssuerTerms {
        name: name.into(),
        iss: name.into(),
        profile: Profile::Strict,
        audiences: ["edge".into()].into(),
        typ: TypSet::default(),
        max_lifetime_s: None,
        client: Box::default(),
        scope: Box::default(),
        keys: [key.public().clone()].into(),
    };
    Issuer::new(terms).expect("a plain issuer")
}

/// One API that takes issuer `a` alone, its token in `x-key`; a route that wants a certain time.
fn policy(key: &MintKey) -> Policy {
    policy_behind(key, 0)
}

/// The policy with so many other plans before its own, so that every plan has another index.
fn policy_behind(key: &MintKey, others: PlanIndex) -> Policy {
    let limit = |count| Limit::Quota { count, window: Window::Day };
    let plan =
        |name: &str, limits: &[Limit]| Plan { name: name.into(), hash: NameHash::of(&[name]), limits: limits.into() };
    let api = Api {
        name: "pets".into(),
        version: "1".into(),
        hash: NameHash::of(&["pets", "1"]),
        base_path: "/pets".into(),
        strip_base_path: true,
        issuers: [0].into(),
        audiences: Box::default(),
        token_header: "x-key".into(),
        forward_token: false,
        needs_subscription: false,
        plan: Some(others),
        max_body: 0,
        privacy: Default::default(),
    };
    let route = |template: &str, uncertain, plan: Option<PlanIndex>| Route {
        api: 0,
        template: template.into(),
        methods: [Method::Get].into_iter().collect(),
        auth: Auth::Token,
        scopes: ["read".into(), "all".into(), "list peek".into()].into(),
        plan: plan.map(|plan| others + plan),
        upstream: 0,
        uncertain,
        revocations_max_age_s: None,
    };
    let routes = [
        route("/a", Uncertain::Allow, Some(1)),
        route("/sure", Uncertain::Deny, None),
        route("/b", Uncertain::Bound, None),
        route("/{name}", Uncertain::Allow, None),
        Route {
            methods: [Method::Get, Method::Post].into_iter().collect(),
            ..route("/two", Uncertain::Allow, Some(1))
        },
        route("/area/x", Uncertain::Allow, None),
        Route {
            methods: [Method::Get, Method::Post].into_iter().collect(),
            auth: Auth::None,
            scopes: Box::default(),
            ..route("/area/*", Uncertain::Allow, None)
        },
    ];
    let router = Router::build(
        routes.iter().zip(0..).map(|(route, at)| (&[] as &[Box<str>], "/pets", &*route.template, route.methods, at)),
    );
    let mut subscribers = SubscribersBuilder::default();
    let app = subscribers.application("app", "acme", Some(others + 2));
    subscribers.key("app-key", app);
    subscribers.subscription(app, 0, others + 3, Standing::Active);
    Policy {
        apis: [api].into(),
        privacy: Default::default(),
        routes: routes.into(),
        upstreams: [Upstream {
            name: "up".into(),
            endpoints: [Endpoint::parse("http://127.0.0.1:1").expect("a URL")].into(),
            connect_timeout: std::time::Duration::ZERO,
            response_timeout: std::time::Duration::ZERO,
            keep_host: false,
            ca: Box::default(),
        }]
        .into(),
        issuers: Issuers::new([issuer("a", key), issuer("b", key)], 7).expect("two issuers"),
        plans: (0..others)
            .map(|other| plan(&format!("other-{other}"), &[limit(9)]))
            .chain([
                plan("api", &[limit(1)]),
                plan("route", &[limit(2), limit(3)]),
                plan("app", &[limit(4)]),
                plan("sub", &[limit(5)]),
            ])
            .collect(),
        subscribers: subscribers.build().expect("nothing twice"),
        revocations: Revocations::default(),
        router: router.expect("no conflict"),
    }
}

fn token(key: &MintKey, iss: &str, client: &str, scope: &str) -> String {
    let claims = serde_json::json!({
        "iss": iss, "aud": "edge", "sub": "s", "client_id": client, "scope": scope, "exp": 2_000, "iat": 1_000,
    });
    key.mint(Some("at+jwt"), &claims).expect("the key signs")
}

#[test]
fn a_token_must_be_in_neither_list() {
    let key = key();
    let mut policy = policy(&key);
    let token = token(&key, "a", "app-key", "x all");
    let at = TimeBounds::exact(1_500);
    let header = |name: &str| if name == "x-key" { Field::Once(token.as_bytes()) } else { Field::Absent };
    let parts = Parts { authority: "[::1]:8080", path: "/pets/a", method: "GET", certificate: None, header };
    let of = |kind, value: &str| {
        let mut list = Builder::default();
        list.cut_off(RevokedId::of(kind, "a", value), 1_001);
        list.build()
    };
    let judged = |policy: &Policy, list: &Revocations| {
        admit(policy, TakenBack { list, as_of: None }, &mut TokenCache::new(0), &parts, at, &mut Charges::default())
            .1
            .map(|_| ())
            .map_err(|reject| reject.to_string())
    };
    let refused = Err(TokenError::RevokedBefore.to_string());
    let (hit, miss) = (of(Kind::Client, "app-key"), of(Kind::Client, "another"));
    assert_eq!(judged(&policy, &miss), Ok(()));
    assert_eq!(judged(&policy, &hit), refused);
    policy.revocations = hit;
    assert_eq!(judged(&policy, &miss), refused, "one list does not take the other's place");
    assert_eq!(judged(&policy, &Revocations::default()), refused);
}

struct Admitted {
    route: RouteIndex,
    charges: Charges,
}

fn ask<'p>(policy: &'p Policy, path: &str, token: &str, bounds: TimeBounds) -> (Facts, Result<Admitted, Reject<'p>>) {
    let header = |name: &str| if name == "x-key" { Field::Once(token.as_bytes()) } else { Field::Absent };
    let parts = Parts { authority: "[::1]:8080", path, method: "GET", certificate: None, header };
    let mut charges = Charges::default();
    let (facts, verdict) = admit(
        policy,
        TakenBack { list: &Revocations::default(), as_of: None },
        &mut TokenCache::new(0),
        &parts,
        bounds,
        &mut charges,
    );
    (facts, verdict.map(|route| Admitted { route, charges }))
}

#[test]
fn every_level_with_a_plan_is_charged_and_the_caller_is_known() {
    let key = key();
    let policy = policy(&key);
    let (facts, verdict) = ask(&policy, "/pets/a", &token(&key, "a", "app-key", "x all"), TimeBounds::exact(1_500));
    let admitted = verdict.expect("a good request");
    let levels: Vec<_> = (0..admitted.charges.all().len()).map(|at| admitted.charges.level(at)).collect();
    let expected = [Level::Application, Level::Subscription, Level::Api, Level::Resource, Level::Resource].map(Some);
    assert_eq!(levels, expected);
    let mut ids: Vec<_> = admitted.charges.all().iter().map(|charge| (charge.limit_id, charge.subject_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "no two limits share a counter");
    assert_eq!((facts.api, facts.route, facts.application, facts.plan), (Some(0), Some(0), Some(0), Some(3)));
    assert!(facts.claims.is_some());
}

#[test]
fn one_alternative_of_the_scopes_is_enough_and_each_is_wanted_whole() {
    let key = key();
    let policy = policy(&key);
    for (scope, passes) in [
        ("read", true),
        ("peek list", true),
        ("list", false),
        ("peek x", false),
        ("list+peek", false),
        ("", false),
        ("list peek x", true),
        ("listpeek", false),
    ] {
        let (_, verdict) = ask(&policy, "/pets/a", &token(&key, "a", "app-key", scope), TimeBounds::exact(1_500));
        let missing = matches!(verdict, Err(Reject::ScopeMissing { .. }));
        assert_eq!((verdict.is_ok(), missing), (passes, !passes), "{scope:?}");
    }
}

#[test]
fn a_path_parameter_leads_to_no_route_that_the_path_without_it_does_not() {
    let key = key();
    let policy = policy(&key);
    let token = token(&key, "a", "app-key", "read");
    let verdict = |path| ask(&policy, path, &token, TimeBounds::exact(1_500)).1.map(|admitted| admitted.route);
    assert_eq!(verdict("/pets/c;x=1").ok(), Some(3), "the same route both ways");
    for path in ["/pets/sure;x", "/pets/sure;", "/pets;v=1/sure", "/pets/a;b;c"] {
        assert!(matches!(verdict(path), Err(Reject::BadPath(BadPath::Parameter) | Reject::NoRoute)), "{path}");
    }
    for path in ["/pets/;x/c", "/pets/..;x/c", "/pets/x;/.."] {
        assert!(matches!(verdict(path), Err(Reject::BadPath(_) | Reject::NoRoute)), "{path}");
    }
}

#[test]
fn a_slash_at_the_end_leads_around_no_route_that_the_path_without_it_has() {
    let key = key();
    let policy = policy(&key);
    let verdict = |path| ask(&policy, path, "", TimeBounds::exact(1_500)).1.map(|admitted| admitted.route);
    for path in ["/pets/area/x/", "/pets/area/x;v/"] {
        assert!(matches!(verdict(path), Err(Reject::BadPath(BadPath::TrailingSlash))), "{path}: {:?}", verdict(path));
    }
    for path in ["/pets/area", "/pets/area/", "/pets/area/y/", "/pets/area/x/z/"] {
        assert_eq!(verdict(path).ok(), Some(6), "{path}");
    }
}

#[test]
fn a_resource_is_counted_once_for_all_methods_of_its_route() {
    let key = key();
    let policy = policy(&key);
    let token = token(&key, "a", "app-key", "read");
    let counted = |method| {
        let header = |name: &str| if name == "x-key" { Field::Once(token.as_bytes()) } else { Field::Absent };
        let parts = Parts { authority: "h", path: "/pets/two", method, certificate: None, header };
        let nothing = Revocations::default();
        let (mut cache, mut charges) = (TokenCache::new(0), Charges::default());
        let (_, verdict) = admit(
            &policy,
            TakenBack { list: &nothing, as_of: None },
            &mut cache,
            &parts,
            TimeBounds::exact(1_500),
            &mut charges,
        );
        verdict.expect("a good request");
        charges.all().iter().map(|charge| (charge.limit_id, charge.subject_id)).collect::<Vec<_>>()
    };
    assert_eq!(counted("GET"), counted("POST"));
    assert_eq!(counted("GET"), counted("HEAD"));
}

#[test]
fn counters_are_named_by_what_they_count_and_not_by_the_order_of_the_policy() {
    let key = key();
    let token = token(&key, "a", "app-key", "read");
    let names = |policy: &Policy| {
        let (_, verdict) = ask(policy, "/pets/a", &token, TimeBounds::exact(1_500));
        let charges = verdict.expect("a good request").charges;
        charges.all().iter().map(|charge| (charge.limit_id, charge.subject_id)).collect::<Vec<_>>()
    };
    assert_eq!(names(&policy(&key)), names(&policy_behind(&key, 3)));
}

#[test]
fn a_verified_token_of_an_issuer_that_the_api_does_not_take_is_refused() {
    let key = key();
    let policy = policy(&key);
    let (facts, verdict) = ask(&policy, "/pets/a", &token(&key, "b", "app-key", "read"), TimeBounds::exact(1_500));
    assert_eq!(verdict.err(), Some(Reject::Token(TokenError::IssuerMismatch)));
    assert!(facts.claims.is_some(), "the record still says whose it was");
}

#[test]
fn a_route_decides_on_tokens_that_the_clock_leaves_in_doubt() {
    let key = key();
    let policy = policy(&key);
    let token = token(&key, "a", "app-key", "read");
    let verdict = |path, bounds| ask(&policy, path, &token, bounds).1.map(|admitted| admitted.route).err();
    assert_eq!(verdict("/pets/a", TimeBounds::floor(0)), None);
    assert_eq!(verdict("/pets/sure", TimeBounds::floor(0)), Some(Reject::Token(TokenError::TimeUncertain)));
    assert_eq!(verdict("/pets/b", TimeBounds::floor(0)), Some(Reject::Token(TokenError::TimeUncertain)));
    assert_eq!(verdict("/pets/sure", TimeBounds::exact(1_500)), None);
    assert_eq!(verdict("/pets/a", TimeBounds::floor(5_000)), Some(Reject::Token(TokenError::TokenExpired)));
}

#[test]
fn a_header_that_the_api_names_carries_the_token_with_or_without_bearer() {
    let key = key();
    let policy = policy(&key);
    let token = token(&key, "a", "app-key", "read");
    for value in [token.clone(), format!("Bearer {token}"), format!("bearer  {token} ")] {
        assert!(ask(&policy, "/pets/a", &value, TimeBounds::exact(1_500)).1.is_ok(), "{value}");
    }
    assert_eq!(token_of(b"Basic abc", "authorization"), Err(TokenError::TokenMissing));
    assert_eq!(token_of(b"", "x-key"), Err(TokenError::TokenMissing));
    assert_eq!(token_of(b"Bearer x", "authorization"), Ok(&b"x"[..]));
}

#[test]
fn an_authority_is_a_host_and_perhaps_a_port() {
    for (authority, host) in [
        ("h", Some("h")),
        ("h:80", Some("h")),
        ("[::1]", Some("::1")),
        ("[::1]:80", Some("::1")),
        ("", Some("")),
        ("h:x", None),
        ("u@h", None),
        ("a b", None),
        ("[::1", None),
        ("[::1]80", None),
        ("h/x", None),
        ("h\u{e9}", None),
    ] {
        assert_eq!(host_of(authority), host, "{authority:?}");
    }
}

#[test]
fn a_route_closes_once_what_is_known_of_revocations_is_surely_too_old() {
    let key = key();
    let mut policy = policy(&key);
    let token = token(&key, "a", "app-key", "read");
    let header = |name: &str| if name == "x-key" { Field::Once(token.as_bytes()) } else { Field::Absent };
    let parts = Parts { authority: "h", path: "/pets/a", method: "GET", certificate: None, header };
    let list = Revocations::default();
    let judged = |policy: &Policy, as_of, lower| {
        let revoked = TakenBack { list: &list, as_of };
        let mut charges = Charges::default();
        let verdict = admit(policy, revoked, &mut TokenCache::new(0), &parts, TimeBounds::floor(lower), &mut charges).1;
        verdict.map(|_| ()).map_err(|reject| reject == Reject::RevocationsStale)
    };
    // The control: a route that does not ask is open, whatever is known.
    assert_eq!((judged(&policy, None, 1_500), judged(&policy, Some(0), 1_500)), (Ok(()), Ok(())));
    policy.routes[0].revocations_max_age_s = Some(1_000);
    for (as_of, lower, open) in [
        (Some(500), 1_500, true),
        (Some(499), 1_500, false),
        (None, 1_500, false),
        (Some(1_500), 1_500, true),
        // Of a moment that a time reset took back.
        (Some(1_501), 1_500, false),
        (Some(i64::MAX), i64::MIN, false),
        (Some(i64::MIN), 1_500, false),
        (Some(500), -1, false),
    ] {
        assert_eq!(judged(&policy, as_of, lower), if open { Ok(()) } else { Err(true) }, "{as_of:?} at {lower}");
    }
}
