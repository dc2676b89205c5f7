//! Where tokens come from on a site without a network for months: the three patterns of docs/time.md, at clocks that are
//! months behind and ahead of the desk's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidegate::policy::issuer::{Alg, Issuer, IssuerTerms, Issuers};
use tidegate::policy::revocations::{Builder, Kind, Revocations, RevokedId};
use tidegate::token::mint::MintKey;
use tidegate::token::{Circumstances, TimeVerdict, TokenError, judge, verify};
use tidegate::units::TimeBounds;

const DAY: i64 = 86_400;
/// When tokens are minted.
const NOW: i64 = 1_800_000_000;
const SITE: &str = "https://site.example";
const TILL: [u8; 32] = [7; 32];

struct Desk {
    key: MintKey,
    issuers: Issuers,
}

impl Desk {
    fn new(terms: IssuerTerms) -> Self {
        let key = MintKey::generate(Alg::EdDsa).expect("random bytes").named("k");
        let terms = IssuerTerms {
            name: "site".into(),
            iss: SITE.into(),
            audiences: ["quay".into()].into(),
            keys: [key.public().clone()].into(),
            ..terms
        };
        let issuers = Issuers::new([Issuer::new(terms).expect("sound terms")], 1).expect("one issuer");
        Self { key, issuers }
    }

    fn token(&self, days: i64, more: &[(&str, Value)]) -> String {
        let mut claims =
            json!({"iss": SITE, "aud": "quay", "sub": "ada", "iat": NOW, "exp": NOW + days * DAY, "jti": "j"});
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.key.mint(Some("at+jwt"), &claims).expect("the key signs")
    }

    fn judged(&self, token: &str, bounds: TimeBounds, by: &Revocations, proven: Option<&[u8; 32]>) -> Verdict {
        let now = Circumstances { audiences: &[], bounds, revocations: by, certificate: proven };
        verify(token.as_bytes(), &self.issuers).and_then(|claims| judge(&claims, &now))
    }
}

type Verdict = Result<TimeVerdict, TokenError>;

fn nothing() -> Revocations {
    Revocations::default()
}

#[test]
fn a_site_issuer_with_a_narrow_audience_works_at_any_clock_behind_and_reaches_no_further() {
    let desk = Desk::new(IssuerTerms { max_lifetime_s: Some(12 * 3_600), ..IssuerTerms::default() });
    let hours = |more: &[(&str, Value)]| desk.token(0, &[&[("exp", json!(NOW + 8 * 3_600))], more].concat());
    let token = hours(&[]);
    // The device is a year behind the site's issuer, or knows nothing: nbf and iat of the future are no reason to refuse.
    for floor in [NOW - 365 * DAY, NOW - DAY, NOW, 0, -1] {
        assert_eq!(
            desk.judged(&token, TimeBounds::floor(floor), &nothing(), None),
            Ok(TimeVerdict::ByFloor),
            "{floor}"
        );
    }
    // It is ahead: the day's token ended, and the site's issuer mints the next one by the same clock.
    let ahead = TimeBounds::floor(NOW + 90 * DAY);
    assert_eq!(desk.judged(&token, ahead, &nothing(), None), Err(TokenError::TokenExpired));
    let next = hours(&[("iat", json!(NOW + 90 * DAY)), ("exp", json!(NOW + 90 * DAY + 8 * 3_600))]);
    assert_eq!(desk.judged(&next, ahead, &nothing(), None), Ok(TimeVerdict::ByFloor));
    // A stolen issuer reaches this site's API for hours at a time, and no other.
    let elsewhere = hours(&[("aud", json!("head-office"))]);
    assert_eq!(desk.judged(&elsewhere, TimeBounds::exact(NOW), &nothing(), None), Err(TokenError::AudienceMismatch));
    let long = desk.token(30, &[]);
    assert_eq!(desk.judged(&long, TimeBounds::exact(NOW), &nothing(), None), Err(TokenError::LifetimeTooLong));
}

#[test]
fn a_long_lived_token_that_is_bound_to_its_sender_is_worth_nothing_to_a_thief_and_ends_with_a_cut_off() {
    let desk = Desk::new(IssuerTerms::default());
    let bound = [("cnf", json!({"x5t#S256": URL_SAFE_NO_PAD.encode(TILL)}))];
    let token = desk.token(365, &bound);
    for bounds in [TimeBounds::floor(NOW - 300 * DAY), TimeBounds::floor(NOW + 300 * DAY), TimeBounds::exact(NOW + DAY)]
    {
        assert!(desk.judged(&token, bounds, &nothing(), Some(&TILL)).is_ok(), "{bounds:?}");
        assert_eq!(desk.judged(&token, bounds, &nothing(), Some(&[8; 32])), Err(TokenError::PopMismatch));
        assert_eq!(desk.judged(&token, bounds, &nothing(), None), Err(TokenError::PopMissing));
        // The cut-off compares the signed iat: the device's clock has no say in it.
        let mut builder = Builder::default();
        builder.cut_off(RevokedId::of(Kind::Sub, SITE, "ada"), NOW + 1);
        let cut = builder.build();
        assert_eq!(desk.judged(&token, bounds, &cut, Some(&TILL)), Err(TokenError::RevokedBefore));
        let renewed = desk.token(365, &[&bound[..], &[("iat", json!(NOW + 1))]].concat());
        assert!(desk.judged(&renewed, bounds, &cut, Some(&TILL)).is_ok(), "{bounds:?}");
    }
    let over = TimeBounds::floor(NOW + 366 * DAY);
    assert_eq!(desk.judged(&token, over, &nothing(), Some(&TILL)), Err(TokenError::TokenExpired));
}

#[test]
fn tokens_of_a_batch_that_begin_one_after_the_other_hold_at_a_floor_and_none_outlives_it() {
    let desk = Desk::new(IssuerTerms::default());
    // Six months, a token a month, each with a week to spare.
    let batch: Vec<_> = (0..6)
        .map(|month| {
            let start = NOW + month * 30 * DAY;
            desk.token(0, &[("nbf", json!(start)), ("exp", json!(start + 37 * DAY)), ("jti", json!(month.to_string()))])
        })
        .collect();
    let alive = |bounds| batch.iter().filter(|token| desk.judged(token, bounds, &nothing(), None).is_ok()).count();
    // A trusted clock takes the month's one; a floor takes what has not ended, for the month may have begun.
    assert_eq!((alive(TimeBounds::exact(NOW + 10 * DAY)), alive(TimeBounds::exact(NOW + 32 * DAY))), (1, 2));
    assert_eq!((alive(TimeBounds::floor(NOW - 90 * DAY)), alive(TimeBounds::floor(NOW + 100 * DAY))), (6, 3));
    assert_eq!(alive(TimeBounds::floor(NOW + 200 * DAY)), 0);
}
