//! Canonical JSON: one byte form for one value, so that a signature covers the meaning.
//!
//! Sorted ASCII keys, no white space, integers of at most ±2^53, no null, the shortest string escapes
//! (those of RFC 8785). Reading is: parse, write again, compare. Pure; called by manifest, root and journal.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest integer that every JSON reader keeps exactly.
pub const MAX_INTEGER: i64 = 1 << 53;

/// Why bytes are not a canonical document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// Not JSON: the document was cut or edited; build it again.
    #[error("not JSON")]
    NotJson,
    /// The value has another canonical form, or none: build it with the tool.
    #[error("not in canonical form: {0}")]
    Form(&'static str),
}

/// The value of a canonical document.
pub fn read(bytes: &[u8]) -> Result<Value, NotCanonical> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| NotCanonical::NotJson)?;
    if write_value(&value)? != bytes {
        return Err(NotCanonical::Form("order, white space, escapes or a repeated key"));
    }
    Ok(value)
}

/// The canonical bytes of anything that serialises to JSON. Fails where it holds a fraction, a null,
/// an integer beyond [`MAX_INTEGER`] or a key that is not ASCII.
pub fn write<T: Serialize>(document: &T) -> Result<Vec<u8>, NotCanonical> {
    write_value(&serde_json::to_value(document).map_err(|_| NotCanonical::NotJson)?)
}

/// A typed document from a canonical value; the message says which member is wrong.
pub fn typed<T: Serialize + DeserializeOwned>(value: Value) -> Result<T, String> {
    let document = T::deserialize(&value).map_err(|error| error.to_string())?;
    // A list of the members' values would do too, and be a second form of the same.
    if serde_json::to_value(&document).is_ok_and(|written| written == value) {
        return Ok(document);
    }
    Err("members without their names".into())
}

fn write_value(value: &Value) -> Result<Vec<u8>, NotCanonical> {
    let mut out = Vec::new();
    put(value, &mut out)?;
    Ok(out)
}

fn put(value: &Value, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    match value {
        Value::Null => return Err(NotCanonical::Form("null; leave the member out")),
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Number(number) => {
            let integer = number.as_i64().filter(|n| (-MAX_INTEGER..=MAX_INTEGER).contains(n));
            let integer = integer.ok_or(NotCanonical::Form("a number that is not an integer of at most 2^53"))?;
            out.extend_from_slice(integer.to_string().as_bytes());
        }
        Value::String(text) => put_text(text, out)?,
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                put(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // Sorted here and not left to the map: a dependency's feature can change the map's order.
            let mut sorted = BTreeMap::new();
            sorted.extend(members.iter().map(|(key, member)| (key.as_str(), member)));
            out.push(b'{');
            for (at, (key, member)) in sorted.into_iter().enumerate() {
                if !key.is_ascii() {
                    return Err(NotCanonical::Form("a key that is not ASCII"));
                }
                if at > 0 {
                    out.push(b',');
                }
                put_text(key, out)?;
                out.push(b':');
                put(member, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    serde_json::to_writer(out, text).map_err(|_| NotCanonical::NotJson)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Permit;
    use super::*;

    #[test]
    fn a_value_has_exactly_one_byte_form() {
        let canonical = r#"{"a":[1,-2,true],"b":{"x":"é\n\u0001"}}"#.as_bytes();
        assert_eq!(read(canonical).map(|value| write(&value)), Ok(Ok(canonical.to_vec())));
        for other in [
            r#"{ "a":1}"#,
            r#"{"a":1} "#,
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":-0}"#,
            r#"{"a":01}"#,
            r#"{"a":null}"#,
            r#"{"a":9007199254740993}"#,
            r#"{"a":18446744073709551615}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\/"}"#,
            r#"{"é":1}"#,
            r#"{"a":1}{"a":1}"#,
            "",
            "\u{feff}{}",
        ] {
            assert!(read(other.as_bytes()).is_err(), "{other}");
        }
        assert!(read(&[b'"', 0xff, b'"']).is_err(), "not UTF-8");
        assert!(read("[".repeat(100_000).as_bytes()).is_err(), "depth is bounded");
    }

    #[test]
    fn members_without_their_names_are_no_document() {
        let as_written = |text: &str| typed::<Permit>(read(text.as_bytes()).expect("canonical"));
        let (from, to) = ("1".repeat(64), "2".repeat(64));
        assert!(as_written(&format!(r#"{{"from":"{from}","to":"{to}"}}"#)).is_ok());
        assert!(as_written(&format!(r#"["{from}","{to}"]"#)).is_err(), "another reader knows objects only");
    }
}
