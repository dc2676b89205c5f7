//! The same suite for both stores, and what is particular to each.

mod clickhouse;

mod report;
mod scene;
mod shared;
mod sim;
mod sqlite;
mod two_hubs;

pub(super) use scene::Fuse;
