//! the daemon's own socket: health, metrics, status.
