//! What keeps the child from its work, and what the next child is told of it. Pure.
//!
//! An error of the disk may pass, and a child may be killed for others' sake: so everything is tried
//! again by a fresh child. What fails there too is given up: a generation becomes a gap without being
//! opened again, an open log is read around the bad stretch. Owned by the writer thread.

use crate::spool::wire::Blame;

/// Children in a row that one generation may cost.
const TRIES: u32 = 2;

/// What failed, and how often in a row.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    generation: Option<(u32, u32)>,
    logs: bool,
    unsynced: Option<u32>,
}

impl Suspects {
    /// A child ended; `generation` is the one that it had open, or was opening.
    pub(super) fn failed(&mut self, blame: Blame, generation: Option<u32>) {
        match (blame, generation) {
            (Blame::Generation, Some(number)) => {
                let before = self.generation.filter(|(suspect, _)| *suspect == number);
                self.generation = Some((number, before.map_or(0, |(_, times)| times) + 1));
            }
            (Blame::Unsynced, Some(number)) => self.unsynced = Some(number),
            (Blame::Logs, _) => self.logs = true,
            _ => {}
        }
    }

    /// A child has opened the spool, and so heeded what it was told.
    pub(super) fn opened(&mut self) {
        self.unsynced = None;
        self.generation = self.generation.filter(|_| self.condemned().is_none());
    }

    /// A request was done with this generation.
    pub(super) fn read(&mut self, generation: Option<u32>) {
        self.generation = self.generation.filter(|(suspect, _)| Some(*suspect) != generation);
    }

    /// A seal was done.
    pub(super) fn sealed(&mut self) {
        self.logs = false;
    }

    /// The generation that is to be given up.
    pub(super) fn condemned(&self) -> Option<u32> {
        self.generation.filter(|(_, times)| *times >= TRIES).map(|(number, _)| number)
    }

    /// The generation that only seems to be on the disk.
    pub(super) fn unsynced(&self) -> Option<u32> {
        self.unsynced
    }

    /// Whether what cannot be read of the open logs is to be given up.
    pub(super) fn logs(&self) -> bool {
        self.logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_given_up_after_it_failed_twice_in_a_row_and_not_for_others_faults() {
        let mut suspects = Suspects::default();
        suspects.failed(Blame::Generation, Some(3));
        suspects.failed(Blame::Nothing, Some(3));
        suspects.opened();
        suspects.read(Some(4));
        assert_eq!(suspects.condemned(), None);
        suspects.failed(Blame::Generation, Some(3));
        assert_eq!(suspects.condemned(), Some(3));
        suspects.opened();
        assert_eq!(suspects.condemned(), None, "it is out of the way now");

        suspects.failed(Blame::Generation, Some(5));
        suspects.read(Some(5));
        suspects.failed(Blame::Generation, Some(5));
        assert_eq!(suspects.condemned(), None, "it worked in between");
        suspects.failed(Blame::Generation, Some(6));
        assert_eq!(suspects.condemned(), None, "another one");
    }

    #[test]
    fn doubtful_logs_and_an_unsynced_generation_are_told_until_it_is_done() {
        let mut suspects = Suspects::default();
        suspects.failed(Blame::Logs, Some(1));
        suspects.failed(Blame::Unsynced, Some(2));
        assert_eq!((suspects.logs(), suspects.unsynced(), suspects.condemned()), (true, Some(2), None));
        suspects.opened();
        assert_eq!((suspects.logs(), suspects.unsynced()), (true, None));
        suspects.sealed();
        assert!(!suspects.logs());
    }
}
