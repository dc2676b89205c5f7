//! The state record: what was chosen and what was seen, in one commit point.
//!
//! ```text
//! trust/state.0 and .1   (store/pair); body, big-endian:
//!   off  size  field
//!   0    1     version = 3
//!   1    8     epoch            of the root that the numbers belong to
//!   9    8     highest seq      0 = none
//!   17   32    highest digest
//!   49   8     security floor
//!   57   32    active digest    zeros = none
//!   89   32    previous digest  zeros = none
//!   121  8     root version     of the newest root that was taken; 0 = not known
//!   129  32    root digest      zeros = not known
//!   161  8     active root      version of the root under which the active bundle was accepted; 0 = not known
//!   169  8     previous root    likewise
//!   177  8     list seq         highest of a list of revocations, in this epoch; 0 = none
//!   185  32    its digest
//!   217  32    list digest      of the list in force; zeros = none
//!   249  8     list root        version of the root under which it was accepted
//!   257  8     permit seq       of the last permit that was taken, in this epoch; 0 = none
//!   265  32    its digest
//!   297  32    permit from      what it gives leave to, until the next activation; zeros = nothing
//!   329  32    permit to
//!   361  1     trial            bit 0: the active bundle is on trial; bit 1: the previous one never passed its own
//!   362  512   known bad        digests of the last 16 bundles that failed their trial, newest first; zeros = none
//! ```
//!
//! Version 1 ends at 121 and version 2 at 361; they are read, and written as version 3 by the next write. Pure.

use super::manifest::Permit;
use super::root::RootDocument;
use super::trust::{History, KnownBad, RootName, Seen};
use crate::ids::Digest;

const VERSION: u8 = 3;
const WITHOUT_TRIALS: u8 = 2;
const WITHOUT_ROOTS: u8 = 1;
const NONE: [u8; 32] = [0; 32];

/// A bundle in a slot, and the version of the root under which it was accepted (0 = not known).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) digest: Digest,
    pub(super) root: u64,
}

/// The state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) epoch: u64,
    pub(super) highest: Option<Seen>,
    pub(super) security_floor: u64,
    pub(super) active: Option<Chosen>,
    pub(super) previous: Option<Chosen>,
    pub(super) root: RootName,
    pub(super) revoked: Option<Seen>,
    pub(super) list: Option<Chosen>,
    pub(super) permit: Option<Seen>,
    pub(super) pending: Option<Permit>,
    /// Whether the active bundle is on trial.
    pub(super) on_trial: bool,
    /// Whether the previous one never passed its own.
    pub(super) unproven: bool,
    pub(super) known_bad: KnownBad,
}

impl State {
    /// The state by which `root` is the newest. A later epoch restarts the counters.
    pub(super) fn under(self, root: &RootDocument) -> Self {
        let named = Self { root: RootName::of(root), ..self };
        if root.epoch() > self.epoch {
            let (epoch, highest, security_floor) = (root.epoch(), None, 0);
            return Self { epoch, highest, security_floor, revoked: None, permit: None, pending: None, ..named };
        }
        named
    }

    /// The state after `seen` was activated under the newest root; `serving` is what served until then.
    pub(super) fn after(self, seen: Seen, security_floor: u64, serving: Option<Digest>) -> Self {
        Self {
            // A permit led to an older one: what was seen stays.
            highest: self.highest.filter(|highest| highest.seq >= seen.seq).or(Some(seen)),
            pending: None,
            security_floor: self.security_floor.max(security_floor),
            ..self.choosing(Chosen { digest: seen.digest, root: self.root.version }, serving)
        }
    }

    /// The slots once `next` is the active one, on trial. What it may fall back to is the last that passed its own
    /// trial, else what served.
    pub(super) fn choosing(self, next: Chosen, serving: Option<Digest>) -> Self {
        if self.active.is_some_and(|active| active.digest == next.digest) {
            return Self { active: Some(next), ..self }; // its slot had rotted
        }
        let serves = |slot: &Chosen| Some(slot.digest) == serving;
        let (previous, unproven) = match (self.active.filter(serves), self.previous) {
            (Some(_), Some(proven)) if self.on_trial && !self.unproven => (Some(proven), false),
            (Some(active), _) => (Some(active), self.on_trial),
            (None, previous) => (previous.filter(serves), self.unproven),
        };
        Self { active: Some(next), previous, on_trial: true, unproven, ..self }
    }

    /// The state after the active bundle passed its trial.
    pub(super) fn passed(self) -> Self {
        Self { on_trial: false, ..self }
    }

