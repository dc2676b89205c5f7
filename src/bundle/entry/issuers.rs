//! Entry `issuers`: who may sign tokens, with their pinned public keys.

use serde::{Deserialize, Serialize};

/// The entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuers {
    /// The issuers, sorted by name.
    pub issuers: Vec<Issuer>,
}

/// One issuer. What each member means: `policy::issuer::Issuer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Whether a token without `typ` is taken.
    pub absent_type: bool,
    /// Whether keys that anybody can know (a product's published demo keys) are taken.
    pub allow_demo_keys: bool,
    /// A token's `aud` must name one of these; none: not judged here.
    pub audiences: Vec<String>,
    /// Where claims that have no registered name stand.
    pub claims: Claims,
    /// The exact `iss` of its tokens.
    pub iss: String,
    /// Its keys.
    pub keys: Vec<Key>,
    /// Longest life of a token, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_s: Option<u64>,
    /// Its name in this policy.
    pub name: String,
    /// `strict` or `wso2`.
    pub profile: String,
    /// The values of `typ` that are taken, in lower case.
    pub types: Vec<String>,
}

/// Claim names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Claims that may hold the application's consumer key; the first that is there counts. A name that
    /// begins with `/` is a path of two: `/application/uuid`. None: the profile's own.
    pub application: Vec<String>,
    /// The claim with the scopes: a string with spaces, or a list.
    pub scope: String,
}

/// One pinned key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The one JWS algorithm that it verifies (RFC 7518, 3.1; RFC 8037): `ES256`.
    pub alg: String,
    /// Its public members.
    pub jwk: Jwk,
    /// Its key id, as tokens give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The `x5t` by which a `wso2` issuer's tokens name it, as they spell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5t: Option<String>,
}

/// The public members of a JWK (RFC 7517; RFC 7518, 6; RFC 8037), base64url without padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwk {
    /// Curve of EC and OKP keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// RSA exponent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// `RSA`, `EC` or `OKP`.
    pub kty: String,
    /// RSA modulus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// X coordinate of EC keys, or the OKP key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Y coordinate of EC keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
}
