//! A bounded table of counters: stripes of sixteen slots, each stripe under its own lock.
//!
//! Several counters have to change together or not at all, so a stripe is locked, not a slot swapped: a lock is held
//! for tens of nanoseconds, never across a wait, and two workers meet only where they count the same thing.
//! A full stripe forgets the slot that is worth least; one worth nothing (an idle rate, a past window) is no loss.

use std::sync::{Mutex, MutexGuard, PoisonError};

const SLOTS: usize = 16;
const _: () = assert!(SLOTS >= super::MAX_CHARGES);

#[derive(Debug)]
pub(super) struct Table {
    stripes: Box<[Mutex<Stripe>]>,
}

#[derive(Debug, Clone)]
pub(super) struct Stripe {
    /// 0 marks an empty slot.
    keys: [u64; SLOTS],
    values: [u64; SLOTS],
}

/// Where a key is counted, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) at: usize,
    /// 0 for a key that is not there yet.
    pub(super) value: u64,
    /// A counter in use has to be forgotten for it.
    pub(super) forgets: bool,
}

impl Table {
    pub(super) fn new(slots: u32) -> Self {
        let stripes = usize::try_from(slots).unwrap_or(usize::MAX).div_ceil(SLOTS).max(1);
        let empty = || Mutex::new(Stripe { keys: [0; SLOTS], values: [0; SLOTS] });
        Self { stripes: std::iter::repeat_with(empty).take(stripes).collect() }
    }

    pub(super) fn stripe_of(&self, key: u64) -> usize {
        // The high half picks the stripe without a division by an unknown number.
        let scaled = u128::from(key) * u128::try_from(self.stripes.len()).unwrap_or(u128::MAX);
        usize::try_from(scaled >> 64).unwrap_or(0)
    }

    /// Locks one stripe. A thread that panicked while it held it left whole values behind: they are used on.
    pub(super) fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe> {
        let stripe = self.stripes.get(stripe).expect("stripe_of stays within the table");
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stripe {
    /// The key's slot; for a new key an empty one, else the one that is worth least and not `taken`. Changes nothing.
    pub(super) fn find(&self, key: u64, taken: impl Fn(usize) -> bool, worth: impl Fn(u64) -> u64) -> Slot {
        if let Some(slot) = self.keys.iter().position(|known| *known == key) {
            return Slot { at: slot, value: self.values[slot], forgets: false };
        }
        let price = |slot: &usize| match self.keys[*slot] {
            0 => (0, 0),
            _ => (1, worth(self.values[*slot])),
        };
        let at = (0..SLOTS)
            .filter(|slot| !taken(*slot))
            .min_by_key(price)
            .expect("a request takes fewer slots than a stripe has");
        Slot { at, value: 0, forgets: price(&at) > (1, 0) }
    }

    pub(super) fn set(&mut self, slot: usize, key: u64, value: u64) {
        self.keys[slot] = key;
        self.values[slot] = value;
    }
}
