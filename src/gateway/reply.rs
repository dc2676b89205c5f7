//! What the gateway answers by itself: RFC 9457 problem documents, made once, and the header fields that go with them.
//!
//! `error` is our name for what happened, `code` WSO2's number where it has one, so that clients of either read it.

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::admission::{Level, Reject};
use crate::spool::record::Outcome;
use crate::throttle::Refused;
use crate::token::TokenError;

/// Why the gateway answers by itself.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) outcome: Outcome,
    /// Index into [`PROBLEMS`]; `None` for an answer that is no problem.
    problem: Option<usize>,
    field: Field,
}

/// The header field that goes with a refusal.
#[derive(Debug)]
enum Field {
    None,
    Allow(HeaderValue),
    RetryAfter(u32),
    Challenge(HeaderValue),
}

/// One kind of problem: its document is made once.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    body: Bytes,
}

/// By outcome number; after them the throttle's, by level, for rates and then for quotas; last what is not implemented.
static PROBLEMS: LazyLock<Box<[Problem]>> = LazyLock::new(|| {
    let plain = (0..=u8::MAX).map(|number| match Outcome::from_number(number) {
        Some(outcome) => problem(outcome, None),
        None => problem(Outcome::Internal, None),
    });
    let throttled = [Outcome::RateLimited, Outcome::QuotaExceeded].into_iter().flat_map(|outcome| {
        [Level::Api, Level::Resource, Level::Application, Level::Subscription]
            .map(|level| problem(outcome, Some(level)))
    });
    let coding = "The request body may be chunked, and have no other transfer coding.";
    let not_implemented = document(Outcome::BadRequest, 501, 0, "Not implemented", coding);
    plain.chain(throttled).chain([not_implemented]).collect()
});

const THROTTLED: usize = 256;
const NOT_IMPLEMENTED: usize = THROTTLED + 8;

impl Refusal {
    pub(super) fn new(outcome: Outcome) -> Self {
        Self { outcome, problem: Some(usize::from(outcome.number())), field: Field::None }
    }

    /// The request's body has a transfer coding that is not ours to take off.
    pub(super) fn not_implemented() -> Self {
        Self { problem: Some(NOT_IMPLEMENTED), ..Self::new(Outcome::BadRequest) }
    }

    /// The answer's status.
    pub(super) fn status(&self) -> StatusCode {
        self.problem.map_or(StatusCode::NO_CONTENT, |problem| PROBLEMS[problem].status)
    }

    /// The answer's body and its header fields.
    pub(super) fn render(self) -> (HeaderMap, Option<Bytes>) {
        let mut headers = HeaderMap::new();
        match self.field {
            Field::None => {}
            Field::Allow(methods) => {
                headers.insert(ALLOW, methods);
            }
            Field::RetryAfter(seconds) => {
                headers.insert(RETRY_AFTER, seconds.into());
            }
            Field::Challenge(challenge) => {
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
        }
        // A 404 or 405 may be kept by a cache that is not told (RFC 9110, 15.1), and the next policy may have the route.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let body = self.problem.map(|problem| PROBLEMS[problem].body.clone());
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
        (headers, body)
    }
}

impl From<Reject<'_>> for Refusal {
    fn from(reject: Reject<'_>) -> Self {
        let allow = |allow: &str| Field::Allow(HeaderValue::from_str(allow).unwrap_or(HeaderValue::from_static("")));
        match reject {
            Reject::BadPath(_) | Reject::BadAuthority | Reject::SeveralTokens => Self::new(Outcome::BadRequest),
            Reject::NoRoute => Self::new(Outcome::NoRoute),
            Reject::MethodNotAllowed { allow: methods } => {
                Self { field: allow(methods), ..Self::new(Outcome::MethodNotAllowed) }
            }
            Reject::Options { allow: methods } => {
                Self { outcome: Outcome::Admitted, problem: None, field: allow(methods) }
            }
            Reject::Token(error) => {
                let outcome = token_outcome(error);
                Self { field: Field::Challenge(invalid_token(error)), ..Self::new(outcome) }
            }
            Reject::ScopeMissing { wanted } => {
                Self { field: Field::Challenge(insufficient_scope(wanted)), ..Self::new(Outcome::ScopeMissing) }
            }
            Reject::RevocationsStale => Self::new(Outcome::RevocationsStale),
            Reject::NotSubscribed => Self::new(Outcome::NotSubscribed),
            Reject::SubscriptionBlocked => Self::new(Outcome::SubscriptionBlocked),
            Reject::TooManyLimits => Self::new(Outcome::Internal),
        }
    }
}

