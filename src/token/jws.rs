//! The outer form of a token: three base64url parts, a small header, a signature (RFC 7515, compact serialisation).
//!
//! ```text
//! token  = BASE64URL(header) "." BASE64URL(payload) "." BASE64URL(signature)      at most 8 KiB
//! signed = BASE64URL(header) "." BASE64URL(payload)                               the bytes as they came
//! header = JSON object, at most 1 KiB, depth ≤ 4
//! ```
//!
//! Steps 1 to 5 and 7 of the verifier. It never looks into the payload, and never lets the header choose an algorithm:
//! [`Compact::check`] holds the header's against the pinned key's. Called by [`super::verify`].

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

use super::error::TokenError;
use super::json::{Fault, Limits, Object, Value};
use super::provider;
use crate::policy::issuer::{Alg, PinnedKey, TypSet};

/// Longest token in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Longest header in bytes, decoded.
pub const MAX_HEADER: usize = 1024;
/// Longest `kid` in bytes.
pub const MAX_KID: usize = 256;

const HEADER_LIMITS: Limits = Limits { depth: 4, members: 64 };
/// What a header could use to bring its own key, or to change what the signature means.
const FORBIDDEN: [&str; 8] = ["crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c"];

/// A token cut into its parts and decoded; nothing of it is believed yet.
pub struct Compact<'t> {
    signed: &'t [u8],
    decoded: Vec<u8>,
    header_end: usize,
    payload_end: usize,
    padded: bool,
}

impl<'t> Compact<'t> {
    /// Steps 1 and 2. Canonical padding is let through here and remembered, because only the issuer's profile can say
    /// whether it is allowed: see [`Compact::padded`].
    pub fn read(token: &'t [u8]) -> Result<Self, TokenError> {
        // 1. length
        if token.is_empty() {
            return Err(TokenError::TokenMissing);
        }
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TokenTooLarge);
        }
        // 2. exactly two dots, base64url, no padding, no unused bits
        let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(TokenError::TokenMalformed);
        };
        let (signed, signature) = token.split_at(second);
        let (header, payload) = signed.split_at(first);
        let mut decoded = Vec::with_capacity(token.len());
        let mut padded = false;
        let mut decode = |part: &[u8]| {
            let part = part.strip_prefix(b".").unwrap_or(part);
            padded |= part.ends_with(b"=");
            let engine = if part.ends_with(b"=") { &URL_SAFE } else { &URL_SAFE_NO_PAD };
            engine.decode_vec(part, &mut decoded).map_err(|_| TokenError::TokenBase64)?;
            Ok(decoded.len())
        };
        let header_end = decode(header)?;
        let payload_end = decode(payload)?;
        decode(signature)?;
        Ok(Self { signed, decoded, header_end, payload_end, padded })
    }

    /// Whether a part carries padding, which profile `wso2` alone allows.
    #[must_use]
    pub fn padded(&self) -> bool {
        self.padded
    }

    /// The payload, decoded.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.decoded.get(self.header_end..self.payload_end).unwrap_or_default()
    }

    /// Steps 3 to 5, as far as the header alone decides them.
    pub fn header(&self) -> Result<Header<'_>, TokenError> {
        // 3. header JSON
        let text = self.decoded.get(..self.header_end).unwrap_or_default();
        if text.len() > MAX_HEADER {
            return Err(TokenError::HeaderJson);
        }
        let object = Object::read(text, HEADER_LIMITS).map_err(|fault| match fault {
            Fault::Syntax | Fault::TooDeep => TokenError::HeaderJson,
            Fault::Duplicate => TokenError::HeaderDuplicate,
        })?;
        // 4. members that are not allowed
        if object.names().any(|name| FORBIDDEN.contains(&name)) {
            return Err(TokenError::HeaderForbidden);
        }
        // 5. typ; whether the issuer may send this one is asked as soon as the issuer is known
        let typ = match object.find("typ") {
            None => Typ::Absent,
            Some(Value::Text(typ)) => Typ::from_name(typ).ok_or(TokenError::TypNotAllowed)?,
            Some(_) => return Err(TokenError::TypNotAllowed),
        };
        // 6, the half that needs no key: an algorithm that no pinned key can have
        let alg = match object.find("alg") {
            None => return Err(TokenError::HeaderJson),
            Some(Value::Text(alg)) => Alg::from_name(alg).ok_or(TokenError::AlgorithmNotAllowed)?,
            Some(_) => return Err(TokenError::AlgorithmNotAllowed),
        };
        Ok(Header { alg, typ, kid: key_name(object.find("kid"))?, x5t: key_name(object.find("x5t")).unwrap_or(None) })
    }

    /// Step 7, and the half of step 6 that comes right before it: the key names its algorithm.
    pub fn check(&self, header: &Header<'_>, key: &PinnedKey) -> Result<(), TokenError> {
        if header.alg != key.alg() {
            return Err(TokenError::AlgorithmNotAllowed);
        }
        let signature = self.decoded.get(self.payload_end..).unwrap_or_default();
        Signed { message: self.signed, signature }.check(key)
    }
}

impl std::fmt::Debug for Compact<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compact").field("signed_len", &self.signed.len()).finish_non_exhaustive()
    }
}

/// Bytes, and what is said to be a signature over them in the form of a JWS.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// What was signed.
    pub message: &'a [u8],
    /// The signature; r ‖ s for ECDSA.
    pub signature: &'a [u8],
}

impl Signed<'_> {
    /// Step 7: whether it is `key`'s, by the key's algorithm.
    pub fn check(&self, key: &PinnedKey) -> Result<(), TokenError> {
        if provider::verifies(key.alg().into(), key.key(), self.message, self.signature) {
            Ok(())
        } else {
            Err(TokenError::SignatureInvalid)
        }
    }
}

/// What kind of JWT the header says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typ {
    /// `at+jwt`, or `application/at+jwt` (RFC 9068, 4).
    AtJwt,
    /// `JWT`.
    Jwt,
    /// Nothing.
    Absent,
}

impl Typ {
    fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("at+jwt") || name.eq_ignore_ascii_case("application/at+jwt") {
            Some(Self::AtJwt)
        } else {
            name.eq_ignore_ascii_case("jwt").then_some(Self::Jwt)
        }
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn is_in(self, set: TypSet) -> bool {
        match self {
            Self::AtJwt => set.at_jwt,
            Self::Jwt => set.jwt,
            Self::Absent => set.absent,
        }
    }
}

/// The members of a header that matter; unknown ones are ignored (RFC 7515, 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// What the token says it is signed with; believed only where the pinned key says the same.
    pub alg: Alg,
    /// What it says it is.
    pub typ: Typ,
    /// Which key it names.
    pub kid: Option<Cow<'a, str>>,
    /// Which certificate it names; read in profile `wso2` only, where anything odd counts as absent.
    pub x5t: Option<Cow<'a, str>>,
}

/// Whether a token can name a key so: a pinned key of another name could never be met.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    (1..=MAX_KID).contains(&name.len()) && !name.contains(char::is_control)
}

fn key_name<'a>(value: Option<&Value<'a>>) -> Result<Option<Cow<'a, str>>, TokenError> {
    match value {
        None => Ok(None),
        Some(Value::Text(name)) if is_key_name(name) => Ok(Some(name.clone())),
        Some(_) => Err(TokenError::KidMalformed),
    }
}
