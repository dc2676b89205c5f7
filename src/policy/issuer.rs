//! Who may sign tokens: issuers, their pinned keys, and what each of them is allowed.
//!
//! Plain and immutable. A value of these types exists only in a form that the token stage can use without a further
//! check: every key is strong and fits its algorithm (`token::keys` is the only maker of a [`PinnedKey`]), no
//! two keys of an issuer answer to the same name, no two issuers to the same `iss`. Made by the bundle's compile step,
//! read by the token stage on each request.

use std::collections::BinaryHeap;
use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey};

use crate::ids::Digest;

/// Most keys that one issuer may have.
pub const MAX_KEYS: usize = 16;
/// Most keys without a name that a `wso2` issuer may have: each of them costs a signature check for a token that names
/// no key.
pub const MAX_UNNAMED_KEYS: usize = 4;
/// Most issuers in a policy.
pub const MAX_ISSUERS: usize = 1024;

/// Signature algorithm of a pinned key (RFC 7518, 3.1; RFC 8037). No HMAC and no `none`: they cannot be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alg {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
}

impl Alg {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::EdDsa,
        Self::Es256,
        Self::Es384,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// The name in JOSE headers and policy files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    /// The algorithm of that exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name() == name)
    }

    /// Whether the key is an RSA key.
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        !matches!(self, Self::EdDsa | Self::Es256 | Self::Es384)
    }
}

impl From<Alg> for Algorithm {
    fn from(alg: Alg) -> Self {
        match alg {
            Alg::EdDsa => Self::EdDSA,
            Alg::Es256 => Self::ES256,
            Alg::Es384 => Self::ES384,
            Alg::Rs256 => Self::RS256,
            Alg::Rs384 => Self::RS384,
            Alg::Rs512 => Self::RS512,
            Alg::Ps256 => Self::PS256,
            Alg::Ps384 => Self::PS384,
            Alg::Ps512 => Self::PS512,
        }
    }
}

/// What form of token an issuer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// RFC 7515, 8725 and 9068, to the letter.
    #[default]
    Strict,
    /// As WSO2's products make them: padded base64url, absent `typ`, `iat` in milliseconds, keys named by `x5t` or not
    /// at all, `aud` = the consumer key, API keys without `exp`. Nothing else is relaxed.
    Wso2,
}

impl Profile {
    /// The name in policy files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Wso2 => "wso2",
        }
    }

    /// The profile of that exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Strict, Self::Wso2].into_iter().find(|profile| profile.name() == name)
    }
}

/// A public key that may sign tokens of one issuer. It names its algorithm: a token's header never chooses one.
#[derive(Clone)]
pub struct PinnedKey {
    kid: Option<Box<str>>,
    x5t: Box<[Box<str>]>,
    alg: Alg,
    key: DecodingKey,
    digest: Digest,
}

impl PinnedKey {
    /// `digest` is the SHA-256 of the key's SubjectPublicKeyInfo (RFC 5280, 4.1.2.7). Only `token::keys` calls this,
    /// after its checks.
    pub(crate) fn new(alg: Alg, key: DecodingKey, digest: Digest) -> Self {
        Self { kid: None, x5t: Box::default(), alg, key, digest }
    }

    /// The same key, answering to `kid`.
    #[must_use]
    pub fn named(self, kid: impl Into<Box<str>>) -> Self {
        Self { kid: Some(kid.into()), ..self }
    }

    /// The same key, answering to these `x5t` strings too; profile `wso2` only.
    #[must_use]
    pub fn with_x5t(self, x5t: impl IntoIterator<Item = Box<str>>) -> Self {
        Self { x5t: x5t.into_iter().collect(), ..self }
    }

    /// Its `kid`, if it has one.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The `x5t` strings of WSO2's headers that choose it.
    #[must_use]
    pub fn x5t(&self) -> &[Box<str>] {
        &self.x5t
    }

    /// Its only algorithm.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The key itself.
    #[must_use]
    pub fn key(&self) -> &DecodingKey {
        &self.key
    }

    /// SHA-256 of its SubjectPublicKeyInfo, as `openssl pkey -pubin -outform der | sha256sum` shows it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl fmt::Debug for PinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.alg.name(), self.kid.as_deref().unwrap_or("-"), self.digest)
    }
}

/// Which `typ` header values an issuer's tokens may carry; compared without regard to case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypSet {
    /// `at+jwt` (RFC 9068), also written `application/at+jwt`.
    pub at_jwt: bool,
    /// `JWT`.
    pub jwt: bool,
    /// No `typ` at all.
    pub absent: bool,
}

