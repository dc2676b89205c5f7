//! Exit codes of all three programs: those of `sysexits.h`, so that systemd and scripts can tell them apart.

/// It did what was asked.
pub const OK: u8 = 0;
/// The command line was wrong.
pub const USAGE: u8 = 64;
/// An input (bundle, token, usage file) was refused.
pub const DATA: u8 = 65;
/// A needed counterpart (hub, daemon) did not answer.
pub const UNAVAILABLE: u8 = 69;
/// A defect of Tidegate itself.
pub const SOFTWARE: u8 = 70;
/// An output could not be created.
pub const CANT_CREATE: u8 = 73;
/// Reading or writing failed.
pub const IO: u8 = 74;
/// Not permitted.
pub const NO_PERMISSION: u8 = 77;
/// The configuration is wrong; systemd then waits for a person.
pub const CONFIG: u8 = 78;