impl Refusal {
    /// A limit on `level` said no.
    pub(super) fn throttled(refused: Refused, level: Option<Level>) -> Self {
        let (outcome, row) = if refused.quota { (Outcome::QuotaExceeded, 4) } else { (Outcome::RateLimited, 0) };
        let problem = level.map_or(usize::from(outcome.number()), |level| THROTTLED + row + level as usize);
        Self { outcome, problem: Some(problem), field: Field::RetryAfter(refused.retry_after) }
    }
}

/// The outcome of the same name; every token error has one.
fn token_outcome(error: TokenError) -> Outcome {
    Outcome::from_name(error.name()).unwrap_or(Outcome::Internal)
}

/// RFC 6750, 3: without an error code where no token came.
fn invalid_token(error: TokenError) -> HeaderValue {
    if error == TokenError::TokenMissing {
        return HeaderValue::from_static("Bearer realm=\"tidegate\"");
    }
    let text = format!("Bearer realm=\"tidegate\", error=\"invalid_token\", error_description=\"{error}\"");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

/// RFC 6750, 3.1: the scopes that would do. The list cannot say alternatives, so the first is told.
fn insufficient_scope(wanted: &[Box<str>]) -> HeaderValue {
    // RFC 6749, 3.3: a scope has neither quotes nor backslashes nor controls.
    let plain = |scope: &&str| scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let scopes: Vec<&str> = wanted.first().map_or("", |together| together).split(' ').filter(plain).collect();
    let text = format!("Bearer realm=\"tidegate\", error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" "));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer error=\"insufficient_scope\""))
}

/// Status, WSO2's code (0 for none), title and detail of an outcome.
fn problem(outcome: Outcome, level: Option<Level>) -> Problem {
    use Outcome as O;
    let token = TokenError::ALL.iter().find(|error| error.name() == outcome.name());
    let (status, code, title, detail) = match outcome {
        O::TokenMissing => (401, 900_902, "Missing credentials", "Send a token in the header that the API names."),
        O::NoRoute => (404, 900_906, "No such resource", "Nothing is published at this host and path."),
        O::MethodNotAllowed => (405, 0, "Method not allowed", "See Allow for the methods of this path."),
        O::NoPolicy => (503, 0, "No policy in force", "The gateway has not been given a policy bundle yet."),
        O::RevocationsStale => {
            (503, 0, "Closed", "What the gateway knows of revoked tokens is too old for this resource.")
        }
        O::ScopeMissing => {
            (403, 900_910, "Scope missing", "The token does not hold the scopes that this resource wants.")
        }
        O::NotSubscribed => (403, 900_908, "Not subscribed", "The application is not subscribed to this API."),
        O::SubscriptionBlocked => (403, 900_907, "Subscription blocked", "The subscription to this API is blocked."),
        O::RateLimited => (429, throttle_code(level), "Too many requests", over_rate(level)),
        O::QuotaExceeded => (429, throttle_code(level), "Quota used up", over_quota(level)),
        O::BodyTooLarge => (413, 0, "Body too large", "The request body is larger than this API takes."),
        O::HeaderTooLarge => (431, 0, "Head too large", "The request's header fields are too large."),
        O::BadRequest => (400, 0, "Bad request", "The request cannot be forwarded as it is written."),
        O::UpstreamConnect => {
            (503, 101_503, "Upstream not reachable", "No endpoint of the upstream took a connection.")
        }
        O::UpstreamTimeout => (504, 101_504, "Upstream timed out", "The upstream did not answer in time."),
        O::UpstreamClosed => (502, 101_505, "Upstream closed", "The upstream closed the connection without an answer."),
        O::UpstreamProtocol => (502, 101_506, "Upstream answer unreadable", "The upstream's answer is not valid HTTP."),
        O::DownstreamAborted => (408, 0, "Request timed out", "The request body did not arrive in time."),
        O::Overloaded => (503, 0, "Overloaded", "The gateway is full; try again."),
        O::Admitted | O::Internal => (500, 900_900, "Internal error", "A defect of the gateway; see its log."),
        _ => (401, 900_901, "Invalid credentials", "The token is not accepted."),
    };
    let token = token.filter(|error| **error != TokenError::TokenMissing).map(ToString::to_string);
    document(outcome, status, code, title, token.as_deref().unwrap_or(detail))
}

