//! the operator's commands, one file each.

pub mod source;
