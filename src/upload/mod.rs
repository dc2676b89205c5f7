//! Ships usage files to the hub when a link exists.
//!
//! ```text
//! backlog ─▶ worker ─▶ client ─▶ hub
//!    ▲ acknowledge        │ signed receipt, checked against the root's hub role
//!    └────────────────────┘
//! ```
//!
//! One task of its own, which holds one usage file at a time: it can never slow a request. Another one fetches bundles (`pull`),
//! and one hears when there are new ones (`events`). A file is
//! acknowledged, and so deleted, only for a receipt that names it and that a hub key signed. Called by
//! the daemon; `request` by the operator's command.

mod client;
mod events;
mod identity;
mod known;
mod link;
mod pin;
mod progress;
mod pull;
mod reach;
mod request;
mod retry;
mod worker;

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

pub use events::Listener;
pub use identity::Identity;
pub use known::Known;
pub use link::Link;
pub use pull::{Puller, Shelf};
pub use request::{Undelivered, deliver};
use serde::{Deserialize, Serialize};
pub use worker::{Status, Wakes, Worker};

use crate::ids::Digest;
use crate::units::{Span, Unfit, within};

/// Section `[upload]` of the daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `https://host[:port]`, or `http://` to loopback; `None` leaves usage in the spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// SHA-256 of the hub's SubjectPublicKeyInfo, in hex; any of them.
    pub hub_pins: Vec<Digest>,
    /// PEM of the authorities that may issue the hub's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_file: Option<PathBuf>,
    /// Lets `http://` go beyond loopback: usage then travels in clear, though signed.
    pub allow_plain_http: bool,
    /// How often the backlog is looked at where nothing else wakes the uploader.
    pub interval: Span,
    /// The wait after the first failure lies between 0 and this; it doubles with each failure.
    pub retry_base: Span,
    /// The longest wait after a failure.
    pub retry_cap: Span,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Span,
    /// Whether bundles for this device are fetched from the hub too.
    pub pull: bool,
    /// Whether the hub's stream of events is held, so that what is new is fetched at once; needs `pull`.
    pub events: bool,
    /// How often at most the hub is asked for them, besides at a start and when the link is back.
    pub pull_interval: Span,
    /// How long nothing may move while a file is sent and its receipt awaited; a slow link has all the time it needs.
    pub request_timeout: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hub: None,
            hub_pins: Vec::new(),
            authority_file: None,
            allow_plain_http: false,
            interval: Span::secs(60),
            retry_base: Span::secs(2),
            retry_cap: Span::secs(300),
            pull: true,
            events: true,
            pull_interval: Span::secs(900),
            connect_timeout: Span::secs(10),
            request_timeout: Span::secs(60),
        }
    }
}

impl Config {
    /// What of it could be read but not used; reads the authority file.
    #[must_use]
    pub fn check(&self) -> Vec<Unfit> {
        let (moment, hour, day) = (Span::millis(10), Span::hours(1), Span::hours(24));
        let hub = worker::client(self, None).err().map(|error| {
            let message = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            Unfit { key: error.key(), message }
        });
        let never = "the hub is never reached, or never given up";
        let mut unfit: Vec<_> = [
            hub,
            within("interval", self.interval, Span::millis(100)..=day, "the backlog is always or never looked at"),
            within("retry_base", self.retry_base, moment..=hour, "less is a storm of tries, more is none"),
            within("retry_cap", self.retry_cap, moment..=day, "less is a storm of tries, more is none"),
            within(
                "pull_interval",
                self.pull_interval,
                Span::millis(100)..=day,
                "bundles are always or never asked for",
            ),
            within("connect_timeout", self.connect_timeout, Span::millis(100)..=Span::secs(300), never),
            within("request_timeout", self.request_timeout, Span::secs(1)..=hour, never),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.retry_cap < self.retry_base {
            let message = format!("{} is less than retry_base, {}", self.retry_cap, self.retry_base);
            unfit.push(Unfit { key: "retry_cap", message });
        }
        unfit
    }

    /// The longest that one step of a round may stand still: to connect, and to bring one file.
    #[must_use]
    pub fn step(&self) -> Duration {
        self.connect_timeout.0.saturating_add(self.request_timeout.0)
    }
}

/// Why the uploader cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Write `https://host` or `https://host:port`, without a path.
    #[error("{0:?} is not a hub's address")]
    BadAddress(String),
    /// Use https with a pin, or set `allow_plain_http` if something else protects the way.
    #[error("{0:?} would send usage in clear beyond this machine")]
    PlainHttp(String),
    /// Set `hub_pins` or `authority_file`.
    #[error("https needs a pin of the hub's key or of its authority")]
    NoPin,
    /// The authority file holds no usable certificate: export it again as PEM.
    #[error("the hub's authority file is not PEM certificates")]
    BadAuthority,
    /// Check the authority file's path and permissions.
    #[error("{path}")]
    AuthorityFile {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The setting that is to be changed.
    fn key(&self) -> &'static str {
        match self {
            Self::BadAddress(_) | Self::PlainHttp(_) => "hub",
            Self::NoPin => "hub_pins",
            Self::BadAuthority | Self::AuthorityFile { .. } => "authority_file",
        }
    }
}

/// Why a round of uploads ended early. The files stay; the next round tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection: no link, a wrong address, or the hub is down.
    #[error("cannot connect to the hub")]
    Connect,
    /// The same, and nobody answered.
    #[error("connecting to the hub took too long")]
    ConnectTimeout,
    /// Not TLS, or not the pinned hub.
    #[error("no TLS connection with the pinned hub")]
    Tls,
    /// Nothing moved for too long: the link is gone, or the hub does not answer.
    #[error("the connection to the hub stands still")]
    RequestTimeout,
    /// The connection broke in the middle.
    #[error("the connection to the hub broke")]
    Closed,
    /// The answer is too long or not HTTP: something other than a hub answers.
    #[error("the hub's answer is malformed")]
    BadAnswer,
    /// The hub asks to come later.
    #[error("the hub is busy")]
    Busy,
    /// Enrol this device's key at the hub; if it was revoked there, that was somebody's decision.
    #[error("the hub does not know this device, or has revoked it")]
    UnknownDevice,
    /// The hub does not take the proof of this device's key: something between changes requests.
    #[error("the hub does not take this device's proof")]
    Unproven,
    /// Something other than a hub of this version answers.
    #[error("the hub's answer has an unexpected status")]
    UnexpectedStatus,
    /// The receipt is not by a key of the root's hub role, or is for another file: check which hub this is.
    #[error("the receipt is not to be believed")]
    ReceiptRefused,
    /// No root has named a hub key yet: nothing could be acknowledged.
    #[error("no hub key is known")]
    NoHubKey,
    /// There is no room for a bundle, or the inbox cannot be written: check its disk and rights.
    #[error("the inbox takes no file")]
    Inbox,
    /// The spool does not answer; see its log.
    #[error("the spool does not answer")]
    Spool,
}
