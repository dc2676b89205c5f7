//! The daemon's own door: health, metrics and status, over a Unix socket and, where asked for, a loopback port.
//!
//! | `GET` | answers |
//! |---|---|
//! | `/livez` | 200 while every task makes progress; 503 with the one that does not |
//! | `/readyz` | 200 while requests are served under a policy; 503 with the reason |
//! | `/metrics` | Prometheus text format 0.0.4 |
//! | `/status` | [`Status`] as JSON |
//! | `/spool/next`, `/spool/next?STREAM.SEQ` | 200: the oldest usage file, or the oldest after that one; 204: there is none; 503 |
//!
//! `POST /spool/receipt` takes one signed receipt of the hub and lets go of its file: 204; 422 and why not; 503 later.
//!
//! Beside that it only tells: nothing else is changed, no other body is read. Who may connect to the socket is the file
//! system's decision (mode 0660); the port cannot be bound to anything but loopback, and answers only to
//! a loopback `Host`, so that a web page in a browser on the device cannot read it by a name that it controls.
//! Usage files, which tell of persons, never go through the port.
//! It runs on the control runtime, never on a worker, and holds no lock across an await. The daemon starts
//! it with something that [`Answers`]; [`client`] is the other end, for programs on the same machine.

pub mod client;
mod server;
mod status;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::Error as _};

use crate::units::{Unfit, within};

pub use server::{Answers, Doors, Later, NotTaken};
pub use status::{Imported, PolicyStatus, SpoolStatus, Status, TimeStatus, UploadStatus};

/// Bytes of the socket's path: what the kernel takes, less the name that it is made under.
const SOCKET_PATH_LIMIT: usize = 100;

/// `[admin]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the Unix socket is; its folder must exist.
    pub socket: PathBuf,
    /// A loopback address that tells the same over TCP, for a scraper that cannot use the socket. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Loopback>,
}

impl Default for Config {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/tidegate/admin.sock"), listen: None }
    }
}

impl Config {
    /// What of it could be read but not used.
    #[must_use]
    pub fn check(&self) -> Vec<Unfit> {
        let length = self.socket.as_os_str().len();
        within("socket", length, 1..=SOCKET_PATH_LIMIT, "so many bytes the path of a Unix socket may have")
            .into_iter()
            .collect()
    }
}

/// A socket address that only this machine reaches: 127.0.0.0/8 or ::1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loopback(SocketAddr);

/// An address that is not [`Loopback`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a loopback address with a port; write for example \"127.0.0.1:9090\" or \"[::1]:9090\"")]
pub struct NotLoopback(String);

impl Loopback {
    /// The address, to bind or to connect to.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for Loopback {
    type Err = NotLoopback;

    fn from_str(text: &str) -> Result<Self, NotLoopback> {
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
        address.map(Self).ok_or_else(|| NotLoopback(text.into()))
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Loopback {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Loopback {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Why the daemon's own door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process answers on the socket: stop the other daemon, or give this one a `socket` of its own.
    #[error("another daemon answers on {path}")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket stands at the path: move it away, or name another path.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// What was configured as the socket.
        path: PathBuf,
    },
    /// The socket could not be made: look at its folder's existence and permissions, and at the path's length (100 bytes at most).
    #[error("cannot open the admin socket {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port could not be bound: something else listens on it.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests;
