//! durable store-and-forward of usage records.
