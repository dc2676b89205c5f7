//! One minimal token for each name under which a token is refused, and the token next to it that is let in.

use serde_json::{Value, json};
use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use tidegate::keys::sha256;
use tidegate::policy::issuer::{Alg, Issuer, IssuerTerms, Issuers, PinnedKey, Profile};
use tidegate::policy::revocations::{Builder, Kind, Revocations, RevokedId};
use tidegate::token::keys::{KeyTerms, import};
use tidegate::token::{Circumstances, TimeVerdict, TokenCache, TokenError, judge, verify};
use tidegate::units::TimeBounds;

pub(crate) const NOW: i64 = 1_800_000_000;
const ISS: &str = "https://issuer.example";

thread_local! {
    static PAIR: Ed25519KeyPair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed makes a key");
    static PINNED: RefCell<Option<PinnedKey>> = const { RefCell::new(None) };
}

fn pinned() -> PinnedKey {
    PINNED.with(|slot| {
        let mut slot = slot.borrow_mut();
        slot.get_or_insert_with(|| {
            let x = PAIR.with(|pair| URL_SAFE_NO_PAD.encode(ring::signature::KeyPair::public_key(pair)));
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1"}).to_string();
            import(jwk.as_bytes(), KeyTerms::default()).expect("a sound key").remove(0)
        })
        .clone()
    })
}

pub(crate) fn terms() -> IssuerTerms {
    IssuerTerms {
        name: "site".into(),
        iss: ISS.into(),
        audiences: Box::new(["orders".into()]),
        keys: Box::new([pinned()]),
        ..IssuerTerms::default()
    }
}

pub(crate) fn issuers(terms: IssuerTerms) -> Issuers {
    Issuers::new([Issuer::new(terms).expect("sound terms")], 1).expect("one issuer")
}

pub(crate) fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"})
}

pub(crate) fn claims() -> Value {
    json!({"iss": ISS, "sub": "s", "aud": "orders", "exp": NOW + 600, "iat": NOW, "jti": "j", "azp": "app", "scope": "r w"})
}

fn with(mut object: Value, member: &str, value: Value) -> Value {
    object[member] = value;
    object
}

fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().expect("an object").remove(member);
    object
}

pub(crate) fn sign_text(header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = PAIR.with(|pair| URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())));
    format!("{signed}.{signature}")
}

pub(crate) fn sign(header: &Value, claims: &Value) -> String {
    sign_text(&header.to_string(), &claims.to_string())
}

fn nothing() -> Revocations {
    Revocations::default()
}

fn at<'a>(bounds: TimeBounds, revocations: &'a Revocations) -> Circumstances<'a> {
    Circumstances { audiences: &[], bounds, revocations, certificate: None }
}

/// Verifies under `terms` and judges at [`NOW`].
fn outcome(token: &str, terms: IssuerTerms) -> Result<TimeVerdict, TokenError> {
    let claims = verify(token.as_bytes(), &issuers(terms))?;
    judge(&claims, &at(TimeBounds::exact(NOW), &nothing()))
}

