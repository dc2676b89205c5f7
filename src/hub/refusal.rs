//! What the hub answers when it does not take a request: a status, a name, and words for people.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, header};

use crate::ids::hex;
use crate::spool::protocol::CHALLENGE;
use crate::spool::segment;

/// Why a request is refused. The names are the protocol's; see `spool::protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("nothing is here")]
    NotFound,
    #[error("the path does not have this method")]
    MethodNotAllowed(&'static str),
    #[error("the device is not enrolled at this hub")]
    UnknownDevice,
    #[error("the device was revoked at this hub")]
    DeviceRevoked,
    /// With the challenge that is to be signed.
    #[error("sign the challenge with the device's key, and send the request again with that proof")]
    ProofRequired([u8; 32]),
    #[error("the proof is not by the device's key, or is for another request; sign the challenge anew")]
    ProofInvalid([u8; 32]),
    /// With the seconds after which it may come again.
    #[error("the device brings more than its rate allows")]
    RateLimited(u64),
    #[error("the body is no request for a lease")]
    LeaseMalformed,
    /// With the seconds after which it may come again.
    #[error("nothing is left of the quota in this window")]
    QuotaUsedUp(u64),
    #[error("the upload has no Content-Length")]
    LengthRequired,
    #[error("the upload is larger than a usage file can be")]
    FileTooLarge,
    #[error("the upload stood still for too long")]
    BodyTimeout,
    #[error("the upload ended before its Content-Length")]
    BodyCutOff,
    #[error("the file's stream or number is not that of the path")]
    PathMismatch,
    #[error("the usage file is refused: {0}")]
    File(segment::Error),
    #[error("another file of this stream has the same number; this one was kept apart")]
    ChainFork,
    #[error("the file and its neighbour do not name each other; it was kept apart")]
    PreviousMismatch,
    #[error("a device's request has at most 32 KiB")]
    RequestTooLarge,
    #[error("it is no sound request of a device; make one with `tidegate device request`")]
    Request(&'static str),
    #[error("the hub keeps no more requests; whoever enrols devices there removes those that are dealt with")]
    RequestsFull,
    #[error("the hub could not write its folder of requests")]
    RequestsFailed,
    #[error("the hub has too many uploads at once")]
    Overloaded,
    #[error("the hub could not write its database")]
    LedgerFailed,
}

impl Refusal {
    /// Whether anybody can cause it, so that it may not fill the log: it comes before the file's signature is checked.
    pub(super) fn is_anybodys(self) -> bool {
        !matches!(self, Self::ChainFork | Self::PreviousMismatch | Self::LedgerFailed)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed(_) => "MethodNotAllowed",
            Self::UnknownDevice => "UnknownDevice",
            Self::DeviceRevoked => "DeviceRevoked",
            Self::ProofRequired(_) => "ProofRequired",
            Self::ProofInvalid(_) => "ProofInvalid",
            Self::RateLimited(_) => "RateLimited",
            Self::LeaseMalformed => "LeaseMalformed",
            Self::QuotaUsedUp(_) => "QuotaUsedUp",
            Self::LengthRequired => "LengthRequired",
            Self::FileTooLarge => "FileTooLarge",
            Self::BodyTimeout => "BodyTimeout",
            Self::BodyCutOff => "BodyCutOff",
            Self::PathMismatch => "PathMismatch",
            Self::File(error) => error.name(),
            Self::ChainFork => "ChainFork",
            Self::PreviousMismatch => "PreviousMismatch",
            Self::RequestTooLarge => "RequestTooLarge",
            Self::Request(name) => name,
            Self::RequestsFull => "RequestsFull",
            Self::RequestsFailed => "RequestsFailed",
            Self::Overloaded => "Overloaded",
            Self::LedgerFailed => "LedgerFailed",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownDevice | Self::DeviceRevoked => StatusCode::FORBIDDEN,
            Self::ProofRequired(_) | Self::ProofInvalid(_) => StatusCode::UNAUTHORIZED,
            Self::RateLimited(_) | Self::QuotaUsedUp(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::FileTooLarge | Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyCutOff => StatusCode::BAD_REQUEST,
            Self::PathMismatch | Self::File(_) | Self::Request(_) | Self::LeaseMalformed => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::ChainFork | Self::PreviousMismatch => StatusCode::CONFLICT,
            Self::Overloaded | Self::LedgerFailed | Self::RequestsFull | Self::RequestsFailed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Whether the hub is short of something, so that whoever is turned away takes a place in the queue.
    pub(super) fn is_shortage(self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    /// The answer; `queued` is in how many seconds it is this one's turn.
    pub(super) fn answer(self, queued: Option<u64>) -> Response<Full<Bytes>> {
        let status = self.status();
        let problem = serde_json::json!({
            "type": format!("urn:tidegate:hub:{}", self.name()),
            "title": self.name(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/problem+json");
        if let Self::MethodNotAllowed(allow) = self {
            response = response.header(header::ALLOW, allow);
        }
        if let Self::ProofRequired(challenge) | Self::ProofInvalid(challenge) = self {
            response = response.header(header::WWW_AUTHENTICATE, "Tidegate-Proof").header(CHALLENGE, hex(&challenge));
        }
        let own = match self {
            Self::RateLimited(seconds) | Self::QuotaUsedUp(seconds) => Some(seconds),
            _ => None,
        };
        if let Some(seconds) = own.or(queued) {
            response = response.header(header::RETRY_AFTER, seconds);
        }
        if matches!(self, Self::BodyTimeout | Self::FileTooLarge | Self::RequestTooLarge | Self::BodyCutOff) {
            // The rest of the body is not read, so the connection has no next request.
            response = response.header(header::CONNECTION, "close");
        }
        response.body(Full::new(Bytes::from(problem.to_string()))).expect("the headers are constants")
    }
}
