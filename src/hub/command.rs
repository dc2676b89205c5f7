//! What the operator's commands do: check a configuration, and devices of a hub that may be running.
//!
//! A command opens the ledger beside the hub and says what changed there; the hub looks every second.

use std::fs;
use std::path::Path;

use super::bundles::read_root;
use super::config::{Config, Error as ConfigError, device_key, read_key};
use super::fleet::Page;
use super::ledger::{By, Device, Enrolled, Ledger};
use super::tls::Handshakes;
use super::{Error, config};
use crate::bundle::root::Role;
use crate::clock::Reading;
use crate::ids::DeviceId;
use crate::keys::SigningKey;

/// Everything of a configuration that would keep a hub from doing its work, as far as can be seen before it runs.
#[must_use]
pub fn check(config: &Config) -> Vec<Error> {
    let mut wrong: Vec<Error> = Vec::new();
    let key = read_key(&config.key_file).map_err(|error| wrong.push(error.into())).ok();
    if let Some(key) = &key {
        wrong.extend(fits_root(config, key).err().map(Error::from));
    }
    for folder in [&config.bundles, &config.requests].into_iter().flatten() {
        wrong.extend(fs::read_dir(folder).err().map(|source| unreadable(folder, source)));
    }
    let tls = config.tls.as_ref().map(Handshakes::open).transpose().map_err(|error| wrong.push(error.into()));
    if let Ok(tls) = tls {
        wrong.extend(Page::open(config, tls.as_ref()).err().map(Error::from));
    }
    let parent = config.database.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (fs::metadata(&config.database), key) {
        (Ok(_), Some(key)) => wrong.extend(Ledger::open(config, key).err().map(Error::from)),
        // The hub makes it.
        (Err(_), _) => wrong.extend(fs::read_dir(parent).err().map(|source| unreadable(parent, source))),
        (Ok(_), None) => {}
    }
    wrong
}

/// Refuses a key that the given root does not name for the hub role.
pub(super) fn fits_root(config: &Config, key: &SigningKey) -> Result<(), ConfigError> {
    let Some(path) = &config.root else { return Ok(()) };
    let root = read_root(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
    let own = key.public();
    if root.role_keys(Role::Hub).any(|key| *key == own) {
        return Ok(());
    }
    Err(ConfigError::NotInRoot { key_file: config.key_file.clone(), key: own.id(), root: path.clone() })
}

/// Enrols the device of a raw Ed25519 key in hex, or takes its revocation back.
pub fn add_device(config: &Config, name: &str, key: &str) -> Result<DeviceId, Error> {
    let key = device_key(key).ok_or_else(|| ConfigError::DeviceKey { name: name.to_owned() })?;
    let device = Device { key, name: name.to_owned(), came_by_itself: false };
    open(config)?.enrol(&device, By::Command, Reading::now().wall_ms)?;
    Ok(device.id())
}

/// All devices of the ledger.
pub fn devices(config: &Config) -> Result<Vec<Enrolled>, Error> {
    Ok(open(config)?.devices()?)
}

/// Revokes a device; `false` where the ledger has none of this id.
pub fn revoke_device(config: &Config, device: DeviceId) -> Result<bool, Error> {
    Ok(open(config)?.revoke(device, Reading::now().wall_ms)?)
}

fn open(config: &Config) -> Result<Ledger, Error> {
    Ok(Ledger::open(config, read_key(&config.key_file)?)?)
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    config::Error::Unreadable { path: path.into(), source }.into()
}