impl Default for TypSet {
    fn default() -> Self {
        Self { at_jwt: true, jwt: true, absent: false }
    }
}

/// Where a claim stands: a member of the claims set, or a member of an object in it (`application` → `uuid`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath {
    /// Name of the member of the claims set.
    pub member: Box<str>,
    /// Name within it, where it is an object.
    pub inner: Option<Box<str>>,
}

impl ClaimPath {
    /// A member of the claims set.
    #[must_use]
    pub fn top(member: &str) -> Self {
        Self { member: member.into(), inner: None }
    }

    /// A member of an object in the claims set.
    #[must_use]
    pub fn nested(member: &str, inner: &str) -> Self {
        Self { member: member.into(), inner: Some(inner.into()) }
    }
}

/// What a policy says of an issuer, before [`Issuer::new`] has looked at it.
#[derive(Debug, Clone, Default)]
pub struct IssuerTerms {
    /// Name within the policy; for people, logs and usage records.
    pub name: Box<str>,
    /// The exact `iss` of its tokens.
    pub iss: Box<str>,
    /// The form of its tokens.
    pub profile: Profile,
    /// `aud` values, one of which a token must carry. May be empty only with profile `wso2`, where a token's own
    /// consumer key is an audience too.
    pub audiences: Box<[Box<str>]>,
    /// Which `typ` values are let in; profile `wso2` adds absent and `JWT`.
    pub typ: TypSet,
    /// Longest `exp − max(iat, nbf)` in seconds.
    pub max_lifetime_s: Option<u32>,
    /// Where the application's consumer key stands; the first that is present counts. Empty for the profile's default.
    pub client: Box<[ClaimPath]>,
    /// Which claim holds the scopes. Empty for `scope`.
    pub scope: Box<str>,
    /// Its keys.
    pub keys: Box<[PinnedKey]>,
}

/// Why an issuer, or a set of issuers, is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// The issuer has no `name` or no `iss`: write both.
    #[error("an issuer needs a name and an iss")]
    Unnamed,
    /// Pin at least one public key of the issuer.
    #[error("issuer {0:?} has no key")]
    NoKey(Box<str>),
    /// Remove keys that are no longer in use.
    #[error("issuer {0:?} has more than {MAX_KEYS} keys, or more than {MAX_UNNAMED_KEYS} without a name")]
    TooManyKeys(Box<str>),
    /// Two keys answer to one `kid` or `x5t`: give each key its own.
    #[error("issuer {issuer:?} has two keys named {kid:?}")]
    DuplicateKid {
        /// The issuer.
        issuer: Box<str>,
        /// The name that two keys share.
        kid: Box<str>,
    },
    /// With several keys each needs a `kid`, or a token could never choose it.
    #[error("issuer {0:?} has several keys, and one of them has no kid")]
    KidMissing(Box<str>),
    /// Name at least one audience: without it a token made for anybody would be let in.
    #[error("issuer {0:?} has no audience")]
    NoAudience(Box<str>),
    /// Let in at least one `typ`.
    #[error("issuer {0:?} lets no typ in")]
    NoTyp(Box<str>),
    /// `x5t` strings choose keys in profile `wso2` only.
    #[error("issuer {0:?} names keys by x5t, which only profile wso2 does")]
    X5tNotAllowed(Box<str>),
    /// Merge the two issuers.
    #[error("two issuers have the iss {0:?}")]
    DuplicateIssuer(Box<str>),
    /// A policy holds at most [`MAX_ISSUERS`].
    #[error("more than {MAX_ISSUERS} issuers")]
    TooManyIssuers,
}

/// An issuer whose terms hold together.
#[derive(Debug, Clone)]
pub struct Issuer {
    terms: IssuerTerms,
}