    /// The state after the active bundle failed its trial: the previous one takes its place, and it never comes back.
    pub(super) fn failed(self) -> Self {
        let Some(bad) = self.active else { return self };
        Self {
            active: self.previous,
            previous: None,
            on_trial: self.unproven && self.previous.is_some(),
            unproven: false,
            known_bad: self.known_bad.and(bad.digest),
            pending: self.pending.filter(|permit| permit.from != bad.digest),
            ..self
        }
    }

    /// The state after the list `seen` was taken under the newest root.
    pub(super) fn after_list(self, seen: Seen) -> Self {
        Self { revoked: Some(seen), list: Some(Chosen { digest: seen.digest, root: self.root.version }), ..self }
    }

    /// The state after a permit was taken.
    pub(super) fn permitting(self, seen: Seen, permit: Permit) -> Self {
        Self { permit: Some(seen), pending: Some(permit), ..self }
    }

    /// What a judgement goes by, while `serving` serves and `list` is in force.
    pub(super) fn history(&self, serving: Option<Digest>, list: Option<Digest>) -> History {
        let Self { epoch, highest, security_floor, revoked, permit, pending, known_bad, .. } = *self;
        let active = self.active.map(|slot| slot.digest);
        History { epoch, highest, security_floor, serving, active, permit, pending, revoked, list, known_bad }
    }

    /// The body of a record.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let or_none = |seen: Option<Seen>| seen.unwrap_or(Seen { seq: 0, digest: Digest(NONE) });
        let (seen, revoked, permit) = (or_none(self.highest), or_none(self.revoked), or_none(self.permit));
        let digest = |digest: Option<Digest>| digest.map_or(NONE, |digest| digest.0);
        let root = |slot: Option<Chosen>| slot.map_or(0, |slot| slot.root).to_be_bytes();
        [
            &[VERSION][..],
            &self.epoch.to_be_bytes(),
            &seen.seq.to_be_bytes(),
            &seen.digest.0,
            &self.security_floor.to_be_bytes(),
            &digest(self.active.map(|slot| slot.digest)),
            &digest(self.previous.map(|slot| slot.digest)),
            &self.root.version.to_be_bytes(),
            &digest(self.root.digest),
            &root(self.active),
            &root(self.previous),
            &revoked.seq.to_be_bytes(),
            &revoked.digest.0,
            &digest(self.list.map(|slot| slot.digest)),
            &root(self.list),
            &permit.seq.to_be_bytes(),
            &permit.digest.0,
            &digest(self.pending.map(|permit| permit.from)),
            &digest(self.pending.map(|permit| permit.to)),
            &[u8::from(self.on_trial) | u8::from(self.unproven) << 1],
            &self.known_bad.all().map(digest).concat(),
        ]
        .concat()
    }

    /// Reads a body; `None` is another version's, for the record's checksum is good.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        let from = &mut rest;
        let (epoch, seq, highest) = (number(from)?, number(from)?, digest(from)?);
        let (security_floor, active, previous) = (number(from)?, digest(from)?, digest(from)?);
        let seen = |seq: u64, digest: Option<Digest>| {
            (seq > 0).then_some(Seen { seq, digest: digest.unwrap_or(Digest(NONE)) })
        };
        let chosen = |digest: Option<Digest>, root: u64| digest.map(|digest| Chosen { digest, root });
        let mut state = Self {
            epoch,
            highest: seen(seq, highest),
            security_floor,
            active: chosen(active, 0),
            previous: chosen(previous, 0),
            ..Self::default()
        };
        match *version {
            WITHOUT_ROOTS => {}
            VERSION | WITHOUT_TRIALS => {
                state.root = RootName { version: number(from)?, digest: digest(from)? };
                state.active = chosen(active, number(from)?);
                state.previous = chosen(previous, number(from)?);
                state.revoked = seen(number(from)?, digest(from)?);
                state.list = chosen(digest(from)?, number(from)?);
                state.permit = seen(number(from)?, digest(from)?);
                state.pending = digest(from)?.zip(digest(from)?).map(|(from, to)| Permit { from, to });
                if *version == VERSION {
                    let (trial, after) = from.split_first()?;
                    *from = after;
                    (state.on_trial, state.unproven) = (trial & 1 != 0, trial & 2 != 0);
                    let mut bad = [None; KnownBad::MAX];
                    for slot in &mut bad {
                        *slot = digest(from)?;
                    }
                    state.known_bad = KnownBad::of(bad);
                }
            }
            _ => return None,
        }
        rest.is_empty().then_some(state)
    }
}

fn number(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(u64::from_be_bytes(*bytes))
}

/// Zeros are none.
#[expect(clippy::option_option, reason = "the outer one is a record that ends too soon")]
fn digest(from: &mut &[u8]) -> Option<Option<Digest>> {
    let (bytes, rest) = from.split_first_chunk::<32>()?;
    *from = rest;
    Some((*bytes != NONE).then_some(Digest(*bytes)))
}
