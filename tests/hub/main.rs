//! The hub over loopback, alone against hostile bytes and together with the uploader.
#![cfg(feature = "hub")]

mod bundles;
mod enrol;
mod http;
mod netns;
mod scene;
mod time;
mod uplink;
mod uploader;
mod uploads;
