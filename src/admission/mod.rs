//! One request's whole verdict: route, token, scopes, subscription, and which limits apply.
//!
//! Pure: the request's head, the policy and the bounds of now in, a verdict out. It must never read a clock, wait, or
//! let a request through whose rules it could not read to the end. Invariant: an `Ok` names a route, and on a route
//! that wants a token, the claims that passed.
//!
//! The gateway calls [`admit`] for every request; a bundle's probes and `tidegate explain` call the same function.

mod limits;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::policy::revocations::Revocations;
use crate::policy::{
    ApiIndex, ApplicationIndex, Auth, BadPath, Method, Miss, NameHash, PlanIndex, Policy, Route, RouteIndex, Standing,
    Uncertain, check_path, without_parameters,
};
use crate::token::{Binding, Circumstances, TimeVerdict, TokenCache, TokenError, VerifiedClaims, judge, not_revoked};
use crate::units::{TimeBounds, UnixSeconds};

pub use limits::{Charges, Level};

/// What is read of a request's head.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'r, F> {
    /// The authority that the request is for: `host[:port]`, from its target, else from `Host`; empty if neither.
    pub authority: &'r str,
    /// The path as it stands on the wire, without the query.
    pub path: &'r str,
    /// The method's name.
    pub method: &'r str,
    /// SHA-256 of the client certificate whose key the caller has proven to hold.
    pub certificate: Option<&'r [u8; 32]>,
    /// Looks up a header field by its lower-case name.
    pub header: F,
}

/// A header field of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'r> {
    /// It is not there.
    Absent,
    /// It is there once.
    Once(&'r [u8]),
    /// It is there more than once.
    Repeated,
}

/// What is taken back beside the policy's own list, and the moment as of which it is known what is revoked.
#[derive(Debug, Clone, Copy)]
pub struct TakenBack<'a> {
    /// The list of a revocation bundle.
    pub list: &'a Revocations,
    /// `None` is not known, which is too old for a route that asks.
    pub as_of: Option<UnixSeconds>,
}

/// What is known of a request, however far it came; the usage record tells it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The API that it is for.
    pub api: Option<ApiIndex>,
    /// The route that it matched.
    pub route: Option<RouteIndex>,
    /// The claims of its token, once verified.
    pub claims: Option<Arc<VerifiedClaims>>,
    /// The application that sent it.
    pub application: Option<ApplicationIndex>,
    /// The plan of the application's subscription.
    pub plan: Option<PlanIndex>,
}

/// Why a request goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject<'p> {
    /// The path could mean another one to the upstream: the caller must send it in its plain form.
    #[error(transparent)]
    BadPath(#[from] BadPath),
    /// The authority is not a host with an optional port.
    #[error("the request does not say for which host it is")]
    BadAuthority,
    /// No route matches: publish the API, or correct the caller's URL.
    #[error("no route matches")]
    NoRoute,
    /// The path is published for other methods.
    #[error("the path answers {allow} only")]
    MethodNotAllowed {
        /// They, as `Allow` gives them.
        allow: &'p str,
    },
    /// Not a refusal: an `OPTIONS` that no route declares, which is told the methods and needs no token.
    #[error("told the methods {allow}")]
    Options {
        /// They, as `Allow` gives them.
        allow: &'p str,
    },
    /// The header that carries the token is there twice.
    #[error("more than one token")]
    SeveralTokens,
    /// The token is missing or not good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token does not hold the scopes that the route wants: have the issuer grant them.
    #[error("the token does not hold the scopes that the route wants")]
    ScopeMissing {
        /// They.
        wanted: &'p [Box<str>],
    },
    /// What is known of revocations is older than the route allows: bring a list of revocations, or a policy.
    #[error("what is known of revocations is too old for this route")]
    RevocationsStale,
    /// The application is not subscribed to the API, or unknown: add the subscription to the policy.
    #[error("not subscribed")]
    NotSubscribed,
    /// The subscription is blocked by the API's owner.
    #[error("the subscription is blocked")]
    SubscriptionBlocked,
    /// More limits than a request can be counted under: the policy's compiler should not have let it pass.
    #[error("too many limits")]
    TooManyLimits,
}

/// What a request is called that was let in.
pub const ADMITTED: &str = "Admitted";

impl Reject<'_> {
    /// Its stable name, as in usage records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BadPath(_) | Self::BadAuthority | Self::SeveralTokens => "BadRequest",
            Self::NoRoute => "NoRoute",
            Self::MethodNotAllowed { .. } => "MethodNotAllowed",
            Self::Options { .. } => ADMITTED,
            Self::Token(error) => error.name(),
            Self::ScopeMissing { .. } => "ScopeMissing",
            Self::NotSubscribed => "NotSubscribed",
            Self::SubscriptionBlocked => "SubscriptionBlocked",
            Self::TooManyLimits => "Internal",
            Self::RevocationsStale => "RevocationsStale",
        }
    }
}

