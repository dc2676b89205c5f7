//! One connection to the hub: TCP, TLS where the address says https, HTTP/1.1, one upload after another.
//!
//! Everything has a time limit and the answer a length limit; an upload may take long as long as it moves. A
//! connection that fails is dropped whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::request::Builder;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::identity::{self, Handshakes, Identity};
use super::pin::PinnedHub;
use super::progress::{Progress, SEND_BUFFER, Watched};
use super::reach::reach;
use super::{Config, Error, Failure, Uplink};
use crate::clock::WallClock;
use crate::ids::{DeviceId, Digest, hex};
use crate::keys::PublicKey;
use crate::spool::backlog::UsageFile;
use crate::spool::protocol::{
    BACKLOG, BUNDLES_HINT, DEVICE_KEY, HINT_LIMIT, PROOF, REQUEST_TYPE, REQUESTS, SIGNATURE, USAGE_TYPE, time_path,
    usage_path,
};
use crate::spool::segment::SIGNATURE_LEN;
use crate::spool::timestamp::Question;

/// Longest answer of the hub, in bytes: a receipt, the time, or a problem document.
const ANSWER_LIMIT: usize = 16 << 10;

/// Where the hub is and how it proves itself.
#[derive(Debug, Clone)]
pub(super) struct Client {
    host: String,
    port: u16,
    tls: Option<(Handshakes, ServerName<'static>)>,
    identity: Option<Identity>,
    uplink: Arc<Uplink>,
    connect_timeout: Duration,
    request_timeout: Duration,
}

/// What the hub said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// What the hub has for this device, by a name of its own.
    pub(super) bundles: Option<String>,
    pub(super) challenge: Option<[u8; 32]>,
    pub(super) body: Bytes,
}

impl Client {
    /// Checks the address and the pins. `authorities` is the content of `config.authority_file`, `identity` what the hub
    /// may ask a proof of.
    pub(super) fn new(
        config: &Config,
        hub: &str,
        authorities: &[u8],
        uplink: Arc<Uplink>,
        identity: Option<Identity>,
    ) -> Result<Self, Error> {
        let address = || Error::BadAddress(hub.into());
        let uri: Uri = hub.parse().map_err(|_| address())?;
        let host = uri.host().ok_or_else(address)?.trim_matches(['[', ']']).to_owned();
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(address());
        }
        let (tls, default_port) = match uri.scheme_str() {
            Some("https") => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let pinned = PinnedHub::new(&config.hub_pins, authorities, provider.clone())?;
                let tls = ClientConfig::builder_with_details(provider, Arc::new(WallClock))
                    .with_safe_default_protocol_versions()
                    .map_err(|_| address())?
                    .dangerous() // rustls' word for any verifier of one's own
                    .with_custom_certificate_verifier(Arc::new(pinned))
                    .with_no_client_auth();
                let name = ServerName::try_from(host.clone()).map_err(|_| address())?;
                (Some((Handshakes::new(tls, identity.as_ref()), name)), 443)
            }
            Some("http") if config.allow_plain_http || is_loopback(&host) => (None, 80),
            Some("http") => return Err(Error::PlainHttp(hub.into())),
            _ => return Err(address()),
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let (connect_timeout, request_timeout) = (config.connect_timeout.0, config.request_timeout.0);
        Ok(Self { host, port, tls, identity, uplink, connect_timeout, request_timeout })
    }

    /// The hub's host, as a file name may hold it.
    pub(super) fn name(&self) -> String {
        self.host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-:".contains(c) { c } else { '_' })
            .take(64)
            .collect()
    }

    /// Connects, if the hub may be called now.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        if let Some((failure, _)) = self.uplink.held() {
            return Err(failure);
        }
        tokio::time::timeout(self.connect_timeout, self.handshake()).await.map_err(|_| Failure::ConnectTimeout)?
    }

    async fn handshake(&self) -> Result<Connection, Failure> {
        let Uplink { proxy, interfaces, .. } = &*self.uplink;
        let (host, port) = proxy.as_ref().map_or((&self.host, self.port), |proxy| (&proxy.host, proxy.port));
        let stream =
            reach(host, port, interfaces, self.connect_timeout).await.map_err(|failure| match (failure, proxy) {
                (Failure::Connect, Some(_)) => Failure::Proxy,
                (failure, _) => failure,
            })?;
        let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER); // else progress is seen less finely
        let _ = stream.set_nodelay(true); // else the end of each file waits for an acknowledgement that is put off, 40 ms
        let progress = Progress::new();
        let mut stream = Watched::new(stream, progress.clone(), Arc::clone(&self.uplink));
        if let Some(proxy) = proxy {
            proxy.tunnel(&mut stream, &self.authority()).await?;
        }
        match &self.tls {
            None => self.http(Box::new(stream), progress).await,
            Some((handshakes, name)) => {
                let connector = TlsConnector::from(handshakes.next());
                match connector.connect(name.clone(), stream).await {
                    Ok(stream) => self.http(Box::new(stream), progress).await,
                    Err(error) if handshakes.failed(&error) => Box::pin(self.handshake()).await,
                    Err(_) => Err(Failure::Tls),
                }
            }
        }
    }

    async fn http(&self, stream: Box<dyn Stream>, progress: Progress) -> Result<Connection, Failure> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Connect)?;
        let mut task = JoinSet::new();
        // Its end shows as an error of the next request.
        task.spawn(async move { drop(connection.await) });
        Ok(Connection {
            sender,
            authority: self.authority(),
            identity: self.identity.clone(),
            uplink: Arc::clone(&self.uplink),
            challenge: None,
            request_timeout: self.request_timeout,
            progress,
            _task: task,
        })
    }
}

