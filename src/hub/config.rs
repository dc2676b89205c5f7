//! The hub's configuration file, and its checked form.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ledger::Device;
use crate::bundle::keyfile::{AuthorKey, KeyFileError};
use crate::disk;
use crate::ids::{DeviceId, KeyId, unhex};
use crate::keys::{KeyAlg, PublicKey, SigningKey};
use crate::spool::protocol::is_quota_name;
use crate::units::{Bytes, Span};

/// Largest configuration file, in bytes: some ten thousand devices.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Why the hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that the configuration needs cannot be read: check its path and permissions.
    #[error("{path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that the hub does not know: the message says where.
    #[error("{path}: {reason}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and on which line.
        reason: String,
    },
    /// The key that signs receipts cannot be used: take the `hub.key` that `tidegate init` made, or make one with
    /// `tidegate-hub key new`.
    #[error("{path}")]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KeyFileError,
    },
    /// A device's key is not 64 hex digits, or is weak: take it from `tidegate status` on the device.
    #[error("device {name:?}: not an Ed25519 public key")]
    DeviceKey {
        /// The device's name in the configuration.
        name: String,
    },
    /// Two devices have the same key: remove one.
    #[error("device {name:?} has the key of another one")]
    DeviceTwice {
        /// The second device's name.
        name: String,
    },
    /// Devices would believe no receipt of this hub: give it the key that the root names, or sign a root that names this
    /// one (`tidegate root rotate --add hub=…`).
    #[error("{}: its key {key} is not in the hub role of {}", key_file.display(), root.display())]
    NotInRoot {
        /// The hub's key file.
        key_file: PathBuf,
        /// Its key's id.
        key: KeyId,
        /// The root document.
        root: PathBuf,
    },
    /// The fleet page's password would travel in clear: give the hub `[tls]`, or let the page listen on 127.0.0.1 and come to
    /// it by an SSH tunnel or through a proxy that ends TLS.
    #[error(
        "fleet.listen is {0}, which is not this machine, and the hub has no [tls]: the password would travel in clear; \
         add [tls], or listen on 127.0.0.1 and reach it by an SSH tunnel or a proxy"
    )]
    FleetInClear(SocketAddr),
    /// Write a longer one into the file, on one line.
    #[error("{path}: the fleet page's password has fewer than {least} bytes")]
    Password {
        /// Its file.
        path: PathBuf,
        /// Fewest bytes.
        least: usize,
    },
    /// A quota's name, limit or share is not sound, or another one has its name: see `docs/hub.md`.
    #[error("quota {0:?}: its name, limit or share is not sound, or it is there twice")]
    Quota(String),
    /// A limit of 0 would let nothing in.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

/// `tidegate-hub.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The SQLite file of ledger and records.
    pub database: PathBuf,
    /// Ledger and records in a ClickHouse in place of `database`: hubs that name the same one are one hub.
    pub clickhouse: Option<ClickHouse>,
    /// The Ed25519 seed that signs receipts, as `tidegate-hub key new` writes it.
    pub key_file: PathBuf,
    /// The folder of bundles and enrolments that devices fetch; none are served without it.
    pub bundles: Option<PathBuf>,
    /// The newest root document: with it, an enrolment by the policy role goes before any by the hub role, as devices have
    /// it. Read again when it changes.
    pub root: Option<PathBuf>,
    /// The folder in which the requests of devices to be enrolled are kept; none are taken without it.
    pub requests: Option<PathBuf>,
    /// Which devices may send.
    pub enrol: Enrol,
    /// Whether a device must prove that it has its key before it gets bundles, events or the time: by TLS, or by a signed
    /// challenge where TLS ends before the hub. Usage files are signed anyway.
    pub require_proof: bool,
    /// Quotas that devices share, each by leases.
    pub quotas: Vec<Quota>,
    /// The devices of the fleet.
    pub devices: Vec<DeviceEntry>,
    /// TLS; without it, something in front of the hub ends it, or the files travel in clear (they stay signed).
    pub tls: Option<Tls>,
    /// The fleet page; there is none without it.
    pub fleet: Option<Fleet>,
    /// Connections at the same time; more wait in the listening socket. Each takes a file descriptor.
    pub connections: usize,
    /// Streams of events at the same time, of those connections; more get 503, and such devices ask now and then.
    pub events: usize,
    /// How many in a second are told to come again where too many come at once.
    pub rate: u32,
    /// The most usage files of one device in a minute; 0 is no limit.
    pub device_files: u32,
    /// The most bytes of them in a minute; 0 is no limit.
    pub device_bytes: Bytes,
    /// Usage files in memory at the same time, each at most 2.1 MiB as sent and 2 MiB unpacked; more get 503.
    pub uploads: usize,
    /// How long a request's head may take, and how long a connection may idle.
    pub head_timeout: Span,
    /// How long an upload may go without a kilobyte of its file, and how long a device may take nothing of an answer; a
    /// slow link has all the time it needs.
    pub body_timeout: Span,
    /// How long open requests may take to end after SIGTERM.
    pub drain: Span,
}

