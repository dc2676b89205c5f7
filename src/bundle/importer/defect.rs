//! A panic on the way through an import: a defect of ours, told as one, and the end of nothing.
//!
//! Whatever was in memory of the state folder may be half changed, so all of it is read from disk again, as at a start:
//! slots, trust, enrolment, journal. What serves then is what the records say. The time floor is shared with other
//! threads and stays: each of its changes is made whole or not at all. The file is not judged again by this process, and
//! the inbox moves it out, so that no start finds it there. Where this panics or fails too, the process ends.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use super::super::activate::{OpenError, Resumed, Slots, Started};
use super::super::enrolled::Enrolled;
use super::super::error::plain;
use super::super::journal::Journal;
use super::super::medium::Medium;
use super::super::outcome::{ImportOutcome, Imported};
use super::super::verify::Findings;
use super::{Importer, Moment, SourceFound};
use crate::clock::BootId;
use crate::ids::Digest;

/// Most files that are remembered.
const REMEMBERED: usize = 16;

/// Files that brought a defect about, by SHA-256; the last ones.
#[derive(Debug, Default)]
pub(super) struct Defective(Vec<Digest>);

impl Defective {
    pub(super) fn contains(&self, file: Digest) -> bool {
        self.0.contains(&file)
    }

    fn note(&mut self, file: Digest) {
        if !self.contains(file) {
            self.0.truncate(REMEMBERED - 1);
            self.0.insert(0, file);
        }
    }
}

impl<T> Importer<T> {
    /// Steps 0 to 18 for the file at `path`. The caller puts an activated policy in force, then the receipt beside
    /// the file, so that whoever waits for the receipt finds in force what it says.
    pub fn import(&mut self, path: &Path, medium: &Medium, now: &Moment) -> ImportOutcome<T> {
        let (mut found, mut source) = (Findings::default(), SourceFound::default());
        let root = self.slots.trust().root.version();
        let whole = AssertUnwindSafe(|| {
            let taken = self.take(path, now, &mut found, &mut source);
            self.conclude(path, (medium, now), (&found, &source), taken)
        });
        let panic = match catch_unwind(whole) {
            Ok(outcome) => return outcome,
            Err(panic) => panic,
        };
        source.sha256.into_iter().for_each(|file| self.defective.note(file));
        let Ok(resumed) = self.reopen() else { resume_unwind(panic) };
        if self.slots.trust().root.version() == root {
            found.roots.clear(); // they were not kept
        }
        let result = Imported::Defect(said(&*panic));
        self.conclude(path, (medium, now), (&found, &source), (result, Ok(()), resumed))
    }

    /// Reads the state folder as a start does. What serves by it.
    fn reopen(&mut self) -> Result<Resumed<T>, OpenError> {
        self.slots.close(); // this process goes on: nothing ended out of order
        let (root, mut device) = (self.slots.pinned().clone(), self.bare.clone());
        let disk = || Arc::clone(&self.disk);
        let Started { slots, serving, list, .. } =
            Slots::open(disk(), &self.state, root, &device, self.compile, BootId::now())?;
        let (enrolled, _) = Enrolled::open(disk(), &self.state.join("trust"), &slots, &device);
        if let Some(enrolment) = enrolled.enrolment() {
            device.labels.clone_from(&enrolment.labels);
        }
        self.journal = Journal::open(disk(), &self.state.join("journal"));
        (self.slots, self.enrolled, self.device) = (slots, enrolled, device);
        Ok(Resumed { serving, list })
    }
}

/// What a panic says, for people.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    plain(text.unwrap_or("it says nothing"))
}
