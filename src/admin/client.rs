//! Asks a daemon on this machine through its socket. The operator's command and tests use it.
//!
//! One request a connection, one deadline for all of it, at most [`REPLY_LIMIT`] bytes of an answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::Status;
use crate::spool::backlog::Cursor;

/// The most that a daemon's answer may be, in bytes.
pub const REPLY_LIMIT: usize = 4 << 20;
/// How long one question may take, from connecting to the last byte.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The same where the daemon's spool is asked, which may have to write first; its connections last no longer.
pub const SPOOL_DEADLINE: Duration = Duration::from_secs(60);

/// What the daemon answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon listens there: is it running, and is this its `admin.socket`?
    #[error("no daemon answers on {path}")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// This user may not use the socket: join the daemon's group, or ask as root.
    #[error("not permitted to use {path}")]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon did not answer in time: it is stuck; look at its log.
    #[error("the daemon did not answer within {0:?}")]
    TooSlow(Duration),
    /// The connection broke, or what came is not HTTP: is something else on that socket?
    #[error("the daemon's answer could not be read")]
    Broken(#[from] hyper::Error),
    /// The answer is larger than [`REPLY_LIMIT`] or ended early.
    #[error("the daemon's answer is cut short or larger than {REPLY_LIMIT} bytes")]
    BadLength,
    /// The daemon refused to answer; the status says why.
    #[error("the daemon answered {0}")]
    Refused(StatusCode),
    /// The daemon's spool did not do it: the status says why.
    #[error("the daemon's spool did not do it: {0}")]
    Spool(String),
    /// The answer is no status that this version knows: use the command of the daemon's version.
    #[error("the daemon's status cannot be understood")]
    NotAStatus(#[from] serde_json::Error),
}

/// The daemon's status.
pub async fn status(socket: &Path) -> Result<Status, Error> {
    let reply = ask(socket, "/status").await?;
    if reply.status != StatusCode::OK {
        return Err(Error::Refused(reply.status));
    }
    Ok(serde_json::from_slice(&reply.body)?)
}

/// The bytes of the oldest usage file after `after`, or of all, in the daemon's spool.
pub async fn next_file(socket: &Path, after: Option<Cursor>) -> Result<Option<Bytes>, Error> {
    let after = after.map(|Cursor { stream, seq }| format!("?{stream}.{seq}")).unwrap_or_default();
    let uri = format!("/spool/next{after}").parse().expect("hex digits and decimals are a query");
    let reply = within(SPOOL_DEADLINE, exchange(socket, Method::GET, uri, Bytes::new())).await?;
    match reply.status {
        StatusCode::OK => Ok(Some(reply.body)),
        StatusCode::NO_CONTENT => Ok(None),
        StatusCode::SERVICE_UNAVAILABLE => Err(reply.spool_error()),
        // A daemon that is older does not know the path.
        status => Err(Error::Refused(status)),
    }
}

/// Gives the daemon a receipt of the hub, by which it lets go of a file.
pub async fn receipt(socket: &Path, receipt: &[u8]) -> Result<(), Error> {
    let uri = Uri::from_static("/spool/receipt");
    let reply = within(SPOOL_DEADLINE, exchange(socket, Method::POST, uri, Bytes::copy_from_slice(receipt))).await?;
    match reply.status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::UNPROCESSABLE_ENTITY => Err(reply.spool_error()),
        status => Err(Error::Refused(status)),
    }
}

impl Reply {
    fn spool_error(&self) -> Error {
        Error::Spool(String::from_utf8_lossy(self.body.trim_ascii()).into_owned())
    }
}

/// The answer to `GET path`, whatever its status; `path` is one of the table in [`super`].
pub async fn ask(socket: &Path, path: &'static str) -> Result<Reply, Error> {
    within(DEADLINE, exchange(socket, Method::GET, Uri::from_static(path), Bytes::new())).await
}

async fn within(deadline: Duration, reply: impl Future<Output = Result<Reply, Error>>) -> Result<Reply, Error> {
    tokio::time::timeout(deadline, reply).await.map_err(|_| Error::TooSlow(deadline))?
}

async fn exchange(socket: &Path, method: Method, uri: Uri, body: Bytes) -> Result<Reply, Error> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted { path: socket.into() },
        _ => Error::NotRunning { path: socket.into(), source },
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, REPLY_LIMIT).collect().await.map_err(|_| Error::BadLength)?;
        Ok(Reply { status: head.status, body: body.to_bytes() })
    };
    // The connection only moves while it is polled; when it ends first, the answer says what came of it.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
