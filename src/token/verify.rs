//! A token's bytes to verified claims: steps 1 to 12 of the strict profile (RFC 7515, 8725, 9068).
//!
//! Depends on the token and the pinned keys alone, so that its result can be remembered: no clock, no revocation, no
//! request. Nothing of the claims but `iss`, to find the key, is used before the signature holds. Called by
//! [`super::cache`], the CLI and a bundle's probes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{Binding, TextBuilder, VerifiedClaims};
use super::error::TokenError;
use super::json::{Fault, Limits, Object, Value};
use super::jws::{Compact, Header};
use crate::policy::issuer::{ClaimPath, Issuer, Issuers, PinnedKey, Profile};
use crate::policy::revocations::{Kind, RevokedId, TokenIds};
use crate::units::UnixSeconds;

/// Last second of the year 9999, the greatest time that a claim may say.
pub const MAX_DATE: UnixSeconds = 253_402_300_799;
/// Most values of `aud`.
pub const MAX_AUDIENCES: usize = 64;

const CLAIMS_LIMITS: Limits = Limits { depth: 16, members: 64 };

/// Steps 1 to 12: everything about `token` that only its bytes and the pinned keys decide.
pub fn verify(token: &[u8], issuers: &Issuers) -> Result<VerifiedClaims, TokenError> {
    // 1. length · 2. two dots, base64url
    let jws = Compact::read(token)?;
    // 3. header JSON · 4. forbidden members · 5. typ
    let header = jws.header()?;

    // 6. claims JSON, for syntax only, to read iss; then the key by exact (iss, kid)
    let claims = Object::read(jws.payload(), CLAIMS_LIMITS).map_err(|fault| match fault {
        Fault::Syntax => TokenError::ClaimsJson,
        Fault::TooDeep => TokenError::ClaimsTooDeep,
        Fault::Duplicate => TokenError::ClaimDuplicate,
    })?;
    let iss = text(claims.find("iss"))?.ok_or(TokenError::ClaimMissing)?;
    let (number, issuer) = issuers.find(iss).ok_or(TokenError::IssuerMismatch)?;
    // 2 and 5 again, now that the issuer's profile is known
    if jws.padded() && issuer.profile() != Profile::Wso2 {
        return Err(TokenError::TokenBase64);
    }
    if !header.typ.is_in(issuer.typ()) {
        return Err(TokenError::TypNotAllowed);
    }

    // 7. the signature, by the algorithm that the key names
    let key = signer(&jws, &header, issuer)?;
    let pinned = issuer.keys().get(key).ok_or(TokenError::KidUnknown)?;

    // 8. claim types
    let said = Said::read(&claims, issuer)?;
    // 9. iss equals the key's issuer
    if said.iss != issuer.iss() {
        return Err(TokenError::IssuerMismatch);
    }
    // 10. aud
    if said.audiences.is_empty() {
        return Err(TokenError::ClaimMissing);
    }
    let for_us = |aud: &&str| {
        issuer.audiences().iter().any(|ours| &**ours == *aud)
            || issuer.profile() == Profile::Wso2 && said.client == Some(*aud)
    };
    if !said.audiences.iter().any(for_us) {
        return Err(TokenError::AudienceMismatch);
    }
    // 11. NumericDates in range, exp required
    let exp = said.exp.map(in_range).transpose()?;
    let nbf = said.nbf.map(in_range).transpose()?;
    let iat = match (issuer.profile(), said.iat) {
        (_, None) => None,
        (Profile::Strict, Some(iat)) => Some(in_range(iat)?),
        // iat in milliseconds, and never a reason to refuse
        (Profile::Wso2, Some(iat)) => in_range(iat).or_else(|_| in_range(iat / 1000.0)).ok(),
    };
    if exp.is_none() && issuer.profile() == Profile::Strict {
        return Err(TokenError::ClaimMissing);
    }
    // 12. lifetime
    if let Some(longest) = issuer.max_lifetime_s() {
        let start = iat.max(nbf).ok_or(TokenError::ClaimMissing)?;
        let end = exp.ok_or(TokenError::ClaimMissing)?;
        if end.saturating_sub(start) > i64::from(longest) {
            return Err(TokenError::LifetimeTooLong);
        }
    }
    Ok(said.keep(number, key, pinned, issuer, Dates { exp, nbf, iat }))
}

/// Which of the issuer's keys signed: step 6's choice, and step 7.
fn signer(jws: &Compact<'_>, header: &Header<'_>, issuer: &Issuer) -> Result<usize, TokenError> {
    let keys = issuer.keys();
    let only = |name: &Option<_>| name.is_none() && keys.len() == 1;
    if issuer.profile() == Profile::Wso2 {
        let answers = |key: &PinnedKey, name: &Option<Cow<'_, str>>| {
            let is = |pinned: Option<&str>| pinned.is_some() && pinned == name.as_deref();
            is(key.kid()) || key.x5t().iter().any(|x5t| is(Some(x5t)))
        };
        let named = |key: &PinnedKey| answers(key, &header.kid) || answers(key, &header.x5t);
        let unnamed = |key: &PinnedKey| key.kid().is_none() && key.x5t().is_empty();
        let by_name = keys.iter().any(named);
        let nameless = only(&header.kid) && header.x5t.is_none();
        let may_have_signed = |key: &PinnedKey| if by_name { named(key) } else { unnamed(key) || nameless };
        return first_that_verifies(jws, header, keys, may_have_signed);
    }
    let chosen = |key: &PinnedKey| only(&header.kid) || header.kid.is_some() && key.kid() == header.kid.as_deref();
    first_that_verifies(jws, header, keys, chosen)
}

