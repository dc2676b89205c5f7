//! durable store-and-forward of usage records.

pub mod backlog;
pub mod chain;
pub mod protocol;
pub mod receipt;
pub mod record;
pub mod segment;

mod columns;
