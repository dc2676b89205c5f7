//! APIs and their routes.

use serde::{Deserialize, Serialize};

use super::{ApiIndex, IssuerIndex, NameHash, PlanIndex, Privacy, UpstreamIndex};

/// One published API at one version.
#[derive(Debug)]
pub struct Api {
    /// Its name, as subscriptions and usage records give it.
    pub name: Box<str>,
    /// Its version, likewise.
    pub version: Box<str>,
    /// Of its name and version.
    pub hash: NameHash,
    /// What every path of it begins with: `/petstore/1.0.5`, or empty.
    pub base_path: Box<str>,
    /// Whether `base_path` is taken off before the request is forwarded.
    pub strip_base_path: bool,
    /// The issuers whose tokens it takes; never empty where a route wants a token.
    pub issuers: Box<[IssuerIndex]>,
    /// If not empty, a token's `aud` must name one of these (beside what its issuer wants).
    pub audiences: Box<[Box<str>]>,
    /// The header that carries the token, in lower case. `authorization` carries `Bearer TOKEN`, any
    /// other the bare token.
    pub token_header: Box<str>,
    /// Whether the upstream is shown the token.
    pub forward_token: bool,
    /// Whether the application must be subscribed.
    pub needs_subscription: bool,
    /// A limit on the whole API, whoever calls.
    pub plan: Option<PlanIndex>,
    /// The largest request body, in bytes.
    pub max_body: u64,
    /// What usage records keep of who calls it.
    pub privacy: Privacy,
}

/// One resource of an API: a template and the methods that share its rules.
#[derive(Debug)]
pub struct Route {
    /// The API that it belongs to.
    pub api: ApiIndex,
    /// The path template below the API's base path: `/pet/{petId}`.
    pub template: Box<str>,
    /// The methods that it answers.
    pub methods: MethodSet,
    /// Whether it wants a token.
    pub auth: Auth,
    /// What the token must hold, any of these, unless there are none: a scope, or several with single spaces between
    /// them, which are wanted together.
    pub scopes: Box<[Box<str>]>,
    /// A limit on this resource, whoever calls.
    pub plan: Option<PlanIndex>,
    /// Where it is forwarded to.
    pub upstream: UpstreamIndex,
    /// What happens to a token whose expiry the device cannot be sure of.
    pub uncertain: Uncertain,
    /// How old, in seconds, what is known of revocations may be; older, the route is closed. `None`: as old as it likes.
    pub revocations_max_age_s: Option<u64>,
}

/// What a route asks of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// A valid token.
    #[default]
    Token,
    /// Nothing: open to anybody.
    None,
}

/// What a route does when the clock has no trusted upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Uncertain {
    /// Takes a token that is valid by the floor.
    #[default]
    Allow,
    /// Takes it only if it is bound to its sender.
    Bound,
    /// Refuses it.
    Deny,
}

/// The methods that a policy can name (RFC 9110, 9.3; RFC 5789). CONNECT and TRACE cannot be routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Method {
    /// GET
    Get,
    /// HEAD; a route that answers GET and not HEAD answers it too.
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
}

impl Method {
    /// All of them, in the order of `Allow`.
    pub const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// The method of that exact name, if a policy can name it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A set of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MethodSet(u8);

impl MethodSet {
    /// This set with `method`.
    #[must_use]
    pub const fn with(self, method: Method) -> Self {
        Self(self.0 | 1 << method as u8)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it holds `method`.
    #[must_use]
    pub const fn contains(self, method: Method) -> bool {
        self.0 & 1 << method as u8 != 0
    }

    /// Whether both hold a method.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its methods, in the order of `Allow`.
    pub fn iter(self) -> impl Iterator<Item = Method> {
        Method::ALL.into_iter().filter(move |method| self.contains(*method))
    }
}

impl FromIterator<Method> for MethodSet {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        methods.into_iter().fold(Self::default(), Self::with)
    }
}
