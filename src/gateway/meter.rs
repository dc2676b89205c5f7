//! One usage record for every request, whichever way it ends.
//!
//! An [`Entry`] is made when hyper hands a request over and lives until its record is written: at the earliest of the
//! frame that completes the answer's length, the end of its stream or its trailers, the moment before an answer without
//! a body is handed over, and the drop of the entry, which means that the request was broken off. The record is
//! written before the last bytes are handed over, so a caller that has a whole answer has a record, too.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::time::Sleep;

use super::body::{Progress, Tally};
use super::fields::{Peer, X_REQUEST_ID};
use super::pool::{Lease, Outlet};
use super::reply::Refusal;
use super::time::Moment;
use super::worker::{InForce, RequestName, Worker};
use crate::admission::Facts;
use crate::spool::Intake as SpoolIntake;
use crate::spool::record::{Outcome, PSEUDONYM_LEN, UsageRecord};

/// Where usage records go: one worker's end of the spool.
pub trait Intake: Send {
    /// Takes the record of a request whose caller is known. It must not wait and cannot fail.
    fn append(&mut self, record: &UsageRecord<'_>);

    /// Takes the record of a request that an open route served, whoever sent it: it may take no room from those that
    /// are known.
    fn append_open(&mut self, record: &UsageRecord<'_>);

    /// Takes the record of a request that was refused before anybody was known, which the spool may roll up. `now` is
    /// a time since any fixed moment that never goes back.
    fn append_unauthenticated(&mut self, record: &UsageRecord<'_>, now: Duration);

    /// When it returns, every record that was taken survives the process: called before an answer's last bytes leave.
    fn flush(&mut self);
}

impl Intake for SpoolIntake {
    fn append(&mut self, record: &UsageRecord<'_>) {
        self.hold(record);
    }

    fn append_open(&mut self, record: &UsageRecord<'_>) {
        self.hold_open(record);
    }

    fn append_unauthenticated(&mut self, record: &UsageRecord<'_>, now: Duration) {
        self.hold_unauthenticated(record, now);
    }

    fn flush(&mut self) {
        Self::flush(self);
    }
}

impl std::fmt::Debug for dyn Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Intake")
    }
}

/// Of whom a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Of one with a token that holds.
    Known,
    /// Of whoever asked an open route.
    Anybody,
    /// Of one who was refused before being known.
    Refused,
}

/// A request's account, while it is open.
pub(super) struct Entry {
    worker: Rc<Worker>,
    in_force: Rc<InForce>,
    peer: Rc<Peer>,
    pub(super) name: RequestName,
    moment: Moment,
    method: Method,
    has_body: bool,
    pub(super) facts: Facts,
    pub(super) tally: Option<Rc<Tally>>,
    pub(super) asked: Option<Asked>,
    /// What was sent downstream; 0 while nothing was.
    status: u16,
    outcome: Outcome,
    bytes_out: u64,
    is_closed: bool,
}

/// The upstream that a request was sent to.
pub(super) struct Asked {
    pub(super) outlet: Rc<Outlet>,
    pub(super) sent: Instant,
    /// Until the head of an answer came, or none would; `None` while it is waited for.
    pub(super) waited: Option<Duration>,
}

impl Entry {
    pub(super) fn open(
        worker: &Rc<Worker>,
        in_force: &Rc<InForce>,
        peer: &Rc<Peer>,
        name: RequestName,
        moment: Moment,
        request: &Request<Incoming>,
    ) -> Self {
        peer.pace.begin();
        Self {
            worker: Rc::clone(worker),
            in_force: Rc::clone(in_force),
            peer: Rc::clone(peer),
            name,
            moment,
            method: request.method().clone(),
            has_body: !request.body().is_end_stream(),
            facts: Facts::default(),
            tally: None,
            asked: None,
            status: 0,
            outcome: Outcome::DownstreamAborted,
            bytes_out: 0,
            is_closed: false,
        }
    }

