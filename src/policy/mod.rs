//! The compiled policy: what a verified bundle says, in the form in which a request is judged.
//!
//! Immutable, built whole by `bundle::compile`, read without a lock, swapped as one [`Snapshot`].
//! Pure: no I/O, no clock, no environment. Everything refers to everything else by index into
//! slices that live as long as the policy, so a request copies no string and counts no reference.

mod api;
pub mod issuer;
mod name;
mod path;
mod plan;
mod privacy;
pub mod revocations;
mod router;
mod subscription;
mod upstream;

pub use api::{Api, Auth, Method, MethodSet, Route, Uncertain};
pub use name::NameHash;
pub use path::{BadPath, check_path, without_parameters};
pub use plan::{Limit, Plan, Window};
pub use privacy::{KeepAddress, KeepPrincipal, Privacy, Rotate};
pub use router::{Miss, RouteConflict, Router};
pub use subscription::{Application, Standing, Subscriber, Subscribers, SubscribersBuilder, Subscription};
pub use upstream::{BadEndpoint, Endpoint, Upstream};

use std::sync::Arc;

use crate::ids::Digest;
use crate::units::UnixSeconds;
use issuer::Issuers;
use revocations::Revocations;

/// Position of an [`Api`] in its policy.
pub type ApiIndex = u32;
/// Position of a [`Route`] in its policy.
pub type RouteIndex = u32;
/// Position of an [`Upstream`] in its policy.
pub type UpstreamIndex = u32;
/// Position of a [`Plan`] in its policy.
pub type PlanIndex = u32;
/// Number of an [`Issuer`] in its policy's [`Issuers`].
pub type IssuerIndex = u16;
/// Position of an [`Application`] in its policy.
pub type ApplicationIndex = u32;

/// What is in force: a policy and where it came from, or safe mode; and what the revocation role took back. Whoever
/// swaps one of the two keeps the other.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The policy; `None` is safe mode, in which every route is refused.
    pub policy: Option<Arc<Policy>>,
    /// The bundle that it was compiled from; `None` in safe mode.
    pub id: Option<PolicyId>,
    /// The list of a revocation bundle, beside the policy's own.
    pub revoked: Arc<Revocations>,
    /// When the policy's bundle was issued.
    pub issued_at: Option<UnixSeconds>,
    /// When the list was issued; `None` where there is no list.
    pub list_issued_at: Option<UnixSeconds>,
}

impl Snapshot {
    /// No policy: refuse all but health and import.
    #[must_use]
    pub fn safe_mode() -> Self {
        Self::default()
    }

    /// The moment as of which it is known what is revoked: the list's, where there is one, for then the policy's own says
    /// only what it said when it was made. `None` where nothing is in force.
    #[must_use]
    pub fn revocations_as_of(&self) -> Option<UnixSeconds> {
        self.list_issued_at.or(self.issued_at)
    }
}

/// Which bundle a policy came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyId {
    /// SHA-256 of the bundle's manifest.
    pub digest: Digest,
    /// The bundle's sequence number.
    pub seq: u64,
    /// The generation of the root that it was made under.
    pub epoch: u64,
}

/// The rules, compiled. Every index inside is in range: `bundle::compile` is the only builder.
#[derive(Debug)]
pub struct Policy {
    /// The APIs, in the bundle's order.
    pub apis: Box<[Api]>,
    /// The routes of all APIs.
    pub routes: Box<[Route]>,
    /// Where requests are forwarded to.
    pub upstreams: Box<[Upstream]>,
    /// Who may sign tokens, with their pinned keys.
    pub issuers: Issuers,
    /// What may be used how much.
    pub plans: Box<[Plan]>,
    /// Applications and what they are subscribed to.
    pub subscribers: Subscribers,
    /// Tokens that are no longer good, as this policy's own bundle says; [`Snapshot::revoked`] holds more.
    pub revocations: Revocations,
    /// From host and path to route.
    pub router: Router,
    /// What records keep of requests that no API takes; an API has its own.
    pub privacy: Privacy,
}

impl Policy {
    /// The route at `index`.
    #[must_use]
    pub fn route(&self, index: RouteIndex) -> &Route {
        &self.routes[index as usize]
    }

    /// The API at `index`.
    #[must_use]
    pub fn api(&self, index: ApiIndex) -> &Api {
        &self.apis[index as usize]
    }

    /// The upstream at `index`.
    #[must_use]
    pub fn upstream(&self, index: UpstreamIndex) -> &Upstream {
        &self.upstreams[index as usize]
    }

    /// The plan at `index`.
    #[must_use]
    pub fn plan(&self, index: PlanIndex) -> &Plan {
        &self.plans[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revoked_is_known_as_of_the_list_where_there_is_one() {
        let policy = Snapshot { issued_at: Some(20), ..Snapshot::safe_mode() };
        assert_eq!((Snapshot::safe_mode().revocations_as_of(), policy.revocations_as_of()), (None, Some(20)));
        // A newer policy makes no older list fresh: the role that takes back has said nothing new.
        assert_eq!(Snapshot { list_issued_at: Some(10), ..policy }.revocations_as_of(), Some(10));
    }
}