/// A connection with TLS or without: so what speaks HTTP on it is compiled once.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Client {
    /// Host and port, as HTTP writes them.
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Whether a host is this machine beyond doubt: a name could be resolved to anywhere.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An open connection; closed when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    identity: Option<Identity>,
    uplink: Arc<Uplink>,
    /// What the hub wants each request's proof to be over.
    challenge: Option<[u8; 32]>,
    request_timeout: Duration,
    progress: Progress,
    _task: JoinSet<()>,
}

impl Connection {
    /// Sends one usage file, which `maker` signed, and reads the answer whole. `device` is our own key.
    pub(super) async fn put(
        &mut self,
        device: &PublicKey,
        maker: DeviceId,
        file: UsageFile,
    ) -> Result<Answer, Failure> {
        let mut request = Request::put(usage_path(maker, file.at)).header(header::CONTENT_TYPE, USAGE_TYPE);
        if let Some(signature) = file.bytes.last_chunk::<SIGNATURE_LEN>() {
            request = request.header(SIGNATURE, hex(signature));
        }
        self.send(request, device, file.bytes.into()).await
    }

    /// Asks for the time, and reads the answer whole.
    pub(super) async fn time(&mut self, device: &PublicKey, asked: &Question) -> Result<Answer, Failure> {
        let path = time_path(asked);
        let answer = self.send(Request::get(&path), device, Bytes::new()).await?;
        if !self.is_challenged(answer.status, answer.challenge) {
            return Ok(answer);
        }
        self.send(Request::get(path), device, Bytes::new()).await
    }

    /// Brings a device's request to be enrolled, and reads the answer whole.
    pub(super) async fn request(&mut self, device: &PublicKey, request: Vec<u8>) -> Result<Answer, Failure> {
        let head = Request::put(REQUESTS).header(header::CONTENT_TYPE, REQUEST_TYPE);
        self.send(head, device, request.into()).await
    }

    /// Asks for what is at `path` unless it is one of the `known`; the head of the answer.
    pub(super) async fn get(
        &mut self,
        device: &PublicKey,
        path: &str,
        known: &[Digest],
    ) -> Result<Response<Incoming>, Failure> {
        let answer = self.get_once(device, path, known).await?;
        if !self.is_challenged(answer.status(), identity::challenge(answer.headers())) {
            return Ok(answer);
        }
        self.drain(answer).await?;
        self.get_once(device, path, known).await
    }

