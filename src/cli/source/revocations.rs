//! `revocations.toml`: `[[revoked]]` names single tokens, subjects and clients; `[[cut_offs]]` ends all that was
//! issued before a moment.

use super::fields::Fields;
use super::pages::Pages;
use super::problem::{Names, Problems, Text};
use crate::bundle::entry::{CutOff, CutOffKind, HashedId, Issuers, Revocations};
use crate::policy::revocations::{Kind, RevokedId};

/// The entry, sorted, nothing twice.
pub(super) fn read(pages: &Pages, issuers: &Issuers, names: &Names, problems: &Problems) -> Revocations {
    let mut revocations = Revocations::default();
    let Some(page) = pages.page("revocations.toml") else { return revocations };
    let table = page.parse(problems);
    let mut file = Fields::of_page(page, &table, "revocations.toml", problems);
    let iss = |name: Text| {
        let known = names.check(&name, problems);
        known.then(|| issuers.issuers.iter().find(|i| i.name == name.value).map(|i| i.iss.clone())).flatten()
    };
    for mut fields in file.rows("revoked", "a revoked id") {
        let issuer = fields.needed("issuer").and_then(iss);
        let named = one_of(&mut fields, &[("token", Kind::Jti), ("subject", Kind::Sub), ("client", Kind::Client)]);
        let until = fields.moment("until");
        fields.finish();
        if let (Some(issuer), Some((kind, value))) = (issuer, named) {
            let hash = RevokedId::of(kind, &issuer, &value).0;
            revocations.ids.push(HashedId { hash, until: until.unwrap_or(i64::MAX) });
        }
    }
    for mut fields in file.rows("cut_offs", "a cut-off") {
        let issuer = fields.needed("issuer").and_then(iss);
        let kinds = [("subject", CutOffKind::Subject), ("client", CutOffKind::Client), ("key", CutOffKind::Key)];
        let named = one_of(&mut fields, &kinds);
        if !fields.has("before") {
            problems.report(fields.spot(), "a cut-off needs before = 2026-01-31T12:00:00Z");
        }
        let before = fields.moment("before");
        fields.finish();
        if let (Some(issuer), Some((kind, value)), Some(before)) = (issuer, named, before) {
            revocations.cut_offs.push(CutOff { kind, issuer, value, before });
        }
    }
    file.finish();
    in_order(&mut revocations);
    revocations
}

/// Sorted, nothing twice.
pub(in crate::cli) fn in_order(revocations: &mut Revocations) {
    // Of several rows for one id the one that takes most away counts.
    revocations.ids.sort_by(|a, b| a.hash.cmp(&b.hash).then(b.until.cmp(&a.until)));
    revocations.ids.dedup_by_key(|row| row.hash);
    let place = |row: &CutOff| (row.kind, row.issuer.clone(), row.value.clone());
    revocations.cut_offs.sort_by(|a, b| place(a).cmp(&place(b)).then(b.before.cmp(&a.before)));
    revocations.cut_offs.dedup_by_key(|row| place(row));
}

/// The one field of several that is there.
fn one_of<K: Copy>(fields: &mut Fields<'_>, kinds: &[(&'static str, K)]) -> Option<(K, String)> {
    let found: Vec<(K, Text)> =
        kinds.iter().filter_map(|(name, kind)| fields.text(name).map(|text| (*kind, text))).collect();
    match <[(K, Text); 1]>::try_from(found) {
        Ok([(kind, text)]) if !text.value.is_empty() => Some((kind, text.value)),
        _ => {
            let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
            fields.problems().report(fields.spot(), format!("name exactly one of: {}", names.join(", ")));
            None
        }
    }
}
