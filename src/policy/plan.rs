//! Plans: named sets of limits. The same plan can stand on an API, a route, an application or a subscription.

use std::time::Duration;

use super::NameHash;

/// A named set of limits; a request must pass them all. No limits: unlimited.
#[derive(Debug)]
pub struct Plan {
    /// Its name, as usage records give it (WSO2: tier).
    pub name: Box<str>,
    /// Of its name.
    pub hash: NameHash,
    /// Its limits.
    pub limits: Box<[Limit]>,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A rate with burst: GCRA.
    Rate {
        /// Requests in each `per`; at least 1.
        count: u32,
        /// The interval: a second or a minute.
        per: Duration,
        /// How many requests may come at once; at least 1.
        burst: u32,
    },
    /// A budget for a calendar window in UTC.
    Quota {
        /// Requests in each window.
        count: u64,
        /// The window.
        window: Window,
    },
}

/// A calendar window in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// From minute 0 to minute 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first to the last day of a month.
    Month,
}
