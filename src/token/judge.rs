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
    not_revoked(claims, now.revocations)?;
    // 15. proof of possession
    match (claims.binding, now.certificate) {
        (Binding::None, _) => Ok(verdict),
        (Binding::Certificate(bound), Some(proven)) if bound == *proven => Ok(verdict),
        (Binding::Certificate(_), Some(_)) => Err(TokenError::PopMismatch),
        (Binding::Certificate(_), None) | (Binding::Other, _) => Err(TokenError::PopMissing),
    }
}

/// Step 14, for one list: where several are in force, a token must be in none of them.
pub fn not_revoked(claims: &VerifiedClaims, by: &Revocations) -> Result<(), TokenError> {
    match by.find(&claims.ids, claims.iat) {
        None => Ok(()),
        Some(Revoked::Listed) => Err(TokenError::TokenRevoked),
        Some(Revoked::Before(_)) => Err(TokenError::RevokedBefore),
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

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENTS: [i64; 8] = [0, 59, -1, 1 << 31, 1 << 32, 253_402_300_799, i64::MIN, i64::MAX];

    #[test]
    fn with_an_exact_clock_a_token_is_in_force_from_nbf_less_leeway_until_exp_plus_leeway() {
        for at in [0, 59, -1, 1 << 31, 1 << 32, 253_402_300_799] {
            let judged = |exp, nbf, iat, now| judge_time(Some(exp), Some(nbf), Some(iat), TimeBounds::exact(now));
            assert_eq!(judged(at, at, at, at), Ok(TimeVerdict::Certain), "{at}");
            assert_eq!(judged(at, at, at, at + 59), Ok(TimeVerdict::Certain), "{at}");
            assert_eq!(judged(at, at, at, at + 60), Err(TokenError::TokenExpired), "{at}");
            assert_eq!(judged(at, at, at, at - 60), Ok(TimeVerdict::Certain), "{at}");
            assert_eq!(judged(at, at, at, at - 61), Err(TokenError::TokenNotYetValid), "{at}");
            assert_eq!(judged(at, at - 1000, at, at - 61), Err(TokenError::IssuedInFuture), "{at}");
        }
    }

    #[test]
    fn with_a_floor_only_an_unexpired_token_is_valid_by_floor_however_far_ahead_it_starts() {
        for at in [0, 59, -1, 1 << 31, 1 << 32] {
            let judged = |exp, nbf, iat| judge_time(Some(exp), Some(nbf), Some(iat), TimeBounds::floor(at));
            assert_eq!(judged(at + 1, at, at), Ok(TimeVerdict::ByFloor), "{at}");
            assert_eq!(judged(i64::MAX, i64::MAX, i64::MAX), Ok(TimeVerdict::ByFloor), "{at}");
            assert_eq!(judged(at - 59, at, at), Ok(TimeVerdict::ByFloor), "{at}");
            assert_eq!(judged(at - 60, at, at), Err(TokenError::TokenExpired), "{at}");
        }
    }

    #[test]
    fn between_wide_bounds_only_what_holds_at_both_is_certain() {
        let between = TimeBounds { upper: Some(5000), ..TimeBounds::floor(1000) };
        let judged = |exp, nbf| judge_time(Some(exp), Some(nbf), None, between);
        assert_eq!(judged(4941, 1060), Ok(TimeVerdict::Certain));
        assert_eq!(judged(4940, 1060), Ok(TimeVerdict::ByFloor));
        assert_eq!(judged(4941, 1061), Ok(TimeVerdict::ByFloor));
        assert_eq!(judged(9000, 5060), Ok(TimeVerdict::ByFloor));
        assert_eq!(judged(9000, 5061), Err(TokenError::TokenNotYetValid));
        assert_eq!(judged(940, 0), Err(TokenError::TokenExpired));
    }

    #[test]
    fn nothing_overflows_and_more_knowledge_never_lets_an_expired_token_in() {
        for exp in MOMENTS {
            for start in MOMENTS {
                for lower in MOMENTS {
                    let by_floor = judge_time(Some(exp), Some(start), Some(start), TimeBounds::floor(lower));
                    let exact = judge_time(Some(exp), Some(start), Some(start), TimeBounds::exact(lower));
                    if by_floor == Err(TokenError::TokenExpired) {
                        assert_eq!(exact, by_floor);
                    }
                    if exact.is_ok() {
                        assert_eq!(exact, Ok(TimeVerdict::Certain), "an exact clock leaves no doubt");
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_without_end_is_certain_only_under_a_trusted_clock() {
        assert_eq!(judge_time(None, None, None, TimeBounds::exact(0)), Ok(TimeVerdict::Certain));
        assert_eq!(judge_time(None, None, None, TimeBounds::floor(0)), Ok(TimeVerdict::ByFloor));
    }
}
