//! The listening sockets: those that systemd passes, then those that are bound here.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use listenfd::ListenFd;
use rustls::ServerConfig;

use super::Error;
use crate::disk;
use crate::gateway::{self, Listener, ListenerConfig};

/// Largest certificate or key file, in bytes.
const PEM_LIMIT: u64 = 1 << 20;

/// One listener for each of `configs`; a passed socket serves the block with its address, or the next
/// block in order.
pub(super) fn open(configs: &[ListenerConfig]) -> Result<Vec<Listener>, Error> {
    let mut passed = passed().map_err(Error::System)?;
    let listener = |config: &ListenerConfig| {
        let tls = tls(config)?;
        let same = passed.iter().position(|socket| socket.local_addr().is_ok_and(|at| at == config.address));
        let socket = match same.or((!passed.is_empty()).then_some(0)) {
            Some(at) => passed.swap_remove(at),
            None => gateway::bind(config.address)?,
        };
        Ok(Listener::new(socket, config, tls))
    };
    configs.iter().map(listener).collect()
}

/// The TLS of a listener that names a certificate.
pub(super) fn tls(config: &ListenerConfig) -> Result<Option<Arc<ServerConfig>>, Error> {
    let read = |path: &Path| disk::read_limited(path, PEM_LIMIT).map_err(|error| Error::Path(path.into(), error));
    match (&config.certificate, &config.key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(gateway::server_config(&read(certificate)?, &read(key)?)?)),
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
