//! A policy of its own for the gateway's tests and bench: one issuer, one API with a few routes, one application.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate::policy::issuer::{Alg, Issuer, IssuerTerms, Issuers, Profile, TypSet};
use tidegate::policy::{
    Api, Auth, Endpoint, Limit, Method, Plan, Policy, Route, Router, Snapshot, Standing, SubscribersBuilder, Uncertain,
    Upstream, Window,
};
use tidegate::token::mint::MintKey;

/// Makes policies and tokens that fit each other.
pub(crate) struct Rig {
    key: MintKey,
}

/// What a test changes of the usual policy.
pub(crate) struct Terms {
    pub(crate) endpoints: Vec<String>,
    pub(crate) strip_base_path: bool,
    pub(crate) forward_token: bool,
    pub(crate) keep_host: bool,
    pub(crate) max_body: u64,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// Requests a minute of the subscription.
    pub(crate) per_minute: u32,
}

impl Terms {
    pub(crate) fn to(upstream: SocketAddr) -> Self {
        Self {
            endpoints: vec![format!("http://{upstream}")],
            strip_base_path: true,
            forward_token: false,
            keep_host: false,
            max_body: 1 << 20,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(5),
            per_minute: 60_000_000,
        }
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self { key: MintKey::generate(Alg::Es256).expect("random bytes").named("k1") }
    }

    /// A token that the petstore takes; `number` makes it another one.
    pub(crate) fn token(&self, number: u32) -> String {
        self.token_with(number, "shop-key", "read:pets write:pets")
    }

    pub(crate) fn token_with(&self, number: u32, client: &str, scope: &str) -> String {
        let claims = serde_json::json!({
            "iss": "https://site.example", "aud": "edge", "sub": format!("user-{number}"), "jti": format!("{number:08x}"),
            "client_id": client, "scope": scope, "iat": 1_700_000_000_i64, "exp": 4_000_000_000_i64,
        });
        self.key.mint(Some("at+jwt"), &claims).expect("the key signs")
    }

    pub(crate) fn snapshot(&self, terms: &Terms) -> Snapshot {
        Snapshot { policy: Some(Arc::new(self.policy(terms))), ..Snapshot::safe_mode() }
    }

    pub(crate) fn policy(&self, terms: &Terms) -> Policy {
        let issuer = Issuer::new(IssuerTerms {
            name: "site".into(),
            iss: "https://site.example".into(),
            profile: Profile::Strict,
            audiences: ["edge".into()].into(),
            typ: TypSet::default(),
            max_lifetime_s: None,
            client: Box::default(),
            scope: Box::default(),
            keys: [self.key.public().clone()].into(),
        });
        let issuers = Issuers::new([issuer.expect("a plain issuer")], 1).expect("one issuer");
        let plan = |name: &str, limits: Vec<Limit>| Plan { name: name.into(), limits: limits.into() };
        let rate = |count, burst| Limit::Rate { count, per: Duration::from_secs(60), burst };
        let plans = vec![
            plan(
                "gold",
                vec![rate(terms.per_minute, terms.per_minute), Limit::Quota { count: 1 << 39, window: Window::Month }],
            ),
            plan("wide", vec![rate(600_000_000, 10_000_000)]),
        ];
        let api = Api {
            name: "petstore".into(),
            version: "1.0".into(),
            base_path: "/petstore/1.0".into(),
            strip_base_path: terms.strip_base_path,
            issuers: [0].into(),
            audiences: Box::default(),
            token_header: "authorization".into(),
            forward_token: terms.forward_token,
            needs_subscription: true,
            plan: Some(1),
            max_body: terms.max_body,
        };
        let route = |template: &str, methods: &[Method], auth, scopes: &[&str], plan| Route {
            api: 0,
            template: template.into(),
            methods: methods.iter().copied().collect(),
            auth,
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            plan,
            upstream: 0,
            uncertain: Uncertain::Allow,
        };
        let routes = vec![
            route("/pet/{petId}", &[Method::Get], Auth::Token, &["read:pets", "admin"], Some(1)),
            route("/pet", &[Method::Post, Method::Put], Auth::Token, &["write:pets"], None),
            route("/open/*", &[Method::Get, Method::Post, Method::Put, Method::Delete], Auth::None, &[], None),
        ];
        let router = routes
            .iter()
            .zip(0..)
            .map(|(route, index)| (&[] as &[Box<str>], &*api.base_path, &*route.template, route.methods, index));
        let router = Router::build(router).expect("no conflict");
        let mut subscribers = SubscribersBuilder::default();
        let shop = subscribers.application("shop", "acme", None);
        subscribers.key("shop-key", shop);
        subscribers.subscription(shop, 0, 0, Standing::Active);
        let blocked = subscribers.application("old-shop", "acme", None);
        subscribers.key("old-key", blocked);
        subscribers.subscription(blocked, 0, 0, Standing::Blocked);
        let upstream = Upstream {
            name: "pets".into(),
            endpoints: terms.endpoints.iter().map(|url| Endpoint::parse(url).expect("a plain URL")).collect(),
            connect_timeout: terms.connect_timeout,
            response_timeout: terms.response_timeout,
            keep_host: terms.keep_host,
            ca: Box::default(),
        };
        Policy {
            apis: [api].into(),
            routes: routes.into(),
            upstreams: [upstream].into(),
            issuers,
            plans: plans.into(),
            subscribers: subscribers.build().expect("nothing twice"),
            revocations: tidegate::policy::revocations::Revocations::default(),
            router,
        }
    }
}
