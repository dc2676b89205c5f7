//! Sends an admitted request to its upstream and brings the head of the answer; bodies stream by themselves.
//!
//! Called by the pipeline, with the throttle's permit in hand. A request goes out a second time in one case only: the
//! pooled connection that it was given had died before the head of an answer was whole, and sending it twice does no harm.

use std::cell::Cell;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::TrySendError;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use hyper::http::uri::InvalidUri;
use hyper::{Request, Response, StatusCode};

use super::Counters;
use super::body::{Progress, Tally, Upload};
use super::fields::{self, Peer};
use super::meter::{Asked, Entry};
use super::pool::{Lease, Outlet, Timer};
use super::reply::Refusal;
use super::worker::{InForce, Worker};
use crate::policy::{Auth, Policy, Route, Upstream};
use crate::spool::record::Outcome;
use crate::throttle::Permit;

/// A pooled connection that rested longer may have been closed by the upstream without our knowing yet: a copy of the
/// head is kept until the answer comes.
const FRESH: Duration = Duration::from_secs(1);

/// The endpoints of an upstream, as one worker reaches them; requests go round them.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) all: Box<[Rc<Outlet>]>,
    turn: Cell<usize>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// No endpoint took a connection.
    Connect,
    /// No head of an answer in time.
    Timeout,
    /// Closed before the head of an answer was whole.
    Closed,
    /// What came is not HTTP.
    Protocol,
    /// The caller's body is at fault, and the request ends so.
    Body(Outcome),
}

/// A failure, and the request itself where it never left.
struct Failed {
    failure: Failure,
    unsent: Option<Box<Request<Upload>>>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, unsent: None }
    }
}

impl Failure {
    /// Whose fault, in the words of the record: an `Upstream…` outcome is the upstream's, any other downstream's.
    fn outcome(self) -> Outcome {
        match self {
            Self::Connect => Outcome::UpstreamConnect,
            Self::Timeout => Outcome::UpstreamTimeout,
            Self::Closed => Outcome::UpstreamClosed,
            Self::Protocol => Outcome::UpstreamProtocol,
            Self::Body(outcome) => outcome,
        }
    }

    /// Whether the same request may do better on a new connection.
    fn may_retry(self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl Outlets {
    pub(super) fn new(all: Box<[Rc<Outlet>]>) -> Self {
        Self { all, turn: Cell::new(0) }
    }

    /// A connection to the next endpoint, or to the first after it that takes one. One that failed is tried by a single
    /// request at a time while there are others; while all rest nobody waits: what is idle serves, and no other is opened.
    async fn connect(&self, upstream: &Upstream, now: Instant, counters: &Counters) -> Result<Lease, Failure> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let in_turn = || (0..self.all.len()).map(|step| &self.all[(turn.wrapping_add(step)) % self.all.len()]);
        let all_rest = in_turn().all(|outlet| outlet.is_resting(now));
        let up = in_turn().filter(|outlet| !outlet.is_resting(now) && !outlet.is_probed());
        let doubtful = in_turn().filter(|outlet| all_rest || (!outlet.is_resting(now) && outlet.is_probed()));
        for outlet in up.chain(doubtful) {
            if let Some(lease) = outlet.idle(now) {
                return Ok(lease);
            }
            // Boxed, as it is seldom and large: it would make every request's future three times its size.
            if !all_rest && let Some(lease) = Box::pin(outlet.open(upstream.connect_timeout, counters)).await {
                return Ok(lease);
            }
        }
        Err(Failure::Connect)
    }
}

/// Where a request goes, and from whom it comes.
pub(super) struct Errand<'a> {
    pub(super) worker: &'a Worker,
    pub(super) in_force: &'a InForce,
    pub(super) policy: &'a Policy,
    pub(super) route: &'a Route,
    pub(super) peer: &'a Peer,
    /// When the request came.
    pub(super) now: Instant,
}

/// Forwards the request; the answer's head has been made ours.
pub(super) async fn forward(
    _permit: Permit,
    errand: Errand<'_>,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<(Response<Incoming>, Lease), Refusal> {
    let Errand { worker, in_force, policy, route, .. } = errand;
    let (api, upstream) = (policy.api(route.api), policy.upstream(route.upstream));
    let (parts, body) = request.into_parts();
    let (upload, tally) = Upload::new(body, api.max_body, worker.settings.body_timeout);
    entry.tally.clone_from(&tally);
    if upload.size_hint().lower() > api.max_body {
        return Err(Refusal::new(Outcome::BodyTooLarge));
    }

    let outlets = in_force.outlets(route.upstream);
    let counters = &worker.shared.counters;
    let lease =
        outlets.connect(upstream, errand.now, counters).await.map_err(|failure| Refusal::new(failure.outcome()))?;
    let mut request = Request::from_parts(parts, upload);
    outbound(&errand, &lease.outlet, &mut request).map_err(|_| Refusal::new(Outcome::BadRequest))?;
    request.headers_mut().insert(&fields::X_REQUEST_ID, entry.name.field.clone());

    let sent = Instant::now();
    entry.asked = Some(Asked { outlet: Rc::clone(&lease.outlet), sent, waited: None });
    let answered = exchange(lease, request, tally.as_deref(), sent, (upstream, counters)).await;
    if let Some(asked) = &mut entry.asked {
        asked.waited = Some(sent.elapsed());
    }
    let (mut response, lease) = answered.map_err(|failure| Refusal::new(failure.outcome()))?;
    *response.version_mut() = fields::OUR_VERSION;
    let length = response.body().size_hint().exact();
    fields::inbound(response.headers_mut(), length);
    if route.auth == Auth::Token
        && let Some(header) = in_force.token_header(route.api)
    {
        fields::keep_apart(response.headers_mut(), header);
    }
    Ok((response, lease))
}

