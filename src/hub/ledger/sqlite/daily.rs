//! What one file adds to each day: requests and bytes by API, application and outcome. Pure.
//!
//! A request counts on the UTC day of its moment, a roll-up as a whole on the day of its end.

use std::collections::{BTreeMap, HashMap};

use crate::spool::record::{Outcome, RollUp};
use crate::spool::segment::{Dictionaries, Indexed};

const DAY_MS: i64 = 86_400_000;

/// Day since the Unix epoch, API, application, outcome.
pub(super) type Key<'a> = (i64, &'a str, &'a str, Outcome);

/// A sum that stays at its end rather than to wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) requests: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Sum {
    fn add(&mut self, requests: u64, bytes_in: u64, bytes_out: u64) {
        self.requests = self.requests.saturating_add(requests);
        self.bytes_in = self.bytes_in.saturating_add(bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(bytes_out);
    }
}

/// The sums of a file in the making.
#[derive(Debug)]
pub(super) struct Daily<'a> {
    /// Places of a dictionary that say the same here have one number.
    apis: Places<'a>,
    applications: Places<'a>,
    outcomes: Vec<Outcome>,
    /// By numbers, so that no text is hashed for a row.
    requests: HashMap<(i64, u32, u32, u8), Sum>,
    roll_ups: BTreeMap<Key<'a>, Sum>,
}

#[derive(Debug)]
struct Places<'a> {
    numbers: Vec<u32>,
    texts: Vec<&'a str>,
}

impl<'a> Places<'a> {
    fn new(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut known = HashMap::new();
        let mut places = Self { numbers: Vec::new(), texts: Vec::new() };
        for text in texts {
            let number = *known.entry(text).or_insert_with(|| {
                places.texts.push(text);
                places.texts.len() - 1
            });
            places.numbers.push(u32::try_from(number).expect("a file has at most ROWS_LIMIT entries"));
        }
        places
    }
}

impl<'a> Daily<'a> {
    pub(super) fn new(dictionaries: &Dictionaries<'a>) -> Self {
        Self {
            apis: Places::new(dictionaries.endpoints.iter().map(|[api, ..]| *api)),
            applications: Places::new(dictionaries.callers.iter().map(|[application, ..]| *application)),
            outcomes: dictionaries.endings.iter().map(|(_, outcome, _)| *outcome).collect(),
            requests: HashMap::new(),
            roll_ups: BTreeMap::new(),
        }
    }

    /// Adds a request of the file whose dictionaries were given.
    pub(super) fn add(&mut self, row: &Indexed) {
        let day = row.at_ms.div_euclid(DAY_MS);
        let (api, application) = (self.apis.numbers[row.endpoint], self.applications.numbers[row.caller]);
        let outcome = self.outcomes[row.ending].number();
        let sum = self.requests.entry((day, api, application, outcome)).or_default();
        sum.add(1, row.bytes_in, row.bytes_out);
    }

    pub(super) fn add_sum(&mut self, sum: &RollUp<'a>) {
        let key = (sum.to_ms.div_euclid(DAY_MS), sum.api, sum.application, sum.outcome);
        self.roll_ups.entry(key).or_default().add(sum.count, sum.bytes_in, sum.bytes_out);
    }

    /// Each key once.
    pub(super) fn sums(self) -> BTreeMap<Key<'a>, Sum> {
        let mut sums = self.roll_ups;
        for ((day, api, application, outcome), Sum { requests, bytes_in, bytes_out }) in self.requests {
            let (api, application) = (self.apis.texts[api as usize], self.applications.texts[application as usize]);
            let Some(outcome) = Outcome::from_number(outcome) else { continue };
            sums.entry((day, api, application, outcome)).or_default().add(requests, bytes_in, bytes_out);
        }
        sums
    }
}
