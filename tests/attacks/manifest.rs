//! Steps 8 to 11: the manifest's form, and for whom and when it is.

use serde_json::{Value, json};
use tidegate::bundle::canonical;
use tidegate::bundle::container::BundleType;
use tidegate::bundle::trust::MAX_AHEAD;

use crate::world::{Case, GOLDEN_AT, case, judge, manifest_value, signed_bytes, with_manifest};

/// A manifest of exactly this text, soundly signed.
fn with_text(text: &str) -> Vec<u8> {
    signed_bytes(BundleType::Policy, &[], text.as_bytes(), &[4, 5], b"p")
}

fn text() -> String {
    String::from_utf8(canonical::write(&manifest_value(11, b"p")).expect("canonical")).expect("text")
}

fn with(name: &'static str, about: &str, change: impl FnOnce(&mut Value)) -> Case {
    case(name, about, with_manifest(b"p", change))
}

pub fn cases() -> Vec<Case> {
    let text = text();
    let far = GOLDEN_AT + 2 * MAX_AHEAD; // the test device has been up for a while
    let mut cases = vec![
        case("ManifestNotCanonical", "white space", with_text(&format!("{text} "))),
        case("ManifestNotCanonical", "a member twice", with_text(&text.replacen('{', "{\"epoch\":1,", 1))),
        case("ManifestNotCanonical", "a fraction", with_text(&text.replace("\"seq\":11", "\"seq\":11.0"))),
        case("ManifestNotCanonical", "null", with_text(&text.replace("\"seq\":11", "\"seq\":null"))),
        case("ManifestNotCanonical", "an escape", with_text(&text.replace("Ada", "\\u0041da"))),
        case("ManifestNotCanonical", "not JSON", with_text("hello")),
        case("ManifestNotCanonical", "deep nesting", with_text(&"[".repeat(10_000))),
        case("ManifestSchema", "an array", with_text("[]")),
        case("ManifestSchema", "a number where a text belongs", with_text("7")),
        with("ManifestSchema", "an unknown member", |m| m["surprise"] = 1.into()),
        with("ManifestSchema", "no seq", |m| drop(m.as_object_mut().expect("an object").remove("seq"))),
        with("ManifestSchema", "seq 0", |m| m["seq"] = 0.into()),
        with("ManifestSchema", "a negative seq", |m| m["seq"] = (-1).into()),
        with("ManifestSchema", "a deployment with a slash", |m| m["deployment"] = "har/bour".into()),
        with("ManifestSchema", "a control character", |m| m["author"]["who"] = "\u{1b}[2J".into()),
        with("ManifestSchema", "a reason of 1 KiB", |m| m["author"]["reason"] = "x".repeat(1_024).into()),
        with("ManifestSchema", "a digest of 31 bytes", |m| m["entries"][0]["sha256"] = "ab".repeat(31).into()),
        with("ManifestSchema", "a digest in capitals", |m| m["entries"][0]["sha256"] = "AB".repeat(32).into()),
        with("ManifestSchema", "made before 1970", |m| m["issued_at"] = (-1).into()),
        with("ManifestSchema", "two targets at once", |m| m["target"]["devices"] = json!([])),
        with("ManifestSchema", "a device that is no id", |m| m["target"] = json!({"devices": ["all"]})),
        with("TypeMismatch", "a permit inside", |m| m["type"] = "permit".into()),
        with("IssuedAtImplausible", "made more than ten years ahead", |m| m["issued_at"] = far.into()),
        with("WrongDeployment", "another deployment", |m| m["deployment"] = "quay".into()),
        with("TargetEmpty", "no devices", |m| m["target"] = json!({"devices": []})),
        with("TargetEmpty", "no labels", |m| m["target"] = json!({"labels": {}})),
        with("TargetEmpty", "a label without values", |m| m["target"] = json!({"labels": {"site": []}})),
        with("TargetEmpty", "not all", |m| m["target"] = json!({"all": false})),
        with("TargetEmpty", "nothing", |m| m["target"] = json!({})),
        with("NotForThisDevice", "another device", |m| m["target"] = json!({"devices": ["08".repeat(16)]})),
        with("NotForThisDevice", "another site", |m| m["target"] = json!({"labels": {"site": ["quay"]}})),
        with("NotForThisDevice", "a label it lacks", |m| m["target"] = json!({"labels": {"hall": ["1"]}})),
        with("UnsupportedRequirement", "a feature", |m| m["requires"] = json!(["teleport"])),
        with("UnsupportedRequirement", "a delta", |m| m["base"] = "ab".repeat(32).into()),
        with("ManifestSchema", "a permit within a policy", |m| {
            m["permit"] = json!({"from": "ab".repeat(32), "to": "cd".repeat(32)});
        }),
        with("Expired", "expired by the floor", |m| m["expires_at"] = 1.into()),
        with("Expired", "expired by its own date", |m| m["expires_at"] = GOLDEN_AT.into()),
    ];
    // Whatever the step, a value of the wrong type is the form's matter and never a panic.
    for member in
        ["author", "deployment", "entries", "epoch", "issued_at", "requires", "root_version", "target", "type"]
    {
        cases.push(with("ManifestSchema", member, |m| m[member] = json!({"x": [1]})));
    }
    cases
}

#[test]
fn a_target_that_names_the_device_is_taken() {
    for target in [
        json!({"all": true}),
        json!({"devices": ["08".repeat(16), crate::world::device_facts().id.to_string()]}),
        json!({"labels": {"site": ["quay", "pier"]}}),
    ] {
        assert!(judge(&with_manifest(b"p", |m| m["target"] = target.clone())).is_ok(), "{target}");
    }
}

#[test]
fn a_bundle_that_has_not_expired_is_taken() {
    assert!(judge(&with_manifest(b"p", |m| m["expires_at"] = (GOLDEN_AT + 1).into())).is_ok());
}
