//! YAML and JSON to one tree, within limits: depth, and nodes and bytes with every alias counted in full.
//!
//! A few hundred bytes of nested YAML aliases can stand for billions of nodes; here an alias costs what it
//! stands for, and the sums are bounded, so the tree is never larger than [`MAX_NODES`] and [`MAX_BYTES`] say. In both
//! a member that stands twice is refused: readers differ in which of the two counts, and one may be the `security`.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::MAX_DOCUMENT;

/// Deepest nesting.
pub(super) const MAX_DEPTH: usize = 100;
/// Most nodes, aliases counted as what they stand for.
pub(super) const MAX_NODES: usize = 500_000;

/// Most bytes of its texts, aliases counted likewise.
pub(super) const MAX_BYTES: usize = 4 * MAX_DOCUMENT as usize;

/// A document that is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    /// Larger than any real API description: cut it into several.
    #[error("larger than {MAX_DOCUMENT} bytes")]
    TooLarge,
    /// Save it as UTF-8.
    #[error("not UTF-8 text")]
    NotText,
    /// Not JSON, at this place.
    #[error("not JSON: {0}")]
    Json(String),
    /// Not YAML, at this place.
    #[error("not YAML: {0}")]
    Yaml(String),
    /// Nested deeper than any real API description.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It stands for more than any real API description holds; nested aliases do that.
    #[error("stands for more than {MAX_NODES} values")]
    TooManyNodes,
    /// Likewise; aliases of long texts do that.
    #[error("stands for more than {MAX_BYTES} bytes of text")]
    TooManyBytes,
    /// It holds nothing.
    #[error("empty")]
    Empty,
}

/// Reads `bytes`: JSON where they begin with `{`, else YAML, of which the first document counts.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, DocumentError> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(DocumentError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        // serde_json bounds depth at 128; every node costs a byte at least.
        return serde_json::from_str(text)
            .map(|Json(value)| value)
            .map_err(|error| DocumentError::Json(error.to_string()));
    }
    yaml(text)
}

fn twice(name: &str) -> String {
    format!("the key {name:?} stands twice in one mapping")
}

/// A value of JSON in which no member stands twice; `Value` itself would keep the last one and say nothing.
struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor).map(Self)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Json(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(twice(&name)));
            }
            let Json(value) = from.next_value()?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

/// What a value costs.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// A collection that is being filled.
struct Open {
    content: Content,
    anchor: usize,
    size: Size,
}

enum Content {
    List(Vec<Value>),
    Table { members: Map<String, Value>, key: Option<String> },
}

fn yaml(text: &str) -> Result<Value, DocumentError> {
    let mut stack: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Value, Size)> = HashMap::new();
    let mut spent = Spent::default();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| DocumentError::Yaml(error.to_string()))?;
        let (value, anchor, size) = match event {
            Event::SequenceStart(anchor, _) => {
                open(&mut stack, Content::List(Vec::new()), anchor)?;
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open(&mut stack, Content::Table { members: Map::new(), key: None }, anchor)?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = stack.pop().ok_or_else(|| DocumentError::Yaml("an end without a beginning".into()))?;
                spent.pay(1, 0)?;
                match open.content {
                    Content::List(items) => (Value::Array(items), open.anchor, open.size),
                    Content::Table { members, .. } => (Value::Object(members), open.anchor, open.size),
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let size = Size { nodes: 1, bytes: text.len(), depth: 0 };
                spent.pay(1, size.bytes)?;
                (scalar(&text, style), anchor, size)
            }
            Event::Alias(anchor) => {
                let unknown = || DocumentError::Yaml("an alias to something that is not complete".into());
                let (value, size) = anchors.get(&anchor).ok_or_else(unknown)?;
                // Paid and measured before the copy is made.
                spent.pay(size.nodes, size.bytes)?;
                if stack.len() + size.depth > MAX_DEPTH {
                    return Err(DocumentError::TooDeep);
                }
                (value.clone(), 0, *size)
            }
            _ => continue,
        };
        if anchor != 0 {
            spent.pay(size.nodes, size.bytes)?;
            anchors.insert(anchor, (value.clone(), size));
        }
        match stack.last_mut() {
            None => return Ok(value),
            Some(open) => open.put(value, size)?,
        }
    }
    Err(DocumentError::Empty)
}

