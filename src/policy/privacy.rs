//! What a usage record keeps of the person behind a request.

use serde::{Deserialize, Serialize};

/// Of one API, or of what no API takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Privacy {
    /// Of the token's `sub`.
    pub principal: KeepPrincipal,
    /// Of the caller's address.
    pub address: KeepAddress,
    /// How long the same person or address has the same hash.
    pub rotate: Rotate,
}

/// What is kept of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepPrincipal {
    /// All of it.
    Clear,
    /// A keyed hash.
    #[default]
    Hashed,
    /// Nothing.
    Absent,
}

/// What is kept of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepAddress {
    /// All of it.
    Clear,
    /// A keyed hash.
    Hashed,
    /// Its network: /24 of IPv4, /48 of IPv6.
    #[default]
    Truncated,
    /// Nothing.
    Absent,
}

/// When the key of hashes changes, by the time of the record in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    /// At midnight.
    Day,
    /// On the first of the month.
    #[default]
    Month,
}

impl KeepPrincipal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Clear, Self::Hashed, Self::Absent];

    /// Its word in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Hashed => "hashed",
            Self::Absent => "absent",
        }
    }
}

impl KeepAddress {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Clear, Self::Hashed, Self::Truncated, Self::Absent];

    /// Its word in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Hashed => "hashed",
            Self::Truncated => "truncated",
            Self::Absent => "absent",
        }
    }
}

impl Rotate {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// Its word in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}
