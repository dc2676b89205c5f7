//! `applications.toml`, and `subscriptions.toml` or `subscriptions.csv`.

use super::apis::ApiNames;
use super::fields::{Fields, Page};
use super::pages::Pages;
use super::problem::{Located, Names, Problems, Spot, Text};
use crate::bundle::compile::TEXT_LIMIT;
use crate::bundle::entry::{Application, ConsumerKey, Subscription, Subscriptions};

/// One row, from either file.
#[derive(Debug)]
struct Row {
    application: Text,
    api: Text,
    version: Option<Text>,
    plan: Text,
    blocked: bool,
}

/// The entry, sorted.
pub(super) fn read(pages: &Pages, apis: &ApiNames, plans: &Names, problems: &Problems) -> Subscriptions {
    let (mut applications, names, keys) = applications(pages, plans, problems);
    applications.sort();
    let at = |name: &str| {
        let at = applications.binary_search_by(|row| row.name.as_str().cmp(name)).ok()?;
        u32::try_from(at).ok()
    };
    let keys = keys.into_iter().filter_map(|(key, name)| Some(ConsumerKey { key, application: at(&name)? }));
    let mut keys: Vec<_> = keys.collect();
    keys.sort();
    let mut rows: Vec<(Subscription, Spot)> = Vec::new();
    for row in rows_of_either(pages, problems) {
        let known = names.check(&row.application, problems);
        let version = version(&row, apis, problems);
        let planned = plans.check(&row.plan, problems);
        if let (true, true, Some(version), Some(application)) = (known, planned, version, at(&row.application.value)) {
            let (api, plan) = (row.api.value, row.plan.value);
            rows.push((Subscription { application, api, version, plan, blocked: row.blocked }, row.application.spot));
        }
    }
    let place = |row: &Subscription| (row.application, row.api.clone(), row.version.clone());
    rows.sort_by_cached_key(|(row, spot)| (place(row), spot.clone()));
    rows.dedup_by(|(later, at), (first, first_at)| {
        let twice = place(later) == place(first);
        if twice {
            let name = applications.get(first.application as usize).map_or("", |row| row.name.as_str());
            let message =
                format!("{name:?} is already subscribed to {:?} {:?} at {first_at}", first.api, first.version);
            problems.report(at, message);
        }
        twice
    });
    Subscriptions { applications, keys, subscriptions: rows.into_iter().map(|(row, _)| row).collect() }
}

type Keyed = Vec<(String, String)>;

fn applications(pages: &Pages, plans: &Names, problems: &Problems) -> (Vec<Application>, Names, Keyed) {
    let (mut names, mut key_names) = (Names::new("application"), Names::new("consumer key"));
    let (mut applications, mut keys) = (Vec::new(), Keyed::new());
    if let Some(page) = pages.page("applications.toml") {
        let table = page.parse(problems);
        let mut file = Fields::of_page(page, &table, "applications.toml", problems);
        for (name, mut fields) in file.tables("applications", "an application") {
            let consumer = fields.text("consumer").map(|text| text.value).unwrap_or_default();
            let plan = fields.text("plan").filter(|plan| plans.check(plan, problems));
            for key in fields.texts("keys").unwrap_or_default() {
                if key.value.len() > TEXT_LIMIT {
                    problems.report(&key.spot, format!("a consumer key is at most {TEXT_LIMIT} bytes"));
                } else if key_names.define(&key, problems) {
                    keys.push((key.value, name.value.clone()));
                }
            }
            fields.finish();
            if names.define(&name, problems) {
                let plan = plan.map(|plan| plan.value).unwrap_or_default();
                applications.push(Application { name: name.value, consumer, plan });
            }
        }
        file.finish();
    }
    (applications, names, keys)
}

/// The API's version, or its only one.
fn version(row: &Row, apis: &ApiNames, problems: &Problems) -> Option<String> {
    let Some(versions) = apis.get(&row.api.value) else {
        problems.unknown(&row.api.spot, "API", &row.api.value, apis.keys().map(String::as_str));
        return None;
    };
    let all = || versions.keys().map(String::as_str);
    match &row.version {
        Some(version) if versions.contains_key(&version.value) => Some(version.value.clone()),
        Some(version) => {
            let kind = format!("version of API {:?}", row.api.value);
            problems.unknown(&version.spot, &kind, &version.value, all());
            None
        }
        None if versions.len() == 1 => all().next().map(str::to_owned),
        None => {
            let versions: Vec<_> = all().collect();
            let message = format!("API {:?} has several versions; name one of: {}", row.api.value, versions.join(", "));
            problems.report(&row.api.spot, message);
            None
        }
    }
}

fn rows_of_either(pages: &Pages, problems: &Problems) -> Vec<Row> {
    match (pages.page("subscriptions.toml"), pages.page("subscriptions.csv")) {
        (Some(toml), csv) => {
            if let Some(csv) = csv {
                problems.report(&Spot::file(csv.name()), "keep either subscriptions.toml or subscriptions.csv");
            }
            rows_of_toml(toml, problems)
        }
        (None, Some(csv)) => rows_of_csv(csv, problems),
        (None, None) => Vec::new(),
    }
}

fn rows_of_toml(page: &Page, problems: &Problems) -> Vec<Row> {
    let table = page.parse(problems);
    let mut file = Fields::of_page(page, &table, "subscriptions.toml", problems);
    let mut rows = Vec::new();
    for mut fields in file.rows("subscriptions", "a subscription") {
        let application = fields.needed("application");
        let (api, version) = (fields.needed("api"), fields.text("version"));
        let (plan, blocked) = (fields.needed("plan"), fields.flag("blocked", false));
        fields.finish();
        if let (Some(application), Some(api), Some(plan)) = (application, api, plan) {
            rows.push(Row { application, api, version, plan, blocked });
        }
    }
    file.finish();
    rows
}

const COLUMNS: [&str; 5] = ["application", "api", "version", "plan", "blocked"];

/// RFC 4180 with a header line that names the columns, in any order; `version` and `blocked` may be left out.
fn rows_of_csv(page: &Page, problems: &Problems) -> Vec<Row> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(page.text().as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            problems.report(&page.line(1), format!("not CSV: {error}"));
            return Vec::new();
        }
    };
    for column in header.iter().filter(|column| !COLUMNS.contains(column)) {
        problems.unknown(&page.line(1), "column", column, COLUMNS);
    }
    let column = |name| header.iter().position(|column| column == name);
    let [application, api, version, plan, blocked] = COLUMNS.map(column);
    let (Some(application), Some(api), Some(plan)) = (application, api, plan) else {
        problems.report(&page.line(1), "the first line must name the columns application, api and plan");
        return Vec::new();
    };
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, |at| usize::try_from(at.line()).unwrap_or(0));
                problems.report(&page.line(line), format!("not CSV: {}", reason(&error)));
                continue;
            }
        };
        let spot = page.line(record.position().map_or(0, |at| usize::try_from(at.line()).unwrap_or(0)));
        let cell = |at: usize| Located { value: record.get(at).unwrap_or_default().to_owned(), spot: spot.clone() };
        let blocked = match blocked.and_then(|at| record.get(at)).unwrap_or_default() {
            "" | "false" => false,
            "true" => true,
            other => {
                problems.report(&spot, format!("blocked must be true or false, not {other:?}"));
                continue;
            }
        };
        let version = version.map(cell).filter(|version| !version.value.is_empty());
        rows.push(Row { application: cell(application), api: cell(api), version, plan: cell(plan), blocked });
    }
    rows
}

fn reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("this line has {len} fields, the first one {expected_len}")
        }
        _ => error.to_string(),
    }
}