/// Judges a request. Admitted, it matched the route, and has to pass the limits in `charges`; these are the caller's, and
/// empty before, because they are too many bytes to be handed from one to the next.
///
/// `revoked` is what is taken back beside the policy's own list. `cache` belongs to the caller and remembers verified
/// tokens; one of no bytes remembers none.
pub fn admit<'p, 'r, F>(
    policy: &'p Policy,
    revoked: TakenBack<'_>,
    cache: &mut TokenCache,
    parts: &Parts<'r, F>,
    bounds: TimeBounds,
    charges: &mut Charges,
) -> (Facts, Result<RouteIndex, Reject<'p>>)
where
    F: Fn(&str) -> Field<'r>,
{
    let mut facts = Facts::default();
    let verdict = judge_request(policy, revoked, cache, parts, bounds, (&mut facts, charges));
    (facts, verdict)
}

fn judge_request<'p, 'r, F>(
    policy: &'p Policy,
    revoked: TakenBack<'_>,
    cache: &mut TokenCache,
    parts: &Parts<'r, F>,
    bounds: TimeBounds,
    (facts, charges): (&mut Facts, &mut Charges),
) -> Result<RouteIndex, Reject<'p>>
where
    F: Fn(&str) -> Field<'r>,
{
    // 1. the route
    check_path(parts.path)?;
    let host = host_of(parts.authority).ok_or(Reject::BadAuthority)?;
    let method = Method::from_name(parts.method);
    let found = policy.router.find(host, parts.path, method).map_err(|miss| match miss {
        Miss::NoRoute => Reject::NoRoute,
        Miss::Method { allow } if method == Some(Method::Options) => Reject::Options { allow },
        Miss::Method { allow } => Reject::MethodNotAllowed { allow },
    })?;
    let plain = without_parameters(parts.path);
    if let Some(plain) = &plain {
        check_path(plain)?;
        if policy.router.find(host, plain, method) != Ok(found) {
            return Err(BadPath::Parameter.into());
        }
    }
    let bare = plain.as_deref().unwrap_or(parts.path).strip_suffix('/').filter(|bare| !bare.is_empty());
    let without_slash = bare.map_or(Err(Miss::NoRoute), |bare| policy.router.find(host, bare, method));
    if without_slash != Err(Miss::NoRoute) && without_slash != Ok(found) {
        return Err(BadPath::TrailingSlash.into());
    }
    let route = policy.route(found);
    let api = policy.api(route.api);
    (facts.api, facts.route) = (Some(route.api), Some(found));

    if route.auth == Auth::Token {
        // The least age: a floor that stands still closes nothing, and one that is known closes for certain.
        let is_fresh = |max| revoked.as_of.is_some_and(|as_of| bounds.least_age(as_of) <= max);
        if route.revocations_max_age_s.is_some_and(|max| !is_fresh(max)) {
            return Err(Reject::RevocationsStale);
        }
        // 2. the token
        let token = match (parts.header)(&api.token_header) {
            Field::Absent => return Err(TokenError::TokenMissing.into()),
            Field::Repeated => return Err(Reject::SeveralTokens),
            Field::Once(value) => token_of(value, &api.token_header)?,
        };
        let claims = cache.verify(token, &policy.issuers)?;
        let claims = &*facts.claims.insert(claims);
        if !api.issuers.contains(&claims.issuer()) {
            return Err(TokenError::IssuerMismatch.into());
        }
        let now = Circumstances {
            audiences: &api.audiences,
            bounds,
            revocations: &policy.revocations,
            certificate: parts.certificate,
        };
        let time = judge(claims, &now)?;
        not_revoked(claims, revoked.list)?;
        certain_enough(route, claims, time)?;

        // 3. the scopes: one of the route's alternatives, whole
        if !route.scopes.is_empty() && !route.scopes.iter().any(|together| claims.has_scopes(together)) {
            return Err(Reject::ScopeMissing { wanted: &route.scopes });
        }

        // 4. the subscription
        let subscriber = claims.client().and_then(|key| policy.subscribers.find(key, route.api));
        let subscription = subscriber.and_then(|subscriber| subscriber.subscription);
        facts.application = subscriber.map(|subscriber| subscriber.application.index);
        facts.plan = subscription.map(|subscription| subscription.plan);
        match subscription.map(|subscription| subscription.standing) {
            Some(Standing::Active) => {}
            Some(Standing::Blocked) => return Err(Reject::SubscriptionBlocked),
            None if api.needs_subscription => return Err(Reject::NotSubscribed),
            None => {}
        }
        if let Some(application) = subscriber.map(|subscriber| subscriber.application) {
            let name = || NameHash::of(&[application.name]);
            charges.add(policy, Level::Application, application.plan, name)?;
            charges.add(policy, Level::Subscription, facts.plan, || name().and(api.hash.get()))?;
        }
    }

    // 5. the limits on what is called, whoever calls
    charges.add(policy, Level::Api, api.plan, || api.hash)?;
    // A template's routes have no method in common: the first tells them apart.
    let first = || route.methods.iter().next().map_or("", Method::name);
    charges
        .add(policy, Level::Resource, route.plan, || NameHash::of(&[&route.template, first()]).and(api.hash.get()))?;
    Ok(found)
}

/// What the route says of a token that the clock leaves in doubt.
fn certain_enough(route: &Route, claims: &VerifiedClaims, time: TimeVerdict) -> Result<(), TokenError> {
    match route.uncertain {
        Uncertain::Allow => Ok(()),
        Uncertain::Bound if claims.binding() != Binding::None => Ok(()),
        Uncertain::Bound | Uncertain::Deny => time.demand_certain(),
    }
}

/// The token in a header's value. `authorization` carries `Bearer TOKEN` (RFC 6750, 2.1); any other header the token,
/// with or without that word.
fn token_of<'r>(value: &'r [u8], header: &str) -> Result<&'r [u8], TokenError> {
    let value = value.trim_ascii();
    let bearer = value.split_at_checked(7).filter(|(word, _)| word.eq_ignore_ascii_case(b"bearer "));
    match bearer {
        Some((_, token)) => Ok(token.trim_ascii_start()),
        None if header == "authorization" || value.is_empty() => Err(TokenError::TokenMissing),
        None => Ok(value),
    }
}

/// The host of `host[:port]`; an IPv6 address without its brackets. `None` where it is neither (RFC 9110, 7.2).
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':')? })
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'%');
    (host.bytes().all(plain) && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(host)
}
