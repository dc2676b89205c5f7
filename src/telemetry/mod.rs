//! logs, and every metric in one file.
