//! ships usage files when a link exists.
