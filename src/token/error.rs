//! Why a token is refused.

macro_rules! token_errors {
    ($($(#[doc = $doc:literal])+ $name:ident = $message:literal,)+) => {
        /// Why a token is refused; the names are those of the log, the usage record and the answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum TokenError {
            $($(#[doc = $doc])+ #[error($message)] $name,)+
        }

        impl TokenError {
            /// Every reason, in the order in which a token meets them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in logs, records, answers and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

token_errors! {
    /// The request carries no token: the caller must send one in the header that the API names.
    TokenMissing = "no token",
    /// Longer than [`super::MAX_TOKEN`]: have the issuer put fewer claims into it.
    TokenTooLarge = "token longer than 8 KiB",
    /// Not three parts with two dots between: the caller sends something else than a signed JWT.
    TokenMalformed = "not a token of three parts",
    /// A part is not base64url in its one canonical form: the token was damaged, or the issuer pads (profile `wso2`).
    TokenBase64 = "a part is not canonical base64url",
    /// The header is not a JSON object of at most 1 KiB and four levels, or has no `alg`.
    HeaderJson = "header is not a small JSON object",
    /// The header says one member twice: the token is forged or its maker is broken.
    HeaderDuplicate = "header says a member twice",
    /// The header carries `crit b64 zip enc jwk jku x5u x5c`: configure the issuer to leave it out.
    HeaderForbidden = "header carries a member that is not allowed",
    /// `typ` is not one that the issuer may send: an ID token or another kind of JWT was sent instead of an access token.
    TypNotAllowed = "typ is not allowed for this issuer",
    /// `alg` is not a supported signature, or not the algorithm of the pinned key.
    AlgorithmNotAllowed = "alg is not that of the pinned key",
    /// `kid` is not a text of 1 to 256 bytes without control characters.
    KidMalformed = "kid is not a short text",
    /// The issuer has no pinned key of that name: pin its new key.
    KidUnknown = "no pinned key of that kid",
    /// The signature is not the pinned key's: the token is forged or damaged, or the issuer changed its key.
    SignatureInvalid = "signature does not verify",
    /// The claims are not a JSON object.
    ClaimsJson = "claims are not a JSON object",
    /// The claims nest deeper than 16 levels or hold an object of more than 64 members.
    ClaimsTooDeep = "claims nest too deep or have too many members",
    /// The claims say one member twice: the token is forged or its maker is broken.
    ClaimDuplicate = "claims say a member twice",
    /// A claim that must be there is not: `iss`, `aud`, `exp`, or `iat`/`nbf` where a maximum lifetime is set.
    ClaimMissing = "a required claim is missing",
    /// A claim is not of its type (RFC 7519, 4.1).
    ClaimType = "a claim is of another type",
    /// A time claim is outside 0 to 253402300799, the year 9999; milliseconds look like this.
    ClaimRange = "a time claim is out of range",
    /// No issuer of the policy has this `iss`: add the issuer, or the caller uses another site's token.
    IssuerMismatch = "iss is no issuer of the policy",
    /// No `aud` is one that the issuer's terms or the API ask for: the token was made for somebody else.
    AudienceMismatch = "token is for another audience",
    /// `exp − max(iat, nbf)` is more than the issuer is allowed.
    LifetimeTooLong = "token lives longer than the issuer is allowed",
    /// The token has expired: the caller must fetch a new one.
    TokenExpired = "token has expired",
    /// `nbf` is in the future: the issuer's clock is ahead, or the device's behind.
    TokenNotYetValid = "token is not yet valid",
    /// `iat` is in the future: the issuer's clock is ahead, or the device's behind.
    IssuedInFuture = "token is issued in the future",
    /// The time is not known well enough for a route that demands it: give the device a trusted time source.
    TimeUncertain = "time is not certain enough for this route",
    /// The token, its subject or its application is on the revocation list.
    TokenRevoked = "token is revoked",
    /// The token was issued before a cut-off for its subject, application or key: the caller must fetch a new one.
    RevokedBefore = "token is older than a cut-off",
    /// The token is bound to a key that the caller did not prove: the caller must use its client certificate.
    PopMissing = "token is bound, and possession is not proven",
    /// The caller's certificate is not the one that the token is bound to.
    PopMismatch = "token is bound to another certificate",
}
