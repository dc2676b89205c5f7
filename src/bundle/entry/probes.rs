//! Entry `probes`: requests whose verdicts the author is sure of. A candidate that judges one otherwise is refused.

use serde::{Deserialize, Serialize};

/// The entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// The probes, sorted by name.
    pub probes: Vec<Probe>,
}

/// One request, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// When it is judged, in seconds since the Unix epoch: the verdict is the same on every device and every day.
    pub at: u64,
    /// What becomes of it.
    pub expect: Expected,
    /// Its header fields, in this order; names in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderField>,
    /// The host that it is for; empty: any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Its method.
    pub method: String,
    /// Its name, for people.
    pub name: String,
    /// Its path, without a query.
    pub path: String,
}

/// A verdict, as far as the author cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The application that it is counted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// `Admitted`, or the name of the refusal: see `Reject::name` in `admission`.
    pub result: String,
    /// The template of the route that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// A header field of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    /// Its name, in lower case.
    pub name: String,
    /// Its value.
    pub value: String,
}
