//! Who may sign tokens.

/// An issuer.
#[derive(Debug)]
pub struct Issuer;
