//! compiled policy: immutable, read without a lock, swapped whole; pure.

pub mod issuer;
pub mod revocations;
