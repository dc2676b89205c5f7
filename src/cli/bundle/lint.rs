//! What would go wrong with a policy that a device accepts: the rules of `bundle check`. Pure.
//!
//! An error is what somebody would find at request time: a caller who can never be let in, a rule that never counts, a
//! key that anybody may have. A warning is what works, and should be known before it is signed.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::overlap;
use crate::bundle::Refused;
use crate::bundle::compile::compile;
use crate::bundle::entry::{self, EntryError, JsonEntry as _};
use crate::bundle::manifest::{Entries, EntryKind};
use crate::cli::print;
use crate::policy::{Auth, Uncertain};
use crate::units::UnixSeconds;

/// A bundle whose end is nearer than this is warned of.
const SOON_S: i64 = 14 * 86_400;
/// An entry that takes more than this part of its limit is warned of.
const NEARLY_FULL_PERCENT: u64 = 80;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// The rule's name, or the name of the error with which a device refuses the policy.
    pub(super) rule: &'static str,
    /// What is wrong, and where.
    pub(super) says: String,
    #[serde(rename = "do")]
    pub(super) advice: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Error,
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// What a manifest says that can be wrong at the desk already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dates {
    pub(super) issued_at: UnixSeconds,
    pub(super) expires_at: Option<UnixSeconds>,
}

/// Everything that is found in the entries of a bundle at `now`, errors first.
pub(super) fn findings(entries: &Entries, dates: Option<Dates>, now: UnixSeconds) -> Vec<Finding> {
    let mut found = Found::default();
    if let Err(problem) = compile(entries) {
        let refused = Refused::from(problem);
        found.error(refused.name(), refused.detail().to_string(), refused.advice());
    }
    // What the compiler could not read it has told.
    if let Ok(policy) = Wire::read(entries) {
        unreachable(&policy, &mut found);
        issuers(&policy, &mut found);
        plans(&policy, &mut found);
        overlaps(&policy, &mut found);
        time(&policy, now, &mut found);
    }
    limits(entries, &mut found);
    if let Some(dates) = dates {
        expiry(dates, now, &mut found);
    }
    found.0.sort();
    found.0
}

#[derive(Debug, Default)]
struct Found(Vec<Finding>);

impl Found {
    fn error(&mut self, rule: &'static str, says: String, advice: &str) {
        self.0.push(Finding { severity: Severity::Error, rule, says, advice: advice.to_owned() });
    }

    fn warning(&mut self, rule: &'static str, says: String, advice: &str) {
        self.0.push(Finding { severity: Severity::Warning, rule, says, advice: advice.to_owned() });
    }
}

/// The entries as they are written.
struct Wire {
    routes: entry::Routes,
    issuers: entry::Issuers,
    throttle: entry::Throttle,
    subscriptions: entry::Subscriptions,
    revocations: entry::Revocations,
}

impl Wire {
    fn read(entries: &Entries) -> Result<Self, EntryError> {
        let bytes = |kind| entries.get(&kind).map_or(&[][..], Vec::as_slice);
        Ok(Self {
            routes: entry::Routes::from_bytes(bytes(EntryKind::Routes))?,
            issuers: entry::Issuers::from_bytes(bytes(EntryKind::Issuers))?,
            throttle: entry::Throttle::from_bytes(bytes(EntryKind::Throttle))?,
            subscriptions: match entries.get(&EntryKind::Subscriptions) {
                None => entry::Subscriptions::default(),
                Some(bytes) => entry::Subscriptions::from_bytes(bytes)?,
            },
            revocations: match entries.get(&EntryKind::Revocations) {
                None => entry::Revocations::default(),
                Some(bytes) => entry::Revocations::from_bytes(bytes)?,
            },
        })
    }

    fn routes(&self) -> impl Iterator<Item = (&entry::Api, &entry::Route)> {
        self.routes.apis.iter().flat_map(|api| api.routes.iter().map(move |route| (api, route)))
    }
}

pub(super) fn title(api: &entry::Api) -> String {
    format!("API {:?} {:?}", api.name, api.version)
}

