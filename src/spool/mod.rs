//! durable store-and-forward of usage records.

pub mod record;
pub mod segment;

mod columns;
