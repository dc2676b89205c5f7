//! The fleet page: what a person looks at in a browser, on a listener of its own, behind a password.
//!
//! ```text
//! GET /fleet         page.html, which asks for
//! GET /fleet.json    the figures: read in one pass, kept, and read again at the earliest after 5 s
//! ```
//!
//! Everything that devices have named is hostile: it travels as JSON and becomes text of the page, never markup, and the
//! page's policy runs no script but its own. Nothing is written, and no device can reach it by its key.
//!
//! Invariant: reading the figures takes at most a twentieth of the time, however large the store has become.

pub(super) mod figures;
mod password;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::password::{Failures, Password};
use super::Error;
use super::body::Moving;
use super::config::{self, Config, read_file};
use super::door::Door;
use super::http;
use super::seldom::Seldom;
use super::serve::ACCEPT_PAUSE;
use super::tls::Handshakes;
use crate::clock::Reading;
use crate::keys::sha256;

const PAGE: &str = include_str!("page.html");
/// Largest password file, in bytes.
const PASSWORD_LIMIT: u64 = 4 << 10;
/// Browsers open some six each.
const CONNECTIONS: usize = 64;
/// How old the figures may be.
const FRESH: Duration = Duration::from_secs(5);
/// They are not read again before so many times what reading them took.
const REST: u32 = 20;

/// Headers of every answer beside its content policy.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// The page, checked and ready to be shown.
#[derive(Debug)]
pub(super) struct Page {
    config: Config,
    password: Password,
    policy: HeaderValue,
    tls: Option<Handshakes>,
    failures: Mutex<Failures>,
    figures: tokio::sync::Mutex<Option<Kept>>,
    trouble: Mutex<Seldom>,
}

/// The figures, until they are to be read again.
#[derive(Debug)]
struct Kept {
    json: Bytes,
    until: Instant,
}

impl Page {
    /// Reads the password; `None` where the configuration wants no page. `tls` is the hub's.
    pub(super) fn open(config: &Config, tls: Option<&Handshakes>) -> Result<Option<Self>, config::Error> {
        let Some(fleet) = &config.fleet else { return Ok(None) };
        let is_here = fleet.listen.ip().is_loopback();
        if !is_here && tls.is_none() {
            return Err(config::Error::FleetInClear(fleet.listen));
        }
        let bytes = read_file(&fleet.password_file, PASSWORD_LIMIT)?;
        let short = || config::Error::Password { path: fleet.password_file.clone(), least: password::LEAST };
        let password = Password::new(&bytes).ok_or_else(short)?;
        Ok(Some(Self {
            config: config.clone(),
            password,
            policy: policy(PAGE),
            // To this machine a browser comes by a tunnel, under a name that the certificate does not have.
            tls: tls.filter(|_| !is_here).cloned(),
            failures: Mutex::default(),
            figures: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
        }))
    }

    /// Binds its listener.
    pub(super) async fn bind(&self) -> Result<TcpListener, Error> {
        let listen = self.config.fleet.as_ref().map_or(self.config.listen, |fleet| fleet.listen);
        TcpListener::bind(listen).await.map_err(|source| Error::Listen(listen, source))
    }

