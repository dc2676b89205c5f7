//! Whether verified claims are in force for this request, now: the rest of step 10, and steps 13 to 15.
//!
//! Done on every request, cached token or not; allocates nothing. Called by admission.

use super::claims::{Binding, VerifiedClaims};
use super::error::TokenError;
use crate::policy::revocations::{Revocations, Revoked};
use crate::units::{TimeBounds, UnixSeconds};

/// How far clocks may differ, in seconds.
pub const LEEWAY_S: i64 = 60;

/// What the verdict depends on beside the token.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// `aud` values of which the API asks for one; empty where it asks for none beyond the issuer's.
    pub audiences: &'a [Box<str>],
    /// What is known of now.
    pub bounds: TimeBounds,
    /// What the policy has taken back.
    pub revocations: &'a Revocations,
    /// SHA-256 of the client certificate that the caller proved by mTLS.
    pub certificate: Option<&'a [u8; 32]>,
}

/// How sure it is that a token is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum TimeVerdict {
    /// In force at every moment that it can be now.
    Certain,
    /// Not expired at the earliest moment that it can be now, and more is not known: valid by floor.
    ByFloor,
}

impl TimeVerdict {
    /// For routes that say `deny`: refuses what is valid by floor only.
    pub fn demand_certain(self) -> Result<(), TokenError> {
        match self {
            Self::Certain => Ok(()),
            Self::ByFloor => Err(TokenError::TimeUncertain),
        }
    }
}

/// Judges `claims` under `now`'s circumstances.
pub fn judge(claims: &VerifiedClaims, now: &Circumstances<'_>) -> Result<TimeVerdict, TokenError> {
    // 10. aud, as this API asks for it
    let asked = |aud: &str| now.audiences.iter().any(|audience| &**audience == aud);
    if !now.audiences.is_empty() && !claims.audiences().any(asked) {
        return Err(TokenError::AudienceMismatch);
    }
    // 13. time
    let iat = if claims.iat_is_advisory { None } else { claims.iat };
    let verdict = judge_time(claims.exp, claims.nbf, iat, now.bounds)?;
    // 14. revocation
    match now.revocations.find(&claims.ids, claims.iat) {
        None => {}
        Some(Revoked::Listed) => return Err(TokenError::TokenRevoked),
        Some(Revoked::Before(_)) => return Err(TokenError::RevokedBefore),
    }
    // 15. proof of possession
    match (claims.binding, now.certificate) {
        (Binding::None, _) => Ok(verdict),
        (Binding::Certificate(bound), Some(proven)) if bound == *proven => Ok(verdict),
        (Binding::Certificate(_), Some(_)) => Err(TokenError::PopMismatch),
        (Binding::Certificate(_), None) | (Binding::Other, _) => Err(TokenError::PopMissing),
    }
}

/// The time verdict: lb and ub bound now, L is the leeway.
///
/// ```text
/// exp + L ≤ lb                        TokenExpired
/// nbf − L > ub                        TokenNotYetValid
/// iat − L > ub                        IssuedInFuture
/// exp + L > ub  and  nbf − L ≤ lb     Certain
/// otherwise, or no ub                 ByFloor: with no ub the clock is behind, and a future nbf or iat says nothing
/// ```
///
/// An absent `exp` never comes, an absent `nbf` or `iat` is long past. Saturating.
fn judge_time(
    exp: Option<UnixSeconds>,
    nbf: Option<UnixSeconds>,
    iat: Option<UnixSeconds>,
    bounds: TimeBounds,
) -> Result<TimeVerdict, TokenError> {
    let end = exp.unwrap_or(i64::MAX).saturating_add(LEEWAY_S);
    let start = nbf.unwrap_or(i64::MIN).saturating_sub(LEEWAY_S);
    let issued = iat.unwrap_or(i64::MIN).saturating_sub(LEEWAY_S);
    if end <= bounds.lower {
        return Err(TokenError::TokenExpired);
    }
    let Some(upper) = bounds.upper else { return Ok(TimeVerdict::ByFloor) };
    if start > upper {
        return Err(TokenError::TokenNotYetValid);
    }
    if issued > upper {
        return Err(TokenError::IssuedInFuture);
    }
    if end > upper && start <= bounds.lower { Ok(TimeVerdict::Certain) } else { Ok(TimeVerdict::ByFloor) }
}
