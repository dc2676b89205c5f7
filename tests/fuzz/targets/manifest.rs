//! Canonical JSON, and the manifest that is written in it.

use serde_json::Value;
use tidegate::bundle::canonical::{self, NotCanonical};
use tidegate::bundle::container::{BundleType, MAX_PAYLOAD};
use tidegate::bundle::manifest::Manifest;
use tidegate::bundle::{EntryKind, manifest};

use super::world;

const TYPES: [BundleType; 4] = [BundleType::Policy, BundleType::Revocation, BundleType::Permit, BundleType::Release];

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    one_form(bytes, canonical::read);
    let taken: Vec<_> = TYPES.iter().filter_map(|kind| Manifest::parse(bytes, *kind).ok()).collect();
    assert!(taken.len() <= 1, "one manifest is of two types");
    for manifest in &taken {
        let value = canonical::read(bytes).expect("a manifest is canonical");
        limits(manifest, &value);
        entries(manifest, &value);
    }
    !taken.is_empty()
}

/// What `read` takes has no other form, and is written as it was read; what is canonical no more is refused.
pub fn one_form(bytes: &[u8], read: impl Fn(&[u8]) -> Result<Value, NotCanonical>) {
    let Ok(loose) = serde_json::from_slice::<Value>(bytes) else {
        assert!(read(bytes).is_err(), "what is not JSON was read");
        return;
    };
    let Ok(form) = canonical::write(&loose) else {
        assert!(read(bytes).is_err(), "a value without a form was read");
        return;
    };
    assert_eq!(form, by_hand(&loose).into_bytes(), "the writer has another form than RFC 8785");
    assert_eq!(read(&form).as_ref(), Ok(&loose), "the form of a value is not read as that value");
    assert_eq!(read(bytes).is_ok(), form == bytes, "a second form of one value was read");
    let text = String::from_utf8(form.clone()).expect("JSON is UTF-8");
    for other in [
        format!(" {text}"),
        format!("{text}\n"),
        text.replacen(':', ": ", 1),
        text.replacen('{', r#"{"":0,"":0,"#, 1),
        text.replacen("\"a", "\"\\u0061", 1),
        serde_json::to_string_pretty(&loose).expect("it is a value"),
    ] {
        assert!(other == text || read(other.as_bytes()).as_ref() != Ok(&loose), "a second form was read: {other}");
    }
}

/// The form of a value that has one, written a second time.
fn by_hand(value: &Value) -> String {
    let text = |text: &str| {
        let mut out = String::from('"');
        for letter in text.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{8}' => out.push_str("\\b"),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\u{c}' => out.push_str("\\f"),
                '\r' => out.push_str("\\r"),
                '\0'..' ' => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
                _ => out.push(letter),
            }
        }
        out + "\""
    };
    match value {
        Value::Null => panic!("null has no form"),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => {
            let number = number.as_i64().expect("an integer");
            assert!(number.unsigned_abs() <= 1 << 53, "an integer that not every reader keeps");
            number.to_string()
        }
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(by_hand).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            assert!(members.keys().all(|key| key.is_ascii()), "a key that is not ASCII");
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let members: Vec<_> =
                members.iter().map(|(key, value)| format!("{}:{}", text(key), by_hand(value))).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// A manifest that is taken says what its JSON says, within the limits of BUNDLE.md.
fn limits(manifest: &Manifest, value: &Value) {
    let members = value.as_object().expect("an object");
    let known = [
        "author",
        "base",
        "deployment",
        "entries",
        "epoch",
        "expires_at",
        "issued_at",
        "permit",
        "requires",
        "root_version",
        "security_floor",
        "seq",
        "target",
        "type",
    ];
    assert!(members.keys().all(|name| known.contains(&&**name)), "an unknown member was taken");
    let number = |name: &str| value[name].as_u64();
    assert_eq!(value["type"], manifest.kind().name());
    assert_eq!((number("seq"), number("epoch")), (Some(manifest.seq()), Some(manifest.epoch())));
    assert_eq!(number("root_version"), Some(manifest.root_version()));
    assert_eq!(number("security_floor"), Some(manifest.security_floor()));
    assert_eq!(value["deployment"], manifest.deployment());
    assert_eq!(value["issued_at"], manifest.issued_at());
    assert_eq!(value.get("expires_at").and_then(Value::as_i64), manifest.expires_at());
    assert_eq!(value.get("permit").is_some(), manifest.kind() == BundleType::Permit);
    assert!(manifest.seq() >= 1);
    for at in [Some(manifest.issued_at()), manifest.expires_at()].into_iter().flatten() {
        assert!((0..=manifest::LAST_SECOND).contains(&at));
    }
    let name = |text: &str| {
        let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        (1..=64).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with(['.', '_', '-'])
    };
    assert!(name(manifest.deployment()));
    let requires = value["requires"].as_array().expect("a list");
    assert!(requires.len() <= 16 && requires.iter().all(|feature| feature.as_str().is_some_and(name)));
    for text in value["author"].as_object().expect("an object").values() {
        assert!(text.as_str().is_some_and(|text| text.len() <= 256 && !text.chars().any(char::is_control)));
    }
    let target = value["target"].as_object().expect("an object");
    assert!(target.len() <= 1);
    assert!(target.get("devices").and_then(Value::as_array).is_none_or(|ids| ids.len() <= 1_024));
    assert!(target.get("labels").and_then(Value::as_object).is_none_or(|labels| labels.len() <= 16));
    let named = manifest.target.names(&world::device());
    assert!(!named || !manifest.target.is_empty(), "an empty target names a device");
}

/// The entries lie back to back and fill exactly the payload that they add up to.
fn entries(manifest: &Manifest, value: &Value) {
    let forms = value["entries"].as_array().expect("a list");
    let sum: u128 = forms.iter().map(|form| u128::from(form["len"].as_u64().expect("a length"))).sum();
    let Ok(sum) = u64::try_from(sum) else { return };
    for other in [sum.wrapping_add(1), sum.wrapping_sub(1), 0, u64::MAX].into_iter().filter(|other| *other != sum) {
        assert!(manifest.entries(other).is_err(), "entries of {sum} bytes in a payload of {other}");
    }
    let Ok(entries) = manifest.entries(sum) else { return };
    assert_eq!(entries.len(), forms.len());
    assert!(entries.len() <= EntryKind::ALL.len() && sum <= EntryKind::ALL.len() as u64 * MAX_PAYLOAD);
    let mut end = 0;
    for (at, entry) in entries.iter().enumerate() {
        assert_eq!(entry.offset, end);
        end += entry.len;
        assert!(entry.len <= entry.kind.limit());
        assert!(entries[..at].iter().all(|before| before.kind != entry.kind), "one kind twice");
        assert_eq!(forms[at]["kind"], entry.kind.name());
        assert_eq!(forms[at]["sha256"], entry.sha256.to_string());
    }
    assert_eq!(end, sum);
}
