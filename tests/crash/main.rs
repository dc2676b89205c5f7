//! Power cuts: what was acknowledged is there afterwards, whatever was on its way to the disk.
//!
//! [`card`] is ext4 on a disk whose unflushed writes a cut loses, tears and reorders; [`cycles`] has the real code work on it,
//! takes the power, mounts what is left and starts again. [`double`] is a small version without a file system of its own,
//! which runs everywhere. See README.md.

mod activation;
mod card;
mod cycles;
mod dice;
mod double;
mod fuse;
mod life;
mod platter;
mod spool;
mod store;

#[expect(dead_code, unreachable_pub, reason = "shared with the attacks, which use all of it")]
#[path = "../attacks/world.rs"]
mod world;