    /// Answers by ourselves, and closes the account.
    pub(super) fn refuse(mut self, refusal: Refusal) -> Response<Answer> {
        let status = refusal.status();
        self.status = status.as_u16();
        self.outcome = refusal.outcome;
        let (headers, body) = refusal.render();
        self.bytes_out = match &body {
            Some(body) if self.method != Method::HEAD => body.len() as u64,
            _ => 0,
        };
        let mut response = Response::new(Answer(Source::Own(body)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(&X_REQUEST_ID, self.name.field.clone());
        // What is left of the request is not waited for, so nothing after it can be read.
        if self.is_still_sent() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.close(Instant::now());
        response
    }

    /// Passes the upstream's answer on; closes the account at once if it has no body.
    pub(super) fn answer(mut self, response: Response<Incoming>, lease: Lease) -> Response<Answer> {
        let (mut parts, incoming) = response.into_parts();
        self.status = parts.status.as_u16();
        parts.headers.insert(&X_REQUEST_ID, self.name.field.clone());
        let answer = if incoming.is_end_stream() {
            self.outcome = Outcome::Admitted;
            let now = Instant::now();
            lease.give_back(now);
            self.close(now);
            Answer(Source::Own(None))
        } else {
            let idle = self.worker.settings.body_timeout;
            Answer(Source::Upstream(Box::new(Stream {
                incoming,
                lease: Some(lease),
                entry: Some(self),
                idle,
                timer: None,
            })))
        };
        Response::from_parts(parts, answer)
    }

    /// Whether more of the request's body is to come.
    fn is_still_sent(&self) -> bool {
        let is_whole = self.tally.as_ref().is_some_and(|tally| matches!(tally.progress(), Progress::Whole(_)));
        self.has_body && !is_whole
    }

    /// Writes the record.
    fn close(&mut self, now: Instant) {
        self.is_closed = true;
        let is_sending = self.is_still_sent();
        self.peer.pace.end(now, is_sending, self.tally.as_ref().filter(|_| is_sending));
        let policy = self.in_force.snapshot.policy.as_deref();
        let api = policy.zip(self.facts.api).map(|(policy, api)| policy.api(api));
        let route = policy.zip(self.facts.route).map(|(policy, route)| policy.route(route));
        let plan = policy.zip(self.facts.plan).map(|(policy, plan)| policy.plan(plan));
        let application = policy.zip(self.facts.application).map(|(policy, at)| policy.subscribers.application(at));
        let claims = self.facts.claims.as_deref();
        let issuer = policy.zip(claims).and_then(|(policy, claims)| policy.issuers.at(claims.issuer()));
        let privacy = api.map_or_else(|| policy.map(|policy| policy.privacy).unwrap_or_default(), |api| api.privacy);
        let (at_ms, mut room) = (self.moment.wall_ms, [0; PSEUDONYM_LEN]);
        let iss = issuer.map_or("", |issuer| issuer.iss());
        let (principal, client) = {
            let mut discretion = self.worker.discretion.borrow_mut();
            let principal = claims.and_then(|claims| claims.sub()).map_or("", |sub| {
                discretion.principal(privacy, at_ms, (iss, sub), &mut room) // allocates nothing
            });
            (principal, discretion.client(privacy, at_ms, self.peer.address))
        };
        let micros = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        let waited = |asked: &Asked| asked.waited.unwrap_or_else(|| now.saturating_duration_since(asked.sent));
        let bytes_in = self.tally.as_ref().map_or(0, |tally| tally.bytes());
        let record = UsageRecord {
            at_ms,
            time: self.moment.bounds.quality,
            request: self.name.id,
            api: api.map_or("", |api| &api.name),
            version: api.map_or("", |api| &api.version),
            route: route.map_or("", |route| &route.template),
            method: self.method.as_str(),
            status: self.status,
            outcome: self.outcome,
            application: application.map_or("", |application| application.name),
            plan: plan.map_or("", |plan| &plan.name),
            principal,
            bytes_in,
            bytes_out: self.bytes_out,
            total_us: micros(now.saturating_duration_since(self.moment.at)),
            upstream_us: self.asked.as_ref().map_or(0, |asked| micros(waited(asked))),
            upstream: self.asked.as_ref().map_or("", |asked| &asked.outlet.endpoint.authority),
            client,
            consumer: application.map_or("", |application| application.consumer),
            issuer: iss,
        };
        // Whose token is refused is nobody, though it be well signed: anybody may hold one that has expired or is for
        // elsewhere. An open route has no caller to know: what it served counts as usage all the same.
        let caller = match claims {
            Some(_) if !is_token_error(self.outcome) => Caller::Known,
            None if self.asked.is_some() => Caller::Anybody,
            _ => Caller::Refused,
        };
        if self.outcome == Outcome::Internal && self.worker.defects.may(now) {
            let (request, route) = (&self.name.id, record.route);
            tracing::error!(%request, route, "a request ended in a defect of the gateway");
        }
        self.worker.append(&record, caller, now);
        self.worker.shared.counters.count_request(self.outcome);
    }
}

/// By the numbers that the record's format gives to the token's errors.
fn is_token_error(outcome: Outcome) -> bool {
    (10..50).contains(&outcome.number())
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_closed {
            if std::thread::panicking() {
                self.outcome = Outcome::Internal;
            }
            self.close(Instant::now());
        }
    }
}

/// The body of an answer.
pub(super) struct Answer(Source);

enum Source {
    /// Ours, and accounted for.
    Own(Option<Bytes>),
    /// The upstream's, as it comes.
    Upstream(Box<Stream>),
}

struct Stream {
    incoming: Incoming,
    lease: Option<Lease>,
    entry: Option<Entry>,
    idle: Duration,
    /// Armed only while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The upstream broke its answer off; downstream must see that it is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the upstream broke its answer off")]
pub(super) struct AnswerBroken;

impl Stream {
    /// The answer is whole: account, then let the connection go back.
    fn finish(&mut self) {
        let now = Instant::now();
        if let Some(mut entry) = self.entry.take() {
            entry.outcome = Outcome::Admitted;
            entry.close(now);
        }
        if let Some(lease) = self.lease.take() {
            lease.give_back(now);
        }
    }