/// Which devices may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enrol {
    /// Those that the configuration lists.
    Listed,
    /// Whoever comes with a file signed by the key it shows. For demonstrations only.
    Any,
}

/// One device of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceEntry {
    /// For people.
    pub name: String,
    /// Its raw Ed25519 key, 64 hex digits.
    pub key: String,
}

/// A quota that devices share.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What devices ask for: lower-case letters, digits and hyphens.
    pub name: String,
    /// How much all of them may spend in a window, at most 2^53 - 1.
    pub limit: u64,
    /// How long that lasts.
    pub window: Window,
    /// The most of what is left that one lease may take: above 0, at most 1.
    #[serde(default = "Quota::default_share")]
    pub share: f64,
}

impl Quota {
    fn default_share() -> f64 {
        0.1
    }

    fn is_sound(&self) -> bool {
        is_quota_name(&self.name) && (1..1 << 53).contains(&self.limit) && self.share > 0.0 && self.share <= 1.0
    }
}

// A share is a number, as `is_sound` sees to.
impl Eq for Quota {}

/// How long a quota lasts, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// From minute 0.
    Hour,
    /// From midnight.
    Day,
    /// From the first of the month.
    Month,
}

/// Certificate and key of the listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM, the hub's certificate first.
    pub certificate: PathBuf,
    /// PEM, PKCS #8, SEC 1 or PKCS #1.
    pub key: PathBuf,
}

/// The fleet page's listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// In clear on this machine alone; elsewhere with the hub's certificate.
    #[serde(default = "Fleet::default_listen")]
    pub listen: SocketAddr,
    /// A file with the page's password, on one line.
    pub password_file: PathBuf,
}

impl Fleet {
    fn default_listen() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8446))
    }
}

/// A ClickHouse server, by its HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    /// `http://host:8123`. Keep it on a network of your own: this is in clear.
    pub url: String,
    /// Its database, made if it is missing.
    #[serde(default = "ClickHouse::default_database")]
    pub database: String,
    /// The user; the server's own default without it.
    pub user: Option<String>,
    /// A file with the user's password, on one line.
    pub password_file: Option<PathBuf>,
}

impl ClickHouse {
    fn default_database() -> String {
        "tidegate".into()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8470)),
            database: "/var/lib/tidegate-hub/usage.sqlite".into(),
            clickhouse: None,
            key_file: "/etc/tidegate-hub/hub.key".into(),
            bundles: None,
            root: None,
            requests: None,
            enrol: Enrol::Listed,
            require_proof: true,
            quotas: Vec::new(),
            devices: Vec::new(),
            tls: None,
            fleet: None,
            connections: 12_288,
            events: 10_240,
            rate: 200,
            device_files: 6_000,
            device_bytes: Bytes(1 << 30),
            uploads: 16,
            head_timeout: Span::secs(15),
            body_timeout: Span::secs(30),
            drain: Span::secs(10),
        }
    }
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Malformed { path: path.into(), reason };
        let bytes = read_file(path, CONFIG_LIMIT)?;
        let text = String::from_utf8(bytes).map_err(|_| malformed("not UTF-8".into()))?;
        let config: Self = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        for (name, number) in
            [("connections", config.connections), ("uploads", config.uploads), ("rate", config.rate as usize)]
        {
            if number == 0 {
                return Err(Error::Zero(name));
            }
        }
        config.devices()?;
        for (at, quota) in config.quotas.iter().enumerate() {
            let is_twice = config.quotas.iter().take(at).any(|other| other.name == quota.name);
            if is_twice || !quota.is_sound() {
                return Err(Error::Quota(quota.name.clone()));
            }
        }
        Ok(config)
    }

    /// The listed devices by id.
    pub fn devices(&self) -> Result<HashMap<DeviceId, Device>, Error> {
        let mut devices = HashMap::new();
        for DeviceEntry { name, key } in &self.devices {
            let key = device_key(key).ok_or_else(|| Error::DeviceKey { name: name.clone() })?;
            let device = Device { key, name: name.clone(), came_by_itself: false };
            if devices.insert(device.id(), device).is_some() {
                return Err(Error::DeviceTwice { name: name.clone() });
            }
        }
        Ok(devices)
    }
}

