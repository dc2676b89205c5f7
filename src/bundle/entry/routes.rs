//! Entry `routes`: APIs, their routes, and upstreams.

use serde::{Deserialize, Serialize};

use crate::policy::{Auth, KeepAddress, KeepPrincipal, Method, Privacy, Rotate, Uncertain};

/// The entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// The APIs, sorted by name, then version.
    pub apis: Vec<Api>,
    /// The upstreams, sorted by name.
    pub upstreams: Vec<Upstream>,
    /// What usage records keep of persons, where an API does not say; and of requests that no API takes.
    #[serde(default, skip_serializing_if = "Usage::is_empty")]
    pub usage: Usage,
}

/// What usage records keep of persons: what is left out is as it is in the deployment, or there as in
/// [`Privacy::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Of the caller's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<KeepAddress>,
    /// Of the token's `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<KeepPrincipal>,
    /// How long hashes stay the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
}

impl Usage {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What holds, where `otherwise` holds for what is left out.
    #[must_use]
    pub fn or(self, otherwise: Privacy) -> Privacy {
        Privacy {
            principal: self.principal.unwrap_or(otherwise.principal),
            address: self.address.unwrap_or(otherwise.address),
            rotate: self.rotate.unwrap_or(otherwise.rotate),
        }
    }
}

/// One API at one version. What each member means: `policy::Api`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Wanted in a token's `aud`, one of them; none: only what the issuer wants.
    pub audiences: Vec<String>,
    /// Empty, or begins with `/` and does not end in it.
    pub base_path: String,
    /// Whether the upstream is shown the token.
    pub forward_token: bool,
    /// Host names in lower case; none: any host.
    pub hosts: Vec<String>,
    /// Names of issuers.
    pub issuers: Vec<String>,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// The API's name.
    pub name: String,
    /// Name of a plan for the whole API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Whether `base_path` is taken off before forwarding.
    pub strip_base_path: bool,
    /// Whether an application must be subscribed.
    pub subscription: bool,
    /// Lower-case name of the header with the token.
    pub token_header: String,
    /// Name of the upstream.
    pub upstream: String,
    /// What usage records keep of persons, where that is not the deployment's.
    #[serde(default, skip_serializing_if = "Usage::is_empty")]
    pub usage: Usage,
    /// The API's version.
    pub version: String,
}

/// One template and the methods that share its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Whether it wants a token.
    pub auth: Auth,
    /// Its methods, in the order of `policy::Method`.
    pub methods: Vec<Method>,
    /// Name of a plan for this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// How old, in seconds, what is known of revocations may be. A device that does not know this member refuses the
    /// bundle, as it does with every member that it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations_max_age_s: Option<u64>,
    /// The token must hold one of them.
    pub scopes: Vec<String>,
    /// `/pet/{petId}`; a last segment `*` matches all below.
    pub template: String,
    /// What happens to a token whose expiry is uncertain.
    pub uncertain: Uncertain,
    /// Name of the upstream, where it is not the API's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

/// A service behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Base64 (RFC 4648, 4) of DER certificates that `https` endpoints must chain to.
    pub ca: Vec<String>,
    /// Milliseconds for a connection to stand.
    pub connect_timeout_ms: u64,
    /// `http[s]://host[:port][/prefix]`.
    pub endpoints: Vec<String>,
    /// Whether the caller's `Host` is forwarded.
    pub keep_host: bool,
    /// Its name.
    pub name: String,
    /// Milliseconds for the answer's head.
    pub response_timeout_ms: u64,
}
