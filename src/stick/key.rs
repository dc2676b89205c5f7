//! The hub's usage key: what files on a stick are sealed to.
//!
//! The secret half lies beside the hub's signing key, `hub.usage-key` for `hub.key`: 64 hex digits and a line feed, 0600. The
//! public half goes to devices in a signed document, `usage-key.tgd`, which a key of the root's hub role must have signed.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::seal;
use crate::bundle::Refused;
use crate::bundle::document::{Document, DocumentKind};
use crate::bundle::root::{Role, RootDocument};
use crate::disk;
use crate::ids::{DeviceId, Digest, hex, unhex};
use crate::keys::{SigningKey, sha256};
use crate::spool::backlog::Cursor;
use crate::units::UnixSeconds;

/// The only suite so far: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
const SUITE: &str = "hpke-x25519-sha256-chacha20poly1305";
const SECRET_LEN: usize = 65;

/// The public half: what an export seals to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageKey {
    public: [u8; 32],
}

/// The document's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    issued_at: UnixSeconds,
    public: String,
    suite: String,
}

impl UsageKey {
    /// SHA-256("tidegate/v1/usage-key\0" ‖ public half).
    #[must_use]
    pub fn id(&self) -> Digest {
        sha256(&[&b"tidegate/v1/usage-key\0"[..], &self.public].concat())
    }

    /// The document that names it, signed by `hub`.
    pub fn document(&self, hub: &SigningKey, now: UnixSeconds) -> Result<Vec<u8>, Refused> {
        let body = Body { issued_at: now, public: hex(&self.public), suite: SUITE.into() };
        Ok(Document::sign(DocumentKind::UsageKey, &body, hub)?.to_bytes())
    }

    /// Reads the document, which a key of `root`'s hub role must have signed.
    pub fn verify(bytes: &[u8], root: &RootDocument) -> Result<Self, Refused> {
        let document = Document::parse(bytes)?;
        document.expect(DocumentKind::UsageKey)?;
        let unknown = || Refused::ThresholdNotMet("no key of the root's hub role signed the usage key".into());
        let hub = root.role_keys(Role::Hub).find(|key| document.signatures().iter().any(|by| by.key == key.id()));
        document.signed_by(hub.ok_or_else(unknown)?)?;
        let body: Body = document.read()?;
        let bad = |what: &str| Refused::ManifestSchema(format!("the usage key's {what}"));
        if body.suite != SUITE {
            return Err(Refused::UnsupportedRequirement(format!("the usage key's suite is not {SUITE}")));
        }
        Ok(Self { public: unhex(&body.public).map_err(|_| bad("public half is not 64 hex digits"))? })
    }

    /// Seals a usage file of `device` at `at`.
    pub fn seal(&self, file: &[u8], device: DeviceId, at: Cursor) -> Result<Vec<u8>, seal::Error> {
        seal::seal(file, device, at, &self.public, self.id())
    }
}

/// The secret half. `Debug` shows nothing of it.
pub struct SecretKey {
    secret: [u8; 32],
    key: UsageKey,
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({})", self.key.id())
    }
}

impl SecretKey {
    /// Where it lies for the hub whose signing key is at `hub`.
    #[must_use]
    pub fn beside(hub: &Path) -> PathBuf {
        hub.with_extension("usage-key")
    }

    /// The key at `path`; `NotFound` where there is none, `PermissionDenied` where others may read it too.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = std::fs::File::open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            let why = format!("{}: others may read the usage key; chmod 600 it", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let mut text = String::new();
        file.take(SECRET_LEN as u64 + 1).read_to_string(&mut text)?;
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("{}: not a usage key", path.display()));
        let secret = unhex::<32>(text.trim_end()).map_err(|_| malformed())?;
        let public = seal::public_of(&secret).map_err(|_| malformed())?;
        Ok(Self { secret, key: UsageKey { public } })
    }

    /// The key at `path`, made if there is none; never over another.
    pub fn open_or_make(path: &Path) -> io::Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let (secret, public) = seal::generate();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(format!("{}\n", hex(&secret)).as_bytes())?;
        file.sync_all()?;
        disk::sync_parent(path)?;
        Ok(Self { secret, key: UsageKey { public } })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> UsageKey {
        self.key
    }

    /// Opens a sealed file at the place of `device` and `at` on a stick.
    pub fn open_file(&self, sealed: &[u8], device: DeviceId, at: Cursor) -> Result<Vec<u8>, seal::Error> {
        seal::open(sealed, device, at, &self.secret, self.key.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bundle::root::{RoleKeys, RootDraft};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    fn root() -> RootDocument {
        let role = |at| RoleKeys { keys: vec![at], threshold: 1 };
        RootDocument::build(RootDraft {
            deployment: "harbour".into(),
            epoch: 1,
            version: 1,
            issued_at: 1,
            keys: vec![("policy".into(), key(1).public()), ("hub".into(), key(2).public())],
            roles: BTreeMap::from([(Role::Root, role(0)), (Role::Policy, role(0)), (Role::Hub, role(1))]),
        })
        .expect("a sound root")
    }

    #[test]
    fn only_a_key_of_the_hub_role_can_say_what_to_seal_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = SecretKey::beside(&folder.path().join("hub.key"));
        let secret = SecretKey::open_or_make(&path).expect("made");
        assert_eq!(SecretKey::open_or_make(&path).expect("opened").public(), secret.public());
        let by = |seed| secret.public().document(&key(seed), 1).expect("signed");
        assert_eq!(UsageKey::verify(&by(2), &root()), Ok(secret.public()));
        for stranger in [1, 3] {
            assert!(matches!(UsageKey::verify(&by(stranger), &root()), Err(Refused::ThresholdNotMet(_))));
        }
        let enrolment = Document::sign(DocumentKind::Enrolment, &serde_json::json!({}), &key(2)).expect("signed");
        assert!(UsageKey::verify(&enrolment.to_bytes(), &root()).is_err(), "another type");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        assert_eq!(SecretKey::open(&path).expect_err("others may read it").kind(), io::ErrorKind::PermissionDenied);
    }
}
