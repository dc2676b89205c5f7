//! The device's own Ed25519 key: made at the first start, kept 0600 in the state folder, never shown.
//!
//! ```text
//! device.key   64 lower-case hex digits (the RFC 8032 seed) and a line feed
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::ids::{hex, unhex};
use crate::keys::{self, SigningKey};

/// Name of the file in the state folder, and of the systemd credential that overrides it.
pub const FILE: &str = "device.key";

/// Its length in bytes.
pub const LEN: u64 = 65;

/// Why there is no device key.
#[derive(Debug, thiserror::Error)]
pub enum DeviceKeyError {
    /// Check the folder's owner and mode, and the disk.
    #[error("{path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The file is damaged: restore it from a backup. Removing it makes a new identity, which must be enrolled again.
    #[error("{path}: not a device key")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the key: `chmod 600` it (a credential: see where it comes from), and consider whether it is
    /// still secret.
    #[error("{path}: mode {mode:o} lets others read the device key; chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system's random source failed.
    #[error("the system gives no random numbers")]
    Random,
}

/// Permission bits that expose a key in the state folder: those of anybody else.
const FOREIGN: u32 = 0o077;
/// The same of a credential. systemd from 254 on gives a service its credential by an ACL entry, and the ACL's
/// mask shows as the group's bits: a credential of mode 0440 is still root's and this service's alone.
const FOREIGN_TO_CREDENTIAL: u32 = 0o007;

/// The key in `credentials` (systemd's folder) if it is there, else the one in `state`, which is made if
/// there is none. A damaged key is never replaced: that would silently make another device.
pub fn open(state: &Path, credentials: Option<&Path>) -> Result<SigningKey, DeviceKeyError> {
    match existing(state, credentials) {
        Err(DeviceKeyError::Io { path, source }) if source.kind() == io::ErrorKind::NotFound => make(&path),
        key => key,
    }
}

/// As [`open`], and makes none: whoever only asks must not leave a key that the daemon cannot read.
pub fn existing(state: &Path, credentials: Option<&Path>) -> Result<SigningKey, DeviceKeyError> {
    if let Some(path) = credentials.map(|folder| folder.join(FILE)).filter(|path| path.exists()) {
        return credential(&path);
    }
    read(&state.join(FILE), FOREIGN)
}

/// The key in the credential at `path`.
pub fn credential(path: &Path) -> Result<SigningKey, DeviceKeyError> {
    read(path, FOREIGN_TO_CREDENTIAL)
}

fn read(path: &Path, foreign: u32) -> Result<SigningKey, DeviceKeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let io = |source| DeviceKeyError::Io { path: path.into(), source };
    let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
    if mode & foreign != 0 {
        return Err(DeviceKeyError::Exposed { path: path.into(), mode });
    }
    let bytes = disk::read_limited(path, LEN).map_err(io)?;
    parse(&bytes).ok_or_else(|| DeviceKeyError::Malformed { path: path.into() })
}

/// The key that the file's bytes say.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<SigningKey> {
    let seed = std::str::from_utf8(bytes).ok().and_then(|text| unhex::<32>(text.trim_end()).ok());
    seed.and_then(|seed| SigningKey::from_seed(&seed))
}

fn make(path: &Path) -> Result<SigningKey, DeviceKeyError> {
    let seed = keys::random::<32>().ok_or(DeviceKeyError::Random)?;
    let key = SigningKey::from_seed(&seed).ok_or(DeviceKeyError::Random)?;
    let text = format!("{}\n", hex(&seed));
    disk::replace(path, text.as_bytes(), 0o600).map_err(|source| DeviceKeyError::Io { path: path.into(), source })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_start_makes_a_key_and_each_later_one_finds_it() {
        let state = tempfile::tempdir().expect("a folder for the test");
        let first = open(state.path(), None).expect("made");
        let again = open(state.path(), None).expect("found");
        assert_eq!(first.public(), again.public());
        let mode = fs::metadata(state.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_or_exposed_key_is_refused_and_left_as_it_is() {
        let state = tempfile::tempdir().expect("a folder for the test");
        open(state.path(), None).expect("made");
        let path = state.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(open(state.path(), None), Err(DeviceKeyError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        for damage in ["", "00", &"zz".repeat(32), &"00".repeat(40)] {
            fs::write(&path, damage).expect("written");
            assert!(open(state.path(), None).is_err(), "{damage:?}");
            assert_eq!(fs::read_to_string(&path).expect("there"), damage);
        }
    }

    #[test]
    fn a_credential_overrides_the_state_folder() {
        let (state, credentials) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let own = open(credentials.path(), None).expect("made");
        let used = open(state.path(), Some(credentials.path())).expect("found");
        assert_eq!(own.public(), used.public());
        assert!(!state.path().join(FILE).exists());
    }

    #[test]
    fn a_credential_may_show_the_mask_of_its_acl_as_group_bits_but_not_be_open_to_all() {
        let (state, credentials) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let own = open(credentials.path(), None).expect("made");
        let path = credentials.path().join(FILE);
        for mode in [0o400, 0o440] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let used = open(state.path(), Some(credentials.path())).expect("systemd's modes are good");
            assert_eq!(own.public(), used.public(), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("set");
        let open_to_all = open(state.path(), Some(credentials.path()));
        assert!(matches!(open_to_all, Err(DeviceKeyError::Exposed { mode: 0o444, .. })), "{open_to_all:?}");
    }
}
