//! One worker: a current-thread runtime, its connections, and everything that a request needs without a lock.

use std::cell::{Cell, LazyCell, RefCell};
use std::fmt::Write as _;
use std::future::Future as _;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use bytes::{Bytes, BytesMut};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::counters::ConnectionEnd;
use super::discretion::Discretion;
use super::fields::{Peer, X_REQUEST_ID};
use super::forward::Outlets;
use super::head::HeadTimer;
use super::listener::{Accepted, Door};
use super::meter::{Caller, Intake};
use super::pool::{IdleLimits, Outlet};
use super::seldom::Seldom;
use super::time::Moment;
use super::turn::Turn;
use super::wire::Wire;
use super::{Config, Shared, TimeState, pipeline, tls};
use crate::ids::RequestId;
use crate::keys::sha256;
use crate::policy::{ApiIndex, Policy, Snapshot, Upstream, UpstreamIndex};
use crate::spool::record::UsageRecord;
use crate::telemetry::Heart;
use crate::throttle::Now;
use crate::token::TokenCache;

/// How many names of requests are made at a time, from one allocation.
const NAMES: usize = 64;
const NAME_LENGTH: usize = 32;
/// How often a worker tidies up, whether requests come or not.
const TIDY: Duration = Duration::from_secs(1);

/// What a worker needs of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) head: usize,
    pub(super) head_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) handshake_timeout: Duration,
    pub(super) idle: IdleLimits,
    pub(super) token_cache: u64,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let body_timeout = config.timeouts.body.0;
        let count = usize::try_from(config.limits.idle_upstream).unwrap_or(usize::MAX);
        Self {
            head: usize::try_from(config.limits.head.0).unwrap_or(usize::MAX).max(8 << 10),
            head_timeout: config.timeouts.head.0,
            body_timeout,
            handshake_timeout: config.timeouts.handshake.0,
            idle: IdleLimits { count, age: config.timeouts.idle_upstream.0, stall: body_timeout },
            token_cache: config.token_cache.0,
        }
    }
}

/// What a worker's connections share.
pub(super) struct Worker {
    pub(super) settings: Settings,
    pub(super) shared: Shared,
    pub(super) tokens: RefCell<TokenCache>,
    turn: Rc<Turn>,
    policy: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    in_force: RefCell<Rc<InForce>>,
    time: RefCell<Cache<Arc<ArcSwap<TimeState>>, Arc<TimeState>>>,
    names: RefCell<Names>,
    pub(super) defects: Seldom,
    pub(super) discretion: RefCell<Discretion>,
    started: Instant,
    connections: Cell<usize>,
    is_draining: Cell<bool>,
    /// Wakes the connections when draining starts, and the worker when the last one ends.
    drain: Notify,
    emptied: Notify,
}

/// A request's name, as an id and as a header field.
#[derive(Debug, Clone)]
pub(super) struct RequestName {
    pub(super) id: RequestId,
    pub(super) field: HeaderValue,
}

/// A snapshot, and what this worker made of it.
pub(super) struct InForce {
    pub(super) snapshot: Arc<Snapshot>,
    /// By API: the header that carries its tokens.
    token_headers: Box<[Option<HeaderName>]>,
    /// By upstream.
    outlets: Box<[Outlets]>,
}

impl InForce {
    /// Makes the outlets of a snapshot; those that stay as they were keep their connections.
    fn new(snapshot: Arc<Snapshot>, worker: Means<'_>, before: Option<&Self>) -> Self {
        let Some(policy) = &snapshot.policy else {
            return Self { snapshot, token_headers: Box::default(), outlets: Box::default() };
        };
        let token_headers = policy.apis.iter().map(|api| HeaderName::from_bytes(api.token_header.as_bytes()).ok());
        let token_headers = token_headers.collect();
        let outlets = policy.upstreams.iter().map(|upstream| outlets(upstream, worker, before)).collect();
        Self { snapshot, token_headers, outlets }
    }

    pub(super) fn outlets(&self, upstream: UpstreamIndex) -> &Outlets {
        &self.outlets[upstream as usize]
    }

    pub(super) fn token_header(&self, api: ApiIndex) -> Option<&HeaderName> {
        self.token_headers.get(api as usize)?.as_ref()
    }
}

/// What outlets are made with.
type Means<'a> = (&'a Settings, &'a Shared, &'a Rc<Turn>);

fn outlets(upstream: &Upstream, (settings, shared, turn): Means<'_>, before: Option<&InForce>) -> Outlets {
    let before = before.and_then(|before| Some((before.snapshot.policy.as_deref()?, &before.outlets)));
    let earlier =
        |policy: &Policy| policy.upstreams.iter().position(|was| was.name == upstream.name && was.ca == upstream.ca);
    let earlier = before.and_then(|(policy, outlets)| outlets.get(earlier(policy)?));
    // Made for the first that is new: its roots are parsed on a request's time.
    let connector = LazyCell::new(|| {
        let connector = tls::connector(&upstream.ca, &shared.time);
        connector.inspect_err(|error| tracing::error!(upstream = %upstream.name, %error, "its CA cannot be used")).ok()
    });
    let all = upstream.endpoints.iter().filter_map(|endpoint| {
        let kept = earlier.and_then(|outlets| outlets.all.iter().find(|outlet| outlet.endpoint == *endpoint));
        if let Some(outlet) = kept {
            return Some(Rc::clone(outlet));
        }
        let connector = if endpoint.tls { connector.clone() } else { None };
        let outlet = Outlet::new(endpoint, connector, settings.idle, turn).map(Rc::new);
        if outlet.is_none() {
            tracing::error!(upstream = %upstream.name, endpoint = %endpoint.authority, "an endpoint cannot be used");
        }
        outlet
    });
    Outlets::new(all.collect())
}

