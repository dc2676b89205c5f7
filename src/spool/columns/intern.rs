//! Interning of byte strings, without an allocation for each.

use std::hash::{BuildHasher as _, RandomState};

/// Distinct byte strings back to back, found again by an open-addressed table.
#[derive(Debug, Default)]
pub(super) struct Interner {
    pub(super) pool: Vec<u8>,
    ends: Vec<u32>,
    /// Index + 1 of an entry, 0 where free; a power of two long, at most half full.
    slots: Vec<u32>,
    hash: RandomState,
}

impl Interner {
    pub(super) fn intern(&mut self, entry: &[u8]) -> u32 {
        if self.slots.len() <= self.ends.len() * 2 {
            self.grow();
        }
        let mut at = self.home(entry);
        loop {
            match self.slots[at].checked_sub(1) {
                Some(index) if self.entry(index) == entry => return index,
                Some(_) => at = (at + 1) & (self.slots.len() - 1),
                None => break,
            }
        }
        let index = u32::try_from(self.ends.len()).expect("a file has at most ROWS_LIMIT entries");
        self.pool.extend_from_slice(entry);
        self.ends.push(u32::try_from(self.pool.len()).expect("a body is limited to 2 MiB"));
        self.slots[at] = index + 1;
        index
    }

    fn entry(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.pool[start..self.ends[index] as usize]
    }

    fn home(&self, entry: &[u8]) -> usize {
        // Only the low bits choose the slot, so a narrower usize loses nothing.
        self.hash.hash_one(entry) as usize & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(len, 0);
        for index in 0..u32::try_from(self.ends.len()).expect("a file has at most ROWS_LIMIT entries") {
            let mut at = self.home(self.entry(index));
            while self.slots[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            self.slots[at] = index + 1;
        }
    }
}
