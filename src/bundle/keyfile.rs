//! The author's keys on disk: one small JSON file a key, mode 0600, with the raw seed, in clear or encrypted; and the
//! public half in a file of its own, for whoever makes the root.
//!
//! ```text
//! {"alg":"ed25519","key_id":"<64 hex>","name":"…","public":"<64 hex>","seed":"<64 hex>","type":"tidegate-key"}
//! {"alg":"ed25519","encrypted":"<base64>","encrypted_sha256":"<64 hex>","key_id":"…","name":"…","public":"…","type":"tidegate-key"}
//! {"alg":"ed25519","key_id":"<64 hex>","name":"…","public":"<64 hex>","type":"tidegate-public-key"}
//! ```
//!
//! `encrypted` is a PKCS#8 EncryptedPrivateKeyInfo (`seal`), and its hash tells a damaged file from a wrong passphrase.
//! Name and public half stay readable: a signer must find the right file before knowing its passphrase. Whoever reads
//! the seed can sign: the file is never written over by another key, and never read while others may read it too.

mod seal;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

pub use seal::{decrypt_pem, encrypt_pem, is_encrypted_pem};

use super::canonical;
use crate::disk::{self, read_limited, sync_parent};
use crate::ids::{Digest, KeyId, hex, unhex};
use crate::keys::{KeyAlg, PublicKey, SigningKey, sha256};

/// Most bytes of a key file.
pub const MAX_KEYFILE: u64 = 4_096;
/// Most bytes of a passphrase.
pub const MAX_PASSPHRASE: usize = 1_024;

const KEY: &str = "tidegate-key";
const PUBLIC: &str = "tidegate-public-key";

/// A key that can sign, and the name of who holds it.
#[derive(Debug)]
pub struct AuthorKey {
    /// For people; it goes into the root document.
    pub name: String,
    /// The key.
    pub key: SigningKey,
}

/// The half of a key that everybody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicHalf {
    /// Who holds the other half.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

/// What a file holds beside the public half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// Nothing: it is the public half alone.
    Absent,
    /// The seed, for everybody who reads the file.
    Clear,
    /// The seed, for who knows the passphrase.
    Encrypted,
}

/// What opens an encrypted key. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

impl Passphrase {
    /// 1 to [`MAX_PASSPHRASE`] bytes; `None` for any other.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=MAX_PASSPHRASE).contains(&text.len()).then(|| Self(text.to_owned()))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// A key file that could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading or writing failed: check path and rights. An existing file is never written over.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others than its owner may read it: `chmod 600` it, and consider whether somebody did.
    #[error("others may read the key file; it must have mode 0600")]
    TooOpen,
    /// It is not a key file, or was edited: take it from the backup.
    #[error("not a key file: {0}")]
    Form(String),
    /// It has no private half: name the key file itself.
    #[error("this is the public half alone")]
    PublicOnly,
    /// It is encrypted: give its passphrase, or decrypt it where a service must read it.
    #[error("the key is encrypted; `tidegate key decrypt` gives a file without passphrase")]
    Encrypted,
    /// Type it again. Nobody can find it out: without it the key is lost, and the root must be rotated.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The encrypted part was altered: take the file from the backup.
    #[error("the key file is damaged: its encrypted part is not what was written")]
    Damaged,
    /// Encrypted in a way that would cost more memory or time than any honest file asks for: see where it is from.
    #[error("the key is encrypted with settings that are not taken: {0}")]
    Settings(&'static str),
    /// The build for devices opens no encrypted keys: use the workstation's.
    #[error("this build has no part that encrypts keys (feature `passphrase`)")]
    NoSupport,
    /// The system's random source failed: nothing was made.
    #[error("the system gives no random bytes")]
    NoRandom,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted_sha256: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    name: String,
    public: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
    #[serde(rename = "type")]
    kind: String,
}

impl Form {
    fn of(name: &str, key: &PublicKey, kind: &str) -> Self {
        Self {
            alg: key.alg().name().into(),
            key_id: Some(key.id()),
            name: name.into(),
            public: hex(key.raw()),
            kind: kind.into(),
            ..Self::default()
        }
    }