/// A raw Ed25519 key in hex that is not weak.
pub(super) fn device_key(text: &str) -> Option<PublicKey> {
    unhex::<32>(text).ok().and_then(|raw| PublicKey::new(KeyAlg::Ed25519, &raw).ok())
}

/// Reads the signing key, as `tidegate init` and `tidegate-hub key new` write it.
pub fn read_key(path: &Path) -> Result<SigningKey, Error> {
    let key = AuthorKey::open(path).map_err(|source| Error::KeyFile { path: path.into(), source })?;
    Ok(key.key)
}

pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    disk::read_limited(path, limit).map_err(|source| Error::Unreadable { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::hex;

    fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_empty_file_is_the_default_and_a_misspelt_key_is_refused() {
        assert_eq!(parse(""), Ok(Config::default()));
        for wrong in ["liste = \"127.0.0.1:1\"", "enrol = \"all\"", "[[devices]]\nname = \"a\"", "body_timeout = 5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_shipped_file_shows_every_key_and_is_the_default() {
        let text = include_str!("../../config/tidegate-hub.toml");
        assert_eq!(parse(text), Ok(Config::default()));
        let code = include_str!("config.rs");
        let (_, fields) = code.split_once("pub struct Config {").expect("it is there");
        let (fields, _) = fields.split_once("\n}").expect("it ends");
        let names = fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
        let missing: Vec<&str> = names.filter(|name| !text.contains(name)).collect();
        assert!(missing.is_empty(), "config/tidegate-hub.toml does not show {missing:?}");
        // What is shown as a comment is as good as the rest.
        let shown: String =
            text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
        assert!(
            parse(&shown).is_ok_and(|config| config.quotas.len() == 1
                && config.tls.is_some()
                && config.fleet.is_some_and(|fleet| fleet.listen == Fleet::default_listen())),
            "{:?}",
            parse(&shown)
        );
    }

    #[test]
    fn a_quota_that_is_not_sound_or_there_twice_is_named() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("hub.toml");
        let quota = |name: &str, limit: u64, share: f64| {
            format!("[[quotas]]\nname = \"{name}\"\nlimit = {limit}\nwindow = \"day\"\nshare = {share:?}\n")
        };
        let read = |text: String| {
            std::fs::write(&path, text).expect("it can be written");
            Config::read(&path).map(|config| config.quotas.len())
        };
        assert_eq!(read(quota("a", 1, 1.0) + &quota("b", 9, 0.1)).ok(), Some(2));
        for wrong in [
            quota("A", 1, 1.0),
            quota("a", 0, 1.0),
            quota("a", 1 << 53, 1.0),
            quota("a", 1, 0.0),
            quota("a", 1, 1.1),
            quota("a", 1, 1.0) + &quota("a", 2, 1.0),
        ] {
            assert!(matches!(read(wrong.clone()), Err(Error::Quota(_))), "{wrong}");
        }
    }

    #[test]
    fn weak_malformed_and_repeated_device_keys_are_refused() {
        let good = hex(SigningKey::from_seed(&[1; 32]).expect("a seed makes a key").public().raw());
        let entry = |key: &str| DeviceEntry { name: "a".into(), key: key.into() };
        let with = |devices| Config { devices, ..Config::default() }.devices();
        assert_eq!(with(vec![entry(&good)]).map(|devices| devices.len()).ok(), Some(1));
        assert!(matches!(with(vec![entry(&"0".repeat(64))]), Err(Error::DeviceKey { .. })));
        assert!(matches!(with(vec![entry("12")]), Err(Error::DeviceKey { .. })));
        assert!(matches!(with(vec![entry(&good), entry(&good)]), Err(Error::DeviceTwice { .. })));
    }

    #[test]
    fn the_key_is_the_one_that_init_writes_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("hub.key");
        let made = AuthorKey::generate("hub").expect("a key");
        made.create(&path).expect("it can be written");
        assert_eq!(read_key(&path).expect("it reads").public(), made.key.public());
        std::fs::write(&path, "x").expect("it can be written");
        assert!(matches!(read_key(&path), Err(Error::KeyFile { .. })));
    }
}