    /// The answer is not whole: by the upstream's fault, unless the request's own body has one. An answer may begin
    /// before the request has ended, and hyper ends both together.
    fn fail(&mut self, upstreams: Outcome) {
        self.lease = None;
        if let Some(mut entry) = self.entry.take() {
            let own = entry.tally.as_ref().and_then(|tally| tally.fault());
            entry.outcome = own.unwrap_or(upstreams);
            entry.close(Instant::now());
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerBroken>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            let idle = self.idle;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
            ready!(timer.as_mut().poll(cx));
            self.fail(Outcome::UpstreamTimeout);
            return Poll::Ready(Some(Err(AnswerBroken)));
        };
        self.timer = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let (Some(entry), Some(data)) = (&mut self.entry, frame.data_ref()) {
                    entry.bytes_out = entry.bytes_out.saturating_add(data.len() as u64);
                }
                // Trailers end here: see `body`.
                if frame.is_trailers() {
                    self.finish();
                    return Poll::Ready(None);
                }
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Some(Ok(frame))
            }
            Some(Err(_)) => {
                self.fail(Outcome::UpstreamClosed);
                Some(Err(AnswerBroken))
            }
            None => {
                self.finish();
                None
            }
        })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerBroken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerBroken>>> {
        match &mut self.get_mut().0 {
            Source::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Source::Upstream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Own(body) => body.is_none(),
            Source::Upstream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Source::Upstream(stream) => stream.incoming.size_hint(),
        }
    }
}
