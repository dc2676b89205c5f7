//! `deployment.toml` and `targets.toml`: what the manifest says besides the entries; and the last sequence number.

use std::io;
use std::path::Path;

use super::fields::Fields;
use super::pages::{MAX_FILE, Pages, read_inside};
use super::problem::{Names, Problems, Spot, Text};
use super::usage;
use crate::bundle::entry::Usage;
use crate::bundle::manifest::Target;
use crate::disk;
use crate::ids::DeviceId;
use crate::units::Span;

/// The manifest's share of the folder.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Must be the root document's.
    pub name: String,
    /// Who speaks for the policy, for the journal.
    pub author: String,
    /// For which devices.
    pub target: Target,
    /// No older policy than this is ever taken again.
    pub security_floor: u64,
    /// What usage records keep of persons, where an API does not say: it is not in the manifest, but in the routes.
    pub usage: Usage,
    /// How long after it was built a bundle may be installed.
    pub valid_for: Option<Span>,
}

/// `None` only with a problem reported.
pub(super) fn read(pages: &Pages, problems: &Problems) -> Option<Deployment> {
    let (targets, names) = targets(pages, problems);
    let Some(page) = pages.page("deployment.toml") else {
        problems.report(&Spot::file("deployment.toml"), "is missing; `tidegate init DIR` writes one");
        return None;
    };
    let table = page.parse(problems);
    let mut fields = Fields::of_page(page, &table, "deployment.toml", problems);
    let (name, author) = (fields.needed("deployment"), fields.needed("author"));
    let target = fields.text("target");
    let security_floor = fields.number("security_floor").map_or(0, |floor| floor.value);
    let valid_for = fields.parsed::<Span>("valid_for").map(|span| span.value);
    let usage = usage::read(&mut fields);
    fields.finish();
    let target = match target {
        None => Target::All,
        Some(name) if names.check(&name, problems) => targets.into_iter().find(|(known, _)| *known == name.value)?.1,
        Some(_) => return None,
    };
    Some(Deployment { name: name?.value, author: author?.value, target, security_floor, usage, valid_for })
}

fn targets(pages: &Pages, problems: &Problems) -> (Vec<(String, Target)>, Names) {
    let mut names = Names::new("target");
    let mut targets = Vec::new();
    if let Some(page) = pages.page("targets.toml") {
        let table = page.parse(problems);
        let mut file = Fields::of_page(page, &table, "targets.toml", problems);
        for (name, mut fields) in file.tables("targets", "a target") {
            let all = fields.flag("all", false);
            let devices = fields.texts("devices");
            let has_labels = fields.has("labels");
            let labels = fields.lists("labels");
            let labels = has_labels.then_some(labels);
            let spot = fields.spot().clone();
            fields.finish();
            if names.define(&name, problems) {
                targets.extend(target(all, devices, labels, &spot, problems).map(|target| (name.value, target)));
            }
        }
        file.finish();
    }
    (targets, names)
}

fn target(
    all: bool,
    devices: Option<Vec<Text>>,
    labels: Option<Vec<(Text, Vec<Text>)>>,
    spot: &Spot,
    problems: &Problems,
) -> Option<Target> {
    let target = match (all, devices, labels) {
        (true, None, None) => Target::All,
        (false, Some(devices), None) => {
            let mut ids: Vec<DeviceId> = Vec::with_capacity(devices.len());
            for text in devices {
                match text.value.parse() {
                    Ok(id) => ids.push(id),
                    Err(error) => problems.report(&text.spot, format!("device {:?}: {error}", text.value)),
                }
            }
            ids.sort();
            ids.dedup();
            Target::Devices(ids)
        }
        (false, None, Some(labels)) => {
            let values = |texts: Vec<Text>| {
                let mut values: Vec<_> = texts.into_iter().map(|text| text.value).collect();
                values.sort();
                values.dedup();
                values
            };
            Target::Labels(labels.into_iter().map(|(key, texts)| (key.value, values(texts))).collect())
        }
        _ => {
            problems.report(spot, "a target is one of: all = true, devices = [\"…\"], labels = { site = [\"north\"] }");
            return None;
        }
    };
    if target.is_empty() {
        problems.report(spot, "this target can name no device");
    }
    Some(target)
}

const LAST: &str = "last-built.toml";

/// The sequence number that was built last in `folder`; 0 if none was.
pub fn last_seq(folder: &Path) -> io::Result<u64> {
    let bytes = match read_inside(folder, Path::new(LAST), MAX_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        read => read?,
    };
    let problems = Problems::default();
    let page = super::fields::Page::new(LAST, String::from_utf8_lossy(&bytes).into_owned());
    let table = page.parse(&problems);
    let mut fields = Fields::of_page(&page, &table, LAST, &problems);
    let seq = fields.number("seq");
    match seq {
        Some(seq) if problems.is_empty() => Ok(seq.value),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{LAST} does not say seq = NUMBER; give --seq"))),
    }
}

/// Remembers `seq` for the next build; it never goes back.
pub fn remember_seq(folder: &Path, seq: u64) -> io::Result<()> {
    if last_seq(folder).is_ok_and(|last| last >= seq) {
        return Ok(());
    }
    let text = format!("# Written by `tidegate bundle build`: the next bundle is one more.\nseq = {seq}\n");
    disk::replace(&folder.join(LAST), text.as_bytes(), 0o644)
}
