//! Makes tokens: for tests, for a first try, and for batches that go to a site by stick.
//!
//! Holds a private key; never a part of a running gateway. Signs with `jsonwebtoken` over ring, so that whatever it
//! makes is what other makers make. Called by the CLI and tests.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use serde::Serialize;

use super::json::{Limits, Object, Value};
use super::keys::{self, KeyError, KeyTerms, MAX_KEY_FILE};
use super::{der, provider};
use crate::policy::issuer::{Alg, PinnedKey};

/// INTEGER 0: the version of PKCS#8 (RFC 5208, 5) and of an RSAPrivateKey with two primes (RFC 8017, A.1.2).
const VERSION_0: &[u8] = &[der::INTEGER, 1, 0];
/// INTEGER 1: the version of an ECPrivateKey (RFC 5915, 3).
const VERSION_1: &[u8] = &[der::INTEGER, 1, 1];
const LIMITS: Limits = Limits { depth: 4, members: 64 };

/// Why no token, or no key, is made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Not a private key as PEM (PKCS#8, or PKCS#1 for RSA) or as a JWK.
    #[error("not a private key of a supported kind: {0}")]
    BadKey(&'static str),
    /// The key's public half would be refused on a device.
    #[error("the public half is refused")]
    Public(#[from] KeyError),
    /// ring makes Ed25519, P-256 and P-384 keys; make an RSA key with `openssl genpkey`.
    #[error("cannot make a key for {0}")]
    CannotGenerate(&'static str),
    /// The claims do not serialise, or ring refused to sign.
    #[error("cannot sign")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// A private key that signs tokens. `Debug` shows its public half.
pub struct MintKey {
    key: EncodingKey,
    pkcs8: Option<Vec<u8>>,
    spki: Vec<u8>,
    public: PinnedKey,
}

impl MintKey {
    /// A new key for EdDSA, ES256 or ES384.
    pub fn generate(alg: Alg) -> Result<Self, MintError> {
        let random = SystemRandom::new();
        let failed = |_| MintError::BadKey("the system's random source failed");
        let pkcs8 =
            match alg {
                Alg::EdDsa => Ed25519KeyPair::generate_pkcs8(&random).map_err(failed)?,
                Alg::Es256 => EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                    .map_err(failed)?,
                Alg::Es384 => EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &random)
                    .map_err(failed)?,
                _ => return Err(MintError::CannotGenerate(alg.name())),
            };
        Self::from_pkcs8(pkcs8.as_ref(), alg)
    }

    /// A private key from PEM or a JWK. `alg` chooses among the algorithms of an RSA key (default: the JWK's own, else
    /// RS256), and must agree with what the key says.
    pub fn import(file: &[u8], alg: Option<Alg>) -> Result<Self, MintError> {
        if file.len() > MAX_KEY_FILE {
            return Err(KeyError::TooLarge.into());
        }
        if file.trim_ascii_start().first() == Some(&b'{') {
            return Self::from_jwk(file, alg);
        }
        let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(file);
        for section in sections {
            let (kind, der) = section.map_err(|_| MintError::BadKey("not PEM"))?;
            match kind {
                SectionKind::PrivateKey => {
                    let plausible = match alg {
                        Some(alg) => vec![alg],
                        None => vec![Alg::EdDsa, Alg::Es256, Alg::Es384, Alg::Rs256],
                    };
                    let keys = plausible.into_iter().map(|alg| Self::from_pkcs8(&der, alg));
                    return keys.reduce(Result::or).unwrap_or(Err(MintError::BadKey("no algorithm fits")));
                }
                SectionKind::RsaPrivateKey => return Self::from_rsa_der(&der, alg.unwrap_or(Alg::Rs256)),
                SectionKind::EcPrivateKey => {
                    return Err(MintError::BadKey("an EC key must be PKCS#8: openssl pkcs8 -topk8 -nocrypt"));
                }
                _ => {}
            }
        }
        Err(MintError::BadKey("no private key in the PEM"))
    }

    fn from_pkcs8(pkcs8: &[u8], alg: Alg) -> Result<Self, MintError> {
        let random = SystemRandom::new();
        let ec = |parameters, curve, refused| {
            let pair = EcdsaKeyPair::from_pkcs8(parameters, pkcs8, &random).map_err(|_| MintError::BadKey(refused))?;
            let spki = der::subject_public_key_info(curve, pair.public_key().as_ref());
            Self::new(EncodingKey::from_ec_der(pkcs8), Some(pkcs8.into()), spki, alg)
        };
        match alg {
            Alg::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
                    .map_err(|_| MintError::BadKey("not an Ed25519 key in PKCS#8"))?;
                let spki = der::subject_public_key_info(der::ED25519, pair.public_key().as_ref());
                Self::new(EncodingKey::from_ed_der(pkcs8), Some(pkcs8.into()), spki, alg)
            }
            Alg::Es256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der::P256, "not a P-256 key in PKCS#8"),
            Alg::Es384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, der::P384, "not a P-384 key in PKCS#8"),
            _ => {
                let pair =
                    RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| MintError::BadKey("not a sound RSA key in PKCS#8"))?;
                Self::new(EncodingKey::from_rsa_der(pkcs8), Some(pkcs8.into()), rsa_spki(&pair), alg)
            }
        }
    }

    fn from_rsa_der(pkcs1: &[u8], alg: Alg) -> Result<Self, MintError> {
        let pair = RsaKeyPair::from_der(pkcs1).map_err(|_| MintError::BadKey("not a sound RSA key in PKCS#1"))?;
        Self::new(EncodingKey::from_rsa_der(pkcs1), None, rsa_spki(&pair), alg)
    }

    fn from_jwk(file: &[u8], alg: Option<Alg>) -> Result<Self, MintError> {
        let jwk = Object::read(file, LIMITS).map_err(|_| MintError::BadKey("not a JWK"))?;
        let text = |name| match jwk.find(name) {
            Some(Value::Text(text)) => Some(&**text),
            _ => None,
        };
        let bytes = |name| {
            let decoded = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            decoded.ok_or(MintError::BadKey("a member of the private JWK is missing or not base64url"))
        };
        let said = text("alg").and_then(Alg::from_name);
        if alg.is_some() && said.is_some() && alg != said {
            return Err(MintError::BadKey("the JWK is for another algorithm"));
        }
        let alg = alg.or(said);
        let key = match (text("kty"), text("crv")) {
            (Some("OKP"), Some("Ed25519")) => {
                let seed = der::element(der::OCTET_STRING, &der::element(der::OCTET_STRING, &bytes("d")?));
                let algorithm = der::element(der::SEQUENCE, der::ED25519);
                let pkcs8 = der::element(der::SEQUENCE, &[VERSION_0, &algorithm, &seed].concat());
                Self::from_pkcs8(&pkcs8, alg.unwrap_or(Alg::EdDsa))
            }
            (Some("EC"), Some(curve @ ("P-256" | "P-384"))) => {
                let (curve, only) = if curve == "P-256" { (der::P256, Alg::Es256) } else { (der::P384, Alg::Es384) };
                // ECPrivateKey (RFC 5915, 3), with the public key, which ring asks for
                let point = [&[0, 4], &*bytes("x")?, &*bytes("y")?].concat();
                let public = der::element(0xa1, &der::element(der::BIT_STRING, &point));
                let secret = der::element(der::OCTET_STRING, &bytes("d")?);
                let private = der::element(der::SEQUENCE, &[VERSION_1, &secret, &public].concat());
                let algorithm = der::element(der::SEQUENCE, curve);
                let wrapped = der::element(der::OCTET_STRING, &private);
                let pkcs8 = der::element(der::SEQUENCE, &[VERSION_0, &algorithm, &wrapped].concat());
                Self::from_pkcs8(&pkcs8, alg.unwrap_or(only))
            }
            (Some("RSA"), _) => {
                let mut content = VERSION_0.to_vec();
                for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
                    content.extend(der::integer(&bytes(name)?));
                }
                Self::from_rsa_der(&der::element(der::SEQUENCE, &content), alg.unwrap_or(Alg::Rs256))
            }
            _ => Err(MintError::BadKey("not an RSA, P-256, P-384 or Ed25519 JWK")),
        }?;
        Ok(match text("kid") {
            Some(kid) => key.named(kid),
            None => key,
        })
    }

    fn new(key: EncodingKey, pkcs8: Option<Vec<u8>>, spki: Vec<u8>, alg: Alg) -> Result<Self, MintError> {
        // Demo keys may mint: a token is worth only what the device's policy makes of its key.
        let terms = KeyTerms { alg: Some(alg), allow_demo_keys: true };
        let mut public = keys::import(armour("PUBLIC KEY", &spki).as_bytes(), terms)?;
        let public = public.pop().ok_or(KeyError::NoKey)?;
        Ok(Self { key, pkcs8, spki, public })
    }

    /// The same key, which writes `kid` into its tokens.
    #[must_use]
    pub fn named(self, kid: &str) -> Self {
        Self { public: self.public.named(kid), ..self }
    }

    /// Its public half, as a policy pins it.
    #[must_use]
    pub fn public(&self) -> &PinnedKey {
        &self.public
    }

    /// Its public half as PEM.
    #[must_use]
    pub fn public_pem(&self) -> String {
        armour("PUBLIC KEY", &self.spki)
    }

    /// The private key as PKCS#8 PEM, to be written 0600; `None` where it came as PKCS#1.
    #[must_use]
    pub fn private_pem(&self) -> Option<String> {
        self.pkcs8.as_ref().map(|pkcs8| armour("PRIVATE KEY", pkcs8))
    }

    /// A token with these claims; `typ` is `at+jwt` for access tokens (RFC 9068, 2.1).
    pub fn mint(&self, typ: Option<&str>, claims: &impl Serialize) -> Result<String, MintError> {
        provider::install();
        let mut header = Header::new(self.public.alg().into());
        header.typ = typ.map(Into::into);
        header.kid = self.public.kid().map(Into::into);
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

impl fmt::Debug for MintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MintKey({:?})", self.public)
    }
}

fn rsa_spki(pair: &RsaKeyPair) -> Vec<u8> {
    der::subject_public_key_info(der::RSA, pair.public().as_ref())
}

/// PEM (RFC 7468).
fn armour(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
