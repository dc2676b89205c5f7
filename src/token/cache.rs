//! Verified tokens, remembered: one signature check for a token's life in the cache, however often it is sent.
//!
//! Key: SHA-256 of the whole token, so that a changed byte is another token. Value: its claims. All entries belong to
//! one generation of keys; when the policy's changes, everything is forgotten. Bounded in bytes; one worker's own, so
//! no lock; a hit allocates nothing. Time and revocation are judged outside, on every request.
//!
//! Refusals are not remembered. Whoever means harm changes one byte per request and misses any such cache, and would
//! push good tokens out of it; what an honest but broken caller repeats most is an *expired* token, and that one is in
//! here, since expiry is [`super::judge`]'s.

use std::fmt;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::claims::VerifiedClaims;
use super::error::TokenError;
use super::jws::MAX_TOKEN;
use super::verify::verify;
use crate::ids::Digest;
use crate::keys::sha256;
use crate::policy::issuer::Issuers;

/// What the cache's own tables take for an entry, beside key and claims: the slab's links, the index, the `Arc`.
const ENTRY_OVERHEAD: u64 = 64;
/// What an entry of a usual token weighs; sizes the index.
const USUAL_WEIGHT: u64 = 512;

/// One worker's verified tokens.
pub struct TokenCache {
    entries: Cache<Digest, Arc<VerifiedClaims>, Weight>,
    generation: u64,
}

impl TokenCache {
    /// A cache of about `bytes` bytes; none remembers nothing.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes / USUAL_WEIGHT).unwrap_or(usize::MAX);
        Self { entries: Cache::with_weighter(usual, bytes, Weight), generation: 0 }
    }

    /// As [`verify`], remembered.
    pub fn verify(&mut self, token: &[u8], issuers: &Issuers) -> Result<Arc<VerifiedClaims>, TokenError> {
        // Nothing so long can be in here, and hashing it would be work for nothing.
        if token.is_empty() || token.len() > MAX_TOKEN {
            return verify(token, issuers).map(Arc::new);
        }
        if self.generation != issuers.generation() {
            self.entries.clear();
            self.generation = issuers.generation();
        }
        let key = sha256(token);
        if let Some(claims) = self.entries.get(&key) {
            return Ok(Arc::clone(claims));
        }
        let claims = Arc::new(verify(token, issuers)?);
        self.entries.insert(key, Arc::clone(&claims));
        Ok(claims)
    }

    /// Bytes that it holds now.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.entries.weight()
    }

    /// How many tokens it holds now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenCache({} tokens, {} bytes)", self.len(), self.weight())
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Digest, Arc<VerifiedClaims>> for Weight {
    fn weight(&self, _: &Digest, claims: &Arc<VerifiedClaims>) -> u64 {
        size_of::<Digest>() as u64 + claims.weight() + ENTRY_OVERHEAD
    }
}
