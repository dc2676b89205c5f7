//! The books: what the callers saw against what the hub has, request by request.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags};

use super::traffic::{Kind, Phase, Seen, State};

/// What the hub's database says.
#[derive(Debug, Default)]
pub(super) struct HubSide {
    /// Every record: request id to (status, outcome); a request that stands there twice has two.
    records: HashMap<String, Vec<(u16, String)>>,
    /// Requests that are there only as a sum.
    pub(super) rolled_up: i64,
    /// Gaps.
    pub(super) gaps: i64,
}

impl HubSide {
    /// Reads the database beside the running hub.
    pub(super) fn read(database: &Path) -> anyhow::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(database, flags)
            .with_context(|| format!("cannot open {}", database.display()))?;
        let mut hub = Self::default();
        let mut rows = db.prepare("SELECT request_id, status, outcome FROM records")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for row in rows {
            let (request, status, outcome): (String, u16, String) = row?;
            hub.records.entry(request).or_default().push((status, outcome));
        }
        hub.rolled_up = db.query_row("SELECT coalesce(sum(count), 0) FROM roll_ups", [], |row| row.get(0))?;
        hub.gaps = db.query_row("SELECT count(*) FROM gaps", [], |row| row.get(0))?;
        Ok(hub)
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    /// Whether every request that got a whole answer is there.
    pub(super) fn has_all_of(&self, seen: &[Seen]) -> bool {
        whole(seen).all(|seen| self.records.contains_key(&seen.request_id.to_string()))
    }
}

fn whole(seen: &[Seen]) -> impl Iterator<Item = &Seen> {
    seen.iter().filter(|seen| seen.state == State::Whole)
}

/// The comparison.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Outcome to (answers that callers saw whole, records at the hub, records of broken requests).
    pub(super) by_outcome: BTreeMap<String, Line>,
    /// What does not balance; empty when all is well.
    pub(super) wrong: Vec<String>,
    /// What these books do not show, for want of requests.
    pub(super) unshown: Option<&'static str>,
}

/// One outcome.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Line {
    /// Requests that got a whole answer, whose record has this outcome.
    pub(super) answered: u64,
    /// Requests that the kill broke, whose record has this outcome.
    pub(super) broken: u64,
    /// Records at the hub.
    pub(super) recorded: u64,
}

