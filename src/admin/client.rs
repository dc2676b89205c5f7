//! Asks a daemon on this machine through its socket. The operator's command is to use it; so far tests do.
//!
//! One request a connection, one deadline for all of it, at most [`REPLY_LIMIT`] bytes of an answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::Status;

/// The most that a daemon's answer may be, in bytes.
pub const REPLY_LIMIT: usize = 4 << 20;
/// How long one question may take, from connecting to the last byte.
pub const DEADLINE: Duration = Duration::from_secs(10);

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
    /// The daemon did not answer within [`DEADLINE`]: it is stuck; look at its log.
    #[error("the daemon did not answer within {DEADLINE:?}")]
    TooSlow,
    /// The connection broke, or what came is not HTTP: is something else on that socket?
    #[error("the daemon's answer could not be read")]
    Broken(#[from] hyper::Error),
    /// The answer is larger than [`REPLY_LIMIT`] or ended early.
    #[error("the daemon's answer is cut short or larger than {REPLY_LIMIT} bytes")]
    BadLength,
    /// The daemon refused to answer; the status says why.
    #[error("the daemon answered {0}")]
    Refused(StatusCode),
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

/// The answer to `GET path`, whatever its status; `path` is one of the table in [`super`].
pub async fn ask(socket: &Path, path: &'static str) -> Result<Reply, Error> {
    tokio::time::timeout(DEADLINE, exchange(socket, path)).await.map_err(|_| Error::TooSlow)?
}

async fn exchange(socket: &Path, path: &'static str) -> Result<Reply, Error> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted { path: socket.into() },
        _ => Error::NotRunning { path: socket.into(), source },
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = hyper::Uri::from_static(path);
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
