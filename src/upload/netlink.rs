//! Word from the kernel that something came up: a link, an address, a route. What it is, is not read: a try costs little.
//!
//! ```text
//! rtnetlink(7), one message a datagram, host byte order: length u32 ‖ type u16 ‖ …
//! ```

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::unix::AsyncFd;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// `RTM_NEWLINK` (a change of a link too), `RTM_NEWADDR`, `RTM_NEWROUTE`. Nothing is to be gained by what goes away.
const CAME_UP: [u16; 3] = [16, 20, 24];
/// Most messages that are read before others have their turn.
const AT_ONCE: usize = 256;

/// The kernel's word.
#[derive(Debug)]
pub(super) struct LinkEvents(AsyncFd<OwnedFd>);

impl LinkEvents {
    /// Listens from now on. Needs a runtime.
    #[expect(deprecated, reason = "its successor is unsafe, which we forbid; an OwnedFd keeps what that asks for")]
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        AsyncFd::new(socket).map(Self)
    }

    /// Until something came up since the last call. Safe to drop.
    pub(super) async fn came_up(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let Drained { came_up, is_empty } = self.drain()?;
            if is_empty {
                ready.clear_ready();
            }
            if came_up {
                return Ok(());
            }
        }
    }

    /// Reads what waits, and drops it.
    fn drain(&self) -> io::Result<Drained> {
        let mut came_up = false;
        for _ in 0..AT_ONCE {
            let mut head = [0; 6]; // the system drops the rest of a datagram
            match recv(self.0.get_ref(), &mut head, RecvFlags::empty()) {
                Ok(_) => came_up |= is_of_interest(head),
                // More came than the system holds for us: who knows what.
                Err(Errno::NOBUFS) => came_up = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Drained { came_up, is_empty: true }),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Drained { came_up, is_empty: false })
    }
}

struct Drained {
    came_up: bool,
    is_empty: bool,
}

fn is_of_interest(head: [u8; 6]) -> bool {
    let [_, _, _, _, low, high] = head;
    CAME_UP.contains(&u16::from_ne_bytes([low, high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u16) -> [u8; 6] {
        let [low, high] = kind.to_ne_bytes();
        [32, 0, 0, 0, low, high]
    }

    #[test]
    fn what_comes_up_is_of_interest_and_what_goes_away_is_not() {
        assert!([16, 20, 24].into_iter().all(|kind| is_of_interest(head(kind))));
        assert!(![17, 21, 25, 0, 2, 3].into_iter().any(|kind| is_of_interest(head(kind))));
    }

    #[tokio::test]
    async fn a_quiet_system_has_nothing_to_say() {
        let Ok(events) = LinkEvents::open() else {
            println!("skipped: no netlink socket here");
            return;
        };
        let quiet = tokio::time::timeout(std::time::Duration::from_millis(50), events.came_up()).await;
        // On a machine whose links change just now there may be word; an error there must not be.
        assert!(quiet.is_err() || quiet.is_ok_and(|said| said.is_ok()));
    }
}
