//! Public keys of issuers, from the files that operators have, to pinned keys.
//!
//! Takes a JWK, a JWKS, or PEM with public keys or X.509 certificates, of which only the public key is read: a key is
//! pinned, never a certificate, so no date and no chain is looked at. Refuses by name whatever could not protect
//! anything: weak keys, private and symmetric keys, keys for something else than signatures, and the keys that WSO2
//! publishes with its private halves. This is the only maker of a [`PinnedKey`]. Called by the bundle's compile step and
//! the CLI; pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::server::ParsedCertificate;

use super::json::{Limits, Object, Value};
use super::{curve, der, rsa};
use crate::ids::Digest;
use crate::keys::{BadKey, KeyAlg, PublicKey, sha256};
use crate::policy::issuer::{Alg, MAX_KEYS, PinnedKey};

/// Longest key file in bytes.
pub const MAX_KEY_FILE: usize = 64 * 1024;

const LIMITS: Limits = Limits { depth: 6, members: 64 };
/// Members of a JWK that only a private or symmetric key has (RFC 7518, 6.2.2, 6.3.2 and 6.4; RFC 8037, 2).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// SHA-256 of the SubjectPublicKeyInfo of keys that WSO2 ships with their private halves: anybody can sign with them.
const DEMO_KEYS: [Digest; 3] = [
    demo_key(*b"5735b2f58c3e8ad33757a698b45593ef68c1212dba62dcce8b914ea8b8922229"),
    demo_key(*b"ad874c42382e2a464a3dba787fb3a0b5e2de30100545742758a6fbf0cb6aca5e"),
    demo_key(*b"caa08ab78bb6223dd7f464a988b788e2fbd5a5899033b1cdf19f8727def145e3"),
];

const fn demo_key(hex: [u8; 64]) -> Digest {
    const fn nibble(digit: u8) -> u8 {
        if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
    }
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = nibble(hex[2 * at]) << 4 | nibble(hex[2 * at + 1]);
        at += 1;
    }
    Digest(bytes)
}

/// Why a key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Larger than [`MAX_KEY_FILE`]: give the keys alone.
    #[error("key file over 64 KiB")]
    TooLarge,
    /// Neither JWK, JWKS, nor PEM with a public key or certificate: export the key again.
    #[error("malformed key: {0}")]
    Malformed(&'static str),
    /// There is no key in it.
    #[error("no public key in the file")]
    NoKey,
    /// More keys than an issuer may have: remove those that are not in use.
    #[error("more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// Anybody, or anybody with some money, can sign with it: have the issuer make a new key.
    #[error("weak key: {0}")]
    WeakKey(&'static str),
    /// A private or a symmetric key: it does not belong onto a device. Give the public key, and consider this one leaked.
    #[error("a private or symmetric key, where only public keys belong")]
    PrivateKeyInBundle,
    /// Two keys of one set answer to the same `kid`.
    #[error("two keys have the same kid")]
    DuplicateKid,
    /// `alg` is not one that this key can have, or not what the policy says of it.
    #[error("alg does not fit the key")]
    AlgMismatch,
    /// Ed25519, P-256, P-384 and RSA are supported.
    #[error("key of a kind that is not supported")]
    Unsupported,
    /// `use` is not `sig`, or `key_ops` lacks `verify`: take the issuer's signing key.
    #[error("key is not for checking signatures")]
    NotForSignatures,
    /// WSO2 publishes the private half: make a key of your own, or say `allow_demo_keys` in a test policy.
    #[error("a published demo key")]
    DemoKey,
}

impl KeyError {
    /// The name in journals, the CLI and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "KeyFileTooLarge",
            Self::Malformed(_) => "KeyMalformed",
            Self::NoKey => "KeyMissing",
            Self::TooManyKeys => "TooManyKeys",
            Self::WeakKey(_) => "WeakKey",
            Self::PrivateKeyInBundle => "PrivateKeyInBundle",
            Self::DuplicateKid => "DuplicateKid",
            Self::AlgMismatch => "AlgMismatch",
            Self::Unsupported => "KeyUnsupported",
            Self::NotForSignatures => "KeyNotForSignatures",
            Self::DemoKey => "DemoKey",
        }
    }
}

