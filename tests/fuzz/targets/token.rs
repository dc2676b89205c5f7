//! A token from its bytes to its verdict at a moment, by issuers of pinned keys.
//!
//! ```text
//! eyJ…                                         a token as it comes: only the golden ones are ever verified
//! flags, lower 8, upper 8, header 00 claims    (flags < 0x20) the harness signs with the key that the flags name: accepted
//!                                              is exactly what is lawful by `rules`
//! ```

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use tidegate::policy::issuer::{Issuer, IssuerTerms, Issuers, PinnedKey, Profile, TypSet};
use tidegate::policy::revocations::{Builder, Kind, Revocations, RevokedId};
use tidegate::token::keys::{self, KeyTerms};
use tidegate::token::{Circumstances, TimeVerdict, TokenCache, TokenError, VerifiedClaims, judge, verify};
use tidegate::units::{TimeBounds, TimeQuality};

use super::rules::Said;

/// What the flags say.
const KEY: u8 = 3;
const PADDED: u8 = 4;
const NO_UPPER: u8 = 8;
const CERTIFIED: u8 = 16;
/// The client certificate that a caller proves.
pub const CERTIFICATE: [u8; 32] = [7; 32];
/// What is revoked: a subject, a token, and what an application's tokens were before a moment.
pub const MALLORY: &str = "mallory";
pub const STOLEN: &str = "stolen";
pub const OLD: (&str, i64) = ("till-0", 1_800_000_000);

/// By which `legacy`'s tokens name its key.
pub const X5T: &str = "NTAx";

