//! A policy of its own for the gateway's tests and bench: one issuer, one API with a few routes, one application.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate::policy::issuer::{Alg, Issuer, IssuerTerms, Issuers, Profile, TypSet};
use tidegate::policy::revocations::{self, Kind, RevokedId};
use tidegate::policy::{
    Api, Auth, Endpoint, Limit, Method, NameHash, Plan, Policy, Privacy, Route, Router, Snapshot, Standing,
    SubscribersBuilder, Uncertain, Upstream, Window,
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
    /// Requests a month of the subscription.
    pub(crate) per_month: u64,
    pub(crate) token_header: &'static str,
    /// Of the API; none is any.
    pub(crate) hosts: Vec<Box<str>>,
    pub(crate) uncertain: Uncertain,
    /// What records keep of persons.
    pub(crate) privacy: Privacy,
    /// Subjects whose tokens are taken back.
    pub(crate) revoked: Vec<&'static str>,
    /// What an upstream behind TLS is known by.
    pub(crate) ca: Vec<Box<[u8]>>,
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
            per_month: 1 << 39,
            token_header: "authorization",
            hosts: Vec::new(),
            uncertain: Uncertain::Allow,
            privacy: Privacy::default(),
            revoked: Vec::new(),
            ca: Vec::new(),
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
        self.token_claiming(&serde_json::json!({
            "sub": format!("user-{number}"), "jti": format!("{number:08x}"), "client_id": client, "scope": scope,
        }))
    }

    /// A token of a good caller, with these claims in place of the usual ones.
    pub(crate) fn token_claiming(&self, changes: &serde_json::Value) -> String {
        let mut claims = serde_json::json!({
            "iss": "https://site.example", "aud": "edge", "sub": "user-1", "jti": "00000001",
            "client_id": "shop-key", "scope": "read:pets", "iat": 1_700_000_000_i64, "exp": 4_000_000_000_i64,
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
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
        let plan = |name: &str, limits: Vec<Limit>| Plan {
            name: name.into(),
            hash: NameHash::of(&[name]),
            limits: limits.into(),
        };
        let rate = |count, burst| Limit::Rate { count, per: Duration::from_secs(60), burst };
        let plans = vec![
            plan(
                "gold",
                vec![
                    rate(terms.per_minute, terms.per_minute),
                    Limit::Quota { count: terms.per_month, window: Window::Month },
                ],
            ),
            plan("wide", vec![rate(600_000_000, 10_000_000)]),
        ];
        let api = Api {
            name: "petstore".into(),
            version: "1.0".into(),
            hash: NameHash::of(&["petstore", "1.0"]),
            base_path: "/petstore/1.0".into(),
            strip_base_path: terms.strip_base_path,
            issuers: [0].into(),
            audiences: Box::default(),
            token_header: terms.token_header.into(),
            forward_token: terms.forward_token,
            needs_subscription: true,
            plan: Some(1),
            max_body: terms.max_body,
            privacy: terms.privacy,
        };
        let route = |template: &str, methods: &[Method], auth, scopes: &[&str], plan| Route {
            api: 0,
            template: template.into(),
            methods: methods.iter().copied().collect(),
            auth,
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            plan,
            upstream: 0,
            uncertain: terms.uncertain,
            revocations_max_age_s: None,
        };
        let routes = vec![
            route("/pet/{petId}", &[Method::Get], Auth::Token, &["read:pets", "admin"], Some(1)),
            route("/pet", &[Method::Post, Method::Put], Auth::Token, &["write:pets"], None),
            route("/open/*", &[Method::Get, Method::Post, Method::Put, Method::Delete], Auth::None, &[], None),
        ];
        let router = routes
            .iter()
            .zip(0..)
            .map(|(route, index)| (&*terms.hosts, &*api.base_path, &*route.template, route.methods, index));
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
            ca: terms.ca.clone().into(),
        };
        let mut revocations = revocations::Builder::default();
        for subject in &terms.revoked {
            revocations.list(RevokedId::of(Kind::Sub, "https://site.example", subject));
        }
        Policy {
            apis: [api].into(),
            privacy: terms.privacy,
            routes: routes.into(),
            upstreams: [upstream].into(),
            issuers,
            plans: plans.into(),
            subscribers: subscribers.build().expect("nothing twice"),
            revocations: revocations.build(),
            router,
        }
    }
}
