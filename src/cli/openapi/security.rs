//! `security`: which routes want a token, and with which scopes.
//!
//! ```text
//! the document   any of [ all of { scheme: all of [scope, …], … }, … ]
//! a route        open, or a token; with any of [ "scope scope …", … ], each all of its scopes
//! ```
//!
//! What a route cannot say is decided for the closed side, and each such decision is in the report:
//!
//! - Open is only what says so: an empty list, or one of nothing but `{}`. What is missing or malformed wants a token.
//! - An alternative without scopes does not lift the scopes of the others.
//! - Roles, and whatever else stands where scopes do, are asked for as scopes.
//! - A scheme that is not about tokens is a token here.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::read::text_of;
use crate::policy::Auth;

/// What one operation asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) auth: Auth,
    /// The alternatives: scopes that are wanted together have a space between them.
    pub(super) scopes: Vec<String>,
}

impl Asked {
    /// Nothing.
    pub(super) const OPEN: Self = Self { auth: Auth::None, scopes: Vec::new() };
    const ANY_TOKEN: Self = Self { auth: Auth::Token, scopes: Vec::new() };
}

/// Reads `security` of an operation, or of the document where the operation has none. `schemes` are the
/// definitions; `note` takes what a person should know.
pub(super) fn read(security: Option<&Value>, schemes: &Value, mut note: impl FnMut(String)) -> Asked {
    let alternatives = match security {
        Some(Value::Array(alternatives)) => alternatives,
        Some(_) => {
            note("security is not a list; a token is asked for".to_owned());
            return Asked::ANY_TOKEN;
        }
        None => {
            note("names no security; a token is asked for (auth = \"none\" opens it)".to_owned());
            return Asked::ANY_TOKEN;
        }
    };
    let tables: Vec<_> = alternatives.iter().filter_map(Value::as_object).collect();
    if tables.len() < alternatives.len() {
        note("security lists something that is not {scheme: [scopes]}; a token is asked for in its place".to_owned());
    } else if tables.iter().all(|table| table.is_empty()) {
        return Asked::OPEN;
    }
    if tables.iter().any(|table| table.is_empty()) {
        note("lets callers in with or without security; a token is asked for".to_owned());
    }
    let wanted: Vec<_> = tables.into_iter().map(|table| together(table, schemes, &mut note)).collect();
    any_of(&wanted, note)
}

/// The scopes that one alternative wants, all of them.
fn together(alternative: &Map<String, Value>, schemes: &Value, note: &mut impl FnMut(String)) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (name, wanted) in alternative {
        let (scopes, as_written) = scopes(wanted);
        let listed = if scopes.is_empty() { "none".to_owned() } else { list(&scopes) };
        if !as_written {
            note(format!("the scopes of {name} are not a list of names; read as {listed}"));
        }
        match schemes.get(name).map(kind) {
            None => {
                note(format!("names the security scheme {name}, which the document does not define; taken as a token"));
            }
            Some(Kind::Scoped) => {}
            Some(other) => {
                if let Kind::Other(what) = other {
                    note(format!("takes {what} ({name}); a token is asked for in its place"));
                }
                if !scopes.is_empty() {
                    note(format!("asks {name} for the roles {listed}; they are asked for as scopes"));
                }
            }
        }
        all.extend(scopes);
    }
    all
}

/// The names in a list; false where it is something else, of which the closed reading is given.
fn scopes(wanted: &Value) -> (BTreeSet<String>, bool) {
    let names = |texts: &[String]| texts.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect();
    match wanted {
        Value::Null => (BTreeSet::new(), false),
        Value::Array(items) => {
            let is_name = |item: &Value| {
                item.as_str().is_some_and(|text| !text.is_empty() && !text.contains(char::is_whitespace))
            };
            (names(&items.iter().map(text_of).collect::<Vec<_>>()), items.iter().all(is_name))
        }
        other => (names(&[text_of(other)]), false),
    }
}

/// What a route says that takes any of these alternatives.
fn any_of(alternatives: &[BTreeSet<String>], mut note: impl FnMut(String)) -> Asked {
    let mut asked = Asked::ANY_TOKEN;
    let with_scopes: BTreeSet<_> = alternatives.iter().filter(|scopes| !scopes.is_empty()).collect();
    if !with_scopes.is_empty() && alternatives.iter().any(BTreeSet::is_empty) {
        note("has an alternative without scopes; those of the others are asked for all the same".to_owned());
    }
    for scopes in &with_scopes {
        // Who holds all of these holds all of the smaller alternative too.
        if with_scopes.iter().any(|other| other.len() < scopes.len() && other.is_subset(scopes)) {
            continue;
        }
        asked.scopes.push(scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
    }
    asked.scopes.sort();
    asked
}

fn list(scopes: &BTreeSet<String>) -> String {
    scopes.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

enum Kind {
    /// OAuth 2 or OpenID Connect: tokens with scopes.
    Scoped,
    /// A token; since OpenAPI 3.1, with roles.
    Bearer,
    Other(&'static str),
}

fn kind(scheme: &Value) -> Kind {
    let text = |name| scheme.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("scheme")) {
        ("oauth2" | "openIdConnect", _) => Kind::Scoped,
        ("http", scheme) if scheme.eq_ignore_ascii_case("bearer") => Kind::Bearer,
        ("apiKey", _) => Kind::Other("an API key"),
        ("basic", _) => Kind::Other("a password"),
        ("http", scheme) if scheme.eq_ignore_ascii_case("basic") => Kind::Other("a password"),
        ("mutualTLS", _) => Kind::Other("a client certificate"),
        _ => Kind::Other("a scheme of another kind"),
    }
}
