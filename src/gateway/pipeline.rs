//! The order of a request.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, AsHeaderName, HOST, HeaderMap};
use hyper::{Request, Response, Version};

use super::fields::{self, Peer};
use super::forward::{Errand, forward};
use super::meter::{Answer, Entry};
use super::pool::Lease;
use super::reply::Refusal;
use super::time::Moment;
use super::worker::{InForce, Worker};
use crate::admission::{Charges, Field, Parts, TakenBack, admit};
use crate::policy::{Policy, Route};
use crate::spool::record::Outcome;
use crate::throttle::Permit;

/// Serves one request; whatever happens, its entry writes one record. The entry is open before anything is polled:
/// hyper drops the future unpolled where the head and the end of the connection come in one read.
pub(super) fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> {
    let in_force = worker.in_force();
    let moment = worker.moment(Instant::now());
    let name = worker.name(&peer, request.headers());
    let mut entry = Entry::open(&worker, &in_force, &peer, name, moment, &request);
    async move {
        match stages(&worker, &in_force, &peer, moment, request, &mut entry).await {
            Ok((response, lease)) => Ok(entry.answer(response, lease)),
            Err(refusal) => Ok(entry.refuse(refusal)),
        }
    }
}

async fn stages(
    worker: &Worker,
    in_force: &InForce,
    peer: &Peer,
    moment: Moment,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<(Response<Incoming>, Lease), Refusal> {
    // 1. a policy
    let policy = in_force.snapshot.policy.as_deref().ok_or_else(|| Refusal::new(Outcome::NoPolicy))?;
    // 2. admit; 3. throttle
    let revoked = TakenBack { list: &in_force.snapshot.revoked, as_of: in_force.snapshot.revocations_as_of() };
    let (route, permit) = judge(worker, (policy, revoked), (moment, peer.certificate()), &request, entry)?;
    // 4. forward; 5. meter: the entry closes when the answer has ended
    let errand = Errand { worker, in_force, policy, route, peer, now: moment.at };
    forward(permit, errand, request, entry).await
}

/// What is decided without waiting; nothing of it is carried through the waits that follow.
fn judge<'p>(
    worker: &Worker,
    (policy, revoked): (&'p Policy, TakenBack<'_>),
    (moment, certificate): (Moment, Option<&[u8; 32]>),
    request: &Request<Incoming>,
    entry: &mut Entry,
) -> Result<(&'p Route, Permit), Refusal> {
    // RFC 9112, 6.1: a coding that we do not understand
    if !request.body().is_end_stream() && !fields::is_plainly_framed(request.headers()) {
        return Err(Refusal::not_implemented());
    }
    // admit: route, token, scopes, subscription
    let parts = Parts {
        authority: authority(request)?,
        path: request.uri().path(),
        method: request.method().as_str(),
        certificate,
        // The usual name needs no parsing.
        header: |name: &str| match name == AUTHORIZATION.as_str() {
            true => field(request.headers(), AUTHORIZATION),
            false => field(request.headers(), name),
        },
    };
    let (mut tokens, mut charges) = (worker.tokens.borrow_mut(), Charges::default());
    let (facts, verdict) = admit(policy, revoked, &mut tokens, &parts, moment.bounds, &mut charges);
    entry.facts = facts;
    let route = verdict?;
    // throttle: every limit, or none
    let permit = worker.shared.throttle.decide(charges.all(), worker.now(moment));
    let permit = permit.map_err(|refused| Refusal::throttled(refused, charges.level(refused.charge)))?;
    Ok((policy.route(route), permit))
}

/// For which host the request is: its target says, else its one `Host` (RFC 9112, 3.2).
fn authority(request: &Request<Incoming>) -> Result<&str, Refusal> {
    let bad = || Refusal::new(Outcome::BadRequest);
    let host = match field(request.headers(), HOST) {
        Field::Repeated => return Err(bad()),
        Field::Absent if request.version() > Version::HTTP_10 => return Err(bad()),
        Field::Absent => "",
        Field::Once(host) => std::str::from_utf8(host).map_err(|_| bad())?,
    };
    Ok(request.uri().authority().map_or(host, |authority| authority.as_str()))
}

fn field(headers: &HeaderMap, name: impl AsHeaderName) -> Field<'_> {
    // Mostly no name comes twice.
    if headers.len() == headers.keys_len() {
        return headers.get(name).map_or(Field::Absent, |value| Field::Once(value.as_bytes()));
    }
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Field::Absent,
        (Some(value), None) => Field::Once(value.as_bytes()),
        (Some(_), Some(_)) => Field::Repeated,
    }
}