    async fn get_once(
        &mut self,
        device: &PublicKey,
        path: &str,
        known: &[Digest],
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = self.by(device, Request::get(path));
        if !known.is_empty() {
            let tags: Vec<String> = known.iter().map(|digest| format!("\"{digest}\"")).collect();
            request = request.header(header::IF_NONE_MATCH, tags.join(", "));
        }
        let request = request.body(Full::default()).map_err(|_| Failure::Connect)?;
        let (limit, progress) = (self.request_timeout, self.progress.clone());
        let sent = async {
            self.sender.ready().await.map_err(|_| Failure::Closed)?;
            self.sender.send_request(request).await.map_err(|_| Failure::Closed)
        };
        progress.within(limit, sent).await.ok_or(Failure::RequestTimeout)?
    }

    /// Waits for `work` on this connection as long as something moves.
    pub(super) async fn moving<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.progress.within(self.request_timeout, work).await
    }

    /// Reads an answer whose body is of no use, so that the next request can follow.
    pub(super) async fn drain(&self, answer: Response<Incoming>) -> Result<(), Failure> {
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect();
        let read = self.moving(body).await.ok_or(Failure::RequestTimeout)?;
        read.map(drop).map_err(|_| Failure::BadAnswer)
    }

    /// Whether the hub wants a proof over a challenge, which the next requests then bring.
    fn is_challenged(&mut self, status: StatusCode, challenge: Option<[u8; 32]>) -> bool {
        let challenge = challenge.filter(|_| status == StatusCode::UNAUTHORIZED && self.identity.is_some());
        self.challenge = challenge.or(self.challenge);
        challenge.is_some()
    }

    /// With what every request says: whose it is, its proof, what waits.
    fn by(&self, device: &PublicKey, request: Builder) -> Builder {
        let request = self.proven(request).header(header::HOST, &self.authority).header(DEVICE_KEY, hex(device.raw()));
        match self.uplink.waits() {
            Some(waits) => request.header(BACKLOG, waits.to_string()),
            None => request,
        }
    }

    /// With the proof that the hub wants. A usage file is its own.
    fn proven(&self, request: Builder) -> Builder {
        let (Some(identity), Some(challenge)) = (&self.identity, &self.challenge) else { return request };
        match (request.method_ref(), request.uri_ref()) {
            (Some(method), Some(uri)) if method != Method::PUT => {
                let proof = identity.proof(challenge, method.as_str(), uri.path());
                request.header(PROOF, proof)
            }
            _ => request,
        }
    }

    async fn send(&mut self, request: Builder, device: &PublicKey, body: Bytes) -> Result<Answer, Failure> {
        let (limit, progress) = (self.request_timeout, self.progress.clone());
        progress.within(limit, self.exchange(request, device, body)).await.ok_or(Failure::RequestTimeout)?
    }

    async fn exchange(&mut self, request: Builder, device: &PublicKey, body: Bytes) -> Result<Answer, Failure> {
        let request = self.by(device, request).body(Full::from(body)).map_err(|_| Failure::Connect)?;
        self.sender.ready().await.map_err(|_| Failure::Closed)?;
        let response = self.sender.send_request(request).await.map_err(|_| Failure::Closed)?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let hint = response.headers().get(BUNDLES_HINT).and_then(|value| value.to_str().ok());
        let bundles = hint.filter(|hint| hint.len() <= HINT_LIMIT).map(str::to_owned);
        let challenge = identity::challenge(response.headers());
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(|_| Failure::BadAnswer)?;
        Ok(Answer { status, bundles, retry_after, challenge, body: body.to_bytes() })
    }
}

/// How long the hub asks to wait, in seconds (RFC 9110 section 10.2.3; no hub sends a date).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}