/// The first of the chosen keys that verifies; of several refusals the one that came furthest.
fn first_that_verifies(
    jws: &Compact<'_>,
    header: &Header<'_>,
    keys: &[PinnedKey],
    chosen: impl Fn(&PinnedKey) -> bool,
) -> Result<usize, TokenError> {
    let mut refusal = TokenError::KidUnknown;
    for (at, key) in keys.iter().enumerate().filter(|(_, key)| chosen(key)) {
        match jws.check(header, key) {
            Ok(()) => return Ok(at),
            Err(error) if refusal != TokenError::SignatureInvalid => refusal = error,
            Err(_) => {}
        }
    }
    Err(refusal)
}

struct Dates {
    exp: Option<UnixSeconds>,
    nbf: Option<UnixSeconds>,
    iat: Option<UnixSeconds>,
}

/// The claims that matter, of the right types. Unknown claims are ignored (RFC 7519, 4).
struct Said<'a> {
    iss: &'a str,
    sub: Option<&'a str>,
    client: Option<&'a str>,
    jti: Option<&'a str>,
    audiences: Vec<&'a str>,
    scopes: Vec<&'a str>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    binding: Binding,
}

impl<'a> Said<'a> {
    fn read(claims: &'a Object<'_>, issuer: &Issuer) -> Result<Self, TokenError> {
        let mut client = None;
        for path in issuer.client() {
            client = at_path(claims, path)?;
            if client.is_some() {
                break;
            }
        }
        let scopes = texts(claims.find(issuer.scope()))?;
        let audiences = texts(claims.find("aud"))?;
        if audiences.len() > MAX_AUDIENCES {
            return Err(TokenError::ClaimsTooDeep);
        }
        Ok(Self {
            iss: text(claims.find("iss"))?.ok_or(TokenError::ClaimMissing)?,
            sub: text(claims.find("sub"))?,
            client,
            jti: text(claims.find("jti"))?,
            audiences,
            scopes,
            exp: number(claims.find("exp"))?,
            nbf: number(claims.find("nbf"))?,
            iat: number(claims.find("iat"))?,
            binding: binding(claims.find("cnf"))?,
        })
    }

    fn keep(&self, number: u16, key: usize, pinned: &PinnedKey, issuer: &Issuer, dates: Dates) -> VerifiedClaims {
        let id = |kind, value: Option<&str>| value.map(|value| RevokedId::of(kind, issuer.iss(), value));
        let ids = TokenIds {
            jti: id(Kind::Jti, self.jti),
            sub: id(Kind::Sub, self.sub),
            client: id(Kind::Client, self.client),
            kid: id(Kind::Kid, pinned.kid()),
        };
        let mut text = TextBuilder::default();
        let sub = self.sub.map(|sub| text.push(sub));
        let client = self.client.map(|client| text.push(client));
        let scopes = text.push_joined(self.scopes.iter().copied());
        let audiences = self.audiences.iter().map(|aud| text.push(aud)).collect();
        VerifiedClaims {
            issuer: number,
            key: u8::try_from(key).expect("an issuer has at most MAX_KEYS keys"),
            text: text.finish(),
            sub,
            client,
            scopes,
            audiences,
            exp: dates.exp,
            nbf: dates.nbf,
            iat: dates.iat,
            ids,
            binding: self.binding,
            iat_is_advisory: issuer.profile() == Profile::Wso2,
        }
    }
}

fn text<'a>(value: Option<&'a Value<'_>>) -> Result<Option<&'a str>, TokenError> {
    match value {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::ClaimType),
    }
}

/// One text or a list of texts.
fn texts<'a>(value: Option<&'a Value<'_>>) -> Result<Vec<&'a str>, TokenError> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Text(text)) => Ok(vec![text]),
        Some(Value::List(list)) => list.iter().map(|one| text(Some(one))?.ok_or(TokenError::ClaimType)).collect(),
        Some(_) => Err(TokenError::ClaimType),
    }
}

/// The text at `path`; absent also where an object of the path says `null`, as WSO2's do.
fn at_path<'a>(claims: &'a Object<'_>, path: &ClaimPath) -> Result<Option<&'a str>, TokenError> {
    match (claims.find(&path.member), &path.inner) {
        (None, _) => Ok(None),
        (value, None) => text(value),
        (Some(Value::Object(object)), Some(inner)) => match object.find(inner) {
            Some(Value::Null) => Ok(None),
            value => text(value),
        },
        _ => Err(TokenError::ClaimType),
    }
}

fn number(value: Option<&Value<'_>>) -> Result<Option<f64>, TokenError> {
    match value {
        None => Ok(None),
        // Exact up to 2^53, far beyond MAX_DATE; what is beyond stays beyond.
        Some(Value::Int(whole)) => Ok(Some(*whole as f64)),
        Some(Value::Float(number)) => Ok(Some(*number)),
        Some(_) => Err(TokenError::ClaimType),
    }
}

/// A NumericDate (RFC 7519, 2) in whole seconds; a fraction is cut off.
fn in_range(date: f64) -> Result<UnixSeconds, TokenError> {
    if (0.0..=MAX_DATE as f64).contains(&date) { Ok(date as UnixSeconds) } else { Err(TokenError::ClaimRange) }
}

fn binding(value: Option<&Value<'_>>) -> Result<Binding, TokenError> {
    match value {
        None => Ok(Binding::None),
        Some(Value::Object(cnf)) => match text(cnf.find("x5t#S256"))? {
            None => Ok(Binding::Other),
            Some(digest) => {
                let digest = URL_SAFE_NO_PAD.decode(digest).map_err(|_| TokenError::ClaimType)?;
                Ok(Binding::Certificate(digest.try_into().map_err(|_| TokenError::ClaimType)?))
            }
        },
        Some(_) => Err(TokenError::ClaimType),
    }
}
