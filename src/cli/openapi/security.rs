//! `security`: which routes want a token, and with which scopes.
//!
//! The document gives alternatives, each of one or more schemes; a route wants a token with one of its scopes,
//! or none. Where the document could be read as more open than that, it is read as closed, and the report says so.

use serde_json::Value;

use crate::policy::Auth;

/// What one operation asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) auth: Auth,
    pub(super) scopes: Vec<String>,
}

/// Reads `security` of an operation, or of the document where the operation has none. `schemes` are the
/// definitions; `note` takes what a person should know.
pub(super) fn read(security: Option<&Value>, schemes: &Value, mut note: impl FnMut(String)) -> Asked {
    let closed = |scopes| Asked { auth: Auth::Token, scopes };
    let Some(alternatives) = security.and_then(Value::as_array) else {
        note("names no security; a token is asked for (auth = \"none\" opens it)".to_owned());
        return closed(Vec::new());
    };
    let alternatives: Vec<_> = alternatives.iter().filter_map(Value::as_object).collect();
    if alternatives.iter().all(|schemes| schemes.is_empty()) {
        return Asked { auth: Auth::None, scopes: Vec::new() };
    }
    if alternatives.iter().any(|schemes| schemes.is_empty()) {
        note("lets callers in with or without security; a token is asked for".to_owned());
    }
    let mut scopes: Vec<String> = Vec::new();
    let mut free = false;
    for (name, wanted) in alternatives.iter().flat_map(|schemes| schemes.iter()) {
        let wanted: Vec<_> = wanted.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match kind(schemes.get(name)) {
            Kind::Scoped => {
                free |= wanted.is_empty();
                if wanted.len() > 1 {
                    let all = wanted.join(", ");
                    note(format!("asks for all of the scopes {all}; a route is open to a token with one of them"));
                }
                scopes.extend(wanted.into_iter().map(str::to_owned));
            }
            Kind::Bearer => {}
            Kind::Other(what) => note(format!("takes {what} ({name}); a token is asked for in its place")),
            Kind::Undefined => {
                note(format!("names the security scheme {name}, which the document does not define; taken as a token"));
                free |= wanted.is_empty();
                scopes.extend(wanted.into_iter().map(str::to_owned));
            }
        }
    }
    if free && !scopes.is_empty() {
        note("has an alternative without scopes; no scope is asked for".to_owned());
        scopes.clear();
    }
    scopes.sort();
    scopes.dedup();
    closed(scopes)
}

enum Kind {
    /// OAuth 2 or OpenID Connect: tokens with scopes.
    Scoped,
    /// A token, without scopes.
    Bearer,
    Other(&'static str),
    Undefined,
}

fn kind(scheme: Option<&Value>) -> Kind {
    let text = |name| scheme.and_then(|scheme| scheme.get(name)).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("scheme")) {
        _ if scheme.is_none() => Kind::Undefined,
        ("oauth2" | "openIdConnect", _) => Kind::Scoped,
        ("http", scheme) if scheme.eq_ignore_ascii_case("bearer") => Kind::Bearer,
        ("apiKey", _) => Kind::Other("an API key"),
        ("basic", _) => Kind::Other("a password"),
        ("http", scheme) if scheme.eq_ignore_ascii_case("basic") => Kind::Other("a password"),
        ("mutualTLS", _) => Kind::Other("a client certificate"),
        _ => Kind::Other("a scheme of another kind"),
    }
}