fn refused_for_form(name: TokenError) -> Vec<String> {
    let good = sign(&header(), &claims());
    let (header_part, rest) = good.split_once('.').expect("two dots");
    let nested = |depth: usize| serde_json::from_str::<Value>(&("[".repeat(depth) + &"]".repeat(depth))).expect("JSON");
    let numbered = |count| (0..count).map(|n| format!(",\"c{n}\":0")).collect::<String>();
    let wide = claims().to_string().replace('}', &format!("{}}}", numbered(60)));
    let signed = |claims: Value| vec![sign(&header(), &claims)];
    let headed = |header: Value| sign(&header, &claims());
    match name {
        TokenError::TokenMissing => vec![String::new()],
        TokenError::TokenTooLarge => vec![good.clone() + &"A".repeat(8 * 1024 + 1 - good.len())],
        TokenError::TokenMalformed => {
            vec!["opaque".into(), format!("{header_part}.{header_part}"), good.clone() + ".", "....".into()]
        }
        TokenError::TokenBase64 => vec![
            format!("{header_part}=.{rest}"),
            format!("{header_part}+.{rest}"),
            format!(" {good}"),
            format!("{good} "),
            format!("{good}AAA"),
            // 64 bytes leave four unused bits in the last of 86 digits.
            good[..good.len() - 1].to_owned() + if good.ends_with('B') { "C" } else { "B" },
            format!("é{good}"),
        ],
        TokenError::HeaderJson => vec![
            sign_text("[]", &claims().to_string()),
            sign_text("{\"alg\":\"EdDSA\"}x", &claims().to_string()),
            headed(with(header(), "pad", json!("x".repeat(1024)))),
            headed(with(header(), "deep", nested(4))),
            headed(without(header(), "alg")),
            format!(".{rest}"),
        ],
        TokenError::HeaderDuplicate => {
            vec![sign_text(r#"{"alg":"EdDSA","kid":"k1","\u006bid":"k1","typ":"JWT"}"#, &claims().to_string())]
        }
        TokenError::HeaderForbidden => ["crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c"]
            .map(|member| headed(with(header(), member, json!(false))))
            .into(),
        TokenError::TypNotAllowed => vec![
            headed(with(header(), "typ", json!("id+jwt"))),
            headed(with(header(), "typ", json!(1))),
            headed(without(header(), "typ")),
        ],
        TokenError::AlgorithmNotAllowed => ["none", "None", "HS256", "ES256", "RS256", "eddsa", "Ed25519", ""]
            .map(|alg| headed(with(header(), "alg", json!(alg))))
            .into(),
        TokenError::KidMalformed => [json!(1), json!(""), json!("a\u{0}"), json!("k".repeat(257)), json!(null)]
            .map(|kid| headed(with(header(), "kid", kid)))
            .into(),
        TokenError::KidUnknown => {
            ["k2", "K1", "k1 ", "../k1"].map(|kid| headed(with(header(), "kid", json!(kid)))).into()
        }
        TokenError::SignatureInvalid => {
            let other = sign(&header(), &with(claims(), "sub", json!("root")));
            let signed = other.rsplit_once('.').expect("dots").0;
            vec![
                format!("{signed}.{}", good.rsplit_once('.').expect("dots").1),
                format!("{signed}."),
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
            ]
        }
        TokenError::ClaimsJson => {
            ["", "[]", "foo", "{}{}", "{\"iss\":\"\\ud800\"}"].map(|text| sign_text(&header().to_string(), text)).into()
        }
        TokenError::ClaimsTooDeep => {
            let mut tokens = signed(with(claims(), "deep", nested(16)));
            tokens.push(sign_text(&header().to_string(), &wide));
            tokens.push(sign(&header(), &with(claims(), "aud", json!(vec!["orders"; 65]))));
            tokens
        }
        TokenError::ClaimDuplicate => {
            let twice = claims().to_string().replace('}', r#","\u0065xp":1}"#);
            vec![sign_text(&header().to_string(), &twice)]
        }
        TokenError::ClaimMissing => {
            ["iss", "aud", "exp"].map(|claim| sign(&header(), &without(claims(), claim))).into()
        }
        TokenError::ClaimType => {
            let wrong = [
                ("iss", json!(1)),
                ("iss", json!([ISS])),
                ("sub", json!(1)),
                ("sub", json!(null)),
                ("jti", json!(1)),
                ("aud", json!({"orders": 1})),
                ("aud", json!(["orders", 1])),
                ("exp", json!("1900000000")),
                ("exp", json!(null)),
                ("nbf", json!(true)),
                ("iat", json!([])),
                ("azp", json!(7)),
                ("scope", json!(1)),
                ("cnf", json!("x")),
                ("cnf", json!({"x5t#S256": "AAAA"})),
            ];
            wrong.map(|(claim, value)| sign(&header(), &with(claims(), claim, value))).into()
        }
        TokenError::ClaimRange => {
            let wrong = [
                ("exp", json!(253_402_300_800_i64)),
                ("exp", json!(-1)),
                ("exp", json!(-0.5)),
                ("exp", json!(1e300)),
                ("exp", json!(u64::MAX)),
                ("exp", json!(NOW * 1000)),
                ("nbf", json!(-1)),
                ("iat", json!(NOW * 1000)),
                ("iat", json!(i64::MIN)),
            ];
            wrong.map(|(claim, value)| sign(&header(), &with(claims(), claim, value))).into()
        }
        TokenError::IssuerMismatch => ["https://issuer.example/", "https://ISSUER.example", ""]
            .map(|iss| sign(&header(), &with(claims(), "iss", json!(iss))))
            .into(),
        TokenError::AudienceMismatch => [json!("billing"), json!(["billing", "Orders"]), json!("app"), json!("")]
            .map(|aud| sign(&header(), &with(claims(), "aud", aud)))
            .into(),
        TokenError::TokenExpired => signed(with(claims(), "exp", json!(NOW - 60))),
        TokenError::TokenNotYetValid => signed(with(claims(), "nbf", json!(NOW + 61))),
        TokenError::IssuedInFuture => signed(with(claims(), "iat", json!(NOW + 61))),
        TokenError::PopMissing => {
            let bound = json!({"x5t#S256": URL_SAFE_NO_PAD.encode([1; 32])});
            let mut tokens = signed(with(claims(), "cnf", bound));
            tokens.push(sign(&header(), &with(claims(), "cnf", json!({"jkt": "x"}))));
            tokens
        }
        // What needs more than a token has a test of its own below.
        TokenError::LifetimeTooLong
        | TokenError::TimeUncertain
        | TokenError::TokenRevoked
        | TokenError::RevokedBefore
        | TokenError::PopMismatch => Vec::new(),
    }
}

#[test]
fn the_plain_token_is_let_in_with_everything_it_says() {
    let token = sign(&header(), &claims());
    assert_eq!(outcome(&token, terms()), Ok(TimeVerdict::Certain));
    let claims = verify(token.as_bytes(), &issuers(terms())).expect("good");
    assert_eq!((claims.sub(), claims.client()), (Some("s"), Some("app")));
    assert_eq!(claims.scopes().collect::<Vec<_>>(), ["r", "w"]);
    assert!(claims.has_scopes("w") && !claims.has_scopes("w x") && !claims.has_scopes(""));
    assert_eq!(claims.audiences().collect::<Vec<_>>(), ["orders"]);
    assert_eq!((claims.exp(), claims.nbf(), claims.iat()), (Some(NOW + 600), None, Some(NOW)));
    assert!(!format!("{claims:?}").contains("app"), "Debug tells no claim");
}

#[test]
fn each_minimal_token_is_refused_by_exactly_its_name() {
    let mut tried = 0;
    for name in TokenError::ALL {
        for token in refused_for_form(*name) {
            assert_eq!(outcome(&token, terms()), Err(*name), "{} for {token}", name.name());
            tried += 1;
        }
    }
    println!("{tried} tokens refused, each by its name");
    assert!(tried > 80);
}

#[test]
fn what_is_unusual_but_allowed_is_let_in() {
    let scopes = with(without(claims(), "scope"), "scope", json!(["r", "w"]));
    for (header, claims) in [
        (with(header(), "typ", json!("JWT")), claims()),
        (with(header(), "typ", json!("application/AT+JWT")), claims()),
        (without(header(), "kid"), claims()),
        (with(header(), "x5t", json!(7)), claims()),
        (with(header(), "unknown", json!([[{}]])), claims()),
        (header(), with(claims(), "aud", json!(["billing", "orders"]))),
        (header(), with(claims(), "exp", json!(NOW as f64 + 0.5))),
        (header(), with(claims(), "exp", json!(253_402_300_799_i64))),
        (header(), with(claims(), "exp", json!(NOW - 59))),
        (header(), with(claims(), "nbf", json!(NOW + 60))),
        (header(), without(claims(), "sub")),
        (header(), without(claims(), "azp")),
        (header(), with(without(claims(), "azp"), "client_id", json!("app"))),
        (header(), scopes),
    ] {
        assert_eq!(outcome(&sign(&header, &claims), terms()), Ok(TimeVerdict::Certain), "{header} {claims}");
    }
}

#[test]
fn a_token_that_lives_longer_than_the_issuer_may_give_is_refused() {
    let limited = || IssuerTerms { max_lifetime_s: Some(600), ..terms() };
    assert_eq!(outcome(&sign(&header(), &claims()), limited()), Ok(TimeVerdict::Certain));
    let longer = with(claims(), "exp", json!(NOW + 601));
    assert_eq!(outcome(&sign(&header(), &longer), limited()), Err(TokenError::LifetimeTooLong));
    let later = with(longer, "nbf", json!(NOW + 1));
    assert_eq!(
        outcome(&sign(&header(), &later), limited()),
        Ok(TimeVerdict::Certain),
        "the later of iat and nbf counts"
    );
    let timeless = without(claims(), "iat");
    assert_eq!(outcome(&sign(&header(), &timeless), limited()), Err(TokenError::ClaimMissing));
}

#[test]
fn a_route_that_demands_certain_time_refuses_what_is_valid_by_floor_only() {
    let claims = verify(sign(&header(), &claims()).as_bytes(), &issuers(terms())).expect("good");
    let floor = judge(&claims, &at(TimeBounds::floor(0), &nothing())).expect("a clock in 1970 lets it in");
    assert_eq!(floor, TimeVerdict::ByFloor);
    assert_eq!(floor.demand_certain(), Err(TokenError::TimeUncertain));
    let certain = judge(&claims, &at(TimeBounds::exact(NOW), &nothing())).expect("good");
    assert_eq!(certain.demand_certain(), Ok(()));
}

#[test]
fn revocation_is_judged_on_every_request_by_id_and_by_cut_off() {
    let claims = verify(sign(&header(), &claims()).as_bytes(), &issuers(terms())).expect("good");
    let judged = |builder: &mut Builder| {
        let revocations = std::mem::take(builder).build();
        judge(&claims, &at(TimeBounds::exact(NOW), &revocations))
    };
    let mut builder = Builder::default();
    for (kind, value) in [(Kind::Jti, "j"), (Kind::Sub, "s"), (Kind::Client, "app")] {
        builder.list(RevokedId::of(kind, ISS, value));
        assert_eq!(judged(&mut builder), Err(TokenError::TokenRevoked));
        builder.list(RevokedId::of(kind, "https://other.example", value));
        assert_eq!(judged(&mut builder), Ok(TimeVerdict::Certain), "another issuer's");
    }
    for (kind, value) in [(Kind::Sub, "s"), (Kind::Client, "app"), (Kind::Kid, "k1")] {
        builder.cut_off(RevokedId::of(kind, ISS, value), NOW + 1);
        assert_eq!(judged(&mut builder), Err(TokenError::RevokedBefore));
        builder.cut_off(RevokedId::of(kind, ISS, value), NOW);
        assert_eq!(judged(&mut builder), Ok(TimeVerdict::Certain), "issued at the cut-off");
    }
}

#[test]
fn a_bound_token_needs_its_own_certificate() {
    let bound = with(claims(), "cnf", json!({"x5t#S256": URL_SAFE_NO_PAD.encode(sha256(b"cert").0)}));
    let claims = verify(sign(&header(), &bound).as_bytes(), &issuers(terms())).expect("good");
    let none = nothing();
    let judged = |certificate: Option<&[u8; 32]>| {
        judge(&claims, &Circumstances { certificate, ..at(TimeBounds::exact(NOW), &none) })
    };
    assert_eq!(judged(Some(&sha256(b"cert").0)), Ok(TimeVerdict::Certain));
    assert_eq!(judged(Some(&sha256(b"other").0)), Err(TokenError::PopMismatch));
    assert_eq!(judged(None), Err(TokenError::PopMissing));
}

#[test]
fn an_api_may_ask_for_an_audience_of_its_own() {
    let both = with(claims(), "aud", json!(["orders", "line-3"]));
    let claims = verify(sign(&header(), &both).as_bytes(), &issuers(terms())).expect("good");
    let none = nothing();
    let judged = |audience: &str| {
        judge(&claims, &Circumstances { audiences: &[audience.into()], ..at(TimeBounds::exact(NOW), &none) })
    };
    assert_eq!(judged("line-3"), Ok(TimeVerdict::Certain));
    assert_eq!(judged("line-4"), Err(TokenError::AudienceMismatch));
}

#[test]
fn a_token_cannot_be_moved_to_another_issuer_or_another_issuers_key() {
    let other_pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, other_pair.as_ref(), &SystemRandom::new());
    let pair = pair.unwrap();
    let point = ring::signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k1", "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
        "y": URL_SAFE_NO_PAD.encode(&point[33..])});
    let key = import(jwk.to_string().as_bytes(), KeyTerms::default()).expect("a sound key").remove(0);
    assert_eq!(key.alg(), Alg::Es256);
    let other =
        IssuerTerms { name: "other".into(), iss: "https://other.example".into(), keys: Box::new([key]), ..terms() };
    let both = [Issuer::new(terms()).unwrap(), Issuer::new(other).unwrap()];
    let issuers = Issuers::new(both, 1).expect("two issuers");
    // The site's key signs in the other issuer's name, under a kid that both have.
    let stolen = sign(&header(), &with(claims(), "iss", json!("https://other.example")));
    assert_eq!(verify(stolen.as_bytes(), &issuers), Err(TokenError::AlgorithmNotAllowed));
    let named = with(header(), "alg", json!("ES256"));
    let stolen = sign(&named, &with(claims(), "iss", json!("https://other.example")));
    assert_eq!(verify(stolen.as_bytes(), &issuers), Err(TokenError::SignatureInvalid));
}

