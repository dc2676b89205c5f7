//! Key and certificate files that the folder names, to the form that an entry gives them.

use std::io;
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKeyKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::pages::read_inside;
use crate::bundle::entry::{Jwk, Key};
use crate::policy::issuer::{Alg, PinnedKey};
use crate::token::keys::{self, KeyError, KeyTerms, MAX_KEY_FILE};

/// Largest file of CA certificates, in bytes.
const MAX_CA_FILE: u64 = 256 * 1024;

/// A file that holds no key or certificate that can be used.
#[derive(Debug, thiserror::Error)]
pub enum NotAKey {
    /// Reading failed, or the file is too large.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Move the file into the folder and name it from there.
    #[error("name a file inside the policy folder, without .. and not from /")]
    Outside,
    /// It was read, and its keys are refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Give PEM with CERTIFICATE sections.
    #[error("no certificate in PEM")]
    NoCertificate,
}

/// A key or certificate file that the folder names.
pub(super) fn named_file(folder: &Path, file: &str, limit: u64) -> Result<Vec<u8>, NotAKey> {
    let path = Path::new(file);
    if file.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(NotAKey::Outside);
    }
    Ok(read_inside(folder, path, limit)?)
}

/// DER of every certificate in a PEM file of the folder.
pub(super) fn certificates(folder: &Path, file: &str) -> Result<Vec<Vec<u8>>, NotAKey> {
    let pem = named_file(folder, file, MAX_CA_FILE)?;
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&pem).map(|der| der.map(|der| der.to_vec())).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(NotAKey::NoCertificate),
    }
}

/// The keys of a PEM, JWK or JWKS text, as an entry holds them; and how many keys of a JWKS are left out because
/// they are for encryption.
pub fn pinned_keys(text: &[u8], terms: KeyTerms) -> Result<(Vec<Key>, usize), KeyError> {
    let (signing, left_out) = without_encryption_keys(text);
    let keys = keys::import(signing.as_deref().unwrap_or(text), terms)?;
    Ok((keys.iter().map(entry_key).collect(), left_out))
}

/// A published JWKS often holds keys for encryption too; they can verify nothing.
fn without_encryption_keys(text: &[u8]) -> (Option<Vec<u8>>, usize) {
    if text.len() > MAX_KEY_FILE {
        return (None, 0);
    }
    let Ok(mut set) = serde_json::from_slice::<serde_json::Value>(text) else { return (None, 0) };
    let Some(keys) = set.get_mut("keys").and_then(serde_json::Value::as_array_mut) else { return (None, 0) };
    let before = keys.len();
    keys.retain(|key| key.get("use").and_then(serde_json::Value::as_str) != Some("enc"));
    let left_out = before - keys.len();
    // Untouched text is judged as it stands, so that a member that stands twice is still seen.
    if left_out == 0 { (None, 0) } else { (serde_json::to_vec(&set).ok(), left_out) }
}

/// The wire form of a key that was found sound.
pub(crate) fn entry_key(key: &PinnedKey) -> Key {
    let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
    let empty = Jwk { crv: None, e: None, kty: String::new(), n: None, x: None, y: None };
    let jwk = match key.key().kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Jwk { kty: "RSA".into(), n: text(n), e: text(e), ..empty },
        DecodingKeyKind::SecretOrDer(raw) if key.alg() == Alg::EdDsa => {
            Jwk { kty: "OKP".into(), crv: Some("Ed25519".into()), x: text(raw), ..empty }
        }
        DecodingKeyKind::SecretOrDer(point) => {
            let curve = if key.alg() == Alg::Es256 { "P-256" } else { "P-384" };
            let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
            Jwk { kty: "EC".into(), crv: Some(curve.into()), x: text(x), y: text(y), ..empty }
        }
    };
    Key { alg: key.alg().name().into(), jwk, kid: key.kid().map(str::to_owned), x5t: None }
}
