//! The hub's listener: accepts, speaks TLS where configured, serves HTTP/1.1, drains.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::body::{Moving, Reply};
use super::bundles::Bundles;
use super::command;
use super::config::{Config, Enrol, read_key};
use super::devices::Devices;
use super::door::Door;
use super::events::{self, Stream};
use super::fleet::Page;
use super::http;
use super::ingest::Ingest;
use super::leases::Leases;
use super::ledger::{self, By, Device, Enrolled, Ledger};
use super::proof::Proofs;
use super::queue::Queue;
use super::rate::Rates;
use super::requests::Requests;
use super::time::Timestamps;
use super::tls::Handshakes;
use super::writer::Writer;
use super::{Error, config};
use crate::clock::Reading;
use crate::ids::DeviceId;
use crate::keys::{PublicKey, SigningKey};

/// Bytes that may wait in the system for a slow peer; Linux doubles it.
const SEND_BUFFER: usize = 32 << 10;
/// Most connections that speak HTTP at a time, each of devices by their handshake and of all others; a further one waits for
/// its turn, and streams of events no longer do. Each has some 20 KB of buffers meanwhile, which a herd of ten thousand
/// would take together.
const SPEAKING: usize = 512;
/// After a failed accept (no more file descriptors, mostly): enough for a connection to end.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A hub that listens and has opened its ledger.
#[derive(Debug)]
pub struct Hub {
    listener: TcpListener,
    tls: Option<Handshakes>,
    door: Arc<Door>,
    drain: watch::Sender<bool>,
    writer: Writer,
    writer_thread: std::thread::JoinHandle<()>,
    fleet: Option<(Page, TcpListener)>,
    config: Config,
}

impl Hub {
    /// Opens the ledger, enrols the listed devices, binds the listener. Needs a tokio runtime with I/O and time.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let tls = config.tls.as_ref().map(Handshakes::open).transpose()?;
        let key = read_key(&config.key_file)?;
        command::fits_root(&config, &key)?;
        let page = Page::open(&config, tls.as_ref())?;
        let listed = config.devices()?;
        // A store may wait for a server.
        let (opening, signer, all) = (config.clone(), key.again(), listed.clone());
        let opened = tokio::task::spawn_blocking(move || open_ledger(&opening, signer, &all)).await;
        let (ledger, enrolled) = opened.map_err(|_| Error::LedgerStopped)??;
        let guests = config.enrol == Enrol::Any;
        if guests {
            warn!("any device may send: enrol = \"any\" is for demonstrations");
        }
        let devices = Devices::new(listed, guests);
        devices.renew(enrolled);
        let bundles = config.bundles.clone().map(|folder| Arc::new(Bundles::open(folder, config.root.clone())));
        let requests = config.requests.clone().map(|folder| {
            let unreadable = |source| config::Error::Unreadable { path: folder.clone(), source };
            Requests::open(folder.clone()).map(Arc::new).map_err(unreadable)
        });
        let requests = requests.transpose()?;
        let leases = (!config.quotas.is_empty())
            .then(|| Leases::open(&config.database, &config.quotas, key.again()).map(Arc::new))
            .transpose()
            .map_err(ledger::Error::from)?;
        let listener = TcpListener::bind(config.listen).await.map_err(|source| Error::Listen(config.listen, source))?;
        let fleet = match page {
            Some(page) => page.bind().await.map(|listener| Some((page, listener)))?,
            None => None,
        };
        let (writer, writer_thread) = Writer::start(ledger, config.uploads).map_err(Error::Thread)?;
        let rates = Rates::new(config.device_files, config.device_bytes.0);
        let (drain, draining) = watch::channel(false);
        let door = Door {
            devices,
            proofs: Proofs::new(&key, config.require_proof),
            bundles,
            requests,
            leases,
            time: Timestamps::new(key),
            ingest: Ingest::new(writer.clone(), config.uploads, rates, config.body_timeout.0),
            streams: Arc::new(Semaphore::new(config.events)),
            draining,
            queue: Queue::new(config.rate).into(),
            strangers: Mutex::default(),
            askers: Mutex::default(),
        };
        Ok(Self { listener, tls, door: Arc::new(door), drain, writer, writer_thread, fleet, config })
    }

    /// Where the fleet page listens, if there is one.
    #[must_use]
    pub fn fleet_addr(&self) -> Option<SocketAddr> {
        self.fleet.as_ref().and_then(|(_, listener)| listener.local_addr().ok())
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(|source| Error::Listen(self.config.listen, source))
    }

    /// Serves until `shutdown` resolves, then lets open requests end. What a client was told is durable.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { listener, tls, door, drain, writer, writer_thread, fleet, config } = self;
        let slots = Arc::new(Semaphore::new(config.connections));
        let turns = Turns::default();
        let mut connections = JoinSet::new();
        let mut tending = JoinSet::new();
        if let Some(bundles) = &door.bundles {
            tending.spawn(Arc::clone(bundles).tend());
        }
        let (known, teller) = (Arc::clone(&door), writer.clone());
        tending.spawn(async move { known.devices.tend(teller).await });
        if let Some((page, listener)) = fleet {
            info!(address = ?listener.local_addr().ok(), "the fleet page is at /fleet");
            tending.spawn(page.serve(listener, Arc::clone(&door), door.draining.clone()));
        }
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
                            door: door.clone(),
                            draining: door.draining.clone(),
                            head_timeout: config.head_timeout.0,
                            body_timeout: config.body_timeout.0,
                            turns: turns.clone(),
                            _slot: slot,
                        };
                        connections.spawn(connection.run(stream, peer, tls.clone()));
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
        tending.shutdown().await;
        door.devices.tell(&writer);
        drop((door, writer));
        // The last writer is gone, so the thread ends with what it has begun.
        let joined = tokio::task::spawn_blocking(move || writer_thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) { Err(Error::LedgerStopped) } else { ended }
    }
}

