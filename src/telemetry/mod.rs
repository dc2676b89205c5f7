//! What the daemon tells about itself: logs, every metric in one file, and the heartbeats behind the watchdog.
//!
//! It never asks the network, and never shows a secret: values are bounded and escaped before they are written, and no
//! label takes a value that a caller of the gateway controls. Metrics and heartbeats block nobody; a line of the log is a
//! write to stderr, which waits while nobody reads there: so what a caller of the gateway can cause is told seldom.
//!
//! | file | is |
//! |---|---|
//! | `logs` | events as one line each on stderr, for a person or for the journal |
//! | `metrics` | the registry: the name, help and labels of every metric; values are read at scrape |
//! | `health` | heartbeats of the named tasks; all fresh, or which one is not |
//! | `panics` | defects, told and counted |
//!
//! The daemon wires it; `admin` serves it; every other module only logs through `tracing`.

mod health;
mod logs;
mod metrics;
mod panics;

use std::collections::BTreeMap;

use crate::units::Unfit;

pub use health::{Ages, Heart, Heartbeats, Standstill};
pub use logs::{Level, Place, start};
pub use metrics::{CONTENT_TYPE, Connections, Counts, Metrics, PolicyInForce, Read, Sources, Spooled, Uploaded};
pub use panics::panics;

/// `[telemetry]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The least severe event that is written.
    pub level: Level,
    /// Another level for single modules, by their first name: `gateway = "debug"`.
    pub modules: BTreeMap<String, Level>,
}

/// This crate's modules: what may stand in [`Config::modules`].
const MODULES: [&str; 22] = [
    "admin",
    "admission",
    "bundle",
    "cli",
    "clock",
    "config",
    "daemon",
    "disk",
    "exit",
    "gateway",
    "hub",
    "ids",
    "keys",
    "policy",
    "spool",
    "stick",
    "store",
    "telemetry",
    "throttle",
    "token",
    "units",
    "upload",
];

impl Config {
    /// What of it could be read but not used.
    #[must_use]
    pub fn check(&self) -> Vec<Unfit> {
        let unknown = self.modules.keys().filter(|name| !MODULES.contains(&name.as_str()));
        let message = |name| format!("there is no module {name:?}; there are {}", MODULES.join(", "));
        unknown.map(|name| Unfit { key: "modules", message: message(name) }).collect()
    }
}

/// Why telemetry could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something in this process set a log subscriber before: a defect, report it.
    #[error("logging was started twice in one process")]
    AlreadyStarted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_may_be_set_for_each_module_that_there_is_and_for_no_other() {
        let there: Vec<&str> = include_str!("../lib.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
            .collect();
        let level = |name: &str| (name.to_owned(), Level::Debug);
        let all = Config { modules: there.iter().copied().map(level).collect(), ..Config::default() };
        assert!(there.len() > 10 && all.check().is_empty(), "{:?}", all.check());
        assert_eq!(MODULES.len(), there.len(), "a module is gone");
        let wrong = Config { modules: ["gatway", "gate", ""].map(level).into(), ..Config::default() };
        assert_eq!(wrong.check().len(), 3, "{:?}", wrong.check());
    }
}
