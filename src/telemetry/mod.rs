//! What the daemon tells about itself: logs, every metric in one file, and the heartbeats behind the watchdog.
//!
//! It never blocks a caller, never asks the network, and never shows a secret: values are bounded and
//! escaped before they are written, and no label takes a value that a caller of the gateway controls.
//!
//! | file | is |
//! |---|---|
//! | `logs` | events as one line each on stderr, for a person or for the journal |
//! | `metrics` | the registry: the name, help and labels of every metric; values are read at scrape |
//! | `health` | heartbeats of the named tasks; all fresh, or which one is not |
//!
//! The daemon wires it; `admin` serves it; every other module only logs through `tracing`.

mod health;
mod logs;
mod metrics;

use std::collections::BTreeMap;

pub use health::{Heart, Heartbeats, Standstill};
pub use logs::{Level, Place, start};
pub use metrics::{
    CONTENT_TYPE, Connections, Counts, Metrics, PolicyInForce, Read, Sources, Spooled, ThrottleTables, Uploaded,
};

/// `[telemetry]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The least severe event that is written.
    pub level: Level,
    /// Another level for single modules, by their first name: `gateway = "debug"`.
    pub modules: BTreeMap<String, Level>,
}

/// Why telemetry could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something in this process set a log subscriber before: a defect, report it.
    #[error("logging was started twice in one process")]
    AlreadyStarted,
}
