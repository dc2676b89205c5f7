//! small durable state; with spool, the only place that names sled.

pub mod pair;
pub mod time;
