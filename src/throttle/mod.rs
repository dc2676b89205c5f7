//! Rate and quota decisions: state and `now` in, verdict out.
//!
//! A request comes with the limits that apply to it. [`Throttle::decide`] looks at all of them first and charges
//! all of them only if all agree, so that a request refused by one limit never uses up another.
//!
//! It must never read a clock, allocate after [`Throttle::new`], or admit more than a limit says: what has to be
//! forgotten for want of room is counted. Invariant: while nothing is forgotten, in any window of a rate's length at
//! most `count + burst` requests are admitted, in any calendar window of a quota at most `count`.
//!
//! Called by the gateway once per admitted request; shared by all workers, so the limits are exact, not per worker.

mod quota;
mod rate;
mod table;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::units::{Unfit, UnixSeconds, within};
use table::{Slot, Stripe, Table};

pub use quota::{Quota, Window};
pub use rate::Rate;

/// The most limits that one request can meet: four each for API, route, application and subscription.
pub const MAX_CHARGES: usize = 16;

/// The moment of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of monotonic time since any fixed moment; for rates.
    pub mono_ns: u64,
    /// The least that the wall clock can be ([`crate::units::TimeBounds::lower`]); for quotas. It may step back, as
    /// when a source of time is no longer trusted: see [`Throttle::decide`].
    pub wall: UnixSeconds,
}

/// What a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many per second or minute, evenly, with a burst.
    Rate(Rate),
    /// So many per hour, day or month of the calendar (UTC).
    Quota(Quota),
}

/// One limit that a request has to pass, and in whose name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Which limit; stable while the policy keeps the limit, so that a swap forgets nothing.
    pub limit_id: u64,
    /// Who is counted: an API, a route, an application, a subscription.
    pub subject_id: u64,
    /// What it allows.
    pub limit: Limit,
}

/// Proof that every limit agreed and was charged. Only a request that holds one is forwarded.
#[derive(Debug)]
pub struct Permit(());

/// Some limits said no; nothing was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Index of the first of them among the charges given.
    pub charge: usize,
    /// A quota is used up, rather than a rate exceeded.
    pub quota: bool,
    /// Whole seconds, at least 1, after which all limits would agree.
    pub retry_after: u32,
}

/// How much memory the counters may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Room for rates and for quotas, each; 16 bytes a slot, taken at start. A counter has its place among 16: some find
    /// none once more than a third of all are in use.
    pub slots: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { slots: 8_192 }
    }
}

impl Config {
    /// What of it could be read but not used.
    #[must_use]
    pub fn check(&self) -> Vec<Unfit> {
        let why = "with too few, limits are forgotten while they count; each takes 32 bytes at the start";
        within("slots", self.slots, 256..=4_194_304, why).into_iter().collect()
    }
}

/// All counters of the gateway.
#[derive(Debug)]
pub struct Throttle {
    rates: Table,
    quotas: Table,
    /// Key the table, so that nobody outside can choose names that meet in one stripe.
    secrets: [u64; 2],
    forgotten: AtomicU64,
    /// The furthest that the wall clock was ahead of monotonic time, in seconds.
    ahead: AtomicI64,
}

