//! JSON of headers and claims, read once and strictly.
//!
//! serde_json reads the syntax; this adds what it lets pass: a member said twice in one object, at any depth and
//! however its name is escaped, more members than [`Limits`] say, and more depth. Text without escapes is borrowed.
//! Called by [`super::jws`] and [`super::verify`]; never on more than a token's length of bytes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// How much one text may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Objects and arrays within each other; the outermost counts.
    pub(super) depth: u8,
    /// Members of any one object.
    pub(super) members: usize,
}

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not JSON, not UTF-8, not an object, or something trails.
    Syntax,
    /// Deeper, or with more members, than the limits.
    TooDeep,
    /// An object has two members of one name.
    Duplicate,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Not a whole number, or beyond `i64`.
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Object<'a>),
}

/// Members in the order of the text; no two share a name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Object<'a> {
    /// Reads a text that must be one object.
    pub(super) fn read(text: &'a [u8], limits: Limits) -> Result<Self, Fault> {
        let fault = Cell::new(Fault::Syntax);
        let mut json = serde_json::Deserializer::from_slice(text);
        let seed = Seed { limits, fault: &fault };
        let value = seed.deserialize(&mut json).map_err(|_| fault.get())?;
        json.end().map_err(|_| Fault::Syntax)?;
        let Value::Object(object) = value else { return Err(Fault::Syntax) };
        Ok(object)
    }

    /// The member of that name.
    pub(super) fn find(&self, name: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// Every member's name.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }
}

/// Reads one value; `fault` carries out what serde's errors cannot.
#[derive(Clone, Copy)]
struct Seed<'f> {
    limits: Limits,
    fault: &'f Cell<Fault>,
}

impl Seed<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.limits.depth.checked_sub(1).ok_or_else(|| self.fail(Fault::TooDeep))?;
        Ok(Self { limits: Limits { depth, ..self.limits }, ..self })
    }

    fn fail<E: serde::de::Error>(self, fault: Fault) -> E {
        self.fault.set(fault);
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value<'de>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value<'de>, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = from.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value<'de>, A::Error> {
        let inner = self.inner()?;
        let mut object = Object::default();
        while let Some(name) = from.next_key_seed(Name)? {
            if object.find(&name).is_some() {
                return Err(self.fail(Fault::Duplicate));
            }
            if object.0.len() == self.limits.members {
                return Err(self.fail(Fault::TooDeep));
            }
            let value = from.next_value_seed(inner)?;
            object.0.push((name, value));
        }
        Ok(Value::Object(object))
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { depth: 3, members: 4 };

    fn read(text: &str) -> Result<Object<'_>, Fault> {
        Object::read(text.as_bytes(), LIMITS)
    }

    #[test]
    fn a_member_said_twice_is_refused_at_any_depth_and_however_it_is_escaped() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":{"exp":1,"\u0065xp":2}}"#,
            r#"{"b":[{"x":1,"x":1}]}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(read(text), Err(Fault::Duplicate), "{text}");
        }
        assert!(read(r#"{"a":{"a":1},"A":2,"b":"a","c":["a","a"]}"#).is_ok());
    }

    #[test]
    fn depth_and_members_have_limits() {
        assert!(read(r#"{"a":[{}]}"#).is_ok());
        assert_eq!(read(r#"{"a":[{"b":{}}]}"#), Err(Fault::TooDeep));
        assert_eq!(read(r#"{"a":[[[]]]}"#), Err(Fault::TooDeep));
        assert!(read(r#"{"a":1,"b":2,"c":3,"d":4}"#).is_ok());
        assert_eq!(read(r#"{"a":1,"b":2,"c":3,"d":4,"e":5}"#), Err(Fault::TooDeep));
        let deep = format!("{}{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
        assert_eq!(read(&deep), Err(Fault::TooDeep), "no stack is used up");
    }

    #[test]
    fn what_is_not_one_object_of_json_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "1",
            "\"a\"",
            "null",
            "{}{}",
            "{} x",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "\u{feff}{}",
            r#"{"a":01}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":+1}"#,
        ] {
            assert_eq!(read(text), Err(Fault::Syntax), "{text}");
        }
        assert_eq!(Object::read(b"{\"a\":\"\xff\"}", LIMITS), Err(Fault::Syntax));
        assert_eq!(Object::read(b"{\"\xc0\x80\":1}", LIMITS), Err(Fault::Syntax));
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let object = read(r#" { "a" : "plain" , "b" : "tab\t" } "#).expect("white space is JSON");
        assert!(matches!(object.find("a"), Some(Value::Text(Cow::Borrowed("plain")))));
        assert!(matches!(object.find("b"), Some(Value::Text(Cow::Owned(text))) if text == "tab\t"));
        assert_eq!(object.names().collect::<Vec<_>>(), ["a", "b"]);
    }
}
