//! What systemd is told: ready, how it goes, a reload's begin and end, stopping, and that every task still makes
//! progress.
//!
//! A supervisor that does not listen must not hold up the daemon: what comes again anyway is dropped where there is no
//! room for it, and what is said once waits for [`PATIENCE`] at most.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// How long a message that is sent only once waits for room: at boot systemd has many to listen to.
const PATIENCE: Duration = Duration::from_secs(2);

/// The daemon's line to its supervisor; does nothing where there is none.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often the watchdog is fed: a quarter of what it waits.
    pub(super) feed: Option<Duration>,
}

impl Supervisor {
    pub(super) fn new() -> Self {
        let socket = connect().unwrap_or_else(|error| {
            tracing::warn!(%error, "the supervisor's NOTIFY_SOCKET cannot be used");
            None
        });
        Self { socket, feed: sd_notify::watchdog_enabled().map(|limit| limit / 4) }
    }

    pub(super) fn ready(&self, status: &str) {
        self.announce(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Something is done at a reload; [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        // systemd from 253 on takes RELOADING=1 only with the time of its sending.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.announce(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "the supervisor could not be told"),
        }
    }

    pub(super) fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(status)], true);
    }

    pub(super) fn alive(&self) {
        self.tell(&[NotifyState::Watchdog], true);
    }

    /// The end has begun, and may take as long as `within`.
    pub(super) fn stopping(&self, within: Duration) {
        let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
        self.announce(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within)]);
    }

    fn announce(&self, states: &[NotifyState<'_>]) {
        self.tell(states, false);
    }

    fn tell(&self, states: &[NotifyState<'_>], at_once: bool) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = socket.set_nonblocking(at_once).and_then(|()| socket.send(message.as_bytes())) {
            tracing::debug!(%error, "the supervisor could not be told");
        }
    }
}

/// sd_notify(3): a path, or after `@` the name of an abstract socket.
fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(&name)?,
    }
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Some(socket))
}
