//! The books: what the callers saw against what the hub has, request by request.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags};

use super::traffic::{Kind, Seen, State};

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
/// a request that broke; none is there twice; nothing is only a sum.
pub(super) fn compare(seen: &[Seen], kinds: &[Kind], hub: &HubSide) -> Books {
    let mut books = Books::default();
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

    fn seen(id: u8, state: State) -> Seen {
        Seen { request_id: RequestId([id; 16]), kind: "good", status: Some(200), state }
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

    fn wrong(seen: &[Seen], hub: &HubSide) -> usize {
        compare(seen, &kinds(), hub).wrong.len()
    }

    #[test]
    fn books_balance_when_each_answer_is_one_record_and_the_rest_broke() {
        let all = [seen(1, State::Whole), seen(2, State::Broken), seen(3, State::Broken)];
        let hub = hub(&[(1, 200, "Admitted"), (2, 200, "Admitted")]);
        assert!(hub.has_all_of(&all));
        let books = compare(&all, &kinds(), &hub);
        assert!(books.wrong.is_empty(), "{:?}", books.wrong);
        let line = books.by_outcome["Admitted"];
        assert_eq!((line.answered, line.broken, line.recorded), (1, 1, 2));
    }

    #[test]
    fn a_lost_a_doubled_an_altered_and_an_invented_record_are_each_seen() {
        let one = [seen(1, State::Whole)];
        assert_eq!(wrong(&one, &hub(&[])), 1);
        assert_eq!(wrong(&one, &hub(&[(1, 200, "Admitted"), (1, 200, "Admitted")])), 1);
        assert_eq!(wrong(&one, &hub(&[(1, 500, "Admitted")])), 1);
        assert_eq!(wrong(&one, &hub(&[(1, 200, "NoRoute")])), 1);
        assert_eq!(wrong(&one, &hub(&[(1, 200, "Admitted"), (9, 200, "Admitted")])), 1);
        let summed = HubSide { rolled_up: 3, ..hub(&[(1, 200, "Admitted")]) };
        assert_eq!(wrong(&one, &summed), 1);
    }
}