/// Compares. Every whole answer is one record with its status and a right outcome; every other record is
/// a request that broke; none is there twice; nothing is only a sum. There are whole answers in every phase, and only the
/// kill, which met `in_flight` requests, breaks any.
pub(super) fn compare(seen: &[Seen], kinds: &[Kind], hub: &HubSide, in_flight: usize) -> Books {
    let mut books = Books::default();
    for phase in Phase::ALL {
        if !whole(seen).any(|seen| seen.phase == phase) {
            books.wrong.push(format!("no request got a whole answer while {}", phase.told()));
        }
    }
    let broken = || seen.iter().filter(|seen| seen.state == State::Broken);
    for seen in broken().filter(|seen| seen.phase != Phase::Kill) {
        books.wrong.push(format!("{} ({}) broke while {}", seen.request_id, seen.kind, seen.phase.told()));
    }
    if in_flight == 0 && !broken().any(|seen| seen.phase == Phase::Kill) {
        books.unshown =
            Some("all requests had been answered before the kill: it broke none; ask for more (--requests)");
    }
    let mut known: HashMap<String, &Seen> = HashMap::new();
    for seen in seen {
        known.insert(seen.request_id.to_string(), seen);
    }
    for seen in whole(seen) {
        let id = seen.request_id.to_string();
        let Some(records) = hub.records.get(&id) else {
            books.wrong.push(format!("{id} ({}) was answered and has no record", seen.kind));
            continue;
        };
        for (status, outcome) in records {
            if Some(*status) != seen.status {
                books.wrong.push(format!("{id} got status {:?} and its record says {status}", seen.status));
            }
            let right = kinds.iter().any(|kind| kind.name == seen.kind && kind.outcomes.contains(&outcome.as_str()));
            if !right {
                books.wrong.push(format!("{id} ({}) has the outcome {outcome}", seen.kind));
            }
        }
    }
    for (id, records) in &hub.records {
        if records.len() > 1 {
            books.wrong.push(format!("{id} has {} records", records.len()));
        }
        let state = known.get(id).map(|seen| seen.state);
        for (_, outcome) in records {
            let line = books.by_outcome.entry(outcome.clone()).or_default();
            line.recorded += 1;
            match state {
                Some(State::Whole) => line.answered += 1,
                Some(State::Broken) => line.broken += 1,
                None => books.wrong.push(format!("{id} has a record and was never sent")),
            }
        }
    }
    if hub.rolled_up > 0 {
        books.wrong.push(format!("{} requests are only a sum at the hub", hub.rolled_up));
    }
    books
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RequestId;

    fn seen(id: u8, phase: Phase, state: State) -> Seen {
        Seen { request_id: RequestId([id; 16]), kind: "good", phase, status: Some(200), state }
    }

    /// A whole answer in each phase but `without`, and then `more`.
    fn each(without: Option<Phase>, more: &[Seen]) -> (Vec<Seen>, Vec<(u8, u16, &'static str)>) {
        let phases = (101..).zip(Phase::ALL).filter(|(_, phase)| Some(*phase) != without);
        let seen: Vec<_> = phases.map(|(id, phase)| seen(id, phase, State::Whole)).collect();
        let records = seen.iter().map(|seen| (seen.request_id.0[0], 200, "Admitted")).collect();
        (seen.iter().chain(more).cloned().collect(), records)
    }

    fn kinds() -> Vec<Kind> {
        vec![Kind {
            name: "good",
            method: hyper::Method::GET,
            path: "/",
            token: None,
            body: "",
            outcomes: &["Admitted"],
            weight: 1,
        }]
    }

    fn hub(records: &[(u8, u16, &str)]) -> HubSide {
        let mut hub = HubSide::default();
        for (id, status, outcome) in records {
            let record = (*status, (*outcome).to_owned());
            hub.records.entry(RequestId([*id; 16]).to_string()).or_default().push(record);
        }
        hub
    }

    /// What is wrong when beside whole answers in all phases there are `more` requests and `records`.
    fn wrong(more: &[Seen], records: &[(u8, u16, &'static str)]) -> Vec<String> {
        let (seen, there) = each(None, more);
        compare(&seen, &kinds(), &hub(&[&there, records].concat()), 1).wrong
    }

    #[test]
    fn books_balance_when_each_answer_is_one_record_and_the_rest_broke_in_the_kill() {
        let more = [2, 3].map(|id| seen(id, Phase::Kill, State::Broken));
        let (all, mut records) = each(None, &more);
        records.push((2, 200, "Admitted"));
        let hub = hub(&records);
        assert!(hub.has_all_of(&all));
        let books = compare(&all, &kinds(), &hub, 2);
        assert!(books.wrong.is_empty() && books.unshown.is_none(), "{books:?}");
        let line = books.by_outcome["Admitted"];
        assert_eq!((line.answered, line.broken, line.recorded), (4, 1, 5));
    }

    #[test]
    fn a_lost_a_doubled_an_altered_and_an_invented_record_are_each_seen() {
        let one = [seen(1, Phase::LinkUp, State::Whole)];
        let good = (1, 200, "Admitted");
        assert!(wrong(&one, &[good]).is_empty(), "the control");
        for records in
            [&[][..], &[good, good], &[(1, 500, "Admitted")], &[(1, 200, "NoRoute")], &[good, (9, 200, "Admitted")]]
        {
            assert_eq!(wrong(&one, records).len(), 1, "{records:?}");
        }
        let (seen, records) = each(None, &[]);
        let summed = HubSide { rolled_up: 3, ..hub(&records) };
        assert_eq!(compare(&seen, &kinds(), &summed, 1).wrong.len(), 1);
    }

    #[test]
    fn a_request_that_breaks_where_nothing_is_killed_and_a_phase_without_an_answer_are_wrong() {
        for phase in Phase::ALL {
            let broke = wrong(&[seen(1, phase, State::Broken)], &[]);
            assert_eq!(broke.len(), usize::from(phase != Phase::Kill), "{broke:?}");
            let (seen, records) = each(Some(phase), &[]);
            let silent = compare(&seen, &kinds(), &hub(&records), 1).wrong;
            assert!(silent.len() == 1 && silent[0].contains(phase.told()), "{silent:?}");
        }
        let everything = compare(&[], &kinds(), &hub(&[]), 1).wrong;
        assert_eq!(everything.len(), Phase::ALL.len(), "nothing at all is no balance: {everything:?}");
    }

    #[test]
    fn a_kill_that_met_no_request_is_told() {
        let (all, records) = each(None, &[]);
        assert!(compare(&all, &kinds(), &hub(&records), 0).unshown.is_some());
        assert!(compare(&all, &kinds(), &hub(&records), 1).unshown.is_none());
    }
}
