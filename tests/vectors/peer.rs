//! A peer's real tokens (WSO2), under its own profile and under the strict one.

use std::fs;

use tidegate::policy::issuer::{Issuer, IssuerTerms, Issuers, PinnedKey, Profile};
use tidegate::policy::revocations::Revocations;
use tidegate::token::keys::{KeyError, KeyTerms, import};
use tidegate::token::{Circumstances, TimeVerdict, TokenError, VerifiedClaims, judge, verify};
use tidegate::units::TimeBounds;

use crate::shared;

const LOCAL: &str = "https://localhost:9443/oauth2/token";
const GATEWAY: &str = "http://org.wso2.apimgt/gateway";
const DEMO: KeyTerms = KeyTerms { alg: None, allow_demo_keys: true };
const IN_2026: i64 = 1_780_000_000;

fn token(name: &str) -> Option<Vec<u8>> {
    let path = shared("peer/wso2/tokens")?.join(format!("{name}.jwt"));
    Some(fs::read(path).expect("the token is there").trim_ascii_end().to_vec())
}

fn certificate(name: &str) -> Option<Vec<u8>> {
    Some(fs::read(shared("peer/wso2/certs")?.join(format!("{name}.pem"))).expect("the certificate is there"))
}

fn keys(certificates: &[&str]) -> Option<Vec<PinnedKey>> {
    certificates.iter().map(|name| Some(import(&certificate(name)?, DEMO).expect("a sound key").remove(0))).collect()
}

fn issuers(iss: &str, profile: Profile, keys: Vec<PinnedKey>) -> Issuers {
    let keys = match profile {
        Profile::Wso2 => keys,
        // With strict each key must have a name; a token without that name is refused all the same.
        Profile::Strict => keys.into_iter().enumerate().map(|(n, key)| key.named(format!("key-{n}"))).collect(),
    };
    let terms = IssuerTerms {
        name: "wso2".into(),
        iss: iss.into(),
        profile,
        audiences: Box::new([GATEWAY.into()]),
        keys: keys.into(),
        ..IssuerTerms::default()
    };
    Issuers::new([Issuer::new(terms).expect("sound terms")], 1).expect("one issuer")
}

fn at(claims: &VerifiedClaims, bounds: TimeBounds) -> Result<TimeVerdict, TokenError> {
    judge(claims, &Circumstances { audiences: &[], bounds, revocations: &Revocations::default(), certificate: None })
}

