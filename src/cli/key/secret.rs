//! `key encrypt` and `key decrypt`: the same key, under a passphrase or not. The file holds one or the other at every
//! moment. A private key that signs tokens (PKCS#8 in PEM) is taken too.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::bundle::keyfile::{KeyFileError, PublicHalf, Secret, encrypt_pem, is_encrypted_pem};
use crate::cli::passphrase::PassphraseSource;
use crate::disk::{self, read_limited};
use crate::token::keys::MAX_KEY_FILE;

/// Put a key under a passphrase, in its own file.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Encrypt {
    /// The key file, or a private key in PEM.
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// Take the passphrase off, for a key that a service must read.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Decrypt {
    /// The key file, or a private key in PEM.
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

pub(super) fn encrypt(arguments: &Encrypt) -> anyhow::Result<()> {
    let (file, source) = (&arguments.file, &arguments.passphrase);
    let named = || format!("key {}", file.display());
    let what = file.display().to_string();
    if let Some(pem) = pem(file)? {
        if is_encrypted_pem(&pem) {
            bail!("{what} is encrypted already; decrypt it first to change its passphrase");
        }
        let sealed = encrypt_pem(&String::from_utf8_lossy(&pem), &source.needed(&what)?).with_context(named)?;
        disk::replace(file, sealed.as_bytes(), 0o600).with_context(named)?;
    } else {
        match PublicHalf::open(file).with_context(named)?.1 {
            Secret::Clear => {}
            Secret::Encrypted => bail!("{what} is encrypted already; decrypt it first to change its passphrase"),
            Secret::Absent => return Err(KeyFileError::PublicOnly).with_context(named),
        }
        let key = source.open(file)?;
        key.replace(file, Some(&source.needed(&what)?)).with_context(named)?;
    }
    println!("{what} is under a passphrase. Copies of it, and backups, are as they were.");
    Ok(())
}

pub(super) fn decrypt(arguments: &Decrypt) -> anyhow::Result<()> {
    let (file, source) = (&arguments.file, &arguments.passphrase);
    let named = || format!("key {}", file.display());
    let what = file.display();
    if let Some(pem) = pem(file)? {
        if !is_encrypted_pem(&pem) {
            bail!("{what} is not encrypted");
        }
        let clear = source.open_pem(pem, file).with_context(named)?;
        disk::replace(file, &clear, 0o600).with_context(named)?;
    } else {
        match PublicHalf::open(file).with_context(named)?.1 {
            Secret::Encrypted => {}
            Secret::Clear => bail!("{what} is not encrypted"),
            Secret::Absent => return Err(KeyFileError::PublicOnly).with_context(named),
        }
        source.open(file)?.replace(file, None).with_context(named)?;
    }
    println!("{what} lies in clear: whoever reads it can sign.");
    Ok(())
}

/// The file, if it is PEM that only its owner reads.
fn pem(file: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let named = || format!("key {}", file.display());
    let bytes = read_limited(file, MAX_KEY_FILE as u64).with_context(named)?;
    if !bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
        return Ok(None);
    }
    if std::fs::metadata(file).with_context(named)?.permissions().mode() & 0o077 != 0 {
        return Err(KeyFileError::TooOpen).with_context(named);
    }
    Ok(Some(bytes))
}
