//! The hub over loopback, alone against hostile bytes and together with the uploader.
#![cfg(feature = "hub")]

mod bundles;
mod devices;
mod enrol;
mod fleet;
mod herd;
mod http;
mod leases;
mod netns;
mod proof;
mod report;
mod scene;
mod time;
mod uplink;
mod uploader;
mod uploads;
