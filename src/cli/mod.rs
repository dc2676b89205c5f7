//! the operator's commands, one file each.
