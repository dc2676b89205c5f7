//! tidegated.toml, its drop-ins and the TIDEGATE_* environment, made into one checked [`Config`].
//!
//! What is read here is the operator's: addresses, folders, limits of this device. What callers may do
//! is the policy's, and comes signed. No setting can turn a verification off. Called by `tidegated`.

mod load;
mod reader;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{Span, Unfit, within};

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
    /// Sticks that are plugged in.
    pub usb: Usb,
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
    /// How long a new policy has to serve without a defect until it is known to be good.
    pub trial: Span,
}

/// What the wall clock is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Time {
    /// Sources that vouch for the wall clock; none: only signed documents and elapsed time count.
    pub trust: Vec<TimeSource>,
}

/// What sticks that are plugged in may do. The daemon itself has no part in it: whoever reads sticks asks here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usb {
    /// Which may take usage along.
    pub export: Export,
    /// The hub's usage key, to which it is sealed where the stick has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_key: Option<PathBuf>,
}

/// Which sticks may take usage along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Export {
    /// Those with a note by the policy role that names this device.
    #[default]
    Note,
    /// Any, for only the hub can read it.
    Any,
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
            usb: Usb::default(),
            admin: Default::default(),
            telemetry: Default::default(),
        }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self { root: "/etc/tidegate/root.json".into(), trial: Span(Duration::from_secs(600)) }
    }
}

impl Trust {
    fn check(&self) -> Vec<Unfit> {
        let why = "too short proves nothing, too long leaves a good policy unproven";
        let bounds = Span(Duration::from_secs(1))..=Span(Duration::from_secs(7 * 86_400));
        within("trial", self.trial, bounds, why).into_iter().collect()
    }
}

impl Default for Time {
    fn default() -> Self {
        Self { trust: vec![TimeSource::Ntp] }
    }
}

impl Config {
    /// Reads the file at `path` and what applies to it beside it. `environment` is what `std::env::vars_os` gives.
    pub fn load(path: &Path, environment: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        match Self::read(path, environment) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// As [`Self::load`], but what is good comes beside the problems, so that it can be judged further; absent where
    /// the file itself could not be read.
    pub fn read(path: &Path, environment: impl Iterator<Item = (OsString, OsString)>) -> (Option<Self>, Vec<Problem>) {
        let load::Loaded { settings, problems } = load::load(path, environment);
        (settings, problems)
    }

    /// What could be read but lies outside of what the parts can use; nothing else is looked at than files that the
    /// settings name.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let parts = [
            ("trust", self.trust.check()),
            ("gateway", self.gateway.check()),
            ("throttle", self.throttle.check()),
            ("spool", self.spool.check()),
            ("upload", self.upload.check()),
            ("admin", self.admin.check()),
            ("telemetry", self.telemetry.check()),
        ];
        let problem = |section, Unfit { key, message }| Problem {
            source: "settings".into(),
            key: format!("{section}.{key}"),
            message,
        };
        parts.into_iter().flat_map(|(section, unfit)| unfit.into_iter().map(move |one| problem(section, one))).collect()
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
    fn what_no_part_can_use_is_told_with_its_key_and_the_reason() {
        assert_eq!(Config::default().check(), []);
        for (key, text) in [
            ("trust.trial", "[trust]\ntrial = '0s'"),
            ("gateway.workers", "[gateway]\nworkers = 65535"),
            ("gateway.limits.connections", "[gateway.limits]\nconnections = 0"),
            ("gateway.limits.head", "[gateway.limits]\nhead = '1KiB'"),
            ("gateway.timeouts.head", "[gateway.timeouts]\nhead = '0s'"),
            ("gateway.timeouts.body", "[gateway.timeouts]\nbody = '365d'"),
            ("throttle.slots", "[throttle]\nslots = 0"),
            ("spool.sync_interval", "[spool]\nsync_interval = '0s'"),
            ("spool.log_size", "[spool]\nlog_size = '0'"),
            ("spool.open_limit", "[spool]\nopen_limit = '0'"),
            ("upload.interval", "[upload]\ninterval = '0s'"),
            ("upload.retry_cap", "[upload]\nretry_base = '5s'\nretry_cap = '4s'"),
            ("upload.hubs", "[upload]\nhubs = ['http://example.com']"),
            ("upload.hub_pins", "[upload]\nhubs = ['https://example.com']"),
            ("upload.authority_file", "[upload]\nhubs = ['https://example.com']\nauthority_file = '/nowhere'"),
            (
                "upload.hubs",
                "[upload]\nallow_plain_http = true\nhubs = ['http://a', 'http://a', 'http://a', 'http://a', 'http://a', 'http://a', 'http://a', 'http://a', 'http://a']",
            ),
            ("upload.interfaces", "[upload]\ninterfaces = ['eth 0']"),
            ("upload.bandwidth", "[upload]\nbandwidth = '1023'"),
            ("upload.daily_limit", "[upload]\ndaily_limit = '1023KiB'"),
            ("upload.proxy", "[upload]\nproxy = 'https://proxy'"),
            ("upload.proxy", "[upload]\nproxy = 'http://proxy'\nproxy_password_file = '/nowhere'"),
            ("upload.proxy_password_file", "[upload]\nproxy = 'http://u@proxy'\nproxy_password_file = '/nowhere'"),
            ("upload.proxy_password_file", "[upload]\nproxy_password_file = '/nowhere'"),
            ("admin.socket", &format!("[admin]\nsocket = '/{}'", "s".repeat(100))),
            ("telemetry.modules", "[telemetry.modules]\ngate = 'debug'"),
        ] {
            let config: Config = toml::from_str(text).expect("it can be read");
            let keys: Vec<_> = config.check().into_iter().map(|problem| problem.key).collect();
            assert_eq!(keys, [key], "{text}");
        }
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