    fn to_bytes(&self) -> Result<Vec<u8>, KeyFileError> {
        let mut bytes = canonical::write(self).map_err(|error| KeyFileError::Form(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn read(bytes: &[u8]) -> Result<Self, KeyFileError> {
        // The reader's own message could quote the seed; it is not passed on.
        let form: Self = serde_json::from_slice(bytes).map_err(|_| KeyFileError::Form("not its JSON".into()))?;
        let is_whole = match (form.kind.as_str(), &form.seed, &form.encrypted, &form.encrypted_sha256) {
            (KEY, Some(_), None, None) | (KEY, None, Some(_), Some(_)) => form.alg == KeyAlg::Ed25519.name(),
            (PUBLIC, None, None, None) => true,
            _ => false,
        };
        if is_whole { Ok(form) } else { Err(KeyFileError::Form("another type or algorithm, or half of one".into())) }
    }

    /// The public half, which must have the key id that the file says.
    fn public(&self) -> Result<PublicHalf, KeyFileError> {
        let form = |what: &str| KeyFileError::Form(what.into());
        let alg = KeyAlg::from_name(&self.alg).ok_or_else(|| form("another type or algorithm, or half of one"))?;
        let raw = alg.unhex(&self.public).map_err(|_| form("the public key is not hex digits of its length"))?;
        let key = PublicKey::new(alg, &raw).map_err(|error| form(&error.to_string()))?;
        if self.key_id != Some(key.id()) {
            return Err(KeyFileError::Form("the key id and the public key do not belong together".into()));
        }
        Ok(PublicHalf { name: self.name.clone(), key })
    }
}

impl AuthorKey {
    /// A new key from the system's random source.
    pub fn generate(name: &str) -> Result<Self, KeyFileError> {
        Ok(Self { name: name.into(), key: SigningKey::generate().ok_or(KeyFileError::NoRandom)? })
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicHalf {
        PublicHalf { name: self.name.clone(), key: self.key.public() }
    }

    /// Writes a new file, in clear, durable when this returns.
    pub fn create(&self, path: &Path) -> Result<(), KeyFileError> {
        self.create_with(path, None)
    }

    /// Writes a new file, encrypted where there is a passphrase; durable when this returns.
    pub fn create_with(&self, path: &Path, passphrase: Option<&Passphrase>) -> Result<(), KeyFileError> {
        create(path, &self.to_bytes(passphrase)?, 0o600)
    }

    /// Puts another form of this very key in the place of the one at `path`: the old one or the new one is there at
    /// every moment.
    pub fn replace(&self, path: &Path, passphrase: Option<&Passphrase>) -> Result<(), KeyFileError> {
        let there = PublicHalf::open(path)?.0;
        if there.key != self.key.public() {
            return Err(KeyFileError::Form("another key is there".into()));
        }
        Ok(disk::replace(path, &self.to_bytes(passphrase)?, 0o600)?)
    }

    fn to_bytes(&self, passphrase: Option<&Passphrase>) -> Result<Vec<u8>, KeyFileError> {
        let mut form = Form::of(&self.name, &self.key.public(), KEY);
        match passphrase {
            None => form.seed = Some(hex(self.key.seed())),
            Some(passphrase) => {
                let sealed = seal::seal(self.key.seed(), passphrase)?;
                form.encrypted_sha256 = Some(sha256(&sealed));
                form.encrypted = Some(STANDARD.encode(sealed));
            }
        }
        form.to_bytes()
    }

    /// Reads a file that only its owner may read, and that is not encrypted.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        Self::open_with(path, |_| Err(KeyFileError::Encrypted))
    }

    /// As [`AuthorKey::open`]; `ask` gives the passphrase of the key of that name, and is asked only where it has one.
    pub fn open_with(
        path: &Path,
        ask: impl FnOnce(&str) -> Result<Passphrase, KeyFileError>,
    ) -> Result<Self, KeyFileError> {
        let form = Form::read(&read_private(path)?)?;
        let public = form.public()?;
        let seed = match (&form.seed, &form.encrypted) {
            (Some(seed), None) => {
                unhex::<32>(seed).map_err(|_| KeyFileError::Form("the seed is not 64 hex digits".into()))?
            }
            (None, Some(text)) => {
                let sealed = STANDARD.decode(text).map_err(|_| KeyFileError::Damaged)?;
                if form.encrypted_sha256 != Some(sha256(&sealed)) {
                    return Err(KeyFileError::Damaged);
                }
                seal::unseal(&sealed, &ask(&public.name)?)?
            }
            _ => return Err(KeyFileError::PublicOnly),
        };
        let key = SigningKey::from_seed(&seed).ok_or_else(|| KeyFileError::Form("the seed makes no key".into()))?;
        if key.public() != public.key {
            return Err(KeyFileError::Form("the seed and the public key do not belong together".into()));
        }
        Ok(Self { name: form.name, key })
    }
}

impl PublicHalf {
    /// Writes a new file for everybody to read, durable when this returns.
    pub fn create(&self, path: &Path) -> Result<(), KeyFileError> {
        create(path, &Form::of(&self.name, &self.key, PUBLIC).to_bytes()?, 0o644)
    }

    /// Reads the public half, from its own file or from a key file, whose secret is left alone.
    pub fn open(path: &Path) -> Result<(Self, Secret), KeyFileError> {
        let form = Form::read(&read_limited(path, MAX_KEYFILE)?)?;
        let secret = match (&form.seed, &form.encrypted) {
            (Some(_), _) => Secret::Clear,
            (None, Some(_)) => Secret::Encrypted,
            (None, None) => Secret::Absent,
        };
        Ok((form.public()?, secret))
    }
}

/// A file that nobody but its owner may read, if it is one with a secret.
fn read_private(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    let file = std::fs::File::open(path)?;
    let is_open = file.metadata()?.permissions().mode() & 0o077 != 0;
    let mut bytes = Vec::new();
    file.take(MAX_KEYFILE).read_to_end(&mut bytes)?;
    let is_public = Form::read(&bytes).is_ok_and(|form| form.kind == PUBLIC);
    if is_open && !is_public { Err(KeyFileError::TooOpen) } else { Ok(bytes) }
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(sync_parent(path)?)
}

#[cfg(test)]
#[path = "keyfile/file_tests.rs"]
mod tests;