/// What the policy says of keys that it imports.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyTerms {
    /// The algorithm of keys that do not name one; must agree with those that do. `None`: RSA keys get RS256, the others
    /// have only one.
    pub alg: Option<Alg>,
    /// Whether WSO2's published keys are let in.
    pub allow_demo_keys: bool,
}

/// Every public key of a JWK, a JWKS or a PEM file.
pub fn import(file: &[u8], terms: KeyTerms) -> Result<Vec<PinnedKey>, KeyError> {
    if file.len() > MAX_KEY_FILE {
        return Err(KeyError::TooLarge);
    }
    let keys = if file.trim_ascii_start().first() == Some(&b'{') { json(file, terms) } else { pem(file, terms) }?;
    if keys.is_empty() {
        return Err(KeyError::NoKey);
    }
    for (at, key) in keys.iter().enumerate() {
        if key.kid().is_some() && keys.iter().skip(at + 1).any(|other| other.kid() == key.kid()) {
            return Err(KeyError::DuplicateKid);
        }
    }
    Ok(keys)
}

fn json(file: &[u8], terms: KeyTerms) -> Result<Vec<PinnedKey>, KeyError> {
    let object =
        Object::read(file, LIMITS).map_err(|_| KeyError::Malformed("not a JSON object, or says a member twice"))?;
    match object.find("keys") {
        None => Ok(vec![jwk(&object, terms)?]),
        Some(Value::List(keys)) if keys.len() > MAX_KEYS => Err(KeyError::TooManyKeys),
        Some(Value::List(keys)) => {
            let one = |key: &Value<'_>| match key {
                Value::Object(key) => jwk(key, terms),
                _ => Err(KeyError::Malformed("keys holds something else than keys")),
            };
            keys.iter().map(one).collect()
        }
        Some(_) => Err(KeyError::Malformed("keys is not a list")),
    }
}

fn jwk(jwk: &Object<'_>, terms: KeyTerms) -> Result<PinnedKey, KeyError> {
    if jwk.names().any(|name| PRIVATE.contains(&name)) {
        return Err(KeyError::PrivateKeyInBundle);
    }
    let text = |name| match jwk.find(name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(&**text)),
        Some(_) => Err(KeyError::Malformed("a member is not a text")),
    };
    let bytes = |name| {
        let text = text(name)?.ok_or(KeyError::Malformed("a coordinate is missing"))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Malformed("a coordinate is not base64url"))
    };
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(KeyError::NotForSignatures);
    }
    match jwk.find("key_ops") {
        None => {}
        Some(Value::List(ops)) if ops.iter().any(|op| matches!(op, Value::Text(op) if op == "verify")) => {}
        Some(_) => return Err(KeyError::NotForSignatures),
    }
    let said = text("alg")?.map(|alg| Alg::from_name(alg).ok_or(KeyError::AlgMismatch)).transpose()?;
    let key = match (text("kty")?, text("crv")?) {
        (Some("RSA"), _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            // Off-spec: leading zeros (RFC 7518, 6.3.1.1), which common libraries write, are cut off.
            Public::rsa(without_zeros(&n), without_zeros(&e))
        }
        (Some("EC"), Some(curve @ ("P-256" | "P-384"))) => {
            let point = [&[4], &*bytes("x")?, &*bytes("y")?].concat();
            if curve == "P-256" { Public::p256(&point) } else { Public::p384(&point) }
        }
        (Some("OKP"), Some("Ed25519")) => Public::ed25519(&bytes("x")?),
        (Some("oct"), _) => Err(KeyError::PrivateKeyInBundle),
        _ => Err(KeyError::Unsupported),
    }?;
    let pinned = key.pin(said, terms)?;
    Ok(match text("kid")? {
        Some("") => return Err(KeyError::Malformed("kid is empty")),
        Some(kid) => pinned.named(kid),
        None => pinned,
    })
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}

