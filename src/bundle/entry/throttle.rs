//! Entry `throttle`: the plans.

use serde::{Deserialize, Serialize};

/// The entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The plans, sorted by name.
    pub plans: Vec<Plan>,
}

/// A named set of limits; none: unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its limits.
    pub limits: Vec<Limit>,
    /// Its name.
    pub name: String,
}

/// `count` requests `per` interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// For a rate: how many may come at once; absent: `count`. A quota has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How many.
    pub count: u64,
    /// In which interval.
    pub per: Per,
}

/// An interval: the first two make a rate (GCRA), the others a quota over a calendar window in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// A rate.
    Second,
    /// A rate.
    Minute,
    /// A quota.
    Hour,
    /// A quota.
    Day,
    /// A quota.
    Month,
}
