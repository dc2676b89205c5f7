//! The hub's listener: accepts, speaks TLS where configured, serves HTTP/1.1, drains.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::body::Moving;
use super::bundles::{Bundles, read_root};
use super::config::{Config, Enrol, Tls, read_file, read_key};
use super::ingest::Ingest;
use super::ledger::{By, Device, Enrolled, Ledger};
use super::requests::Requests;
use super::time::Timestamps;
use super::writer::Writer;
use super::{Error, config};
use crate::clock::{Reading, WallClock};
use crate::ids::DeviceId;

/// Largest request head, in bytes.
const HEAD_LIMIT: usize = 16 << 10;
/// Most header lines of a request.
const HEADERS_LIMIT: usize = 32;
/// Largest PEM file, in bytes.
const PEM_LIMIT: u64 = 1 << 20;
/// Bytes that may wait in the system for a slow peer; Linux doubles it.
const SEND_BUFFER: usize = 32 << 10;
/// After a failed accept (no more file descriptors, mostly): enough for a connection to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A hub that listens and has opened its ledger.
#[derive(Debug)]
pub struct Hub {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    ingest: Arc<Ingest>,
    writer: Writer,
    writer_thread: std::thread::JoinHandle<()>,
    config: Config,
}

impl Hub {
    /// Opens the ledger, enrols the listed devices, binds the listener. Needs a tokio runtime with I/O and time.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let tls = config.tls.as_ref().map(tls_config).transpose()?;
        let guests = config.enrol == Enrol::Any;
        if guests {
            warn!("any device may send: enrol = \"any\" is for demonstrations");
        }
        // A store may wait for a server.
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open_ledger(&opening)).await;
        let (ledger, devices) = opened.map_err(|_| Error::LedgerStopped)??;
        let listener = TcpListener::bind(config.listen).await.map_err(|source| Error::Listen(config.listen, source))?;
        let (writer, writer_thread) = Writer::start(ledger, config.uploads).map_err(Error::Thread)?;
        let time = Timestamps::new(read_key(&config.key_file)?);
        let mut ingest = Ingest::new(devices, guests, writer.clone(), config.uploads, config.body_timeout.0, time);
        if let Some(root) = &config.root {
            read_root(root).map_err(|source| config::Error::Unreadable { path: root.clone(), source })?;
        }
        ingest.bundles = config.bundles.clone().map(|folder| Arc::new(Bundles::new(folder, config.root.clone())));
        let requests = config.requests.clone().map(|folder| {
            let unreadable = |source| config::Error::Unreadable { path: folder.clone(), source };
            Requests::open(folder.clone()).map(Arc::new).map_err(unreadable)
        });
        ingest.requests = requests.transpose()?;
        Ok(Self { listener, tls, ingest: Arc::new(ingest), writer, writer_thread, config })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(|source| Error::Listen(self.config.listen, source))
    }

    /// Serves until `shutdown` resolves, then lets open requests end. What a client was told is durable.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { listener, tls, ingest, writer, writer_thread, config } = self;
        let (drain, draining) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(config.connections));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        let ended = loop {
            let accepted = async {
                let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
                (listener.accept().await, slot)
            };
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                () = writer.gone() => break Err(Error::LedgerStopped),
                Some(_) = connections.join_next() => {}
                (accepted, slot) = accepted => match accepted {
                    Ok((stream, peer)) => {
                        let connection = Connection {
                            ingest: ingest.clone(),
                            draining: draining.clone(),
                            head_timeout: config.head_timeout.0,
                            body_timeout: config.body_timeout.0,
                            _slot: slot,
                        };
                        connections.spawn(connection.run(stream, peer, tls.clone().map(TlsAcceptor::from)));
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        drop(listener);
        info!(connections = connections.len(), "draining");
        drain.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(config.drain.0, all).await.is_err() {
            warn!("some requests did not end in time");
            connections.shutdown().await;
        }
        drop((ingest, writer));
        // The last writer is gone, so the thread ends with what it has begun.
        let joined = tokio::task::spawn_blocking(move || writer_thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) { Err(Error::LedgerStopped) } else { ended }
    }
}

/// One accepted connection.
struct Connection {
    ingest: Arc<Ingest>,
    draining: watch::Receiver<bool>,
    head_timeout: Duration,
    body_timeout: Duration,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER); // else a slow peer seems to stand still
        let stream = Moving::new(stream, self.body_timeout);
        let Some(tls) = tls else { return self.http(stream, peer).await };
        match tokio::time::timeout(self.head_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream, peer).await,
            Ok(Err(error)) => debug!(%peer, %error, "no TLS connection"),
            Err(_) => debug!(%peer, "the TLS handshake took too long"),
        }
    }

    async fn http(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
        let ingest = self.ingest.clone();
        let service = service_fn(move |request| {
            let ingest = ingest.clone();
            async move { Ok::<_, std::convert::Infallible>(ingest.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(HEAD_LIMIT)
            .max_headers(HEADERS_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let draining = async { drop(self.draining.wait_for(|draining| *draining).await) };
        let ended = tokio::select! {
            result = &mut connection => Some(result),
            () = draining => None,
        };
        let result = match ended {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            debug!(%peer, %error, "a connection ended early");
        }
    }
}

/// The ledger, with the listed devices in it; and who may send.
fn open_ledger(config: &Config) -> Result<(Ledger, HashMap<DeviceId, Device>), Error> {
    let mut ledger = Ledger::open(config, read_key(&config.key_file)?)?;
    let mut devices = config.devices()?;
    let now_ms = Reading::now().wall_ms;
    for device in devices.values() {
        ledger.enrol(device, By::Config, now_ms)?;
    }
    for Enrolled { device, by, is_revoked } in ledger.devices()? {
        if is_revoked {
            devices.remove(&device.id());
        } else if by == By::Command || config.enrol == Enrol::Any {
            devices.entry(device.id()).or_insert(device);
        }
    }
    Ok((ledger, devices))
}

fn tls_config(tls: &Tls) -> Result<Arc<ServerConfig>, Error> {
    let malformed = |path: &std::path::Path, reason: String| config::Error::Malformed { path: path.into(), reason };
    let pem = read_file(&tls.certificate, PEM_LIMIT)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(&tls.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&read_file(&tls.key, PEM_LIMIT)?)
        .map_err(|error| malformed(&tls.key, error.to_string()))?;
    let config =
        ServerConfig::builder_with_details(Arc::new(rustls::crypto::ring::default_provider()), Arc::new(WallClock))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| malformed(&tls.certificate, error.to_string()))?;
    Ok(Arc::new(config))
}
