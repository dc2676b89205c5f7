//! Tidegate: an offline-first API gateway for the edge.
//!
//! ```text
//!              control plane                                        data plane
//! inbox ─▶ container ─▶ verify ─▶ compile ─▶ activate   listener ─▶ admit ─▶ throttle ─▶ forward ─▶ meter
//! (bundle/)                                     │ swap      ▲ one snapshot per request       │ one record per request
//!                                               └▶ policy ──┘                                ▼
//!                                                                           hub ◀─ upload ◀─ spool
//! ```
//!
//! The tree is this diagram; `tests/architecture.rs` holds who may import whom.

// contract: pure cores, no I/O, no clock
pub mod admission;
pub mod policy;
pub mod throttle;
pub mod token;

// data plane
pub mod gateway;
pub mod spool;
pub mod stick;
pub mod upload;

// control plane
pub mod bundle;
pub mod store;

// operations
pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
#[cfg(feature = "hub")]
pub mod hub;
pub mod telemetry;

// ground
pub mod clock;
pub mod disk;
pub mod exit;
pub mod ids;
pub mod keys;
pub mod units;
