//! Reaches the first of a host's addresses that answers. A dead address, as of a broken IPv6, costs a moment and not the
//! whole time that connecting may take (after RFC 8305, "Happy Eyeballs").

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tracing::debug;

use super::{Failure, interface};

/// How long an address is alone before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(300);
/// Most addresses of a host that are tried.
const ADDRESSES_LIMIT: usize = 16;

/// Connects to `host`, whichever of its addresses answers first. Where `interfaces` are named, over the first of them that
/// brings a connection about, each of them alone and in its part of `limit`: the next may cost money. The name of the host is
/// looked up as the system does it, over any.
pub(super) async fn reach(host: &str, port: u16, interfaces: &[String], limit: Duration) -> Result<TcpStream, Failure> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|_| Failure::Connect)?;
    let addresses = in_turn(addresses.collect());
    if interfaces.is_empty() {
        return any_of(addresses, None).await.map_err(|_| Failure::Connect);
    }
    let there = interface::there(interfaces);
    let part = u32::try_from(there.len()).ok().and_then(|many| limit.checked_div(many)).ok_or(Failure::NoInterface)?;
    for name in there {
        match tokio::time::timeout(part, any_of(addresses.clone(), Some(&name))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => debug!(interface = name, %error, "no connection over it"),
            Err(_) => debug!(interface = name, "no connection over it in its time"),
        }
    }
    Err(Failure::Connect)
}

/// Connects to one address. To be bound to an interface takes no privilege since Linux 5.7.
async fn connect(address: SocketAddr, interface: Option<String>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(name) = interface {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    socket.connect(address).await
}

/// The resolver's order, but the families by turns: however many addresses one of them has, the other comes second.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == is_ipv6);
    let mut second = second.into_iter();
    let mut turns: Vec<_> = first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    turns.extend(second);
    turns.truncate(ADDRESSES_LIMIT);
    turns
}

async fn any_of(addresses: Vec<SocketAddr>, interface: Option<&str>) -> io::Result<TcpStream> {
    let mut rest = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(address) = rest.next() {
            tries.spawn(connect(address, interface.map(str::to_owned)));
        }
        let alone = async {
            match rest.as_slice() {
                [] => std::future::pending().await,
                _ => tokio::time::sleep(STAGGER).await,
            }
        };
        tokio::select! {
            done = tries.join_next() => match done {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last = error,
                Some(Err(error)) => last = io::Error::other(error),
                None => return Err(last),
            },
            () = alone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::TcpListener;

    use super::*;

    /// An address where somebody listens and never answers, and what keeps it so.
    async fn dead() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
        let listener = socket.listen(1).expect("it listens");
        let address = listener.local_addr().expect("it listens");
        let mut waiting = Vec::new();
        // Its queue is full once a connection does not come about.
        while let Ok(came) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            waiting.push(came.expect("it listens"));
            assert!(waiting.len() < 1000, "the queue has no end");
        }
        (address, listener, waiting)
    }

    #[tokio::test]
    async fn a_dead_address_costs_a_moment_and_no_more() {
        let (dead, _listener, _waiting) = dead().await;
        let alive = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let hub = alive.local_addr().expect("it listens");
        let begun = Instant::now();
        for addresses in [vec![dead, hub], vec![dead, dead, hub], vec![hub, dead]] {
            let stream = any_of(addresses, None).await.expect("one of them answers");
            assert_eq!(stream.peer_addr().expect("it is connected"), hub);
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // The control: one after another, the dead one takes all the time that there is.
        let both = [dead, hub];
        let one_by_one = TcpStream::connect(both.as_slice());
        assert!(tokio::time::timeout(Duration::from_secs(2), one_by_one).await.is_err());
    }

    #[tokio::test]
    async fn where_nobody_listens_the_next_is_tried_at_once_and_the_last_error_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let closed = listener.local_addr().expect("it listens");
        drop(listener);
        let error = any_of(vec![closed; ADDRESSES_LIMIT], None).await.expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(any_of(Vec::new(), None).await.is_err());
    }

    #[test]
    fn however_many_addresses_a_family_has_the_other_comes_second() {
        let [six, four] =
            ["[2001:db8::1]:1", "192.0.2.1:1"].map(|text| text.parse::<SocketAddr>().expect("an address"));
        assert_eq!(in_turn(vec![six, six, six, four]), [six, four, six, six]);
        assert_eq!(in_turn(vec![four, six, six]), [four, six, six]);
        assert_eq!(in_turn(vec![six; 100]).len(), ADDRESSES_LIMIT);
        assert_eq!(in_turn(Vec::new()), []);
    }
}
