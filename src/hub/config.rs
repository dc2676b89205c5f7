//! The hub's configuration file, and its checked form.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ledger::Device;
use crate::bundle::keyfile::{AuthorKey, KeyFileError};
use crate::disk;
use crate::ids::{DeviceId, unhex};
use crate::keys::{KeyAlg, PublicKey, SigningKey};
use crate::units::Span;

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
    /// The devices of the fleet.
    pub devices: Vec<DeviceEntry>,
    /// TLS; without it, something in front of the hub ends it, or the files travel in clear (they stay signed).
    pub tls: Option<Tls>,
    /// Connections at the same time; more wait in the listening socket.
    pub connections: usize,
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

/// Certificate and key of the listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM, the hub's certificate first.
    pub certificate: PathBuf,
    /// PEM, PKCS #8, SEC 1 or PKCS #1.
    pub key: PathBuf,
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
            devices: Vec::new(),
            tls: None,
            connections: 256,
            uploads: 8,
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
        for (name, number) in [("connections", config.connections), ("uploads", config.uploads)] {
            if number == 0 {
                return Err(Error::Zero(name));
            }
        }
        config.devices()?;
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
