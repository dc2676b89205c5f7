//! The server side: binds the socket and the port, and answers within fixed limits.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::{Config, Error, Status};
use crate::spool::backlog::{Cursor, Unavailable};
use crate::spool::receipt;
use crate::telemetry::CONTENT_TYPE;

/// Connections served at once, socket and port together; more wait in the listener's queue.
const CONNECTIONS: usize = 16;
/// Bytes of a request's head.
const HEAD_LIMIT: usize = 8 << 10;
/// Header fields of a request.
const HEADER_LIMIT: usize = 32;
/// From the first byte awaited to the end of a request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// A connection's whole life; a scraper comes again.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// After `accept` fails, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The paths of the spool, for the socket only.
const NEXT: &str = "/spool/next";
const RECEIPT: &str = "/spool/receipt";
/// The socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;

/// An answer that waits for the spool's own thread.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a receipt lets go of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// It is not believed.
    Refused(receipt::Error),
    /// The spool did not do it, now at least.
    Unavailable,
}

/// What the daemon knows of itself. Every method returns at once: no I/O, no waiting for a busy lock.
pub trait Answers: Send + Sync + 'static {
    /// `Err` names the task that makes no progress.
    fn live(&self) -> Result<(), String>;
    /// `Err` says why requests are not served under a policy.
    fn ready(&self) -> Result<(), String>;
    /// The metrics as text.
    fn metrics(&self) -> String;
    /// The status.
    fn status(&self) -> Status;
    /// The bytes of the oldest usage file after `after`, or of all.
    fn next_file(&self, after: Option<Cursor>) -> Later<'_, Result<Option<Vec<u8>>, Unavailable>>;
    /// Lets go of the file that this receipt is for, once the receipt was checked.
    fn receipt(&self, receipt: Bytes) -> Later<'_, Result<(), NotTaken>>;
}

/// The bound socket and port, before anything is answered.
#[derive(Debug)]
pub struct Doors {
    socket: UnixListener,
    port: Option<TcpListener>,
    _file: SocketFile,
}

impl Doors {
    /// Binds what `config` names; on the runtime that will serve it. A socket that a killed daemon left
    /// behind is replaced, a living one is not.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let (socket, file) = open_socket(&config.socket)?;
        let port = config.listen.map(|listen| {
            let listen = listen.address();
            open_port(listen).map_err(|source| Error::Listen { address: listen, source })
        });
        Ok(Self { socket, port: port.transpose()?, _file: file })
    }

    /// Where the port is bound, if there is one.
    #[must_use]
    pub fn port(&self) -> Option<std::net::SocketAddr> {
        self.port.as_ref().and_then(|port| port.local_addr().ok())
    }

    /// Answers until `stop` completes; connections that are open then are closed, and the socket's file goes.
    pub async fn serve(self, answers: Arc<dyn Answers>, stop: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let slot = tokio::select! {
                () = &mut stop => return,
                slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
            };
            tokio::select! {
                () = &mut stop => return,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => _ = connections.spawn(converse(Box::new(stream), Arc::clone(&answers), Peer::Socket, slot)),
                    Err(error) => pause(&error).await,
                },
                accepted = accept_port(self.port.as_ref()) => match accepted {
                    Ok(stream) => _ = connections.spawn(converse(Box::new(stream), Arc::clone(&answers), Peer::Port, slot)),
                    Err(error) => pause(&error).await,
                },
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

/// Removes the socket's file when the daemon stops.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds beside the path, sets the mode, and only then moves the socket to its place: it is never there with another mode.
fn open_socket(path: &Path) -> Result<(UnixListener, SocketFile), Error> {
    let failed = |source| Error::Socket { path: path.into(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket { path: path.into() }),
        Ok(_) if is_answered(path).map_err(failed)? => return Err(Error::SocketInUse { path: path.into() }),
        Ok(_) | Err(_) => {}
    }
    let bind = || {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&part)?;
        fs::set_permissions(&part, Permissions::from_mode(SOCKET_MODE))?;
        fs::rename(&part, path)?;
        Ok(listener)
    };
    let listener = bind().map_err(failed)?;
    Ok((listener, SocketFile(path.into())))
}

/// Whether a process listens on the socket; one whose queue is full does.
fn is_answered(path: &Path) -> io::Result<bool> {
    let probe = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open_port(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept_port(port: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match port {
        Some(port) => port.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the admin door cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Which door a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Socket,
    Port,
}

/// A connection of either door: so what serves it is compiled once.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves one connection within its time.
async fn converse(stream: Box<dyn Stream>, answers: Arc<dyn Answers>, peer: Peer, _slot: OwnedSemaphorePermit) {
    let service = service_fn(|request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(respond(request, peer, answers.as_ref()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_LIMIT)
        .max_headers(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
    }
}

async fn respond(request: Request<Incoming>, peer: Peer, answers: &dyn Answers) -> Response<Full<Bytes>> {
    if peer == Peer::Port && !request.headers().get(header::HOST).is_some_and(is_loopback_host) {
        return text(StatusCode::MISDIRECTED_REQUEST, "this port answers only to a loopback Host");
    }
    if peer == Peer::Socket && request.uri().path() == RECEIPT && request.method() == Method::POST {
        return take_receipt(request.into_body(), answers).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => verdict(answers.live()),
        "/readyz" => verdict(answers.ready()),
        "/metrics" => reply(StatusCode::OK, CONTENT_TYPE, answers.metrics()),
        "/status" => match serde_json::to_vec(&answers.status()) {
            Ok(status) => reply(StatusCode::OK, "application/json", status),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        NEXT if peer == Peer::Socket => next_file(request.uri().query(), answers).await,
        _ => text(StatusCode::NOT_FOUND, "livez, readyz, metrics, status or spool/next"),
    }
}

async fn next_file(after: Option<&str>, answers: &dyn Answers) -> Response<Full<Bytes>> {
    let read = |text: &str| {
        let (stream, seq) = text.split_once('.')?;
        Some(Cursor { stream: stream.parse().ok()?, seq: seq.parse().ok()? })
    };
    let after = match after.map(read) {
        Some(None) => return text(StatusCode::BAD_REQUEST, "STREAM.SEQ"),
        after => after.flatten(),
    };
    match answers.next_file(after).await {
        Ok(Some(file)) => reply(StatusCode::OK, "application/octet-stream", file),
        Ok(None) => text(StatusCode::NO_CONTENT, ""),
        Err(unavailable) => text(StatusCode::SERVICE_UNAVAILABLE, unavailable.to_string()),
    }
}

async fn take_receipt(body: Incoming, answers: &dyn Answers) -> Response<Full<Bytes>> {
    let Ok(body) = Limited::new(body, receipt::LEN).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "not a receipt");
    };
    match answers.receipt(body.to_bytes()).await {
        Ok(()) => text(StatusCode::NO_CONTENT, ""),
        Err(NotTaken::Refused(error)) => text(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        Err(NotTaken::Unavailable) => text(StatusCode::SERVICE_UNAVAILABLE, Unavailable.to_string()),
    }
}

/// `localhost` or a loopback address, with or without a port.
fn is_loopback_host(host: &HeaderValue) -> bool {
    let Ok(authority) = hyper::http::uri::Authority::try_from(host.as_bytes()) else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn verdict(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

fn text(status: StatusCode, line: impl Into<String>) -> Response<Full<Bytes>> {
    let mut line = line.into();
    line.push('\n');
    reply(status, "text/plain; charset=utf-8", line)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
