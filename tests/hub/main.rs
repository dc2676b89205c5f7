//! The hub over loopback, alone against hostile bytes and together with the uploader.
#![cfg(feature = "hub")]

mod http;
mod scene;
mod time;
mod uploads;