/// Makes the request our own request to the upstream.
fn outbound(errand: &Errand<'_>, outlet: &Outlet, request: &mut Request<Upload>) -> Result<(), InvalidUri> {
    let Errand { in_force, policy, route, peer, .. } = errand;
    let (api, upstream) = (policy.api(route.api), policy.upstream(route.upstream));
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let strip = if api.strip_base_path { api.base_path.len() } else { 0 };
    if let Some(target) = fields::target(request.uri(), strip, &outlet.endpoint.prefix)? {
        *request.uri_mut() = target;
    }
    let received = std::mem::replace(request.version_mut(), fields::OUR_VERSION);
    let (has_body, sized) = (!request.body().is_empty(), request.body().size_hint().exact().is_some());
    let headers = request.headers_mut();
    fields::outbound(headers, received, has_body, sized);
    if !api.forward_token
        && let Some(header) = in_force.token_header(route.api)
        && (route.auth == Auth::Token || headers.get_all(header).iter().any(|value| is_token(header, value)))
    {
        headers.remove(header);
    }
    let asked_host = headers.insert(HOST, outlet.host.clone());
    let asked_host = authority.or(asked_host);
    if upstream.keep_host
        && let Some(host) = &asked_host
    {
        headers.insert(HOST, host.clone());
    }
    peer.tell(headers, asked_host);
    Ok(())
}

/// Whether a field of an open route holds a token all the same; a password for the upstream, say, does not.
fn is_token(header: &HeaderName, value: &HeaderValue) -> bool {
    header != AUTHORIZATION || value.as_bytes().get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer "))
}

/// Sends the request and waits for the head of its answer.
async fn exchange(
    mut lease: Lease,
    request: Request<Upload>,
    tally: Option<&Tally>,
    sent: Instant,
    (upstream, counters): (&Upstream, &Counters),
) -> Result<(Response<Incoming>, Lease), Failure> {
    let is_old = lease.rested.is_some_and(|rested| rested > FRESH);
    let spare = (is_old && request.body().is_empty() && request.method().is_idempotent()).then(|| copy(&request));
    let timeout = upstream.response_timeout;
    let pending = pin!(lease.send.try_send_request(request));
    let first = wait(pending, &mut lease.timer, tally, (sent, timeout)).await;
    let Failed { failure, unsent } = match first {
        Ok(response) => return Ok((response, lease)),
        Err(failed) => failed,
    };
    // What hyper gives back never left; else the copy does, where there is one.
    let again = unsent.map(|unsent| *unsent).or(spare).filter(|_| lease.rested.is_some() && failure.may_retry());
    let Some(again) = again else { return Err(failure) };
    counters.upstream_retries.fetch_add(1, Ordering::Relaxed);
    let fresh = Box::pin(lease.outlet.open(upstream.connect_timeout, counters)).await;
    let mut lease = fresh.ok_or(Failure::Connect)?;
    let pending = Box::pin(lease.send.try_send_request(again));
    let second = wait(pending, &mut lease.timer, tally, (Instant::now(), timeout)).await;
    second.map(|response| (response, lease)).map_err(|failed| failed.failure)
}

/// The same request again; only for one without a body.
fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::default());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// Waits for the head of an answer, at most `timeout` from the end of the request's body.
async fn wait(
    mut pending: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>> + Unpin,
    timer: &mut Timer,
    tally: Option<&Tally>,
    (sent, timeout): (Instant, Duration),
) -> Result<Response<Incoming>, Failed> {
    let due = sent + timeout;
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
    if timer.deadline() > due.into() {
        timer.as_mut().reset(due.into());
    }
    std::future::poll_fn(|cx| {
        if let Poll::Ready(answered) = Pin::new(&mut pending).poll(cx) {
            return Poll::Ready(answered.map_err(|error| explained(error, tally)).and_then(understood));
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            // While the body is on its way its own time-out watches; the answer's starts when it is through.
            let now = Instant::now();
            let from = match tally.map(Tally::progress) {
                Some(Progress::Running) => now,
                Some(Progress::Whole(at)) => at,
                _ => sent,
            };
            let due = from + timeout;
            if due <= now {
                return Poll::Ready(Err(Failure::Timeout.into()));
            }
            timer.as_mut().reset(due.into());
        }
    })
    .await
}

/// An answer that can be passed on: we never ask to switch protocols or for a coding, so an upstream that does or has
/// one is out of step.
fn understood(response: Response<Incoming>) -> Result<Response<Incoming>, Failed> {
    let is_sized = response.body().size_hint().exact().is_some();
    let is_plain = is_sized || fields::is_plainly_framed(response.headers());
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => Err(Failure::Protocol.into()),
        _ if !is_plain => Err(Failure::Protocol.into()),
        _ => Ok(response),
    }
}

/// Whether the wire gave up on an upstream that took no more bytes.
fn has_stalled(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut)
}

fn explained(mut error: TrySendError<Request<Upload>>, tally: Option<&Tally>) -> Failed {
    let failure = match tally.and_then(Tally::fault) {
        Some(outcome) => Failure::Body(outcome),
        _ if error.error().is_parse() => Failure::Protocol,
        _ if has_stalled(error.error()) => Failure::Timeout,
        _ => Failure::Closed,
    };
    Failed { failure, unsent: error.take_message().map(Box::new) }
}