impl Throttle {
    /// Takes the memory for all counters.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (rates, quotas) = (Table::new(config.slots), Table::new(config.slots));
        let ahead = AtomicI64::new(i64::MIN);
        let random = RandomState::new();
        let secrets = [random.hash_one(0), random.hash_one(1)];
        Self { rates, quotas, secrets, forgotten: AtomicU64::new(0), ahead }
    }

    /// Counters in use that were forgotten for want of room: each gave its subject a fresh start.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Charges every limit, or none and says which one refused (the first in order).
    ///
    /// At most [`MAX_CHARGES`] are looked at; the policy's compiler allows no more. A wall clock that steps back is not
    /// followed: it goes on from where it was at the pace of monotonic time, so that no window comes a second time and
    /// none that is used up stays for longer than it lasts.
    pub fn decide(&self, charges: &[Charge], now: Now) -> Result<Permit, Refused> {
        debug_assert!(charges.len() <= MAX_CHARGES, "{} charges", charges.len());
        let now = self.forward(now);
        let mut places: heapless::Vec<Place, MAX_CHARGES> = heapless::Vec::new();
        for charge in charges.iter().take(MAX_CHARGES) {
            let key = self.key(charge);
            let quota = matches!(charge.limit, Limit::Quota(_));
            let stripe = if quota { self.quotas.stripe_of(key) } else { self.rates.stripe_of(key) };
            let _ = places.push(Place { key, quota, stripe });
        }
        let mut held = heapless::Vec::new();
        self.lock(&places, &mut held);
        // First every verdict, then every charge: until all have agreed nothing is touched.
        let mut next: heapless::Vec<Next, MAX_CHARGES> = heapless::Vec::new();
        let mut refused: Option<Refused> = None;
        for (charge, (Charge { limit, .. }, place)) in charges.iter().zip(&places).enumerate() {
            let lock = held.iter().position(|held| (held.quota, held.index) == (place.quota, place.stripe));
            let lock = lock.expect("the stripe of every place is locked");
            let taken = |slot| next.iter().any(|next| (next.lock, next.slot) == (lock, slot));
            let worth = |value| if place.quota { quota::worth(value, now) } else { rate::worth(value, now) };
            let Slot { at: slot, value, forgets } = held[lock].stripe.find(place.key, taken, worth);
            let charged = match limit {
                Limit::Rate(rate) => rate.charge(value, now),
                Limit::Quota(quota) => quota.charge(value, now),
            };
            match charged {
                Ok(value) => {
                    let charged = Next { lock, slot, key: place.key, value, forgets };
                    next.push(charged).expect("as many as there are places");
                }
                Err(retry_after) => {
                    let first = refused.get_or_insert(Refused { charge, quota: place.quota, retry_after });
                    first.retry_after = first.retry_after.max(retry_after);
                }
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        for &Next { lock, slot, key, value, forgets } in &next {
            held[lock].stripe.set(slot, key, value);
            if forgets {
                self.forgotten.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Permit(()))
    }

    /// By what a charge is counted; 0 marks an empty slot. The ids are hashes of the policy's own names, so one keyed
    /// multiplication, folded, spreads them well enough.
    fn key(&self, charge: &Charge) -> u64 {
        let [first, second] = self.secrets;
        let wide = u128::from(charge.limit_id ^ first) * u128::from(charge.subject_id ^ second);
        let (high, low) = ((wide >> 64) as u64, wide as u64);
        (high ^ low).max(1)
    }

    /// The moment by a wall clock that never goes back.
    fn forward(&self, now: Now) -> Now {
        let mono = i64::try_from(now.mono_ns / 1_000_000_000).unwrap_or(i64::MAX);
        let ahead = now.wall.saturating_sub(mono);
        let mut furthest = self.ahead.load(Ordering::Relaxed);
        if ahead > furthest {
            furthest = self.ahead.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        }
        Now { wall: mono.saturating_add(furthest), ..now }
    }

    /// Locks the stripes of all places, each once, in one order for all threads.
    fn lock<'t>(&'t self, places: &[Place], held: &mut heapless::Vec<Held<'t>, MAX_CHARGES>) {
        let mut order: heapless::Vec<(bool, usize), MAX_CHARGES> = heapless::Vec::new();
        for place in places.iter().map(|place| (place.quota, place.stripe)) {
            let at = order.iter().position(|other| *other > place).unwrap_or(order.len());
            order.insert(at, place).expect("at most one lock a place");
        }
        for &(quota, index) in &order {
            if held.last().is_some_and(|held| (held.quota, held.index) == (quota, index)) {
                continue;
            }
            let table = if quota { &self.quotas } else { &self.rates };
            let stripe = table.lock(index);
            held.push(Held { quota, index, stripe }).expect("at most one lock a place");
        }
    }
}

/// Where a charge is counted.
#[derive(Debug, Clone, Copy)]
struct Place {
    key: u64,
    quota: bool,
    stripe: usize,
}

/// A locked stripe.
#[derive(Debug)]
struct Held<'a> {
    quota: bool,
    index: usize,
    stripe: MutexGuard<'a, Stripe>,
}

/// What a slot will hold once all limits have agreed.
#[derive(Debug)]
struct Next {
    lock: usize,
    slot: usize,
    key: u64,
    value: u64,
    forgets: bool,
}