impl Worker {
    fn new(settings: Settings, shared: Shared, intake: Box<dyn Intake>) -> io::Result<Self> {
        let turn = Rc::new(Turn::new(intake));
        let in_force = InForce::new(shared.policy.load_full(), (&settings, &shared, &turn), None);
        Ok(Self {
            settings,
            tokens: RefCell::new(TokenCache::new(settings.token_cache)),
            turn,
            policy: RefCell::new(Cache::new(Arc::clone(&shared.policy))),
            in_force: RefCell::new(Rc::new(in_force)),
            time: RefCell::new(Cache::new(Arc::clone(&shared.time))),
            names: RefCell::new(Names::new()?),
            defects: Seldom::default(),
            discretion: RefCell::new(Discretion::new(&shared.pseudonyms)),
            started: Instant::now(),
            connections: Cell::new(0),
            is_draining: Cell::new(false),
            drain: Notify::new(),
            emptied: Notify::new(),
            shared,
        })
    }

    /// The snapshot in force; looked at once for each request.
    pub(super) fn in_force(&self) -> Rc<InForce> {
        let mut policy = self.policy.borrow_mut();
        let snapshot = policy.load();
        let mut in_force = self.in_force.borrow_mut();
        if !Arc::ptr_eq(&in_force.snapshot, snapshot) {
            let next = InForce::new(Arc::clone(snapshot), (&self.settings, &self.shared, &self.turn), Some(&in_force));
            *in_force = Rc::new(next);
        }
        Rc::clone(&in_force)
    }

    /// Lets go of a policy that is no longer in force, and of connections that have been idle for too long.
    fn tidy(&self) {
        let now = Instant::now();
        for outlet in self.in_force().outlets.iter().flat_map(|outlets| &outlets.all) {
            outlet.sweep(now);
        }
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        self.time.borrow_mut().load().moment(at)
    }

    /// The moment as the throttle wants it. All workers count from the same origin.
    pub(super) fn now(&self, moment: Moment) -> Now {
        let since = moment.at.saturating_duration_since(self.shared.origin);
        Now { mono_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), wall: moment.bounds.lower }
    }

    /// A new name for a request, or the one that a trusted peer gives it.
    pub(super) fn name(&self, peer: &Peer, headers: &HeaderMap) -> RequestName {
        let given = if peer.trust_request_id { headers.get(&X_REQUEST_ID) } else { None };
        let given = given.and_then(|field| Some((field.to_str().ok()?.parse().ok()?, field.clone())));
        match given {
            Some((id, field)) => RequestName { id, field },
            None => self.names.borrow_mut().next(),
        }
    }

    pub(super) fn append(&self, record: &UsageRecord<'_>, of: Caller, now: Instant) {
        self.turn.record(record, of, now.saturating_duration_since(self.started));
    }
}

/// Names for requests: eight random bytes of this worker's start, then a count.
struct Names {
    start: [u8; 8],
    count: u64,
    text: Bytes,
}

impl Names {
    fn new() -> io::Result<Self> {
        let start = crate::keys::random().ok_or_else(|| io::Error::other("the system gives no random bytes"))?;
        Ok(Self { start, count: 0, text: Bytes::new() })
    }

    fn next(&mut self) -> RequestName {
        if self.text.is_empty() {
            self.text = self.more();
        }
        let id = self.id(self.count);
        self.count = self.count.wrapping_add(1);
        let text = self.text.split_to(NAME_LENGTH.min(self.text.len()));
        let field = HeaderValue::from_maybe_shared(text).expect("hex digits are visible ASCII");
        RequestName { id, field }
    }

    fn id(&self, count: u64) -> RequestId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.start);
        id[8..].copy_from_slice(&count.to_be_bytes());
        RequestId(id)
    }

    /// The text of the next names, end to end.
    fn more(&self) -> Bytes {
        let mut text = BytesMut::with_capacity(NAMES * NAME_LENGTH);
        for step in 0..NAMES as u64 {
            let id = self.id(self.count.wrapping_add(step));
            write!(text, "{id}").expect("there is room for all names");
        }
        text.freeze()
    }
}

