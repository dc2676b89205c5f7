//! The daemon as it ships: its own binary, started as a supervisor starts it, under policies that the operator's own
//! commands made. Everything is awaited with a deadline; nothing is slept for.

#[cfg(feature = "hub")]
mod along;
mod carried;
mod check;
#[cfg(feature = "hub")]
mod fetched;
mod identity;
mod life;
mod policy;
mod site;
#[cfg(feature = "hub")]
mod sticks;
mod supervised;
mod time;
#[cfg(feature = "hub")]
mod told;
mod uplink;
mod wire;
