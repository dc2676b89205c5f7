//! Signed bundles, from a file in the inbox to the policy in force.
//!
//! ```text
//! inbox ─▶ staging ─▶ container ─▶ verify(manifest, root, trust) ─▶ compile ─▶ activate ─▶ journal
//! ```
//!
//! A bundle is judged whole before anything of it is used; a refusal leaves the active policy serving.
//! The author's side (`pack`, `succession`, `keyfile`, `root`) stands here too, so that one format has one home.

pub mod activate;
mod address;
pub mod canonical;
pub mod compile;
pub mod container;
pub mod document;
pub mod enrolled;
pub mod enrolment;
pub mod entry;
pub mod error;
pub mod handover;
pub mod importer;
pub mod inbox;
pub mod installer;
pub mod journal;
pub mod keyfile;
mod list;
pub mod manifest;
pub mod medium;
pub mod outcome;
pub mod pack;
pub mod probe;
pub mod receipt;
pub mod reset;
pub mod root;
mod roots;
pub mod scan;
pub mod staging;
mod start;
mod state;
pub mod succession;
pub mod sums;
mod trial;
pub mod trust;
pub mod usage_note;
pub mod verify;

pub use activate::{Active, Compile, OpenError};
pub use compile::compile;
pub use error::{Refused, SemanticProblem};
pub use importer::{Importer, Moment, Opened, Settings};
pub use manifest::{DeviceFacts, Entries, EntryKind};
pub use medium::Medium;
pub use outcome::{DEFECT, ImportOutcome, Imported, USAGE_MAY_LEAVE, is_taken};
pub use receipt::Receipt;
pub use start::{Origin, Records};
pub use verify::{Verified, verify};
