//! What a start writes into the journal.

use super::super::activate::Active;
use super::super::journal::{Event, Line};
use super::super::start::{Origin, Records};
use crate::units::TimeBounds;

/// What a start writes into the journal about records that were not as they had been written.
pub(super) fn trouble_lines(
    records: Records,
    time_was_damaged: bool,
    unenrolled: Option<String>,
    now: TimeBounds,
) -> impl Iterator<Item = Line> {
    let damaged = |what: &str| Line::new(Event::StateDamaged, "StateDamaged", now).saying(what);
    let state = match records {
        Records::Sound => None,
        Records::Damaged => {
            Some(damaged("one of the two state records; what it may have held is taken from the slots"))
        }
        Records::Lost => Some(Line::new(Event::StateLost, "StateLost", now).saying("made again from the slots")),
    };
    let time = damaged("one of the two records of the time floor; the floor may be the one before the last");
    let enrolment = unenrolled.map(|what| damaged(&what));
    state.into_iter().chain(time_was_damaged.then_some(time)).chain(enrolment)
}

/// What a start writes into the journal: why it serves not what was chosen, and what it serves.
pub(super) fn start_lines<T>(serving: Option<&Active<T>>, origin: &Origin, now: TimeBounds) -> (Option<Line>, Line) {
    let mut started = Line::new(Event::Started, if serving.is_some() { "Serving" } else { "Nothing" }, now);
    if let Some(active) = serving {
        started.digest = Some(active.digest);
        started.seq = Some(active.manifest.seq());
    }
    let (event, why) = match origin {
        Origin::Previous(why) => (Event::FellBack, why),
        Origin::Nothing(why) | Origin::NoList(why) => (Event::SafeMode, why),
        Origin::Fresh | Origin::Active => return (None, started),
    };
    // The name is in both, so that a start that fails otherwise than the last one is told.
    (Some(Line::new(event, why.name(), now).saying(why.detail())), started.saying(why.name()))
}
