//! Step 8: the members of a manifest, each a little past what it may be.

use serde_json::{Value, json};

use super::{Folder, refused, sound};

fn with(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    refused("schema", slug, "ManifestSchema", about, sound::with_manifest(change))
}

fn without(member: &'static str) -> impl FnOnce(&mut Value) {
    move |m| drop(m.as_object_mut().expect("an object").remove(member))
}

pub fn cases() -> Vec<Folder> {
    let saying = |slug: &str, about: &str, text: &str| {
        refused("schema", slug, "ManifestSchema", about, sound::next().saying(text).signed(&sound::POLICY))
    };
    let mut cases = vec![
        saying("an-array", "A list in place of the members.", "[]"),
        saying("an-array-of-values", "The members' values without their names.", "[{},1,[]]"),
        saying("a-number", "A number.", "7"),
        saying("a-text", "A text.", "\"policy\""),
        with("unknown-member", "A member that format 1 does not have.", |m| m["surprise"] = 1.into()),
        with("unknown-member-of-author", "A member more within the author.", |m| m["author"]["mail"] = "a@b".into()),
        with("unknown-member-of-entry", "A member more within an entry.", |m| m["entries"][0]["gzip"] = true.into()),
        with("unknown-member-of-target", "A target by a word that there is not.", |m| {
            m["target"] = json!({"none": true})
        }),
        with("seq-0", "Number 0; the first is 1.", |m| m["seq"] = 0.into()),
        with("seq-negative", "A number below 0.", |m| m["seq"] = (-1).into()),
        with("floor-negative", "A security floor below 0.", |m| m["security_floor"] = (-1).into()),
        with("epoch-negative", "An epoch below 0.", |m| m["epoch"] = (-1).into()),
        with("deployment-slash", "A deployment with a slash.", |m| m["deployment"] = "har/bour".into()),
        with("deployment-empty", "A deployment without a name.", |m| m["deployment"] = "".into()),
        with("deployment-of-65", "A deployment of 65 letters.", |m| m["deployment"] = "h".repeat(65).into()),
        with("who-control-character", "An author that clears the screen of whoever reads it.", |m| {
            m["author"]["who"] = "\u{1b}[2J".into()
        }),
        with("who-delete", "An author with the control character DEL.", |m| m["author"]["who"] = "Ada\u{7f}".into()),
        with(
            "who-c1",
            "An author with a control character above ASCII, which begins an escape code of its own.",
            |m| m["author"]["who"] = "\u{9b}2J".into(),
        ),
        with("tool-line-feed", "A tool that begins a line of its own in a report.", |m| {
            m["author"]["tool"] = "x\nOK".into()
        }),
        with("reason-of-257", "A reason one byte over its limit.", |m| m["author"]["reason"] = "x".repeat(257).into()),
        with("digest-of-31-bytes", "An entry's digest of 31 bytes.", |m| {
            m["entries"][0]["sha256"] = "ab".repeat(31).into()
        }),
        with("digest-in-capitals", "An entry's digest in capitals.", |m| {
            let capitals = m["entries"][0]["sha256"].as_str().expect("hex").to_uppercase();
            m["entries"][0]["sha256"] = capitals.into();
        }),
        with("base-of-31-bytes", "A base of 31 bytes.", |m| m["base"] = "ab".repeat(31).into()),
        with("len-negative", "An entry of fewer than no bytes.", |m| m["entries"][0]["len"] = (-1).into()),
        with("made-before-1970", "Made before 1970.", |m| m["issued_at"] = (-1).into()),
        with("made-after-9999", "Made after 9999.", |m| m["issued_at"] = (sound::LAST + 1).into()),
        with("expires-before-1970", "Expires before 1970.", |m| m["expires_at"] = (-1).into()),
        with("expires-after-9999", "Expires after 9999.", |m| m["expires_at"] = (sound::LAST + 1).into()),
        with("requires-17", "Seventeen features.", |m| m["requires"] = (0..17).map(|n| format!("f{n}")).collect()),
        with("requires-a-path", "A feature that is no name.", |m| m["requires"] = json!(["../x"])),
        with("two-targets", "For all, and for devices.", |m| m["target"]["devices"] = json!([])),
        with("not-all-and-devices", "Not for all, and for a device.", |m| {
            m["target"] = json!({"all": false, "devices": [sound::device().id]});
        }),
        with("device-no-id", "For the device \"all\".", |m| m["target"] = json!({"devices": ["all"]})),
        with("device-in-capitals", "For this device, its id in capitals.", |m| {
            m["target"] = json!({"devices": [sound::device().id.to_string().to_uppercase()]});
        }),
        with("devices-1025", "For one device more than a target names.", |m| {
            m["target"] = json!({"devices": (0..1_025).map(|n| format!("{n:032x}")).collect::<Vec<_>>()});
        }),
        with("labels-17", "For seventeen labels.", |m| {
            let labels: Vec<_> = (0..17).map(|n| (format!("l{n}"), json!(["x"]))).collect();
            m["target"] = json!({"labels": labels.into_iter().collect::<serde_json::Map<_, _>>()});
        }),
        with("label-values-257", "For a label of 257 values.", |m| {
            m["target"] = json!({"labels": {"site": (0..257).map(|n| n.to_string()).collect::<Vec<_>>()}});
        }),
        with("label-key-of-257", "For a label whose key is of 257 bytes.", |m| {
            m["target"] = json!({"labels": {"k".repeat(257): ["x"]}})
        }),
        with("label-value-of-257", "For a value of 257 bytes.", |m| {
            m["target"] = json!({"labels": {"site": ["x".repeat(257)]}})
        }),
        with("label-not-a-list", "For a label whose values are one text.", |m| {
            m["target"] = json!({"labels": {"site": "pier"}})
        }),
        with("permit-within-a-policy", "A policy that brings its own leave.", |m| {
            m["permit"] = json!({"from": "ab".repeat(32), "to": "cd".repeat(32)});
        }),
    ];
    // Whatever the step that looks at it, a member of another type is the form's matter; and none may be left away.
    let members = [
        "author",
        "deployment",
        "entries",
        "epoch",
        "issued_at",
        "requires",
        "root_version",
        "security_floor",
        "seq",
        "target",
        "type",
    ];
    for member in members {
        let about = format!("The member {member} holds a list of a list.");
        cases.push(with(&format!("{}-of-another-type", member.replace('_', "-")), &about, |m| m[member] = json!([[]])));
        let about = format!("The member {member} is not there.");
        cases.push(with(&format!("{}-absent", member.replace('_', "-")), &about, without(member)));
    }
    cases
}
