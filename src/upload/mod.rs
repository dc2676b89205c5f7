//! Ships usage files to the hub when a link exists.
//!
//! ```text
//! backlog ─▶ worker ─▶ client ─▶ hub
//!    ▲ acknowledge        │ signed receipt, checked against the root's hub role
//!    └────────────────────┘
//! ```
//!
//! One task of its own, which holds two usage files at most: it can never slow a request. Another one fetches bundles
//! (`pull`), and one hears when there are new ones (`events`). A file is acknowledged, and so deleted, only for a receipt
//! that names it and that a hub key signed. Called by the daemon; `request` by the operator's command.

mod client;
mod events;
mod hubs;
mod identity;
mod interface;
mod known;
mod link;
mod meter;
mod netlink;
mod pin;
mod progress;
mod proxy;
mod pull;
mod reach;
mod request;
mod retry;
mod uplink;
mod window;
mod worker;

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

pub use events::Listener;
pub use identity::Identity;
pub use known::Known;
pub use link::Link;
pub use proxy::Address as ProxyAddress;
pub use pull::{Puller, Shelf};
pub use request::{Undelivered, deliver};
use serde::{Deserialize, Serialize};
pub use uplink::{Clock, Uplink};
pub use window::{BadWindow, Offset, Window};
pub use worker::{Status, Wakes, Worker};

use crate::ids::Digest;
use crate::units::{Bytes, Span, Unfit, within};

/// Most hubs.
const HUBS_LIMIT: usize = 8;
/// Most windows.
const WINDOWS_LIMIT: usize = 16;
/// Most names of interfaces.
const INTERFACES_LIMIT: usize = 8;

/// Section `[upload]` of the daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `https://host[:port]`, or `http://` to loopback, in the order in which they are tried; none leaves usage in the spool.
    pub hubs: Vec<String>,
    /// SHA-256 of the SubjectPublicKeyInfo of any of the hubs, in hex.
    pub hub_pins: Vec<Digest>,
    /// PEM of the authorities that may issue the hubs' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_file: Option<PathBuf>,
    /// An HTTP proxy through which every hub is reached, `http://[user[:password]@]host[:port]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyAddress>,
    /// Where the proxy's password is, in place of one in its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_password_file: Option<PathBuf>,
    /// Interfaces that connections to the hubs are bound to, the first of them that works; none is any.
    pub interfaces: Vec<String>,
    /// When the hubs may be called; none is always.
    pub windows: Vec<Window>,
    /// What the windows' times are ahead of UTC.
    pub window_offset: Offset,
    /// Most bytes a second to and from the hubs; 0 is no cap.
    pub bandwidth: Bytes,
    /// Most bytes a day of UTC to and from the hubs; 0 is no cap.
    pub daily_limit: Bytes,
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
            hubs: Vec::new(),
            hub_pins: Vec::new(),
            authority_file: None,
            proxy: None,
            proxy_password_file: None,
            interfaces: Vec::new(),
            windows: Vec::new(),
            window_offset: Offset::default(),
            bandwidth: Bytes(0),
            daily_limit: Bytes(0),
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
        let hubs = Uplink::new(self, Box::new(|| None), None).and_then(|uplink| hubs::Hubs::new(self, &uplink, None));
        let hubs = hubs.err().map(|error| {
            let message = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            Unfit { key: error.key(), message }
        });
        let capped = |key, value: Bytes, least, why| match value {
            Bytes(0) => None,
            value => within(key, value, Bytes(least)..=Bytes(1 << 50), why),
        };
        let misnamed = self.interfaces.iter().find(|name| !interface::is_pattern(name)).map(|name| Unfit {
            key: "interfaces",
            message: format!("{name:?} names no interface; write for example \"eth0\" or \"wlan*\""),
        });
        let idle = self.proxy.is_none() && self.proxy_password_file.is_some();
        let never = "the hub is never reached, or never given up";
        let mut unfit: Vec<_> = [
            hubs,
            within("hubs", self.hubs.len(), 0..=HUBS_LIMIT, "a round that finds none of them there never ends"),
            misnamed,
            within("interfaces", self.interfaces.len(), 0..=INTERFACES_LIMIT, "each has its part of connect_timeout"),
            within("windows", self.windows.len(), 0..=WINDOWS_LIMIT, "one for a part of the day"),
            capped("bandwidth", self.bandwidth, 1 << 10, "less carries nothing; 0 is no cap"),
            capped("daily_limit", self.daily_limit, 1 << 20, "less carries no usage file; 0 is no cap"),
            idle.then(|| Unfit { key: "proxy_password_file", message: "there is no proxy".into() }),
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
    /// Write `http://host:port`, or `http://user:password@host:port` with `%40` for an `@` in it.
    #[error("this is not a proxy's address")]
    BadProxy,
    /// Write the user into the proxy's address, as `http://user@host:port`.
    #[error("a password of the proxy is given, and no user")]
    ProxyUser,
    /// Check the password file's path and permissions; it has a kilobyte at most.
    #[error("{path}")]
    ProxyPassword {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
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
            Self::BadAddress(_) | Self::PlainHttp(_) => "hubs",
            Self::NoPin => "hub_pins",
            Self::BadProxy | Self::ProxyUser => "proxy",
            Self::ProxyPassword { .. } => "proxy_password_file",
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
    /// None of `interfaces` is there: plug one in, or see `ip link` for its name.
    #[error("no interface that may be used is there")]
    NoInterface,
    /// No connection to the proxy, or it broke: check `proxy`.
    #[error("cannot connect to the proxy")]
    Proxy,
    /// Something other than an HTTP proxy answers: check `proxy`.
    #[error("the proxy's answer is malformed")]
    ProxyAnswer,
    /// Check user and password in `proxy` and `proxy_password_file`.
    #[error("the proxy wants other credentials (ProxyRefused 407)")]
    ProxyCredentials,
    /// The proxy's operator has to let this device connect to the hub's host and port.
    #[error("the proxy does not connect us to the hub (ProxyRefused {0})")]
    ProxyRefused(u16),
    /// The proxy is there, and the hub is not, as it sees it.
    #[error("the proxy cannot reach the hub (ProxyNoWay {0})")]
    ProxyNoWay(u16),
    /// As `windows` say; a reload opens them for ten minutes.
    #[error("outside of the windows in which the hub is called")]
    OutsideWindows,
    /// Nothing more goes until tomorrow; raise `daily_limit` if that is too late.
    #[error("the day's limit of bytes is used up")]
    DailyLimit,
}

impl Failure {
    /// Whether another hub may do better. A refusal is no such thing: the hubs are of one mind about a device.
    fn moves_on(self) -> bool {
        match self {
            Self::Connect
            | Self::ConnectTimeout
            | Self::Tls
            | Self::RequestTimeout
            | Self::Closed
            | Self::BadAnswer
            | Self::Busy
            | Self::UnexpectedStatus
            | Self::ReceiptRefused
            | Self::Unproven
            | Self::ProxyRefused(_)
            | Self::ProxyNoWay(_) => true,
            Self::UnknownDevice
            | Self::NoHubKey
            | Self::Inbox
            | Self::Spool
            | Self::NoInterface
            | Self::Proxy
            | Self::ProxyAnswer
            | Self::ProxyCredentials
            | Self::OutsideWindows
            | Self::DailyLimit => false,
        }
    }

    /// Whether nothing failed, for nothing was tried.
    fn is_held(self) -> bool {
        matches!(self, Self::OutsideWindows | Self::DailyLimit)
    }
}
