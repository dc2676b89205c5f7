//! small durable state; with spool, the only place that names sled.
