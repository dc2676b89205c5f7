//! The strict JWT verifier: bytes in, verdict out; pinned keys; pure.
//!
//! ```text
//! bytes ─▶ jws (form, header, signature) ─▶ verify (claims) ─▶ VerifiedClaims ─▶ judge (time, revocation) ─▶ verdict
//!            ▲ keys, checked on import        └── cache: by SHA-256 of the whole token ──┘
//! ```
//!
//! [`verify`] depends on the token and the pinned keys alone and is remembered by [`TokenCache`]; [`judge`] depends on
//! the request and is done each time. No clock, file, socket or environment; time comes in as bounds. The header never
//! chooses a key from outside the policy, nor an algorithm. No token is ever shown by `Debug`.
//!
//! Called by admission; [`keys`] by the bundle's compile step; [`mint`] by the CLI and tests.

mod cache;
mod claims;
mod curve;
mod der;
mod error;
mod json;
mod judge;
mod jws;
pub mod keys;
pub mod mint;
mod provider;
mod rsa;
mod verify;

pub use cache::TokenCache;
pub use claims::{Binding, VerifiedClaims};
pub use error::TokenError;
pub use judge::{Circumstances, LEEWAY_S, TimeVerdict, judge, not_revoked};
pub use jws::{Compact, Header, MAX_HEADER, MAX_KID, MAX_TOKEN, Signed, Typ, is_key_name};
pub use provider::install;
pub use verify::{MAX_AUDIENCES, MAX_DATE, verify};
