//! The closed sets of a record: what became of a request, why usage is lost. One byte each on disk and wire.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

macro_rules! numbered {
    ($(#[$doc:meta])* $kind:ident { $($(#[$case_doc:meta])* $case:ident = $number:literal $name:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $kind { $($(#[$case_doc])* $case = $number),* }

        impl $kind {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$case),*];

            /// The stable number, as it is on disk and wire.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The one with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$case),)* _ => None }
            }

            /// The name in logs, metrics, problem documents and the hub's tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$case => $name),* }
            }

            /// The one with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.number().serialize(to)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let number = u8::deserialize(from)?;
                Self::from_number(number).ok_or_else(|| D::Error::custom("unknown number"))
            }
        }
    };
}

numbered! {
    /// Why usage is lost. Numbers are never reused.
    GapReason {
        /// The device lost power or the system crashed: what was not yet synced is unknown.
        UncleanStop = 1 "unclean_stop",
        /// A generation of the spool could not be opened and was set aside.
        GenerationLost = 2 "generation_lost",
        /// Rows of an open log that fail their check sum.
        LogDamaged = 3 "log_damaged",
        /// No room on the disk, and the counters that stood in for records were lost too.
        NoSpace = 4 "no_space",
        /// The disk refused a write or a sync.
        WriteFailed = 5 "write_failed",
        /// The backlog was full, and the oldest files were dropped as the configuration says.
        Dropped = 6 "dropped",
    }
}

numbered! {
    /// What became of a request. Numbers are never reused: 0 served, 10–49 the token's errors of the
    /// bundle and token format, 60–79 other refusals by policy, 80–99 by form and size, 100 and more
    /// failures on the way.
    Outcome {
        /// Passed every check and was forwarded; the upstream's own status, an error too, is in `status`.
        Admitted = 0 "Admitted",
        /// No token came.
        TokenMissing = 10 "TokenMissing",
        /// The token is longer than its limit.
        TokenTooLarge = 11 "TokenTooLarge",
        /// Not three parts.
        TokenMalformed = 12 "TokenMalformed",
        /// A part is not strict base64url.
        TokenBase64 = 13 "TokenBase64",
        /// The header is not a JSON object.
        HeaderJson = 14 "HeaderJson",
        /// A header member comes twice.
        HeaderDuplicate = 15 "HeaderDuplicate",
        /// A header member that is never accepted.
        HeaderForbidden = 16 "HeaderForbidden",
        /// The `typ` is not one of the issuer's.
        TypNotAllowed = 17 "TypNotAllowed",
        /// The algorithm is not the key's.
        AlgorithmNotAllowed = 18 "AlgorithmNotAllowed",
        /// The `kid` is not a string.
        KidMalformed = 19 "KidMalformed",
        /// No pinned key of that issuer and `kid`.
        KidUnknown = 20 "KidUnknown",
        /// The signature is not the key's.
        SignatureInvalid = 21 "SignatureInvalid",
        /// The claims are not a JSON object.
        ClaimsJson = 22 "ClaimsJson",
        /// The claims nest too deep.
        ClaimsTooDeep = 23 "ClaimsTooDeep",
        /// A claim comes twice.
        ClaimDuplicate = 24 "ClaimDuplicate",
        /// A needed claim is absent.
        ClaimMissing = 25 "ClaimMissing",
        /// A claim has the wrong type.
        ClaimType = 26 "ClaimType",
        /// A claim is out of range.
        ClaimRange = 27 "ClaimRange",
        /// The `iss` is not the key's issuer.
        IssuerMismatch = 28 "IssuerMismatch",
        /// The `aud` is not this API's.
        AudienceMismatch = 29 "AudienceMismatch",
        /// The token lives longer than the issuer may grant.
        LifetimeTooLong = 30 "LifetimeTooLong",
        /// Expired.
        TokenExpired = 31 "TokenExpired",
        /// Not valid yet.
        TokenNotYetValid = 32 "TokenNotYetValid",
        /// Issued in the future.
        IssuedInFuture = 33 "IssuedInFuture",
        /// The time is too uncertain for this route.
        TimeUncertain = 34 "TimeUncertain",
        /// Revoked by its id, subject or client.
        TokenRevoked = 35 "TokenRevoked",
        /// Issued before a cut-off.
        RevokedBefore = 36 "RevokedBefore",
        /// Bound to a key, and no proof of it came.
        PopMissing = 37 "PopMissing",
        /// Bound to another key.
        PopMismatch = 38 "PopMismatch",
        /// No route matches.
        NoRoute = 60 "NoRoute",
        /// The route has no such method.
        MethodNotAllowed = 61 "MethodNotAllowed",
        /// No policy is in force: safe mode.
        NoPolicy = 62 "NoPolicy",
        /// The token lacks a scope of the route.
        ScopeMissing = 63 "ScopeMissing",
        /// The application has no subscription to the API.
        NotSubscribed = 64 "NotSubscribed",
        /// The subscription is blocked.
        SubscriptionBlocked = 65 "SubscriptionBlocked",
        /// Over the rate.
        RateLimited = 66 "RateLimited",
        /// Over the quota.
        QuotaExceeded = 67 "QuotaExceeded",
        /// What is known of revocations is older than the route allows.
        RevocationsStale = 68 "RevocationsStale",
        /// The body is larger than its limit.
        BodyTooLarge = 80 "BodyTooLarge",
        /// The head is larger than its limit.
        HeaderTooLarge = 81 "HeaderTooLarge",
        /// Not a request that can be forwarded.
        BadRequest = 82 "BadRequest",
        /// No connection to the upstream.
        UpstreamConnect = 100 "UpstreamConnect",
        /// The upstream took too long.
        UpstreamTimeout = 101 "UpstreamTimeout",
        /// The upstream closed before its answer was whole.
        UpstreamClosed = 102 "UpstreamClosed",
        /// The upstream's answer is not HTTP.
        UpstreamProtocol = 103 "UpstreamProtocol",
        /// The downstream went away before the answer was whole.
        DownstreamAborted = 104 "DownstreamAborted",
        /// The gateway is full.
        Overloaded = 105 "Overloaded",
        /// A defect of the gateway.
        Internal = 106 "Internal",
    }
}
