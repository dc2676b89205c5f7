//! Small durable state, and the one way to sled: see [`generation`].

pub mod generation;