#[test]
fn real_tokens_are_let_in_under_their_profile_in_their_time() {
    let cases = [
        // Clean enough for the strict profile, which ignores its x5t.
        (
            "apim31-selfcontained-valid2088-pizzashack-subscribed",
            LOCAL,
            "c6936d574026",
            "axWniVGejPhTBTdv8Sbv5crgQhMa",
            None,
        ),
        (
            "apim26-selfcontained-valid2087-iat-milliseconds-nosubs",
            LOCAL,
            "50f0eda5898a",
            "X9Lbunoh83Kp8KPP1lS_qqyBtcca",
            Some(TokenError::TokenBase64),
        ),
        (
            "apim40-jwt-valid2052-scopes-pets",
            LOCAL,
            "3612ad8f01b4",
            "AAccQp3UkbHfsYgKjy6dB5jJnf4a",
            Some(TokenError::TypNotAllowed),
        ),
        (
            "mg3-apikey-noexp-aud-allowedapis-3",
            "https://localhost:9095/apikey",
            "529c2433bf19",
            "",
            Some(TokenError::TokenBase64),
        ),
    ];
    for (name, iss, key, client, strict) in cases {
        let (Some(token), Some(keys)) = (token(name), keys(&[key])) else { return };
        let claims = verify(&token, &issuers(iss, Profile::Wso2, keys.clone()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(claims.client().unwrap_or_default(), client, "{name}");
        assert_eq!(at(&claims, TimeBounds::exact(IN_2026)), Ok(TimeVerdict::Certain), "{name}");
        assert_eq!(at(&claims, TimeBounds::floor(0)), Ok(TimeVerdict::ByFloor), "{name}");
        if let Some(exp) = claims.exp() {
            assert_eq!(at(&claims, TimeBounds::exact(exp + 60)), Err(TokenError::TokenExpired), "{name}");
        }
        // The negative control: the same token as a strict issuer's, and with one bit of it changed.
        assert_eq!(verify(&token, &issuers(iss, Profile::Strict, keys.clone())).err(), strict, "{name}");
        let mut flipped = token.clone();
        flipped[200] ^= 1;
        assert!(verify(&flipped, &issuers(iss, Profile::Wso2, keys)).is_err(), "{name}");
    }
    let Some(token) = token("apim40-jwt-valid2052-scopes-pets") else { return };
    let issuers = issuers(LOCAL, Profile::Wso2, keys(&["3612ad8f01b4"]).expect("present"));
    let claims = verify(&token, &issuers).expect("good");
    assert!(claims.has_scopes("read:pets write:pets"));
}

#[test]
fn milliseconds_of_iat_are_read_as_seconds() {
    let (Some(token), Some(keys)) =
        (token("apim26-selfcontained-valid2087-iat-milliseconds-nosubs"), keys(&["50f0eda5898a"]))
    else {
        return;
    };
    let claims = verify(&token, &issuers(LOCAL, Profile::Wso2, keys)).expect("good");
    assert_eq!(claims.iat(), Some(1_555_908_706));
}

#[test]
fn an_expired_real_token_verifies_and_is_then_refused_for_its_time() {
    for name in ["apim32-jwt-expired-2020-07", "cc-expired-jwt-token"] {
        let (Some(token), Some(keys)) = (token(name), keys(&["c6936d574026"])) else { return };
        let claims = verify(&token, &issuers(LOCAL, Profile::Wso2, keys)).expect("its signature is good");
        assert_eq!(at(&claims, TimeBounds::exact(IN_2026)), Err(TokenError::TokenExpired), "{name}");
        assert_eq!(at(&claims, TimeBounds::floor(IN_2026)), Err(TokenError::TokenExpired), "{name}");
        let exp = claims.exp().expect("it says one");
        assert_eq!(at(&claims, TimeBounds::exact(exp - 600)), Ok(TimeVerdict::Certain), "{name}");
    }
}

#[test]
fn a_real_token_is_found_by_trying_the_few_keys_and_by_its_x5t() {
    let name = "apim31-selfcontained-valid2088-pizzashack-subscribed";
    let all = ["529c2433bf19", "50f0eda5898a", "1b2429b16ef5", "3612ad8f01b4"];
    let (Some(token), Some(keys)) = (token(name), keys(&all)) else { return };
    let claims = verify(&token, &issuers(LOCAL, Profile::Wso2, keys.clone())).expect("the fourth key fits");
    assert_eq!(claims.key(), 3);
    let x5t = "NTdmZjM4ZDk3NjY0Yzc5MmZmODgwMTE3MWYwNDE5MWRlZDg4Nzc4ZA==";
    let named = |right: usize| {
        let keys = keys.iter().cloned().enumerate();
        keys.map(|(n, key)| if n == right { key.with_x5t([x5t.into()]) } else { key }).collect()
    };
    assert!(verify(&token, &issuers(LOCAL, Profile::Wso2, named(3))).is_ok());
    // Where a key answers to the name, no other is tried.
    assert_eq!(verify(&token, &issuers(LOCAL, Profile::Wso2, named(0))), Err(TokenError::SignatureInvalid));
    let without: Vec<_> = keys.iter().take(3).cloned().collect();
    assert_eq!(verify(&token, &issuers(LOCAL, Profile::Wso2, without)), Err(TokenError::SignatureInvalid));
}

#[test]
fn what_no_profile_allows_is_refused_in_real_tokens_too() {
    let (Some(hs256), Some(no_aud), Some(keys)) =
        (token("mg3-grpc-hs256-jwtio"), token("cc-mutual-ssl-api-key"), keys(&["1b2429b16ef5"]))
    else {
        return;
    };
    for profile in [Profile::Wso2, Profile::Strict] {
        let issuers = issuers(LOCAL, profile, keys.clone());
        assert_eq!(verify(&hs256, &issuers), Err(TokenError::AlgorithmNotAllowed));
    }
    // Its signature is good, and it has no aud, which the profile does not allow.
    let issuers = issuers("https://apim:9444/oauth2/token", Profile::Wso2, keys);
    assert_eq!(verify(&no_aud, &issuers), Err(TokenError::ClaimMissing));
}

#[test]
fn published_demo_keys_and_short_keys_are_refused_unless_the_policy_allows_the_former() {
    for name in ["529c2433bf19", "50f0eda5898a", "3612ad8f01b4", "c6936d574026"] {
        let Some(file) = certificate(name) else { return };
        assert_eq!(import(&file, KeyTerms::default()).err(), Some(KeyError::DemoKey), "{name}");
        assert!(import(&file, DEMO).is_ok(), "{name}");
    }
    let (Some(short), Some(own)) = (certificate("1d729fb8c468"), certificate("1b2429b16ef5")) else { return };
    assert_eq!(import(&short, DEMO).map_err(|error| error.name()).err(), Some("WeakKey"));
    assert!(import(&own, KeyTerms::default()).is_ok());
    // Two certificates, one key: what is pinned is the key.
    let keys = keys(&["3612ad8f01b4", "c6936d574026"]).expect("present");
    assert_eq!(keys[0].digest(), keys[1].digest());
}
