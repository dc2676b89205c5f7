//! compiled policy: immutable, read without a lock, swapped whole; pure.
