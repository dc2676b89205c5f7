//! What a policy has taken back: single tokens, subjects and clients by id, and everything issued before a moment.
//!
//! Ids are kept as the first 8 bytes of SHA-256("tidegate/v1/revoked\0" ‖ kind byte ‖ u32 length of iss, big-endian ‖
//! iss ‖ value), big-endian, sorted: 8 bytes an id, found by binary search, no false positive that anybody will see (one in 10^13
//! with a million ids). A cut-off compares a token's *signed* `iat`, which needs no clock on the device. A token that
//! says no `iat` is older than any cut-off that names it.
//!
//! Immutable; [`Builder`] is called by the bundle's compile step, [`Revocations`] by the token stage on each request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::keys::sha256;
use crate::units::UnixSeconds;

/// What an id names; the number is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One token, by its `jti`.
    Jti = 1,
    /// A subject, by `sub`.
    Sub = 2,
    /// An application, by its consumer key.
    Client = 3,
    /// A signing key, by its pinned `kid`.
    Kid = 4,
}

/// Hashed name of a token, subject, client or key of one issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevokedId(pub u64);

impl RevokedId {
    /// The id of `value` at the issuer `iss`.
    #[must_use]
    pub fn of(kind: Kind, iss: &str, value: &str) -> Self {
        let length = u32::try_from(iss.len()).unwrap_or(u32::MAX).to_be_bytes();
        let bytes = [b"tidegate/v1/revoked\0", &[kind as u8][..], &length, iss.as_bytes(), value.as_bytes()].concat();
        let [a, b, c, d, e, f, g, h, ..] = sha256(&bytes).0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// The ids of one token, as far as it says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenIds {
    /// Of its `jti`.
    pub jti: Option<RevokedId>,
    /// Of its `sub`.
    pub sub: Option<RevokedId>,
    /// Of its consumer key.
    pub client: Option<RevokedId>,
    /// Of the key that signed it.
    pub kid: Option<RevokedId>,
}

/// Why a token is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// Its id, its subject or its client is listed.
    Listed,
    /// It was issued before a cut-off.
    Before(UnixSeconds),
}

/// Everything that is taken back, ready for look-up.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    listed: Box<[u64]>,
    cutoffs: Box<[(u64, UnixSeconds)]>,
}

impl Revocations {
    /// Whether a token with these ids, issued at `iat`, is taken back.
    #[must_use]
    pub fn find(&self, ids: &TokenIds, iat: Option<UnixSeconds>) -> Option<Revoked> {
        let listed = |id: Option<RevokedId>| id.is_some_and(|id| self.listed.binary_search(&id.0).is_ok());
        if !self.listed.is_empty() && (listed(ids.jti) || listed(ids.sub) || listed(ids.client)) {
            return Some(Revoked::Listed);
        }
        let cutoff = |id: Option<RevokedId>| {
            let at = self.cutoffs.binary_search_by_key(&id?.0, |(id, _)| *id).ok()?;
            self.cutoffs.get(at).map(|(_, before)| *before)
        };
        [ids.sub, ids.client, ids.kid]
            .into_iter()
            .filter_map(cutoff)
            .find(|before| iat.is_none_or(|iat| iat < *before))
            .map(Revoked::Before)
    }

    /// How many ids are listed, and how many cut-offs there are.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.listed.len(), self.cutoffs.len())
    }

    /// Whether nothing is taken back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }
}

/// Gathers revocations in any order.
#[derive(Debug, Default)]
pub struct Builder {
    listed: Vec<u64>,
    cutoffs: BinaryHeap<(u64, Reverse<UnixSeconds>)>,
}

impl Builder {
    /// Room for `ids` listed ids, so that a million of them is one allocation.
    #[must_use]
    pub fn with_capacity(ids: usize) -> Self {
        Self { listed: Vec::with_capacity(ids), cutoffs: BinaryHeap::new() }
    }

