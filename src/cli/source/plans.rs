//! `plans.toml`: `[plans.gold]` with `limits = ["100/second burst 200", "1000000/month"]`.

use super::fields::Fields;
use super::pages::Pages;
use super::problem::{Names, Problems};
use crate::bundle::entry::{Limit, Per, Plan, Throttle};

/// The plans, by name.
pub(super) fn read(pages: &Pages, problems: &Problems) -> (Throttle, Names) {
    let mut names = Names::new("plan");
    let mut plans = Vec::new();
    if let Some(page) = pages.page("plans.toml") {
        let table = page.parse(problems);
        let mut file = Fields::of_page(page, &table, "plans.toml", problems);
        for (name, mut fields) in file.tables("plans", "a plan") {
            let mut limits = Vec::new();
            if !fields.has("limits") {
                problems.report(fields.spot(), "a plan needs limits = [\"10/second\"], or limits = [] for no limit");
            }
            for text in fields.texts("limits").unwrap_or_default() {
                match parse_limit(&text.value) {
                    Ok(limit) => limits.push(limit),
                    Err(why) => problems.report(&text.spot, format!("limit {:?}: {why}", text.value)),
                }
            }
            fields.finish();
            if names.define(&name, problems) {
                plans.push(Plan { limits, name: name.value });
            }
        }
        file.finish();
    }
    plans.sort_by(|a, b| a.name.cmp(&b.name));
    (Throttle { plans }, names)
}

const INTERVALS: [(&str, Per); 5] =
    [("second", Per::Second), ("minute", Per::Minute), ("hour", Per::Hour), ("day", Per::Day), ("month", Per::Month)];
const SHAPE: &str = "write COUNT/second or COUNT/minute with an optional burst (\"100/second burst 200\"), \
                     or COUNT/hour, /day or /month";

/// Reads `COUNT/INTERVAL [burst COUNT]`; the error says what to write.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    let (count, rest) = text.split_once('/').ok_or(SHAPE)?;
    let mut words = rest.split_whitespace();
    let interval = words.next().ok_or(SHAPE)?;
    let (_, per) = INTERVALS.into_iter().find(|(name, _)| *name == interval).ok_or(SHAPE)?;
    let count: u64 = number(count)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some("burst"), Some(burst), None) => Some(number(burst)?),
        _ => return Err(SHAPE.into()),
    };
    let is_rate = matches!(per, Per::Second | Per::Minute);
    if burst.is_some() && !is_rate {
        return Err("a quota has no burst".into());
    }
    if is_rate && u32::try_from(count).is_err() {
        return Err(format!("a rate is at most {}", u32::MAX));
    }
    let burst = burst.map(u32::try_from).transpose().map_err(|_| format!("a burst is at most {}", u32::MAX))?;
    Ok(Limit { burst, count, per })
}

fn number(text: &str) -> Result<u64, String> {
    // Underscores as in TOML's own numbers: 1_000_000.
    let digits = text.trim().replace('_', "");
    let number = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit())).ok_or(SHAPE)?;
    if number == 0 { Err("0 would let nothing through".into()) } else { Ok(number) }
}