/// The private keys: of `site`, of `yard`, of `legacy`, and one that nobody pinned.
static PAIRS: LazyLock<[Ed25519KeyPair; 4]> = LazyLock::new(|| {
    [21_u8, 22, 23, 24].map(|seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed makes a key"))
});

/// The P-256 key of RFC 7515, A.3, which no fuzzer has the private half of here.
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

/// `site`: strict, one key. `yard`: strict, two keys, a longest life, `at+jwt` alone. `legacy`: profile wso2.
static ISSUERS: LazyLock<Issuers> = LazyLock::new(|| {
    let key = |at: usize| {
        pinned(&json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(PAIRS[at].public_key())}))
    };
    let ec = pinned(&json!({"kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y}));
    let terms = |name: &str, keys: Vec<PinnedKey>| IssuerTerms {
        name: name.into(),
        iss: format!("https://{name}.example").into(),
        audiences: ["edge".into(), "pier".into()].into(),
        keys: keys.into(),
        ..IssuerTerms::default()
    };
    let site = terms("site", vec![key(0).named("k1")]);
    let yard = IssuerTerms {
        typ: TypSet { at_jwt: true, jwt: false, absent: false },
        max_lifetime_s: Some(3_600),
        ..terms("yard", vec![key(1).named("k1"), ec.named("k2")])
    };
    let legacy = IssuerTerms { profile: Profile::Wso2, ..terms("legacy", vec![key(2).with_x5t([X5T.into()])]) };
    let sound = |terms| Issuer::new(terms).expect("sound terms");
    Issuers::new([site, yard, legacy].map(sound), 1).expect("sound issuers")
});

static REVOKED: LazyLock<Revocations> = LazyLock::new(|| {
    let mut builder = Builder::default();
    for issuer in ISSUERS.all() {
        builder.list(RevokedId::of(Kind::Sub, issuer.iss(), MALLORY));
        builder.list(RevokedId::of(Kind::Jti, issuer.iss(), STOLEN));
        builder.cut_off(RevokedId::of(Kind::Client, issuer.iss(), OLD.0), OLD.1);
    }
    builder.build()
});

fn pinned(jwk: &serde_json::Value) -> PinnedKey {
    keys::import(jwk.to_string().as_bytes(), KeyTerms::default()).expect("a sound key").remove(0)
}

/// The token of these parts, signed by key `at`.
pub fn sign(at: usize, header: &[u8], claims: &[u8], padded: bool) -> Vec<u8> {
    let encode = |part: &[u8]| if padded { URL_SAFE.encode(part) } else { URL_SAFE_NO_PAD.encode(part) };
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = encode(PAIRS[at].sign(signed.as_bytes()).as_ref());
    format!("{signed}.{signature}").into_bytes()
}

/// Tokens that are good: one of each issuer.
pub static GOLDEN: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let claims = |iss: &str| {
        json!({"iss": iss, "sub": "alice", "aud": "edge", "exp": 1_800_003_600, "iat": 1_800_000_000, "scope": "read"})
            .to_string()
    };
    [
        sign(0, br#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1"}"#, claims("https://site.example").as_bytes(), false),
        sign(1, br#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1"}"#, claims("https://yard.example").as_bytes(), false),
        sign(2, br#"{"alg":"EdDSA","x5t":"NTAx"}"#, claims("https://legacy.example").as_bytes(), true),
    ]
});

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    match bytes {
        [flags @ 0..0x20, rest @ ..] => signed(*flags, rest, verify_pinned),
        _ => as_it_comes(bytes, verify_pinned),
    }
}

/// What is verified here: by the pinned keys.
pub fn verify_pinned(token: &[u8]) -> Result<VerifiedClaims, TokenError> {
    verify(token, &ISSUERS)
}

/// No token is verified but the golden ones, to their last byte.
pub fn as_it_comes(token: &[u8], verify: impl Fn(&[u8]) -> Result<VerifiedClaims, TokenError>) -> bool {
    let verified = verify(token);
    // Profile wso2 lets the signature's padding be or not be; it is no part of what is signed.
    let plain = |token: &[u8]| token.strip_suffix(b"==").unwrap_or(token).to_vec();
    let is_golden =
        GOLDEN.iter().any(|golden| token == golden || golden.ends_with(b"==") && plain(token) == plain(golden));
    assert_eq!(verified.is_ok(), is_golden, "a token that nobody signed: {verified:?}");
    let mut cache = TokenCache::new(1 << 16);
    for _ in 0..2 {
        let cached = cache.verify(token, &ISSUERS);
        assert_eq!(cached.as_deref(), verify_pinned(token).as_ref(), "the cache judges otherwise");
    }
    is_golden
}

/// Header and claims of the second form.
fn parts(rest: &[u8]) -> (&[u8], &[u8]) {
    let rest = rest.get(16..).unwrap_or_default();
    let at = rest.iter().position(|byte| *byte == 0);
    at.map_or((rest, &[]), |at| (&rest[..at], &rest[at + 1..]))
}

/// The token of the second form.
pub fn of(flags: u8, rest: &[u8]) -> Vec<u8> {
    let (header, claims) = parts(rest);
    sign(usize::from(flags & KEY), header, claims, flags & PADDED != 0)
}

/// A token of the fuzzer's words and a real key's signature.
pub fn signed(flags: u8, rest: &[u8], verify: impl Fn(&[u8]) -> Result<VerifiedClaims, TokenError>) -> bool {
    judged(flags, rest, verify, judge)
}

/// The same, and what judges its moment.
pub fn judged(
    flags: u8,
    rest: &[u8],
    verify: impl Fn(&[u8]) -> Result<VerifiedClaims, TokenError>,
    judge: impl Fn(&VerifiedClaims, &Circumstances<'_>) -> Result<TimeVerdict, TokenError>,
) -> bool {
    let (header, claims) = parts(rest);
    let ([lower, upper, ..], _) = rest.as_chunks::<8>() else { return false };
    let (lower, upper) = (i64::from_be_bytes(*lower), i64::from_be_bytes(*upper));
    let key = usize::from(flags & KEY);
    let token = of(flags, rest);
    let (verified, lawful) =
        (verify(&token), Said::lawful((&token, header, claims), (key, flags & PADDED != 0), &ISSUERS));
    let (verified, said) = match (verified, lawful) {
        (Ok(verified), Ok(said)) => (verified, said),
        (Err(_), Err(_)) => return false,
        (Ok(_), Err(why)) => panic!("accepted: {why}"),
        (Err(error), Ok(_)) => panic!("refused, and lawful: {error}"),
    };
    said.is(&verified);

    let bounds = TimeBounds {
        lower,
        upper: (flags & NO_UPPER == 0).then_some(upper.max(lower)),
        quality: if flags & NO_UPPER == 0 { TimeQuality::Synced } else { TimeQuality::Floor },
    };
    let certificate = (flags & CERTIFIED != 0).then_some(&CERTIFICATE);
    let mut in_force = false;
    for audiences in [&[][..], &["pier".into()]] {
        let now = Circumstances { audiences, bounds, revocations: &REVOKED, certificate };
        let (judged, lawful) = (judge(&verified, &now), said.in_force(verified.iat(), &now));
        assert_eq!(judged.ok(), lawful.ok(), "judged {judged:?} where {lawful:?} is the rule");
        in_force |= judged.is_ok();
    }
    in_force
}