impl Issuer {
    /// Takes `terms`; fills in the profile's defaults.
    pub fn new(mut terms: IssuerTerms) -> Result<Self, IssuerError> {
        let wso2 = terms.profile == Profile::Wso2;
        if terms.name.is_empty() || terms.iss.is_empty() {
            return Err(IssuerError::Unnamed);
        }
        let name = || terms.name.clone();
        if terms.keys.is_empty() {
            return Err(IssuerError::NoKey(name()));
        }
        let unnamed = terms.keys.iter().filter(|key| key.kid.is_none() && key.x5t.is_empty()).count();
        if terms.keys.len() > MAX_KEYS || unnamed > MAX_UNNAMED_KEYS {
            return Err(IssuerError::TooManyKeys(name()));
        }
        if !wso2 && terms.keys.len() > 1 && unnamed > 0 {
            return Err(IssuerError::KidMissing(name()));
        }
        if !wso2 && terms.keys.iter().any(|key| !key.x5t.is_empty()) {
            return Err(IssuerError::X5tNotAllowed(name()));
        }
        let mut names: BinaryHeap<&str> = BinaryHeap::new();
        for key in &terms.keys {
            names.extend(key.kid.as_deref());
            names.extend(key.x5t.iter().map(|x5t| &**x5t).filter(|x5t| key.kid.as_deref() != Some(*x5t)));
        }
        if let Some([twice, _]) = names.into_sorted_vec().array_windows().find(|[a, b]| a == b) {
            return Err(IssuerError::DuplicateKid { issuer: name(), kid: (*twice).into() });
        }
        if !wso2 && terms.audiences.is_empty() {
            return Err(IssuerError::NoAudience(name()));
        }
        if wso2 {
            terms.typ = TypSet { jwt: true, absent: true, ..terms.typ };
        }
        if terms.typ == (TypSet { at_jwt: false, jwt: false, absent: false }) {
            return Err(IssuerError::NoTyp(name()));
        }
        if terms.client.is_empty() {
            let members: &[&str] = if wso2 { &["azp", "consumerKey", "client_id"] } else { &["azp", "client_id"] };
            terms.client = members.iter().copied().map(ClaimPath::top).collect();
        }
        if terms.scope.is_empty() {
            terms.scope = "scope".into();
        }
        Ok(Self { terms })
    }

    /// Name within the policy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.terms.name
    }

    /// The exact `iss` of its tokens.
    #[must_use]
    pub fn iss(&self) -> &str {
        &self.terms.iss
    }

    /// The form of its tokens.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.terms.profile
    }

    /// `aud` values, one of which a token must carry.
    #[must_use]
    pub fn audiences(&self) -> &[Box<str>] {
        &self.terms.audiences
    }

    /// Which `typ` values are let in.
    #[must_use]
    pub fn typ(&self) -> TypSet {
        self.terms.typ
    }

    /// Longest `exp − max(iat, nbf)` in seconds.
    #[must_use]
    pub fn max_lifetime_s(&self) -> Option<u32> {
        self.terms.max_lifetime_s
    }

    /// Where the application's consumer key stands, in order of preference; never empty.
    #[must_use]
    pub fn client(&self) -> &[ClaimPath] {
        &self.terms.client
    }

    /// Which claim holds the scopes.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.terms.scope
    }

    /// Its keys; never empty.
    #[must_use]
    pub fn keys(&self) -> &[PinnedKey] {
        &self.terms.keys
    }
}

/// All issuers of a policy, found by `iss`.
#[derive(Debug, Clone, Default)]
pub struct Issuers {
    by_iss: Box<[Issuer]>,
    generation: u64,
}

impl Issuers {
    /// `generation` must differ from that of any other set of issuers that this process may hold: verified tokens are
    /// remembered under it. The first 8 bytes of a digest of everything that defines the issuers will do.
    pub fn new(issuers: impl IntoIterator<Item = Issuer>, generation: u64) -> Result<Self, IssuerError> {
        let mut by_iss: Vec<Issuer> = Vec::new();
        for issuer in issuers {
            match by_iss.binary_search_by(|before| before.iss().cmp(issuer.iss())) {
                Ok(_) => return Err(IssuerError::DuplicateIssuer(issuer.iss().into())),
                Err(_) if by_iss.len() == MAX_ISSUERS => return Err(IssuerError::TooManyIssuers),
                Err(at) => by_iss.insert(at, issuer),
            }
        }
        Ok(Self { by_iss: by_iss.into(), generation })
    }

    /// The issuer of that exact `iss`, with its number.
    #[must_use]
    pub fn find(&self, iss: &str) -> Option<(u16, &Issuer)> {
        let at = self.by_iss.binary_search_by(|issuer| issuer.iss().cmp(iss)).ok()?;
        Some((u16::try_from(at).ok()?, self.by_iss.get(at)?))
    }

    /// The issuer of that number.
    #[must_use]
    pub fn at(&self, number: u16) -> Option<&Issuer> {
        self.by_iss.get(usize::from(number))
    }

    /// Every issuer, by `iss`.
    #[must_use]
    pub fn all(&self) -> &[Issuer] {
        &self.by_iss
    }

    /// Under which number verified tokens are remembered.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