fn document(outcome: Outcome, status: u16, code: u32, title: &str, detail: &str) -> Problem {
    let mut document = serde_json::json!({
        "type": format!("urn:tidegate:error:{}", outcome.name()),
        "title": title,
        "status": status,
        "detail": detail,
        "error": outcome.name(),
    });
    if code != 0 {
        document["code"] = code.into();
    }
    let status = StatusCode::from_u16(status).expect("the tables above have valid ones");
    Problem { status, body: document.to_string().into() }
}

fn throttle_code(level: Option<Level>) -> u32 {
    match level {
        None | Some(Level::Api) => 900_800,
        Some(Level::Resource) => 900_802,
        Some(Level::Application) => 900_803,
        Some(Level::Subscription) => 900_804,
    }
}

fn over_rate(level: Option<Level>) -> &'static str {
    match level {
        None | Some(Level::Api) => "The rate of this API is exceeded; see Retry-After.",
        Some(Level::Resource) => "The rate of this resource is exceeded; see Retry-After.",
        Some(Level::Application) => "The rate of the application is exceeded; see Retry-After.",
        Some(Level::Subscription) => "The rate of the subscription is exceeded; see Retry-After.",
    }
}

fn over_quota(level: Option<Level>) -> &'static str {
    match level {
        None | Some(Level::Api) => "The quota of this API is used up; see Retry-After.",
        Some(Level::Resource) => "The quota of this resource is used up; see Retry-After.",
        Some(Level::Application) => "The quota of the application is used up; see Retry-After.",
        Some(Level::Subscription) => "The quota of the subscription is used up; see Retry-After.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_error_is_an_outcome_and_a_401() {
        for error in TokenError::ALL {
            let refusal = Refusal::from(Reject::Token(*error));
            assert_eq!(refusal.outcome.name(), error.name());
            assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
            let (headers, body) = refusal.render();
            let body: serde_json::Value = serde_json::from_slice(&body.expect("a document")).expect("JSON");
            let code = if *error == TokenError::TokenMissing { 900_902 } else { 900_901 };
            assert_eq!((&body["error"], &body["code"]), (&error.name().into(), &code.into()));
            assert!(headers[WWW_AUTHENTICATE].to_str().is_ok_and(|challenge| challenge.starts_with("Bearer realm")));
        }
    }

    #[test]
    fn a_refusal_is_called_in_probes_what_its_record_says() {
        let rejects = [
            Reject::BadAuthority,
            Reject::SeveralTokens,
            Reject::NoRoute,
            Reject::MethodNotAllowed { allow: "GET" },
            Reject::Options { allow: "GET" },
            Reject::Token(TokenError::TokenExpired),
            Reject::ScopeMissing { wanted: &[] },
            Reject::NotSubscribed,
            Reject::SubscriptionBlocked,
            Reject::TooManyLimits,
        ];
        for reject in rejects {
            assert_eq!(Refusal::from(reject).outcome.name(), reject.name());
        }
    }

    #[test]
    fn each_level_of_throttling_has_its_own_code() {
        let levels = [Level::Api, Level::Resource, Level::Application, Level::Subscription];
        for ((level, code), quota) in
            levels.into_iter().zip([900_800, 900_802, 900_803, 900_804]).zip([false, true, false, true])
        {
            let refusal = Refusal::throttled(Refused { charge: 0, quota, retry_after: 7 }, Some(level));
            assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
            let (headers, body) = refusal.render();
            let body: serde_json::Value = serde_json::from_slice(&body.expect("a document")).expect("JSON");
            assert_eq!(body["code"], code);
            assert_eq!(body["error"], if quota { "QuotaExceeded" } else { "RateLimited" });
            assert_eq!(headers[RETRY_AFTER], "7");
        }
    }
}
