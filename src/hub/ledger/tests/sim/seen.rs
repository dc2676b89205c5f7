//! What lives have met, so that a search that searches nothing shows.

/// Of one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) files: u64,
    pub(super) tombstones: u64,
    pub(super) covered: u64,
    pub(super) repeats: u64,
    pub(super) ahead: u64,
    pub(super) cuts: u64,
    pub(super) lost: u64,
    pub(super) faults: u64,
    pub(super) copies: u64,
    pub(super) keys: u64,
    pub(super) requests: u64,
}

pub(super) fn total(seen: &[Seen], what: impl Fn(&Seen) -> u64) -> u64 {
    seen.iter().map(what).sum()
}

pub(super) fn tell(seen: &[Seen]) -> String {
    let sum = |what: fn(&Seen) -> u64| total(seen, what);
    format!(
        "{} seeds: {} requests, {} lost by {} power cuts; {} files at the hub, of them {} tombstones, {} covered, {} \
         repeats, {} ahead; {} faults, {} copied cards, {} new keys",
        seen.len(),
        sum(|seen| seen.requests),
        sum(|seen| seen.lost),
        sum(|seen| seen.cuts),
        sum(|seen| seen.files),
        sum(|seen| seen.tombstones),
        sum(|seen| seen.covered),
        sum(|seen| seen.repeats),
        sum(|seen| seen.ahead),
        sum(|seen| seen.faults),
        sum(|seen| seen.copies),
        sum(|seen| seen.keys)
    )
}
