//! What the ledger does about damage: sets generations aside, tells them as gaps, begins anew behind them.
//!
//! ```text
//! damaged ─ rename to .lost ─▶ condemned ─ gap committed in the newest ─▶ rename to .bad
//! ```
//!
//! A crash anywhere on the way finds the same name again, and so notes the same gap, once.

use super::{Error, Ledger, Result, damaged, has_room};
use crate::keys;
use crate::spool::generations::Name;
use crate::spool::record::Gap;
use crate::spool::renew;
use crate::spool::segment::Builder;
use crate::spool::state::{DRAINED, Drained, STATE, State, generation_gap, read_mark, told_key};
use crate::store::generation::{self, Changes};

/// Generations that one request may find damaged; the next request finds the rest.
const DAMAGED_LIMIT: u32 = 16;

impl Ledger {
    /// Does what is asked; a generation that turns out to be damaged on the way is set aside, and it is
    /// done again without it.
    pub(super) fn survive<T>(&mut self, now_ms: i64, mut ask: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut found = 0;
        loop {
            match (ask(self), self.at) {
                (Err(Error::Store(generation::Error::Damaged(why))), Some(name)) if found < DAMAGED_LIMIT => {
                    found += 1;
                    self.condemn(name, &why, now_ms)?;
                    self.recover(now_ms)?;
                }
                (Err(Error::Store(generation::Error::NotDurable(error))), Some(name)) if found < DAMAGED_LIMIT => {
                    // What was committed reads back, and may not be on the disk: see there.
                    found += 1;
                    self.notes.push(format!("generation {} is written again: {error}", name.number));
                    (self.open, self.at) = (None, None);
                    let again = self.generations.rewrite(name);
                    again.map_err(|_| generation::Error::NotDurable(error))?;
                    self.recover(now_ms)?;
                }
                (done, _) => return done,
            }
        }
    }

    /// Puts a damaged generation out of the way; [`Ledger::recover`] tells it. Not on a full disk: what looks like
    /// damage there may be want of room.
    pub(super) fn condemn(&mut self, name: Name, why: &str, now_ms: i64) -> Result<()> {
        if let Some((_, generation)) = self.open.take() {
            generation.abandon();
        }
        self.at = None;
        has_room(&self.setup.folder)?;
        self.notes.push(format!("generation {} is damaged: {why}", name.number));
        Ok(self.generations.condemn(name, now_ms)?)
    }

    /// Takes the state from the newest generation that has one, and tells what was set aside.
    pub(super) fn recover(&mut self, now_ms: i64) -> Result<()> {
        (self.open, self.fresh, self.builder) = (None, None, Builder::new());
        self.state = State::default();
        for name in self.generations.list()?.iter().copied().rev() {
            match self.load(name) {
                Ok(true) => break,
                // Its first commit never happened, so nothing was ever in it.
                Ok(false) => {
                    self.open = None;
                    self.generations.remove(name)?;
                }
                Err(Error::Store(generation::Error::Damaged(why))) => self.condemn(name, &why, now_ms)?,
                Err(error) => return Err(error),
            }
        }
        let newest = self.open.as_ref().map(|(name, _)| *name);
        let lost = self.generations.lost()?;
        let mut gaps: Vec<Gap> = lost.iter().map(|(name, at)| generation_gap(name.first_ms, *at, None)).collect();
        // The state is an older one if the generation that had the last is lost, or came back without its last commit.
        let is_behind = lost.iter().any(|(name, _)| newest.is_none_or(|newest| newest.number < name.number));
        let mark = read_mark(&self.setup.folder);
        let is_marked = mark.as_ref().is_some_and(|(mark, told)| *mark == self.state && *told == self.told);
        let mark = mark.filter(|(mark, _)| mark.sealed.files > self.state.sealed.files);
        let is_set_back = mark.as_ref().is_some_and(|(mark, _)| [0, mark.stream].contains(&self.state.stream));
        if is_set_back && !is_behind {
            self.notes.push("the newest generation has lost its last commits".into());
            gaps.push(generation_gap(newest.map_or(now_ms, |name| name.first_ms), now_ms, None));
        }
        let is_old = is_behind || is_set_back;
        if let Some((mark, told)) = mark.filter(|_| is_old) {
            let State { cursors, gaps, heard, lost_file, .. } = mark;
            self.state = State { cursors, gaps, heard, lost_file, ..std::mem::take(&mut self.state) };
            self.told = told;
        }
        // A stream is one device's: with another key this is another device to the hub, and so is a copy of it.
        let key = self.key.public().id();
        let is_copied = renew::is_due(&self.setup.folder);
        if self.state.stream == 0 || is_old || self.state.key != Some(key) || is_copied {
            let stream = u64::from_be_bytes(keys::random().ok_or(Error::Key)?) | 1;
            self.state.begin_stream(stream, key);
        }
        if !gaps.is_empty() {
            let first_ms = gaps.iter().map(|gap| gap.from_ms).min().unwrap_or(now_ms);
            gaps.into_iter().for_each(|gap| self.state.note(gap));
            if is_old {
                self.begin(first_ms)?;
            }
            self.write(Changes::default())?;
            self.mark();
        } else if !is_marked && self.state.sealed.files > 0 {
            // A crash came before it was written, or a power cut took it. Nobody else would make it good before the next
            // file, and until then a damaged generation would take with it how far the logs are told.
            self.mark();
        }
        self.left_over = true;
        for (name, at_ms) in lost {
            self.generations.set_aside(name, at_ms)?;
        }
        Ok(())
    }

    /// Opens a generation and takes its state; `false` if it never had one.
    fn load(&mut self, name: Name) -> Result<bool> {
        self.told.clear();
        self.use_generation(name)?;
        let Some(state) = self.value::<State>(STATE)? else {
            let was_used = self.generations.is_used(name) || name.held.is_some();
            return if was_used { Err(damaged("it has lost its state")) } else { Ok(false) };
        };
        let mut key = told_key(0);
        key.part -= 1;
        while let Some(next) = self.generation()?.key_after(key)?.filter(|next| next.seq == 0) {
            let worker = next.part.saturating_sub(told_key(0).part);
            if let Some(told) = self.value(next)? {
                self.told.insert(worker, told);
            }
            key = next;
        }
        self.before = self.value::<Drained>(DRAINED)?.ok_or_else(|| damaged("it has lost its counts"))?.before;
        self.state = state;
        Ok(true)
    }
}