    /// Takes back every token with this id, whenever it was issued.
    pub fn list(&mut self, id: RevokedId) -> &mut Self {
        self.listed.push(id.0);
        self
    }

    /// Takes back every token with this id (of a subject, client or key) that was issued before `before`. Of several
    /// cut-offs for one id the latest counts.
    pub fn cut_off(&mut self, id: RevokedId, before: UnixSeconds) -> &mut Self {
        self.cutoffs.push((id.0, Reverse(before)));
        self
    }

    /// The finished tables.
    #[must_use]
    pub fn build(mut self) -> Revocations {
        self.listed.sort_unstable();
        self.listed.dedup();
        let mut cutoffs = self.cutoffs.into_sorted_vec();
        cutoffs.dedup_by_key(|(id, _)| *id);
        let cutoffs = cutoffs.into_iter().map(|(id, Reverse(before))| (id, before));
        Revocations { listed: self.listed.into_boxed_slice(), cutoffs: cutoffs.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISS: &str = "https://issuer.example";

    fn ids(jti: &str, sub: &str, client: &str, kid: &str) -> TokenIds {
        TokenIds {
            jti: Some(RevokedId::of(Kind::Jti, ISS, jti)),
            sub: Some(RevokedId::of(Kind::Sub, ISS, sub)),
            client: Some(RevokedId::of(Kind::Client, ISS, client)),
            kid: Some(RevokedId::of(Kind::Kid, ISS, kid)),
        }
    }

    #[test]
    fn a_listed_token_subject_or_client_is_revoked_and_nobody_else() {
        for revoked in [(Kind::Jti, "j"), (Kind::Sub, "s"), (Kind::Client, "c")] {
            let mut builder = Builder::with_capacity(1000);
            for other in 0..999 {
                builder.list(RevokedId::of(Kind::Jti, ISS, &format!("other-{other}")));
            }
            builder.list(RevokedId::of(revoked.0, ISS, revoked.1));
            let revocations = builder.build();
            assert_eq!(revocations.len(), (1000, 0));
            assert_eq!(revocations.find(&ids("j", "s", "c", "k"), Some(0)), Some(Revoked::Listed));
            assert_eq!(revocations.find(&ids("J", "S", "C", "k"), Some(0)), None);
            // The same words in other roles are other ids.
            assert_eq!(revocations.find(&ids("s", "c", "j", "k"), Some(0)), None);
            assert_eq!(revocations.find(&TokenIds::default(), None), None);
        }
    }

    #[test]
    fn a_cut_off_takes_what_was_issued_before_it_and_what_says_no_iat() {
        for (kind, value) in [(Kind::Sub, "s"), (Kind::Client, "c"), (Kind::Kid, "k")] {
            let mut builder = Builder::default();
            let id = RevokedId::of(kind, ISS, value);
            builder.cut_off(id, 500).cut_off(id, 1000).cut_off(id, 700);
            let revocations = builder.build();
            let ids = ids("j", "s", "c", "k");
            assert_eq!(revocations.len(), (0, 1), "the latest cut-off for an id replaces the others");
            assert_eq!(revocations.find(&ids, Some(999)), Some(Revoked::Before(1000)));
            assert_eq!(revocations.find(&ids, Some(1000)), None);
            assert_eq!(revocations.find(&ids, None), Some(Revoked::Before(1000)));
        }
    }

    #[test]
    fn an_id_belongs_to_its_issuer() {
        assert_ne!(RevokedId::of(Kind::Sub, "a", "bc"), RevokedId::of(Kind::Sub, "ab", "c"));
        assert_ne!(RevokedId::of(Kind::Sub, "a", "b"), RevokedId::of(Kind::Jti, "a", "b"));
        // The hash is part of the bundle's format: computed with another tool, it must stay.
        assert_eq!(RevokedId::of(Kind::Jti, ISS, "one").0, 0xeae7c16c98b4a553);
    }
}