impl Open {
    fn put(&mut self, value: Value, size: Size) -> Result<(), DocumentError> {
        self.size.nodes += size.nodes;
        self.size.bytes += size.bytes;
        self.size.depth = self.size.depth.max(size.depth + 1);
        match &mut self.content {
            Content::List(items) => items.push(value),
            Content::Table { members, key } => match key.take() {
                None => *key = Some(as_key(value)?),
                Some(name) if members.contains_key(&name) => {
                    return Err(DocumentError::Yaml(twice(&name)));
                }
                Some(name) => {
                    members.insert(name, value);
                }
            },
        }
        Ok(())
    }
}

/// What the tree costs so far.
#[derive(Default)]
struct Spent {
    nodes: usize,
    bytes: usize,
}

impl Spent {
    fn pay(&mut self, nodes: usize, bytes: usize) -> Result<(), DocumentError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES {
            return Err(DocumentError::TooManyNodes);
        }
        if self.bytes > MAX_BYTES { Err(DocumentError::TooManyBytes) } else { Ok(()) }
    }
}

fn open(stack: &mut Vec<Open>, content: Content, anchor: usize) -> Result<(), DocumentError> {
    if stack.len() >= MAX_DEPTH {
        return Err(DocumentError::TooDeep);
    }
    stack.push(Open { content, anchor, size: Size { nodes: 1, bytes: 0, depth: 1 } });
    Ok(())
}

/// Only what an API description needs: true, false, nothing, and whole numbers where they are written as JSON writes
/// them; the rest stays text, so that the version 1.10 is not the number 1.1, and 007 keeps its zeros.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        _ => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => number.into(),
            _ => Value::String(text.to_owned()),
        },
    }
}

fn as_key(value: Value) -> Result<String, DocumentError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(DocumentError::Yaml("a key that is not a text".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        parse(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn the_same_document_in_yaml_and_in_json_is_the_same_tree() {
        let yaml = "{a: 1, b: [true, -20, ~, x], c: {'1': '2', 200: ok}}";
        let json = r#"{"a": 1, "b": [true, -20, null, "x"], "c": {"1": "2", "200": "ok"}}"#;
        // Flow YAML begins as JSON does, so it is read behind a comment.
        assert_eq!(parse(format!("# YAML\n{yaml}").as_bytes()), parse(json.as_bytes()));
        let kept = [("1.10", "1.10"), ("007", "007"), ("+1", "+1"), ("1_000", "1_000"), ("0x1f", "0x1f"), ("-0", "-0")];
        for (written, text) in kept {
            assert_eq!(parse(format!("a: {written}").as_bytes()), Ok(serde_json::json!({ "a": text })));
        }
    }

    #[test]
    fn an_alias_costs_the_bytes_that_it_stands_for() {
        let aliases =
            |long: usize, count: usize| format!("a: &x {}\nb: [{}]", "y".repeat(long), vec!["*x"; count].join(", "));
        assert!(parse(aliases(1_000_000, 10).as_bytes()).is_ok(), "the control");
        assert!(parse(aliases(10, 5_000).as_bytes()).is_ok(), "as many of a short one");
        assert_eq!(parse(aliases(1_000_000, 5_000).as_bytes()), Err(DocumentError::TooManyBytes));
        let keys = format!("a: &x {}\nb: [{}]", "y".repeat(1_000_000), vec!["{*x : 1}"; 5_000].join(", "));
        assert_eq!(parse(keys.as_bytes()), Err(DocumentError::TooManyBytes));
    }

    #[test]
    fn a_member_that_stands_twice_is_refused_in_both_forms_at_any_depth() {
        for text in [
            "a: 1\na: 2",
            "b: [{a: 1, a: 2}]",
            "1: x\n'1': y",
            r#"{"a": 1, "a": 2}"#,
            r#"{"b": [{"a": 1, "a": 2}]}"#,
            r#"{"a": [], "\u0061": []}"#,
        ] {
            assert!(told(text).contains("stands twice in one mapping"), "{text}: {}", told(text));
        }
    }
}
