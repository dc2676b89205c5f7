//! `issuers/*.toml`: who may sign tokens, with pinned public keys as PEM, JWK or JWKS, inline or by file.

use std::path::Path;

use super::fields::Fields;
use super::keys::{self, NotAKey};
use super::pages::Pages;
use super::problem::{Located, Names, Problems, Spot, Text};
use crate::bundle::entry::{Claims, Issuer, Issuers, Key};
use crate::policy::issuer::{Alg, Profile};
use crate::token::keys::{KeyError, KeyTerms, MAX_KEY_FILE};
use crate::units::Span;

const PROFILES: [(&str, Profile); 2] = [("strict", Profile::Strict), ("wso2", Profile::Wso2)];
const TYPES: [&str; 2] = ["at+jwt", "jwt"];

/// The entry, sorted by name.
pub(super) fn read(pages: &Pages, folder: &Path, problems: &Problems, notes: &Problems) -> (Issuers, Names) {
    let (mut names, mut iss_names) = (Names::new("issuer"), Names::new("iss"));
    let mut issuers = Issuers::default();
    for page in pages.under("issuers") {
        let table = page.parse(problems);
        let mut fields = Fields::of_page(page, &table, "an issuer", problems);
        let stem = page.name().trim_start_matches("issuers/").trim_end_matches(".toml");
        let name = fields.text("name").unwrap_or_else(|| Located { value: stem.into(), spot: Spot::file(page.name()) });
        let iss = fields.needed("iss");
        let issuer = issuer(fields, &name.value, iss.as_ref(), folder, problems, notes);
        let defined = names.define(&name, problems);
        if let (Some(issuer), Some(iss)) = (issuer, iss)
            && iss_names.define(&iss, problems)
            && defined
        {
            issuers.issuers.push(issuer);
        }
    }
    issuers.issuers.sort_by(|a, b| a.name.cmp(&b.name));
    (issuers, names)
}

fn issuer(
    mut fields: Fields<'_>,
    name: &str,
    iss: Option<&Text>,
    folder: &Path,
    problems: &Problems,
    notes: &Problems,
) -> Option<Issuer> {
    let profile = fields.word("profile", &PROFILES).unwrap_or_default();
    let audiences = fields.texts("audiences");
    if profile == Profile::Strict && audiences.as_ref().is_none_or(Vec::is_empty) {
        let message = "a strict issuer needs audiences = [\"…\"]: without one, tokens made for anybody would be let in";
        problems.report(fields.spot(), message);
    }
    let types = types(&mut fields, problems);
    let absent_type = fields.flag("absent_type", false);
    let allow_demo_keys = fields.flag("allow_demo_keys", false);
    if allow_demo_keys {
        notes.report(fields.spot(), "allow_demo_keys: anybody may be able to sign tokens of this issuer");
    }
    let max_lifetime = fields.parsed::<Span>("max_lifetime").map(|span| span.value.0.as_secs());
    let application = fields.texts("application_claims").unwrap_or_default();
    let scope = fields.text("scope_claim").map_or_else(|| "scope".to_owned(), |text| text.value);
    let mut keys = Vec::new();
    let has_keys = fields.has("keys");
    for row in fields.rows("keys", "a key") {
        keys.extend(pinned(row, folder, allow_demo_keys, problems, notes));
    }
    if !has_keys {
        problems.report(fields.spot(), "an issuer needs at least one [[keys]] with pem, jwks or file");
    }
    fields.finish();
    let values = |texts: Vec<Text>| texts.into_iter().map(|text| text.value).collect::<Vec<_>>();
    let mut audiences = values(audiences.unwrap_or_default());
    audiences.sort();
    audiences.dedup();
    keys.sort_by(|a: &Key, b| {
        (&a.kid, &a.x5t, &a.alg, &a.jwk.x, &a.jwk.n).cmp(&(&b.kid, &b.x5t, &b.alg, &b.jwk.x, &b.jwk.n))
    });
    Some(Issuer {
        absent_type,
        allow_demo_keys,
        audiences,
        claims: Claims { application: values(application), scope },
        iss: iss?.value.clone(),
        keys,
        max_lifetime_s: max_lifetime,
        name: name.to_owned(),
        profile: profile.name().to_owned(),
        types,
    })
}

fn types(fields: &mut Fields<'_>, problems: &Problems) -> Vec<String> {
    let Some(texts) = fields.texts("types") else { return TYPES.map(str::to_owned).to_vec() };
    let mut types = Vec::new();
    for text in texts {
        let lower = text.value.to_ascii_lowercase();
        if !TYPES.contains(&lower.as_str()) {
            problems.unknown(&text.spot, "type", &text.value, TYPES);
        }
        types.push(lower);
    }
    types.sort();
    types.dedup();
    types
}

/// The keys of one `[[keys]]`: a JWKS has several.
fn pinned(
    mut row: Fields<'_>,
    folder: &Path,
    allow_demo_keys: bool,
    problems: &Problems,
    notes: &Problems,
) -> Vec<Key> {
    let (kid, x5t) = (row.text("kid"), row.text("x5t"));
    let algs: Vec<(&'static str, Alg)> = Alg::ALL.into_iter().map(|alg| (alg.name(), alg)).collect();
    let alg = row.word("alg", &algs);
    let (pem, jwks, file) = (row.text("pem"), row.text("jwks"), row.text("file"));
    let spot = row.spot().clone();
    row.finish();
    let (text, spot) = match (pem, jwks, file) {
        (Some(text), None, None) | (None, Some(text), None) => (Ok(text.value.into_bytes()), text.spot),
        (None, None, Some(file)) => (keys::named_file(folder, &file.value, MAX_KEY_FILE as u64), file.spot),
        _ => {
            problems.report(&spot, "a key is one of: pem = '''…''', jwks = '''…''', file = \"issuers/NAME.pem\"");
            return Vec::new();
        }
    };
    let terms = KeyTerms { alg, allow_demo_keys };
    let mut keys = match text.and_then(|text| Ok(keys::pinned_keys(&text, terms)?)) {
        Ok((keys, left_out)) => {
            if left_out > 0 {
                notes.report(&spot, format!("{left_out} key(s) for encryption are left out"));
            }
            keys
        }
        Err(NotAKey::Key(error)) => {
            problems.report(&spot, format!("{}: {error}{}", error.name(), advice(error)));
            return Vec::new();
        }
        Err(error) => {
            problems.report(&spot, error.to_string());
            return Vec::new();
        }
    };
    if keys.len() > 1 && (kid.is_some() || x5t.is_some()) {
        problems.report(&spot, "kid and x5t name one key, and this is a set: give the keys of the set their own kid");
    } else if let [key] = &mut *keys {
        key.kid = kid.map(|kid| kid.value).or(key.kid.take());
        key.x5t = x5t.map(|x5t| x5t.value);
    }
    keys
}

fn advice(error: KeyError) -> &'static str {
    match error {
        KeyError::PrivateKeyInBundle => "; pin the public half, and consider this private key compromised",
        KeyError::DemoKey => "; say allow_demo_keys = true only in a test policy",
        _ => "",
    }
}
