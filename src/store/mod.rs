//! Small durable state; with `spool`, the only place that names sled.

pub mod device_key;
