//! Connections to upstreams, one worker's own: a stack for each endpoint, the freshest on top, no lock.
//!
//! A connection is driven by its own task and handed out only while hyper says that it is ready. It comes back when
//! its answer has ended, and never where that answer was broken off.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsConnector;

use super::Counters;
use super::body::Upload;
use super::lookup::Lookup;
use super::seldom::Seldom;
use super::turn::Turn;
use super::wire::Wire;
use crate::policy::Endpoint;

/// Largest head of an answer, and what hyper buffers of one connection at most.
const ANSWER_BUFFER: usize = 32 << 10;
/// How long an endpoint that could not be reached is not tried again: so short that one that is started again is not
/// missed.
const REST: Duration = Duration::from_millis(200);

/// One endpoint, as one worker reaches it.
pub(super) struct Outlet {
    pub(super) endpoint: Endpoint,
    /// Its authority, as `Host` gives it.
    pub(super) host: HeaderValue,
    lookup: Lookup,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: RefCell<Vec<Idle>>,
    limits: IdleLimits,
    turn: Rc<Turn>,
    resting_until: Cell<Option<Instant>>,
    /// The last attempt to reach it failed.
    has_failed: Cell<bool>,
    /// Attempts since then that have not ended.
    probes: Cell<u32>,
    failures: Seldom,
}

/// How much is kept idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleLimits {
    /// Connections to one endpoint.
    pub(super) count: usize,
    /// For how long each.
    pub(super) age: Duration,
    /// How long a write to the upstream may make no progress.
    pub(super) stall: Duration,
}

struct Idle {
    send: SendRequest<Upload>,
    timer: Timer,
    since: Instant,
}

/// Waits for answers; a connection's own, and set anew only when it has rung, so that a request costs no timer.
pub(super) type Timer = Option<Pin<Box<Sleep>>>;

/// A connection while a request uses it.
pub(super) struct Lease {
    pub(super) outlet: Rc<Outlet>,
    pub(super) send: SendRequest<Upload>,
    pub(super) timer: Timer,
    /// How long it had been idle; `None` for a new one.
    pub(super) rested: Option<Duration>,
}

impl Outlet {
    pub(super) fn new(
        endpoint: &Endpoint,
        tls: Option<TlsConnector>,
        limits: IdleLimits,
        turn: &Rc<Turn>,
    ) -> Option<Self> {
        let tls = match (endpoint.tls, tls) {
            (false, _) => None,
            (true, Some(connector)) => Some((connector, ServerName::try_from(endpoint.host.to_string()).ok()?)),
            (true, None) => return None,
        };
        Some(Self {
            endpoint: endpoint.clone(),
            host: HeaderValue::from_str(&endpoint.authority).ok()?,
            lookup: Lookup::new(endpoint),
            tls,
            idle: RefCell::default(),
            limits,
            turn: Rc::clone(turn),
            resting_until: Cell::new(None),
            has_failed: Cell::new(false),
            probes: Cell::new(0),
            failures: Seldom::default(),
        })
    }

    /// Whether it could not be reached a moment ago.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.resting_until.get().is_some_and(|until| now < until)
    }

    /// Whether it could not be reached, and somebody waits to see if it can be now.
    pub(super) fn is_probed(&self) -> bool {
        self.probes.get() > 0
    }

    /// The freshest idle connection, if one is ready.
    pub(super) fn idle(self: &Rc<Self>, now: Instant) -> Option<Lease> {
        loop {
            let Idle { send, timer, since } = self.idle.borrow_mut().pop()?;
            let rested = now.saturating_duration_since(since);
            if rested > self.limits.age {
                self.idle.borrow_mut().clear(); // all below are older
                return None;
            }
            if send.is_ready() {
                return Some(Lease { outlet: Rc::clone(self), send, timer, rested: Some(rested) });
            }
        }
    }

    /// A new connection, within `timeout`; `None` leaves the endpoint to rest.
    pub(super) async fn open(self: &Rc<Self>, timeout: Duration, counters: &Counters) -> Option<Lease> {
        let _probe = self.has_failed.get().then(|| Probe::of(self));
        match tokio::time::timeout(timeout, self.connect()).await {
            Ok(Ok(send)) => {
                counters.upstream_connects.fetch_add(1, Ordering::Relaxed);
                self.resting_until.set(None);
                self.has_failed.set(false);
                Some(Lease { outlet: Rc::clone(self), send, timer: None, rested: None })
            }
            Ok(Err(error)) => self.rest(&error),
            Err(_) => self.rest(&io::ErrorKind::TimedOut.into()),
        }
    }

    fn rest(&self, error: &io::Error) -> Option<Lease> {
        let now = Instant::now();
        self.lookup.forget();
        self.has_failed.set(true);
        self.resting_until.set(now.checked_add(REST));
        if self.failures.may(now) {
            tracing::warn!(endpoint = %self.endpoint.authority, %error, "an upstream takes no connection");
        }
        None
    }

    async fn connect(&self) -> io::Result<SendRequest<Upload>> {
        let stream = TcpStream::connect(&*self.lookup.addresses().await?).await?;
        stream.set_nodelay(true)?;
        let wire = match &self.tls {
            None => Wire::plain(stream, &self.turn, self.limits.stall),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                Wire::tls(stream, &self.turn, self.limits.stall)
            }
        };
        let (send, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_BUFFER)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(io::Error::other)?;
        // Ends when the upstream closes or the sender is dropped; its errors reach the request as well.
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Ok(send)
    }

    /// Closes what has been idle for too long, and lets go of what the upstream closed.
    pub(super) fn sweep(&self, now: Instant) {
        let is_young = |idle: &Idle| now.saturating_duration_since(idle.since) <= self.limits.age;
        self.idle.borrow_mut().retain(|idle| is_young(idle) && !idle.send.is_closed());
    }

    fn put_back(&self, send: SendRequest<Upload>, timer: Timer, since: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.limits.count {
            idle.push(Idle { send, timer, since });
        }
    }
}

/// An attempt to reach an endpoint that failed, however it ends.
struct Probe<'a>(&'a Outlet);

impl<'a> Probe<'a> {
    fn of(outlet: &'a Outlet) -> Self {
        outlet.probes.set(outlet.probes.get() + 1);
        Self(outlet)
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.probes.set(self.0.probes.get() - 1);
    }
}

impl Lease {
    /// Gives the connection back after a whole answer.
    pub(super) fn give_back(self, now: Instant) {
        let Self { outlet, mut send, timer, .. } = self;
        if send.is_ready() {
            outlet.put_back(send, timer, now);
        } else if !send.is_closed() {
            // The answer came before the request was all sent, or its last bytes are still being read.
            tokio::task::spawn_local(async move {
                if send.ready().await.is_ok() {
                    outlet.put_back(send, timer, Instant::now());
                }
            });
        }
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outlet({}, {} idle)", self.endpoint.authority, self.idle.borrow().len())
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.outlet.endpoint.authority)
    }
}
