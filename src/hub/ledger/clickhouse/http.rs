//! ClickHouse's HTTP interface: one statement, one answer, each bounded in bytes and time.
//!
//! Synchronous to its caller, the ledger's thread, on a small runtime of its own. One connection is kept between
//! statements. `wait_end_of_query` makes the server answer 200 only when all is done, never in the middle of it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Error;
use crate::hub::config::ClickHouse as Config;

const CONNECT: Duration = Duration::from_secs(5);
/// How long a statement may take.
const STATEMENT: Duration = Duration::from_secs(60);
/// How long the server may think about what a person asks, and how long it may be silent in its answer.
const QUESTION: Duration = Duration::from_secs(600);
/// Longest answer, in bytes: some ten thousand lines of the ledger.
const ANSWER_LIMIT: usize = 8 << 20;
/// Longest line of an answer that is read by lines, in bytes: a record with every text at its limit, all escaped, and more.
const LINE_LIMIT: usize = 64 << 10;
/// Bytes of such an answer that the server holds in memory; the rest waits on its disk.
const HELD: usize = 1 << 20;
/// Longest file with a password, in bytes.
const PASSWORD_LIMIT: u64 = 4 << 10;
/// As much of the server's words as is told, in characters.
const WORDS: usize = 400;

/// The way to the server.
#[derive(Debug)]
pub(super) struct Http {
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    authority: String,
    database: String,
    user: Option<String>,
    password: Option<String>,
    connection: Option<SendRequest<Full<Bytes>>>,
    #[cfg(test)]
    pub(super) fuse: Option<super::super::tests::Fuse>,
}

impl Http {
    /// Nothing is sent yet.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let url: Uri = config.url.parse().map_err(|_| Error::Url)?;
        let is_bare = url.path_and_query().is_none_or(|path| path == "/");
        let authority = url.authority().filter(|_| is_bare && url.scheme_str() == Some("http")).ok_or(Error::Url)?;
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if config.database.is_empty() || !is_name(&config.database) {
            return Err(Error::DatabaseName);
        }
        let password = config.password_file.as_deref().map(read_password).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        Ok(Self {
            runtime: Some(runtime),
            authority: if authority.port().is_some() { authority.to_string() } else { format!("{authority}:8123") },
            database: config.database.clone(),
            user: config.user.clone(),
            password,
            connection: None,
            #[cfg(test)]
            fuse: None,
        })
    }

    /// Makes the database if it is missing.
    pub(super) fn create_database(&mut self) -> Result<(), Error> {
        let sql = format!("CREATE DATABASE IF NOT EXISTS {}", self.database);
        self.send("/?wait_end_of_query=1".into(), sql.into()).map(drop)
    }

    /// A statement without data.
    pub(super) fn execute(&mut self, sql: &str) -> Result<(), Error> {
        self.select(sql).map(drop)
    }

    /// A statement and its answer.
    pub(super) fn select(&mut self, sql: &str) -> Result<Bytes, Error> {
        let target = format!("/?wait_end_of_query=1&database={}", self.database);
        self.send(target, sql.to_owned().into())
    }

    /// An `INSERT … FORMAT …` and its data; durable as the server promises it when this returns.
    pub(super) fn insert(&mut self, sql: &str, data: Vec<u8>) -> Result<(), Error> {
        let mut target = format!("/?wait_end_of_query=1&database={}&query=", self.database);
        for byte in sql.bytes() {
            let _ = match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => write!(target, "{}", char::from(byte)),
                _ => write!(target, "%{byte:02X}"),
            };
        }
        self.send(target, data.into()).map(drop)
    }

    /// A statement, each line of its answer to `each` until that says `false`. The answer may be of any length: the server
    /// sends it from its disk once it is whole, so that none is taken for whole that is not.
    pub(super) fn lines(&mut self, sql: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Error> {
        let target = format!("/?wait_end_of_query=1&buffer_size={HELD}&database={}", self.database);
        let request = self.request(target, sql.to_owned().into())?;
        let runtime = self.runtime.as_ref().ok_or(Error::Timeout)?;
        // A connection of its own, for it ends with an answer that nobody reads to the end.
        runtime.block_on(async {
            let mut connection = connect(&self.authority).await?;
            let answer = tokio::time::timeout(QUESTION, connection.send_request(request)).await;
            let answer = answer.map_err(|_| Error::Timeout)?.map_err(Error::Http)?;
            if answer.status() != StatusCode::OK {
                let words_of = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
                return Err(Error::Says(words(&words_of.map_err(|_| Error::AnswerCutOff)?.to_bytes())));
            }
            let (mut body, mut open) = (answer.into_body(), Vec::new());
            loop {
                let frame = tokio::time::timeout(QUESTION, body.frame()).await.map_err(|_| Error::Timeout)?;
                let Some(frame) = frame else { break };
                let Ok(data) = frame.map_err(Error::Http)?.into_data() else { continue };
                let mut rest = &data[..];
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let (line, after) = rest.split_at(end);
                    rest = after.get(1..).unwrap_or_default();
                    open.extend_from_slice(line);
                    if !each(&open) {
                        return Ok(());
                    }
                    open.clear();
                }
                open.extend_from_slice(rest);
                if open.len() > LINE_LIMIT {
                    return Err(Error::AnswerCutOff);
                }
            }
            if open.is_empty() { Ok(()) } else { Err(Error::AnswerCutOff) }
        })
    }

    fn request(&self, target: String, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder().method(Method::POST).uri(target).header(header::HOST, &self.authority);
        for (name, value) in [("X-ClickHouse-User", &self.user), ("X-ClickHouse-Key", &self.password)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.body(Full::new(body)).map_err(|_| Error::Credentials)
    }

    fn send(&mut self, target: String, body: Bytes) -> Result<Bytes, Error> {
        #[cfg(test)]
        if self.fuse.as_mut().is_some_and(super::super::tests::Fuse::blows_before) {
            return Err(Error::Timeout);
        }
        let request = self.request(target, body)?;
        let (authority, kept) = (&self.authority, self.connection.take());
        let runtime = self.runtime.as_ref().ok_or(Error::Timeout)?;
        let answer = runtime.block_on(async {
            let kept = kept.filter(|connection| !connection.is_closed());
            let mut connection = match kept {
                Some(connection) => connection,
                None => connect(authority).await?,
            };
            let answer = tokio::time::timeout(STATEMENT, ask(&mut connection, request)).await;
            Ok((answer.map_err(|_| Error::Timeout)??, connection))
        });
        #[cfg(test)]
        if self.fuse.as_mut().is_some_and(super::super::tests::Fuse::blows_after) {
            return Err(Error::Timeout);
        }
        let ((status, answer), connection) = answer?;
        self.connection = Some(connection);
        if status == StatusCode::OK { Ok(answer) } else { Err(Error::Says(words(&answer))) }
    }
}

impl Drop for Http {
    /// A runtime may not end inside of another one, where the hub's beginning fails.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, Error> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(authority)).await;
    let stream = stream.map_err(|_| Error::Timeout)?.map_err(Error::Connect)?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::Http)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Error> {
    connection.ready().await.map_err(Error::Http)?;
    let answer = connection.send_request(request).await.map_err(Error::Http)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map_err(|_| Error::AnswerCutOff)?;
    Ok((status, body.to_bytes()))
}

/// What the server says, fit for a log.
fn words(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.chars().take(WORDS).map(|one| if one.is_control() { ' ' } else { one }).collect::<String>().trim().to_owned()
}

fn read_password(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Password { path: path.into(), source };
    let bytes = crate::disk::read_limited(path, PASSWORD_LIMIT).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Credentials)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