/// Runs a worker on `runtime` until it has drained, or until `stop` says that it must not wait longer.
pub(super) fn run(
    runtime: Runtime,
    settings: Settings,
    shared: Shared,
    intake: Box<dyn Intake>,
    mut accepted: mpsc::Receiver<Accepted>,
    mut stop: watch::Receiver<Option<Instant>>,
    heart: Heart,
) -> io::Result<usize> {
    let tasks = LocalSet::new();
    let worker = Rc::new(Worker::new(settings, shared, intake)?);
    let turn = Rc::clone(&worker.turn);
    // Not held back after so many sends, as a task would be that starves others.
    tasks.spawn_local(tokio::task::coop::unconstrained(async move { turn.run().await }));
    let serving = Rc::clone(&worker);
    let serving = heart.during(async move {
        let mut tidying = tokio::time::interval(TIDY);
        tidying.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(accepted) = accepted.recv() => {
                    let worker = Rc::clone(&serving);
                    tokio::task::spawn_local(async move { serve(worker, accepted).await });
                }
                _ = tidying.tick() => serving.tidy(),
                _ = stop.wait_for(Option::is_some) => break,
            }
        }
        let deadline = stop.borrow().unwrap_or_else(Instant::now);
        // What was accepted is served like what is in flight; the listeners end now, and with them this.
        let rest = async {
            while let Some(accepted) = accepted.recv().await {
                let worker = Rc::clone(&serving);
                tokio::task::spawn_local(async move { serve(worker, accepted).await });
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), rest).await;
        serving.is_draining.set(true);
        serving.drain.notify_waiters();
        let emptied = async {
            while serving.connections.get() > 0 {
                serving.emptied.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), emptied).await;
    });
    tasks.block_on(&runtime, serving);
    // Whatever is still open is broken off here, and its records are written.
    let left = worker.connections.get();
    drop(tasks);
    worker.turn.end();
    // A resolver that gives no answer is not waited for.
    runtime.shutdown_background();
    heart.retire();
    Ok(left)
}

/// Counts a connection as open for as long as it lives, however it ends.
struct Open {
    worker: Rc<Worker>,
    end: Cell<ConnectionEnd>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.shared.counters.count_end(self.end.get());
        let left = self.worker.connections.get().saturating_sub(1);
        self.worker.connections.set(left);
        if left == 0 {
            self.worker.emptied.notify_one();
        }
    }
}

/// One connection from downstream, from its first byte to its last.
async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, address, door, permit } = accepted;
    worker.connections.set(worker.connections.get() + 1);
    let open = Open { worker: Rc::clone(&worker), end: Cell::new(ConnectionEnd::Broken), _permit: permit };
    let end = match accept(&worker, &door, stream).await {
        Ok((wire, certificate)) => {
            let peer = Peer::new(address, door.tls.is_some(), door.trust_forwarded, door.trust_request_id);
            let peer = peer.showing(certificate);
            http(&worker, wire.downstream(&peer.pace), Rc::new(peer)).await
        }
        Err(end) => end,
    };
    open.end.set(end);
}

/// The wire, and SHA-256 of the certificate that the caller showed.
async fn accept(
    worker: &Worker,
    door: &Door,
    stream: std::net::TcpStream,
) -> Result<(Wire, Option<[u8; 32]>), ConnectionEnd> {
    let stall = worker.settings.body_timeout;
    let stream = tokio::net::TcpStream::from_std(stream).map_err(|_| ConnectionEnd::Broken)?;
    let Some(tls) = &door.tls else { return Ok((Wire::plain(stream, &worker.turn, stall), None)) };
    let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
    match tokio::time::timeout(worker.settings.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.map(|certificate| sha256(certificate).0);
            Ok((Wire::tls(stream, &worker.turn, stall), certificate))
        }
        Ok(Err(_)) | Err(_) => Err(ConnectionEnd::Handshake),
    }
}

async fn http(worker: &Rc<Worker>, wire: Wire, peer: Rc<Peer>) -> ConnectionEnd {
    let service = service_fn(|request| pipeline::serve(Rc::clone(worker), Rc::clone(&peer), request));
    let mut head = HeadTimer::new(worker.settings.head_timeout);
    // No `half_close`: a caller that closes its sending side is taken to have gone, as it cannot be told from one that
    // has. Its upstream is then freed at once, not when an answer is ready that nobody reads.
    let mut connection = pin!(
        http1::Builder::new()
            .max_header_size(worker.settings.head)
            .max_buf_size(worker.settings.head)
            .serve_connection(TokioIo::new(wire), service)
    );
    // Only its wake is wanted, and a task's waker stays the same: it is polled until it has it, then no more.
    let mut drain = pin!(worker.drain.notified());
    let (mut is_armed, mut is_told) = (false, false);
    let ended = std::future::poll_fn(|cx| {
        if !is_armed {
            is_armed = drain.as_mut().poll(cx).is_pending();
        }
        if worker.is_draining.get() && !is_told {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        head.poll(cx, &peer.pace).map(|()| None)
    })
    .await;
    let Some(ended) = ended else { return ConnectionEnd::HeadTimeout };
    match ended {
        Ok(()) => ConnectionEnd::Closed,
        Err(error) if error.is_parse() => ConnectionEnd::BadHead,
        Err(_) => ConnectionEnd::Broken,
    }
}
