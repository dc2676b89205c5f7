//! The limits that a request meets, as charges for the throttle.

use super::Reject;
use crate::policy::{self, NameHash, PlanIndex, Policy};
use crate::throttle::{Charge, Limit, MAX_CHARGES, Quota, Rate, Window};

/// On what a limit stands; each is refused under a code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Level {
    /// The API, whoever calls.
    Api = 0,
    /// One resource, whoever calls.
    Resource = 1,
    /// All that an application does.
    Application = 2,
    /// What an application does with one API.
    Subscription = 3,
}

/// The charges of one request, with the level of each.
#[derive(Debug, Default)]
pub struct Charges {
    charges: heapless::Vec<Charge, MAX_CHARGES>,
    levels: heapless::Vec<Level, MAX_CHARGES>,
}

impl Charges {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Charge] {
        &self.charges
    }

    /// On what the charge at `index` stands.
    #[must_use]
    pub fn level(&self, index: usize) -> Option<Level> {
        self.levels.get(index).copied()
    }

    /// Adds the limits of `plan`; `subject` names who is counted, by names that outlive a change of policy.
    pub(super) fn add<'p>(
        &mut self,
        policy: &Policy,
        level: Level,
        plan: Option<PlanIndex>,
        subject: impl Fn() -> NameHash,
    ) -> Result<(), Reject<'p>> {
        let Some(plan) = plan.map(|plan| policy.plan(plan)) else { return Ok(()) };
        if plan.limits.is_empty() {
            return Ok(());
        }
        let (plan_id, subject_id) = (plan.hash.and(level as u64).get(), subject().and(level as u64).get());
        for (number, limit) in (0..).zip(&plan.limits) {
            let charge = Charge { limit_id: plan_id.wrapping_add(number), subject_id, limit: compiled(*limit) };
            let added = self.charges.push(charge).is_ok() && self.levels.push(level).is_ok();
            if !added {
                return Err(Reject::TooManyLimits);
            }
        }
        Ok(())
    }
}

fn compiled(limit: policy::Limit) -> Limit {
    match limit {
        policy::Limit::Rate { count, per, burst } => Limit::Rate(Rate::new(count, per, burst)),
        policy::Limit::Quota { count, window } => Limit::Quota(Quota::new(
            count,
            match window {
                policy::Window::Hour => Window::Hour,
                policy::Window::Day => Window::Day,
                policy::Window::Month => Window::Month,
            },
        )),
    }
}
