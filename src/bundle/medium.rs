//! How a bundle came: for journal and log, never for a decision.

use std::ffi::OsStr;

use super::error::plain;

/// How a bundle came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// Dropped into the inbox.
    Inbox,
    /// From a stick: vendor, product and serial as the kernel names them.
    Usb(String),
    /// Pushed over ssh, from this peer.
    Scp(String),
    /// Pulled from this hub.
    Pull(String),
}

impl Medium {
    /// How the file of that name came into the inbox, as whoever put it there says: `usb=WHICH=NAME`,
    /// `scp=WHO=NAME` or `pull=HUB=NAME`. A claim, for people: it decides nothing.
    #[must_use]
    pub fn of_inbox(name: &OsStr) -> Self {
        let name = name.to_string_lossy();
        let mut parts = name.splitn(3, '=');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("usb"), Some(stick), Some(_)) => Self::Usb(stick.to_owned()),
            (Some("scp"), Some(peer), Some(_)) => Self::Scp(peer.to_owned()),
            (Some("pull"), Some(hub), Some(_)) => Self::Pull(hub.to_owned()),
            _ => Self::Inbox,
        }
    }
}

impl std::fmt::Display for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inbox => f.write_str("inbox"),
            Self::Usb(stick) => write!(f, "usb {}", plain(stick)),
            Self::Scp(peer) => write!(f, "scp {}", plain(peer)),
            Self::Pull(url) => write!(f, "pull {}", plain(url)),
        }
    }
}
