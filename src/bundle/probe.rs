//! Step 16: a bundle's own probes against the policy that it makes.
//!
//! Each probe is one request at a moment of its own, judged by the function that judges every request. So a bundle that
//! would let in what its author holds to be shut, or shut out what must work, is refused before it serves. Neither the
//! device's clock nor its list of revocations has a say: the verdict is the author's to know. Pure.

use super::compile::{TEXT_LIMIT, check_name, invalid};
use super::entry::{Probe, Probes};
use super::error::SemanticProblem;
use crate::admission::{ADMITTED, Charges, Facts, Field, Parts, TakenBack, admit};
use crate::policy::Policy;
use crate::policy::revocations::Revocations;
use crate::token::TokenCache;
use crate::units::{TimeBounds, TimeQuality, UnixSeconds};

/// Most probes of a bundle: each may cost a signature check on a slow device.
pub const MAX_PROBES: usize = 256;

/// Runs them all; the first that fails refuses the bundle.
pub(super) fn run(policy: &Policy, probes: &Probes) -> Result<(), SemanticProblem> {
    if probes.probes.len() > MAX_PROBES {
        return Err(invalid(format!("more than {MAX_PROBES} probes")));
    }
    for (at, probe) in probes.probes.iter().enumerate() {
        check_name("probe", &probe.name)?;
        if probes.probes[..at].iter().any(|other| other.name == probe.name) {
            return Err(invalid(format!("two probes are called {:?}", probe.name)));
        }
        if probe.headers.iter().any(|field| field.name.bytes().any(|byte| byte.is_ascii_uppercase())) {
            return Err(invalid(format!("probe {:?} names a header field in upper case", probe.name)));
        }
        judge(policy, probe)?;
    }
    Ok(())
}

fn judge(policy: &Policy, probe: &Probe) -> Result<(), SemanticProblem> {
    let at = UnixSeconds::try_from(probe.at).unwrap_or(UnixSeconds::MAX);
    let bounds = TimeBounds { lower: at, upper: Some(at), quality: TimeQuality::Synced };
    let header = |name: &str| {
        let mut values = probe.headers.iter().filter(|field| field.name == name).map(|field| field.value.as_bytes());
        match (values.next(), values.next()) {
            (None, _) => Field::Absent,
            (Some(value), None) => Field::Once(value),
            (Some(_), Some(_)) => Field::Repeated,
        }
    };
    let parts = Parts { authority: &probe.host, path: &probe.path, method: &probe.method, header, certificate: None };
    let (none, mut charges) = (Revocations::default(), Charges::default());
    let fresh = TakenBack { list: &none, as_of: Some(at) };
    let (facts, verdict) = admit(policy, fresh, &mut TokenCache::new(0), &parts, bounds, &mut charges);
    let result = verdict.map_or_else(|reject| reject.name(), |_| ADMITTED);
    let Facts { route, application, .. } = facts;
    let route = route.map(|route| &*policy.route(route).template);
    let application = application.map(|index| policy.subscribers.application(index).name);
    let expect = &probe.expect;
    let checks = [
        ("the result", Some(&*expect.result), Some(result)),
        ("the route", expect.route.as_deref(), route),
        ("the application", expect.application.as_deref(), application),
    ];
    for (what, wanted, got) in checks {
        if wanted.is_some() && wanted != got {
            // What was wanted is text of the bundle, of any form.
            let wanted = wanted.unwrap_or_default().escape_debug().take(TEXT_LIMIT).collect::<String>();
            let detail = format!("probe {:?}: {what} is {}, not {wanted}", probe.name, got.unwrap_or("none"));
            return Err(SemanticProblem::ProbeFailed(detail));
        }
    }
    Ok(())
}
