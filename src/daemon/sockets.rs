//! The listening sockets: those that systemd passes, then those that are bound here.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use listenfd::ListenFd;
use rustls::ServerConfig;
use tracing::warn;

use super::Error;
use crate::disk;
use crate::gateway::{self, Listener, ListenerConfig};

/// Largest certificate or key file, in bytes.
const PEM_LIMIT: u64 = 1 << 20;

/// One listener for each of `configs`: on its passed socket, or else on one that is bound here.
pub(super) fn open(configs: &[ListenerConfig]) -> Result<Vec<Listener>, Error> {
    let Paired { sockets, unused } = pair(configs, passed().map_err(Error::System)?);
    for socket in unused {
        let address = socket.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
        warn!(address, "nobody answers on a socket that systemd passes: no block of gateway.listeners is left for it");
    }
    let listener = |(config, socket): (&ListenerConfig, Option<TcpListener>)| {
        if let Some(at) = socket.as_ref().and_then(|socket| elsewhere(config, socket)) {
            let wanted = config.address;
            warn!(%at, %wanted, "systemd's socket is not where gateway.listeners wants it, and is served all the same: \
                               make ListenStream= of tidegated.socket and the block's address agree");
        }
        let tls = tls(config)?;
        let socket = socket.map_or_else(|| gateway::bind(config.address), Ok)?;
        Ok(Listener::new(socket, config, tls))
    };
    configs.iter().zip(sockets).map(listener).collect()
}

/// Which passed socket serves which block.
#[derive(Debug)]
struct Paired {
    /// In the order of the blocks; `None` is to be bound.
    sockets: Vec<Option<TcpListener>>,
    /// More than there are blocks.
    unused: Vec<TcpListener>,
}

/// First each block gets the socket with its very address, then one with its port: `[::]:443` is how systemd writes what is
/// `0.0.0.0:443` here. Only then the blocks that have none take what is left, in order: a block that comes first must not
/// take the socket of one that comes later, for its TLS would go with it.
fn pair(configs: &[ListenerConfig], mut passed: Vec<TcpListener>) -> Paired {
    let mut sockets: Vec<_> = configs.iter().map(|_| None).collect();
    let fits: [fn(SocketAddr, SocketAddr) -> bool; 3] =
        [|at, wanted| at == wanted, |at, wanted| at.port() == wanted.port(), |_, _| true];
    for fits in fits {
        for (socket, config) in sockets.iter_mut().zip(configs).filter(|(socket, _)| socket.is_none()) {
            let fitting = |socket: &TcpListener| socket.local_addr().is_ok_and(|at| fits(at, config.address));
            *socket = passed.iter().position(fitting).map(|at| passed.remove(at));
        }
    }
    Paired { sockets, unused: passed }
}

/// Where a passed socket is, if not at the port that its block wants: on which address it listens is systemd's to say.
fn elsewhere(config: &ListenerConfig, socket: &TcpListener) -> Option<SocketAddr> {
    socket.local_addr().ok().filter(|at| at.port() != config.address.port())
}

/// The TLS of a listener that names a certificate.
pub(super) fn tls(config: &ListenerConfig) -> Result<Option<Arc<ServerConfig>>, Error> {
    let read = |path: &Path| disk::read_limited(path, PEM_LIMIT).map_err(|error| Error::Path(path.into(), error));
    match (&config.certificate, &config.key) {
        (None, None) if config.ask_certificate => Err(Error::Gateway(gateway::Error::Tls(
            "ask_certificate wants a certificate and a key of the listener".into(),
        ))),
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let make = if config.ask_certificate { gateway::asking_server_config } else { gateway::server_config };
            Ok(Some(make(&read(certificate)?, &read(key)?)?))
        }
        _ => Err(Error::Gateway(gateway::Error::Tls("certificate and key go together; one is missing".into()))),
    }
}

fn passed() -> std::io::Result<Vec<TcpListener>> {
    let mut from = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..from.len() {
        sockets.extend(from.take_tcp_listener(at)?);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` sockets on free ports, and their addresses.
    fn bound(count: usize) -> (Vec<TcpListener>, Vec<SocketAddr>) {
        let sockets: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        (sockets, addresses)
    }

    fn block(address: SocketAddr) -> ListenerConfig {
        ListenerConfig { address, ..ListenerConfig::default() }
    }

    fn elsewhere(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// The addresses that the blocks got, and those that nobody wants.
    fn paired(blocks: &[SocketAddr], passed: Vec<TcpListener>) -> (Vec<Option<SocketAddr>>, Vec<SocketAddr>) {
        let blocks: Vec<_> = blocks.iter().copied().map(block).collect();
        let Paired { sockets, unused } = pair(&blocks, passed);
        let at = |socket: &TcpListener| socket.local_addr().expect("bound");
        (sockets.iter().map(|socket| socket.as_ref().map(at)).collect(), unused.iter().map(at).collect())
    }

    #[test]
    fn a_block_never_gets_the_socket_of_a_later_blocks_address() {
        let (passed, at) = bound(3);
        let blocks = [elsewhere(80), at[0], elsewhere(443), at[1]];
        assert_eq!(paired(&blocks, passed), (vec![Some(at[2]), Some(at[0]), None, Some(at[1])], vec![]));
    }

    #[test]
    fn a_block_gets_the_socket_of_its_port_where_none_has_its_address() {
        let any = || TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).expect("a free port");
        let passed = vec![any(), any()];
        let at: Vec<_> = passed.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        let blocks: Vec<_> = at.iter().rev().map(|at| SocketAddr::from(([0, 0, 0, 0], at.port()))).collect();
        assert_eq!(paired(&blocks, passed), (vec![Some(at[1]), Some(at[0])], vec![]), "not in the order of the blocks");
    }

    #[test]
    fn sockets_that_no_address_names_serve_the_blocks_in_order() {
        let (passed, at) = bound(4);
        let blocks = [elsewhere(1), elsewhere(2), elsewhere(3)];
        let in_order = at[..3].iter().copied().map(Some).collect();
        assert_eq!(paired(&blocks, passed), (in_order, vec![at[3]]), "and what is over is told");
        assert_eq!(paired(&blocks, vec![]), (vec![None; 3], vec![]), "without systemd all are bound here");
    }

    #[test]
    fn a_socket_at_another_port_than_its_blocks_is_told() {
        let (passed, at) = bound(1);
        assert_eq!(super::elsewhere(&block(elsewhere(1)), &passed[0]), Some(at[0]));
        assert_eq!(super::elsewhere(&block(elsewhere(at[0].port())), &passed[0]), None, "the address is systemd's");
    }
}