    /// Shows it to whoever has the password, until it is dropped.
    pub(super) async fn serve(self, listener: TcpListener, door: Arc<Door>, draining: watch::Receiver<bool>) {
        let (page, slots) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)));
        let mut connections = JoinSet::new();
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (page, door, draining) = (Arc::clone(&page), Arc::clone(&door), draining.clone());
                    connections.spawn(async move {
                        page.connection(stream, peer, door, draining).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    warn!(%error, "the fleet page cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        door: Arc<Door>,
        draining: watch::Receiver<bool>,
    ) {
        let head_timeout = self.config.head_timeout.0;
        let (stream, tls) = (Moving::new(stream, self.config.body_timeout.0), self.tls.clone());
        let service = service_fn(move |request| {
            let (page, door) = (Arc::clone(&self), Arc::clone(&door));
            Box::pin(async move { Ok::<_, Infallible>(page.answer(&request, peer, &door).await) })
        });
        let Some(tls) = tls else { return speak(stream, peer, service, head_timeout, draining).await };
        match tokio::time::timeout(head_timeout, tls.accept(stream)).await {
            Ok(Ok((stream, _))) => speak(stream, peer, service, head_timeout, draining).await,
            Ok(Err(error)) => debug!(%peer, %error, "no TLS connection to the fleet page"),
            Err(_) => debug!(%peer, "the TLS handshake took too long"),
        }
    }

    async fn answer<B>(&self, request: &Request<B>, peer: SocketAddr, door: &Door) -> Response<Full<Bytes>> {
        let mut answer = match self.turn_away(request, peer) {
            None => self.route(request, door).await,
            Some(refusal) => refusal,
        };
        for (name, value) in HEADERS {
            answer.headers_mut().insert(name, value);
        }
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        answer
    }

    /// What who has not the password is told. Guesses are few: each address has its own.
    fn turn_away<B>(&self, request: &Request<B>, peer: SocketAddr) -> Option<Response<Full<Bytes>>> {
        let Some(shown) = request.headers().get(header::AUTHORIZATION) else { return Some(unknown()) };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(seconds) = failures.may(peer.ip(), Instant::now()) {
            let mut answer = plain(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords: try again later\n");
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            return Some(answer);
        }
        if self.password.is_in(shown.as_bytes()) {
            return None;
        }
        failures.count(peer.ip(), Instant::now());
        info!(%peer, "a wrong password for the fleet page");
        Some(unknown())
    }

    async fn route<B>(&self, request: &Request<B>, door: &Door) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/fleet" | "/fleet.json") {
            return plain(StatusCode::NOT_FOUND, "the page is at /fleet\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "it is only to be looked at\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        if path == "/fleet" {
            return typed("text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes()));
        }
        match self.figures(door).await {
            Some(json) => typed("application/json", json),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read: see the hub's log\n"),
        }
    }

    /// The figures, read if those that are kept are too old. One reads, and the others wait for it.
    async fn figures(&self, door: &Door) -> Option<Bytes> {
        let mut kept = self.figures.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Some(kept.json.clone());
        }
        let config = self.config.clone();
        let (list, unread) = (door.bundles.as_ref().map(|bundles| bundles.list()), door.devices.unread());
        let begun = Instant::now();
        let read = tokio::task::spawn_blocking(move || {
            figures::read(&config, list.as_deref(), unread, Reading::now().wall_ms)
        });
        match read.await.ok()? {
            Ok(json) => {
                let (json, took) = (Bytes::from(json), begun.elapsed());
                *kept = Some(Kept { json: json.clone(), until: Instant::now() + FRESH.max(took * REST) });
                Some(json)
            }
            Err(error) => {
                let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(unsaid) = trouble.say(Instant::now()) {
                    let source = std::error::Error::source(&error);
                    warn!(%error, ?source, unsaid, "the fleet page's figures cannot be read");
                }
                None
            }
        }
    }
}

/// Speaks HTTP on a connection, and ends it.
async fn speak<S, F>(
    stream: S,
    peer: SocketAddr,
    service: F,
    head_timeout: Duration,
    mut draining: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Unpin> + Unpin,
{
    let (mut stream, result) = http::speak(stream, service, head_timeout, &mut draining).await;
    if let Err(error) = result {
        debug!(%peer, %error, "a connection ended early");
    }
    let _ = stream.shutdown().await;
}

/// What the page may do: its own script and style, known by their digests, and ask where it came from.
fn policy(page: &str) -> HeaderValue {
    let digest = |begin: &str, end: &str| {
        let inside = page.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inside, _)| inside);
        STANDARD.encode(sha256(inside.as_bytes()).0)
    };
    let (script, style) = (digest("<script>", "</script>"), digest("<style>", "</style>"));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("base64 is text")
}

fn unknown() -> Response<Full<Bytes>> {
    let mut answer = plain(StatusCode::UNAUTHORIZED, "the password is in the file that `fleet.password_file` names\n");
    let ask = HeaderValue::from_static("Basic realm=\"Tidegate fleet\", charset=\"UTF-8\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = typed("text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()));
    *answer.status_mut() = status;
    answer
}

fn typed(kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_the_pages_own_script_and_style_and_nothing_else() {
        let policy = policy("<style>a{}</style><script>b()</script>");
        let policy = policy.to_str().expect("text");
        let of = |text: &str| format!("'sha256-{}'", STANDARD.encode(sha256(text.as_bytes()).0));
        assert!(policy.contains(&format!("script-src {};", of("b()"))), "{policy}");
        assert!(policy.contains(&format!("style-src {};", of("a{}"))), "{policy}");
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn the_page_is_one_file_that_asks_nobody_else_and_makes_no_markup_of_data() {
        for once in ["<script>", "</script>", "<style>", "</style>"] {
            assert_eq!(PAGE.matches(once).count(), 1, "{once}");
        }
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " src=",
            " style=\"",
            "@import",
            "url(",
        ] {
            assert!(!PAGE.contains(never), "{never}");
        }
        // The one address is a name of XML.
        let foreign = PAGE.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://") && !foreign.contains("https://"));
    }
}