fn pem(file: &[u8], terms: KeyTerms) -> Result<Vec<PinnedKey>, KeyError> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(file) {
        let (kind, der) = section.map_err(|_| KeyError::Malformed("not PEM"))?;
        let spki = match kind {
            SectionKind::PublicKey => der,
            SectionKind::Certificate => {
                let certificate = CertificateDer::from(der);
                let parsed = ParsedCertificate::try_from(&certificate)
                    .map_err(|_| KeyError::Malformed("not an X.509 certificate"))?;
                parsed.subject_public_key_info().to_vec()
            }
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                return Err(KeyError::PrivateKeyInBundle);
            }
            _ => return Err(KeyError::Malformed("a PEM section that is neither public key nor certificate")),
        };
        if keys.len() == MAX_KEYS {
            return Err(KeyError::TooManyKeys);
        }
        keys.push(Public::from_spki(&spki)?.pin(None, terms)?);
    }
    Ok(keys)
}

/// A public key that was found sound, before it has an algorithm.
struct Public {
    key: DecodingKey,
    /// The algorithm, where the key allows only one.
    only: Option<Alg>,
    digest: Digest,
}

impl Public {
    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        if let Some(weakness) = rsa::weakness(n, e) {
            return Err(KeyError::WeakKey(weakness));
        }
        let digest = sha256(&der::subject_public_key_info(der::RSA, &der::rsa_key(n, e)));
        Ok(Self { key: DecodingKey::from_rsa_raw_components(n, e), only: None, digest })
    }

    fn p256(point: &[u8]) -> Result<Self, KeyError> {
        if !curve::is_on_p256(point) {
            return Err(KeyError::WeakKey("a point that is not on P-256"));
        }
        let digest = sha256(&der::subject_public_key_info(der::P256, point));
        Ok(Self { key: DecodingKey::from_ec_der(point), only: Some(Alg::Es256), digest })
    }

    fn p384(point: &[u8]) -> Result<Self, KeyError> {
        if !curve::is_on_p384(point) {
            return Err(KeyError::WeakKey("a point that is not on P-384"));
        }
        let digest = sha256(&der::subject_public_key_info(der::P384, point));
        Ok(Self { key: DecodingKey::from_ec_der(point), only: Some(Alg::Es384), digest })
    }

    fn ed25519(raw: &[u8]) -> Result<Self, KeyError> {
        let exact = raw.try_into().map_err(|_| KeyError::Malformed("an Ed25519 key is 32 bytes"))?;
        PublicKey::new(KeyAlg::Ed25519, raw).map_err(|bad| match bad {
            BadKey::Weak => KeyError::WeakKey("a small-order Ed25519 point"),
            BadKey::Malformed => KeyError::Malformed("an Ed25519 key is 32 bytes"),
        })?;
        if !curve::is_on_ed25519(exact) {
            return Err(KeyError::WeakKey("no point of edwards25519"));
        }
        let digest = sha256(&der::subject_public_key_info(der::ED25519, raw));
        Ok(Self { key: DecodingKey::from_ed_der(raw), only: Some(Alg::EdDsa), digest })
    }

    fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, key) = der::public_key_parts(spki).ok_or(KeyError::Malformed("not a SubjectPublicKeyInfo"))?;
        match algorithm {
            der::RSA => {
                let (n, e) = der::rsa_public_key(key).ok_or(KeyError::Malformed("not an RSAPublicKey"))?;
                Self::rsa(n, e)
            }
            der::P256 => Self::p256(key),
            der::P384 => Self::p384(key),
            der::ED25519 => Self::ed25519(key),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// `said` is what the key itself says of its algorithm.
    fn pin(self, said: Option<Alg>, terms: KeyTerms) -> Result<PinnedKey, KeyError> {
        if !terms.allow_demo_keys && DEMO_KEYS.contains(&self.digest) {
            return Err(KeyError::DemoKey);
        }
        let alg = self.only.or(said).or(terms.alg).unwrap_or(Alg::Rs256);
        let agree = |other: Option<Alg>| other.is_none_or(|other| other == alg);
        if !agree(said) || !agree(terms.alg) || self.only.is_none() != alg.is_rsa() {
            return Err(KeyError::AlgMismatch);
        }
        Ok(PinnedKey::new(alg, self.key, self.digest))
    }
}
