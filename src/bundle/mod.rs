//! signed bundles, from a file in the inbox to the policy in force.

pub mod entry;
