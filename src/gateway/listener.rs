//! One way in for all modes: a socket, bound here or passed by systemd, whose connections are handed to the workers.
//!
//! Invariant: there are never more connections served than the limit says; those beyond it wait in the kernel's queue,
//! where the next process finds them. A listener that waits for a connection keeps no place from another.
//! Errors that come from the system's own limits pause accepting and are counted; none of them ends it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::seldom::Seldom;
use super::{ConnectionEnd, Counters, Error, ListenerConfig};

/// How long accepting pauses when the system gives no descriptor or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket to accept from.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    door: Arc<Door>,
}

/// How a listener's connections are treated.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) trust_forwarded: bool,
    pub(super) trust_request_id: bool,
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: IpAddr,
    pub(super) door: Arc<Door>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Binds an address of the configuration.
///
/// Errors: [`Error::Bind`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| Error::Bind { address, source })
}

impl Listener {
    /// A listener on `socket`; `tls` is of [`super::server_config`] where the configuration names a certificate.
    #[must_use]
    pub fn new(socket: TcpListener, config: &ListenerConfig, tls: Option<Arc<ServerConfig>>) -> Self {
        let ListenerConfig { trust_forwarded, trust_request_id, .. } = *config;
        Self { socket, door: Arc::new(Door { tls, trust_forwarded, trust_request_id }) }
    }

    /// Accepts for ever; the caller drops it to stop.
    pub(super) async fn accept(
        self,
        workers: Arc<[mpsc::Sender<Accepted>]>,
        room: Arc<Semaphore>,
        counters: Arc<Counters>,
    ) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; a listener of std keeps its one descriptor, as it must"
        )]
        let socket = AsyncFd::with_interest(self.socket, Interest::READABLE)?;
        let (mut turn, told) = (0_usize, Seldom::default());
        loop {
            let mut ready = socket.readable().await?;
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
            turn = turn.wrapping_add(1);
            let Some(worker) = workers.get(turn % workers.len().max(1)) else { return Ok(()) };
            let Ok(place) = worker.reserve().await else { return Ok(()) };
            // From here to the worker nothing waits, so no connection is lost on the way where this is stopped.
            let (stream, address) = match ready.try_io(|socket| socket.get_ref().accept()) {
                Ok(Ok(accepted)) => accepted,
                Ok(Err(error)) if !is_the_peers(&error) => {
                    counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                    if told.may(Instant::now()) {
                        tracing::error!(%error, "no connection can be accepted; trying again");
                    }
                    drop((permit, place));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Ok(Err(_)) | Err(_) => continue,
            };
            counters.accepted.fetch_add(1, Ordering::Relaxed);
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
                counters.count_end(ConnectionEnd::Broken);
                continue;
            }
            place.send(Accepted { stream, address: address.ip(), door: Arc::clone(&self.door), permit });
        }
    }
}

/// The connection was gone before it was accepted: the next one may be well.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}
