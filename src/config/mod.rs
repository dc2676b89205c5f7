//! tidegated.toml, its drop-ins and the TIDEGATE_* environment, made into one checked [`Config`].
//!
//! What is read here is the operator's: addresses, folders, limits of this device. What callers may do
//! is the policy's, and comes signed. No setting can turn a verification off. Called by `tidegated`.

mod load;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use load::{Problem, Problems};

/// The settings of `tidegated`; the shipped file `config/tidegated.toml` holds the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Everything that the daemon keeps: key, slots, spool, trust, journal.
    pub state: PathBuf,
    /// Where bundles are dropped.
    pub inbox: PathBuf,
    /// Whose signatures count.
    pub trust: Trust,
    /// What the wall clock is worth.
    pub time: Time,
    /// The data plane.
    pub gateway: crate::gateway::Config,
    /// Rates and quotas.
    pub throttle: crate::throttle::Config,
    /// Usage on its way to the hub.
    pub spool: crate::spool::Config,
    /// The hub.
    pub upload: crate::upload::Config,
    /// Health, metrics and status.
    pub admin: crate::admin::Config,
    /// Logs.
    pub telemetry: crate::telemetry::Config,
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// The root document that the operator pinned to this device.
    pub root: PathBuf,
}

/// What the wall clock is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Time {
    /// Sources that vouch for the wall clock; none: only signed documents and elapsed time count.
    pub trust: Vec<TimeSource>,
}

/// Something that can vouch for the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeSource {
    /// systemd-timesyncd has synchronised the clock in this boot.
    Ntp,
    /// The clock is taken as it is, for a battery or another time daemon keeps it.
    Rtc,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/tidegate".into(),
            inbox: "/var/lib/tidegate/inbox".into(),
            trust: Trust::default(),
            time: Time::default(),
            gateway: Default::default(),
            throttle: Default::default(),
            spool: Default::default(),
            upload: Default::default(),
            admin: Default::default(),
            telemetry: Default::default(),
        }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self { root: "/etc/tidegate/root.json".into() }
    }
}

impl Default for Time {
    fn default() -> Self {
        Self { trust: vec![TimeSource::Ntp] }
    }
}

impl Config {
    /// Reads the file at `path` and what applies to it beside it.
    pub fn load(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Self, Problems> {
        load::load(path, environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_exactly_the_defaults() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tidegated.toml");
        assert_eq!(Config::load(&shipped, std::iter::empty()), Ok(Config::default()));
    }

    #[test]
    fn the_shipped_file_shows_every_setting() {
        let text = include_str!("../../config/tidegated.toml");
        let defaults = toml::Table::try_from(Config::default()).expect("the defaults are a table");
        let mut missing = Vec::new();
        for (section, value) in &defaults {
            let toml::Value::Table(settings) = value else {
                if !text.contains(&format!("\n{section} = ")) {
                    missing.push(section.clone());
                }
                continue;
            };
            missing.extend(
                settings.keys().filter(|key| !text.contains(key.as_str())).map(|key| format!("{section}.{key}")),
            );
        }
        assert!(missing.is_empty(), "config/tidegated.toml does not show {missing:?}");
    }
}
