//! Hostile and broken bundles. A case is a folder under `cases/`, made by `generator` and run by `runner`: it expects its
//! named refusal, an unchanged active policy, unchanged state records and slots, and a line in the journal; or, in the
//! family `taken`, that what is just inside of what is refused is in force, after a restart too. The other modules are about what is no refusal of one file: what is taken, and in which order; power cuts; random histories.

#![expect(unreachable_pub, reason = "one binary, whose modules speak to each other")]

mod container;
mod crash;
mod defect;
mod enrolment;
mod entries;
mod format;
mod generator;
mod inbox;
mod manifest;
mod order;
mod permit;
mod release;
mod revocation;
mod root;
mod rotation;
mod runner;
mod scan;
mod signatures;
mod source;
mod start;
mod time;
mod trial;
mod upgrade;
mod usage_note;
mod world;