/// Routes that nobody can be let in to.
fn unreachable(policy: &Wire, found: &mut Found) {
    let subscriptions = &policy.subscriptions;
    let has_key: BTreeSet<u32> = subscriptions.keys.iter().map(|key| key.application).collect();
    for api in &policy.routes.apis {
        if api.routes.is_empty() {
            found.error("ApiWithoutRoutes", format!("{} has no route", title(api)), "add a route, or take the API out");
        }
        if !api.subscription || !api.routes.iter().any(|route| route.auth == Auth::Token) {
            continue;
        }
        let of_api =
            subscriptions.subscriptions.iter().filter(|row| (&row.api, &row.version) == (&api.name, &api.version));
        if !of_api.clone().any(|row| !row.blocked && has_key.contains(&row.application)) {
            let why = match of_api.count() {
                0 => "no application is subscribed to it",
                _ => "every subscription to it is blocked, or its application has no consumer key",
            };
            let says = format!("{} wants a subscription and {why}: its routes refuse everybody", title(api));
            found.error("RouteUnreachable", says, "add a subscription, or say that the API needs none");
        }
    }
    for (index, application) in (0..).zip(&subscriptions.applications) {
        if !has_key.contains(&index) {
            let says = format!("application {:?} has no consumer key, so no token can name it", application.name);
            found.warning("ApplicationWithoutKey", says, "give it the client id that its tokens carry");
        }
    }
}

fn issuers(policy: &Wire, found: &mut Found) {
    for issuer in &policy.issuers.issuers {
        if issuer.keys.is_empty() {
            let says = format!("issuer {:?} has no key: every token of it is refused", issuer.name);
            found.error("IssuerWithoutKeys", says, "pin its public key, or take the issuer out");
        }
        if issuer.allow_demo_keys {
            let says =
                format!("issuer {:?} takes a product's published demo keys: anybody can sign its tokens", issuer.name);
            found.error("DemoKeysAllowed", says, "take allow_demo_keys out, and pin a key of your own");
        }
        if !policy.routes.apis.iter().any(|api| api.issuers.contains(&issuer.name)) {
            let says = format!("issuer {:?} is named by no API", issuer.name);
            found.warning("IssuerUnused", says, "name it in an API, or take it out");
        }
    }
}

/// Plans that no request can meet.
fn plans(policy: &Wire, found: &mut Found) {
    let apis = policy.routes.apis.iter().filter_map(|api| api.plan.as_deref());
    let routes = policy.routes().filter_map(|(_, route)| route.plan.as_deref());
    let applications = policy.subscriptions.applications.iter().map(|row| row.plan.as_str());
    let subscriptions =
        policy.subscriptions.subscriptions.iter().filter(|row| !row.blocked).map(|row| row.plan.as_str());
    let used: BTreeSet<&str> = apis.chain(routes).chain(applications).chain(subscriptions).collect();
    for plan in policy.throttle.plans.iter().filter(|plan| !used.contains(plan.name.as_str())) {
        let says = format!(
            "plan {:?} stands on no API, route or application, and no subscription that is not blocked has it",
            plan.name
        );
        found.error("PlanUnreachable", says, "use it, or take it out: as it stands it limits nobody");
    }
}

/// Pairs of routes where one path meets both.
fn overlaps(policy: &Wire, found: &mut Found) {
    for says in overlap::overlaps(&policy.routes) {
        found.warning("TemplatesOverlap", says, "make sure that both may be read so, or give them the same rules");
    }
}

fn time(policy: &Wire, now: UnixSeconds, found: &mut Found) {
    for cut_off in policy.revocations.cut_offs.iter().filter(|row| row.before > now) {
        let says = format!(
            "the cut-off of {:?} at issuer {:?} lies in the future ({}): tokens that are made until then are refused",
            cut_off.value,
            cut_off.issuer,
            print::moment(cut_off.before)
        );
        found.error("CutOffInFuture", says, "say a moment that has passed");
    }
    for (api, route) in policy.routes().filter(|(_, route)| route.uncertain == Uncertain::Deny) {
        let says = format!(
            "{}, route {:?} refuses every token while the device's time is uncertain",
            title(api),
            route.template
        );
        found.warning("NeedsTrustedTime", says, "make sure that its devices have a trusted time source ([time] trust)");
    }
}

fn limits(entries: &Entries, found: &mut Found) {
    for (kind, bytes) in entries {
        let (len, limit) = (bytes.len() as u64, kind.limit());
        if len > limit / 100 * NEARLY_FULL_PERCENT {
            let says = format!("entry {kind} has {len} bytes of at most {limit}");
            found.warning("NearLimit", says, "the next bundle may not fit: split the deployment, or drop what is over");
        }
    }
}

fn expiry(dates: Dates, now: UnixSeconds, found: &mut Found) {
    if dates.issued_at > now {
        let says = format!("it says that it was issued at {}, which is in the future", print::moment(dates.issued_at));
        found.error(
            "IssuedInFuture",
            says,
            "every device's clock would be moved there for good: build it again with the right time",
        );
    }
    let Some(expires_at) = dates.expires_at else { return };
    let says = format!("it can be installed until {}", print::moment(expires_at));
    if expires_at <= now {
        found.error("Expired", says, "build it again");
    } else if expires_at.saturating_sub(now) < SOON_S {
        found.warning("ExpiresSoon", says, "make sure that it reaches every device before then");
    }
}
