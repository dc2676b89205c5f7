//! Tokens that are no longer good.

/// The list.
#[derive(Debug, Default)]
pub struct Revocations;
