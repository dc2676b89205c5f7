//! What the fuzzers run: plain functions of bytes, which panic where a promise is broken, and say whether anything was
//! taken: a seed that nothing takes shows little.
//!
//! libFuzzer's targets (`bin/`) call them with what it thinks of; `tests/seeds.rs` calls them with each kept seed, so that
//! `cargo test` does too. Each target restates the rules that it asks for, from the design and not from the code.

pub mod blobs;
pub mod container;
pub mod documents;
pub mod manifest;
pub mod roots;
pub mod rules;
pub mod start;
pub mod token;
pub mod usage;
pub mod world;

/// A target, and its name, which is that of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("container", container::run),
    ("manifest", manifest::run),
    ("roots", roots::run),
    ("token", token::run),
    ("blobs", blobs::run),
    ("documents", documents::run),
    ("start", start::run),
    ("usage", usage::run),
];
