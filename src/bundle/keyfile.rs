//! The author's keys on disk: one small JSON file a key, mode 0600, holding the raw seed.
//!
//! ```text
//! {"alg":"ed25519","key_id":"<64 hex>","name":"…","public":"<64 hex>","seed":"<64 hex>","type":"tidegate-key"}
//! ```
//!
//! Whoever reads the file can sign: it is never written over, and never read while others may read it too.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::canonical;
use crate::disk::sync_parent;
use crate::ids::{KeyId, hex, unhex};
use crate::keys::SigningKey;

/// Most bytes of a key file.
pub const MAX_KEYFILE: u64 = 4_096;

/// A key that can sign, and the name of who holds it.
#[derive(Debug)]
pub struct AuthorKey {
    /// For people; it goes into the root document.
    pub name: String,
    /// The key.
    pub key: SigningKey,
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
    /// The system's random source failed: nothing was made.
    #[error("the system gives no random bytes")]
    NoRandom,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    alg: String,
    key_id: KeyId,
    name: String,
    public: String,
    seed: String,
    #[serde(rename = "type")]
    kind: String,
}

impl AuthorKey {
    /// A new key from the system's random source.
    pub fn generate(name: &str) -> Result<Self, KeyFileError> {
        Ok(Self { name: name.into(), key: SigningKey::generate().ok_or(KeyFileError::NoRandom)? })
    }

    /// Writes a new file, durable when this returns.
    pub fn create(&self, path: &Path) -> Result<(), KeyFileError> {
        let public = self.key.public();
        let form = Form {
            alg: "ed25519".into(),
            key_id: public.id(),
            name: self.name.clone(),
            public: hex(public.raw()),
            seed: hex(self.key.seed()),
            kind: "tidegate-key".into(),
        };
        let mut bytes = canonical::write(&form).map_err(|error| KeyFileError::Form(error.to_string()))?;
        bytes.push(b'\n');
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(sync_parent(path)?)
    }

    /// Reads a file that only its owner may read.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let file = std::fs::File::open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(KeyFileError::TooOpen);
        }
        let mut bytes = Vec::new();
        file.take(MAX_KEYFILE).read_to_end(&mut bytes)?;
        // The reader's own message could quote the seed; it is not passed on.
        let form: Form = serde_json::from_slice(&bytes).map_err(|_| KeyFileError::Form("not its JSON".into()))?;
        if form.kind != "tidegate-key" || form.alg != "ed25519" {
            return Err(KeyFileError::Form("another type or algorithm".into()));
        }
        let seed = unhex::<32>(&form.seed).map_err(|_| KeyFileError::Form("the seed is not 64 hex digits".into()))?;
        let key = SigningKey::from_seed(&seed).ok_or_else(|| KeyFileError::Form("the seed makes no key".into()))?;
        if key.public().id() != form.key_id || hex(key.public().raw()) != form.public {
            return Err(KeyFileError::Form("the seed and the public key do not belong together".into()));
        }
        Ok(Self { name: form.name, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn rights(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_reads_back_from_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ada.key");
        let made = AuthorKey::generate("ada").unwrap();
        made.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = AuthorKey::open(&path).unwrap();
        assert_eq!((read.name.as_str(), read.key.public()), ("ada", made.key.public()));
        assert!(matches!(made.create(&path), Err(KeyFileError::Io(_))), "never written over");
        rights(&path, 0o640);
        assert!(matches!(AuthorKey::open(&path), Err(KeyFileError::TooOpen)));
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_its_seed_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ada.key");
        AuthorKey::generate("ada").unwrap().create(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        let seed = text.split("\"seed\":\"").nth(1).unwrap().get(..64).unwrap().to_owned();
        for length in 0..whole.len() - 2 {
            fs::write(&path, &whole[..length]).unwrap();
            let error = AuthorKey::open(&path).unwrap_err();
            assert!(!error.to_string().contains(&seed), "{length}: {error}");
        }
        let other = seed.replacen(|_: char| true, if seed.starts_with('0') { "1" } else { "0" }, 1);
        fs::write(&path, text.replace(&seed, &other)).unwrap();
        assert!(matches!(AuthorKey::open(&path), Err(KeyFileError::Form(_))), "another seed than its public key");
    }
}
