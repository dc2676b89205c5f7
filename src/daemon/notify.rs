//! What systemd is told: ready, how it goes, a reload's begin and end, stopping, and that every task still makes
//! progress.

use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon's line to its supervisor; does nothing where there is none.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// How often the watchdog is fed: a quarter of what it waits.
    pub(super) feed: Option<Duration>,
}

impl Supervisor {
    pub(super) fn new() -> Self {
        Self { feed: sd_notify::watchdog_enabled().map(|limit| limit / 4) }
    }

    pub(super) fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Something is done at a reload; [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        // systemd from 253 on takes RELOADING=1 only with the time of its sending.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "the supervisor could not be told"),
        }
    }

    pub(super) fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    pub(super) fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// A supervisor that does not listen is not the daemon's trouble.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the supervisor could not be told");
    }
}
