//! From an OpenAPI 3 or Swagger 2 document to an API of the policy source.
//!
//! ```text
//! bytes ─▶ document (YAML or JSON, with limits) ─▶ read (what a gateway needs) ─▶ Import ─▶ write (TOML)
//! ```
//!
//! Pure: bytes in, text and a report out. What is not taken over is said in the report, never dropped in
//! silence; what the document leaves open is decided for the closed side (no security said: a token).

mod document;
mod read;
mod security;
mod upstreams;
mod write;

pub(super) use document::DocumentError;
pub(super) use read::read;
pub(super) use write::{slug, write};

use std::collections::BTreeMap;

use crate::policy::{Auth, Method};

/// Largest document, in bytes.
pub(super) const MAX_DOCUMENT: u64 = 8 << 20;

/// What the operator says in place of the document.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) base_path: Option<String>,
    pub(super) upstream: Option<String>,
}

/// An API, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) base_path: String,
    pub(super) token_header: Option<String>,
    pub(super) plan: Option<String>,
    /// Name of the upstream of all routes that name none.
    pub(super) upstream: String,
    pub(super) upstreams: BTreeMap<String, Upstream>,
    pub(super) routes: Vec<Route>,
    /// What a person should look at: not taken over, or decided here.
    pub(super) report: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) endpoints: Vec<String>,
    pub(super) response_timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) path: String,
    pub(super) methods: Vec<Method>,
    pub(super) auth: Auth,
    pub(super) scopes: Vec<String>,
    pub(super) plan: Option<String>,
    pub(super) upstream: Option<String>,
}

/// A document that no API can be made of.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenapiError {
    /// It cannot be read as YAML or JSON within the limits.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Give an OpenAPI 3 or Swagger 2 document.
    #[error("neither an OpenAPI 3 nor a Swagger 2 document")]
    NotOpenapi,
    /// The document says nothing about this, and the flag does not either.
    #[error("the document has no usable {what}: give {flag}")]
    Missing { what: &'static str, flag: &'static str },
    /// There is no path that a gateway could serve.
    #[error("the document has no path with a method that can be served")]
    NoRoute,
}
