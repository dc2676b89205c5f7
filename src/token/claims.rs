//! What a verified token says, in the form that later stages and the cache keep.
//!
//! Bounded by the token's own length: one boxed text holds every string, and ranges point into it. `Debug` shows
//! numbers only. Made by [`super::verify`] alone.

use std::fmt;
use std::ops::Range;

use crate::policy::revocations::TokenIds;
use crate::units::UnixSeconds;

/// To what a token is bound (RFC 7800, `cnf`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Whoever holds the token may use it.
    None,
    /// SHA-256 of a client certificate (RFC 8705, `x5t#S256`).
    Certificate([u8; 32]),
    /// A way of binding that is not supported: nobody can prove it here.
    Other,
}

/// The claims of a token whose signature, issuer and form are verified. Whether it is in force *now* is
/// [`super::judge`]'s to say.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedClaims {
    pub(super) issuer: u16,
    pub(super) key: u8,
    pub(super) text: Text,
    pub(super) sub: Option<Range<u16>>,
    pub(super) client: Option<Range<u16>>,
    pub(super) scopes: Range<u16>,
    pub(super) audiences: Box<[Range<u16>]>,
    pub(super) exp: Option<UnixSeconds>,
    pub(super) nbf: Option<UnixSeconds>,
    pub(super) iat: Option<UnixSeconds>,
    pub(super) ids: TokenIds,
    pub(super) binding: Binding,
    pub(super) iat_is_advisory: bool,
}

impl VerifiedClaims {
    /// Number of the issuer in the [`Issuers`](crate::policy::issuer::Issuers) that verified it.
    #[must_use]
    pub fn issuer(&self) -> u16 {
        self.issuer
    }

    /// Number of the key within that issuer.
    #[must_use]
    pub fn key(&self) -> u8 {
        self.key
    }

    /// Who the token speaks for.
    #[must_use]
    pub fn sub(&self) -> Option<&str> {
        self.sub.as_ref().map(|range| self.text.at(range))
    }

    /// The application's consumer key.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.client.as_ref().map(|range| self.text.at(range))
    }

    /// Each scope, in the token's order.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.text.at(&self.scopes).split(' ').filter(|scope| !scope.is_empty())
    }

    /// Whether the token holds each of the scopes that `together` gives, with single spaces between them.
    #[must_use]
    pub fn has_scopes(&self, together: &str) -> bool {
        // Byte by byte: they are too short for a search to pay.
        let is_space = |byte: &u8| *byte == b' ';
        let held = || self.text.at(&self.scopes).as_bytes().split(is_space);
        let mut wanted = together.as_bytes().split(is_space);
        wanted.all(|wanted| !wanted.is_empty() && held().any(|held| held == wanted))
    }

    /// For whom it was made; never empty.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        self.audiences.iter().map(|range| self.text.at(range))
    }

    /// When it ends; `None` only for WSO2's API keys.
    #[must_use]
    pub fn exp(&self) -> Option<UnixSeconds> {
        self.exp
    }

    /// From when it counts.
    #[must_use]
    pub fn nbf(&self) -> Option<UnixSeconds> {
        self.nbf
    }

    /// When it was issued, in seconds also where the token says milliseconds.
    #[must_use]
    pub fn iat(&self) -> Option<UnixSeconds> {
        self.iat
    }

    /// The hashed names by which it can be revoked.
    #[must_use]
    pub fn ids(&self) -> &TokenIds {
        &self.ids
    }

    /// To what it is bound.
    #[must_use]
    pub fn binding(&self) -> Binding {
        self.binding
    }

    /// Bytes that it takes in memory.
    #[must_use]
    pub fn weight(&self) -> u64 {
        (size_of::<Self>() + self.text.0.len() + size_of_val(&*self.audiences)) as u64
    }
}

impl fmt::Debug for VerifiedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedClaims")
            .field("issuer", &self.issuer)
            .field("key", &self.key)
            .field("exp", &self.exp)
            .field("nbf", &self.nbf)
            .field("iat", &self.iat)
            .finish_non_exhaustive()
    }
}

/// All strings of a token, end to end. Four claims of a token of 8 KiB are shorter than 64 KiB, so every range fits.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Text(Box<str>);

impl Text {
    fn at(&self, range: &Range<u16>) -> &str {
        self.0.get(usize::from(range.start)..usize::from(range.end)).unwrap_or_default()
    }
}

/// Gathers the strings of a [`Text`].
#[derive(Default)]
pub(super) struct TextBuilder(String);

impl TextBuilder {
    fn end(&self) -> u16 {
        u16::try_from(self.0.len()).expect("four claims of a token of 8 KiB are shorter than 64 KiB")
    }

    pub(super) fn push(&mut self, text: &str) -> Range<u16> {
        let start = self.end();
        self.0.push_str(text);
        start..self.end()
    }

    /// Appends the texts with a space between each two.
    pub(super) fn push_joined<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> Range<u16> {
        let start = self.end();
        for (number, text) in texts.enumerate() {
            if number > 0 {
                self.0.push(' ');
            }
            self.0.push_str(text);
        }
        start..self.end()
    }

    pub(super) fn finish(self) -> Text {
        Text(self.0.into_boxed_str())
    }
}