/// Who may speak HTTP now. Whoever shows no device's key can keep only their like waiting.
#[derive(Debug, Clone)]
struct Turns {
    devices: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let speaking = || Arc::new(Semaphore::new(SPEAKING));
        Self { devices: speaking(), others: speaking() }
    }
}

impl Turns {
    async fn take(&self, is_device: bool) -> OwnedSemaphorePermit {
        let turns = if is_device { &self.devices } else { &self.others };
        Arc::clone(turns).acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// One accepted connection.
struct Connection {
    door: Arc<Door>,
    draining: watch::Receiver<bool>,
    head_timeout: Duration,
    body_timeout: Duration,
    turns: Turns,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, peer: SocketAddr, tls: Option<Handshakes>) {
        let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER); // else a slow peer seems to stand still
        let _ = stream.set_nodelay(true); // else an answer in two parts waits for the device's acknowledgement of the first
        let stream = Moving::new(stream, self.body_timeout);
        let Some(tls) = tls else { return self.serve(stream, peer, None).await };
        // In a box, as every step that a stream of events has behind it: it lasts, and would keep its place.
        match Box::pin(tokio::time::timeout(self.head_timeout, tls.accept(stream))).await {
            Ok(Ok((stream, key))) => self.serve(stream, peer, key).await,
            Ok(Err(error)) => debug!(%peer, %error, "no TLS connection"),
            Err(_) => debug!(%peer, "the TLS handshake took too long"),
        }
    }

    /// `key` is the one that the handshake has shown.
    async fn serve(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        key: Option<PublicKey>,
    ) {
        let turn = self.turns.take(key.as_ref().is_some_and(|key| self.door.knows(key))).await;
        let Some((connection, stream)) = Box::pin(self.http(stream, peer, key)).await else { return };
        drop(turn);
        if let Err(error) = events::tell(connection, *stream).await {
            debug!(%peer, %error, "a stream of events ended early");
        }
    }

    /// Requests and answers, until the connection's end or until it goes over to a stream of events.
    async fn http<S>(&mut self, stream: S, peer: SocketAddr, key: Option<PublicKey>) -> Option<(S, Box<Stream>)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (door, key, taken) = (self.door.clone(), key.map(Arc::new), Arc::new(Mutex::new(None)));
        let slot = taken.clone();
        let service = service_fn(move |request| {
            let (door, key, slot) = (door.clone(), key.clone(), slot.clone());
            Box::pin(async move {
                match door.answer(request, key.as_deref()).await {
                    Reply::Answer(answer) => Ok(answer),
                    Reply::Events(stream) => {
                        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
                        Err(TakenOver)
                    }
                }
            })
        });
        let (mut stream, result) = http::speak(stream, service, self.head_timeout, &mut self.draining).await;
        if let Some(events) = taken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Some((stream, events));
        }
        if let Err(error) = result {
            debug!(%peer, %error, "a connection ended early");
        }
        let _ = stream.shutdown().await;
        None
    }
}

/// Ends the HTTP server's part without an answer of its own.
#[derive(Debug, thiserror::Error)]
#[error("a stream of events takes the connection over")]
struct TakenOver;

/// The ledger, with the listed devices in it; and all that it knows.
fn open_ledger(
    config: &Config,
    key: SigningKey,
    listed: &HashMap<DeviceId, Device>,
) -> Result<(Ledger, Vec<Enrolled>), Error> {
    let mut ledger = Ledger::open(config, key)?;
    let now_ms = Reading::now().wall_ms;
    for device in listed.values() {
        ledger.enrol(device, By::Config, now_ms)?;
    }
    let enrolled = ledger.devices()?;
    Ok((ledger, enrolled))
}
