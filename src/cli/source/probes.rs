//! `probes.toml`: `[probes.NAME]`, requests whose verdicts the author is sure of.

use super::fields::Fields;
use super::pages::Pages;
use super::problem::{Names, Problems};
use crate::bundle::entry::{Expected, HeaderField, Probe, Probes};

/// The probes, by name.
pub(super) fn read(pages: &Pages, problems: &Problems) -> Probes {
    let mut probes = Vec::new();
    let Some(page) = pages.page("probes.toml") else { return Probes { probes } };
    let table = page.parse(problems);
    let mut file = Fields::of_page(page, &table, "probes.toml", problems);
    let mut names = Names::new("probe");
    for (name, mut fields) in file.tables("probes", "a probe") {
        let (method, path, result) = (fields.needed("method"), fields.needed("path"), fields.needed("expect"));
        if !fields.has("at") {
            problems.report(fields.spot(), "a probe needs at = 2026-01-31T12:00:00Z: when it is judged");
        }
        let at = fields.moment("at");
        let optional = |text: Option<super::problem::Text>| text.map(|text| text.value);
        let (host, token) = (optional(fields.text("host")), optional(fields.text("token")));
        let (route, application) = (optional(fields.text("route")), optional(fields.text("application")));
        let mut headers: Vec<_> =
            token.iter().map(|token| ("authorization".to_owned(), format!("Bearer {token}"))).collect();
        for (name, values) in fields.lists("headers") {
            let name = name.value.to_ascii_lowercase();
            headers.extend(values.into_iter().map(|value| (name.clone(), value.value)));
        }
        fields.finish();
        let (Some(method), Some(path), Some(result), Some(at)) = (method, path, result, at) else { continue };
        let Ok(at) = u64::try_from(at) else {
            problems.report(&name.spot, "at must not lie before 1970");
            continue;
        };
        if names.define(&name, problems) {
            let headers = headers.into_iter().map(|(name, value)| HeaderField { name, value }).collect();
            let expect = Expected { application, result: result.value, route };
            let (method, path, host) = (method.value, path.value, host.unwrap_or_default());
            probes.push(Probe { at, expect, headers, host, method, name: name.value, path });
        }
    }
    file.finish();
    probes.sort_by(|a, b| a.name.cmp(&b.name));
    Probes { probes }
}
