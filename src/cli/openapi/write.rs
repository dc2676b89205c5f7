//! An import as a file of `apis/`.

use std::fmt::Write as _;

use super::Import;
use crate::policy::Auth;

/// The file's text. `origin` is where it came from, for people.
#[must_use]
pub(in crate::cli) fn write(import: &Import, origin: &str, issuers: &[String]) -> String {
    let mut text =
        format!("# Imported from {}. What each field means: the example in `tidegate init`.\n\n", one_line(origin));
    let mut field = |name: &str, value: String| {
        let _ = writeln!(text, "{name} = {value}");
    };
    field("name", quoted(&import.name));
    field("version", quoted(&import.version));
    field("base_path", quoted(&import.base_path));
    field("upstream", quoted(&import.upstream));
    field("issuers", list(issuers));
    if let Some(header) = &import.token_header {
        field("token_header", quoted(header));
    }
    if let Some(plan) = &import.plan {
        field("plan", quoted(plan));
    }
    for route in &import.routes {
        let methods: Vec<_> = route.methods.iter().map(|method| method.name().to_owned()).collect();
        let _ = writeln!(text, "\n[[routes]]\npath = {}\nmethods = {}", quoted(&route.path), list(&methods));
        if route.auth == Auth::None {
            text.push_str("auth = \"none\"\n");
        }
        if !route.scopes.is_empty() {
            let _ = writeln!(text, "scopes = {}", list(&route.scopes));
        }
        for (name, value) in [("plan", &route.plan), ("upstream", &route.upstream)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{name} = {}", quoted(value));
            }
        }
    }
    for (name, upstream) in &import.upstreams {
        let _ = writeln!(text, "\n[upstreams.{}]\nendpoints = {}", quoted(name), list(&upstream.endpoints));
        if let Some(ms) = upstream.response_timeout_ms {
            let _ = writeln!(text, "response_timeout = \"{ms}ms\"");
        }
        if upstream.endpoints.iter().any(|url| url.starts_with("https:")) {
            text.push_str(
                "# An https endpoint needs the certificates that it must chain to:\n# ca = [\"apis/ca.pem\"]\n",
            );
        }
    }
    text
}

/// `Swagger Petstore 1.0` → `swagger-petstore-1.0`: a file and table name.
#[must_use]
pub(in crate::cli) fn slug(text: &str) -> String {
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c.to_ascii_lowercase() } else { '-' };
    let mapped: String = text.chars().map(plain).collect();
    let words: Vec<_> = mapped.split('-').filter(|word| !word.is_empty()).collect();
    let joined = words.join("-").trim_matches('.').to_owned();
    if joined.is_empty() { "api".to_owned() } else { joined.chars().take(64).collect() }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