#[test]
fn a_cached_token_is_the_same_claims_until_the_keys_change() {
    let mut cache = TokenCache::new(64 * 1024);
    let token = sign(&header(), &claims());
    let first = cache.verify(token.as_bytes(), &issuers(terms())).expect("good");
    let again = cache.verify(token.as_bytes(), &issuers(terms())).expect("good");
    assert!(std::sync::Arc::ptr_eq(&first, &again), "a hit makes nothing new");
    assert_eq!(cache.len(), 1);
    // The negative control: one changed byte is another token, and a removed key takes its cached tokens along.
    let mut flipped = token.clone().into_bytes();
    flipped[60] ^= 1;
    assert!(cache.verify(&flipped, &issuers(terms())).is_err());
    let renamed = IssuerTerms { keys: Box::new([pinned().named("k2")]), ..terms() };
    let next = Issuers::new([Issuer::new(renamed).unwrap()], 2).unwrap();
    assert_eq!(cache.verify(token.as_bytes(), &next), Err(TokenError::KidUnknown));
    assert!(cache.is_empty());
}

#[test]
fn the_cache_stays_within_its_bytes() {
    let mut cache = TokenCache::new(16 * 1024);
    let issuers = issuers(terms());
    for number in 0..200 {
        let token = sign(&header(), &with(claims(), "jti", json!(number.to_string())));
        cache.verify(token.as_bytes(), &issuers).expect("good");
        assert!(cache.weight() <= 16 * 1024);
    }
    assert!(cache.len() > 10, "{cache:?}");
    let mut none = TokenCache::new(0);
    none.verify(sign(&header(), &claims()).as_bytes(), &issuers).expect("good");
    assert!(none.is_empty());
}

#[test]
fn profile_wso2_relaxes_nothing_for_a_token_in_strict_form() {
    let wso2 = || IssuerTerms { profile: Profile::Wso2, ..terms() };
    assert_eq!(outcome(&sign(&header(), &claims()), wso2()), Ok(TimeVerdict::Certain));
    // By index in `refused_for_form`: what the profile is for, and nothing beside it.
    let certain = Ok(TimeVerdict::Certain);
    for name in TokenError::ALL {
        for (at, token) in refused_for_form(*name).into_iter().enumerate() {
            let expected = match (name, at) {
                // Canonical padding; here the token is damaged by it.
                (TokenError::TokenBase64, 0) => Err(TokenError::SignatureInvalid),
                (TokenError::TypNotAllowed, 2) => certain,    // no typ
                (TokenError::ClaimMissing, 2) => certain,     // no exp
                (TokenError::IssuedInFuture, _) => certain,   // an iat of any value
                (TokenError::ClaimRange, 7..=8) => certain,   // likewise
                (TokenError::AudienceMismatch, 2) => certain, // the consumer key
                _ => Err(*name),
            };
            assert_eq!(outcome(&token, wso2()), expected, "{} {at}: {token}", name.name());
        }
    }
}
