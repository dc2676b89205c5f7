//! Leave to take usage along: by the policy role alone, for exact devices, until a moment; and it changes nothing.

use serde_json::{Value, json};
use tidegate::bundle::document::DocumentKind;
use tidegate::bundle::{Imported, canonical};

use crate::enrolment::{framed, with_third};
use crate::world::{Case, Device, GOLDEN_AT, case, device_facts};

const UNTIL: i64 = GOLDEN_AT + 86_400;

fn body() -> Value {
    json!({
        "deployment": "harbour",
        "devices": [device_facts().id],
        "epoch": 1,
        "expires_at": UNTIL,
        "issued_at": GOLDEN_AT,
        "root_version": 2,
    })
}

fn note(seeds: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut body = body();
    change(&mut body);
    framed(DocumentKind::ExportUsage, &canonical::write(&body).expect("canonical"), seeds)
}

fn refused(name: &'static str, about: &str, change: impl FnOnce(&mut Value)) -> Case {
    case(name, about, note(&[4, 5], change))
}

#[test]
fn a_note_of_the_policy_role_gives_leave_as_often_as_it_is_brought_and_changes_nothing() {
    let mut device = Device::with_golden();
    let before = device.kept();
    for _ in 0..2 {
        let outcome = device.offer(&note(&[4, 5], |_| ()));
        assert!(matches!(outcome.result, Imported::UsageMayLeave { until: UNTIL }), "{outcome:?}");
        assert_eq!(device.journal().pop().expect("a line").result, "UsageMayLeave");
    }
    assert_eq!(device.kept(), before);
}

#[test]
fn notes_that_give_no_leave_are_refused_by_name() {
    let mut device = Device::with_golden();
    let stranger = "00000000000000000000000000000001";
    let cases = [
        case("ThresholdNotMet", "one of two keys", note(&[4], |_| ())),
        case("ThresholdNotMet", "the keys of other roles", note(&[1, 2, 7], |_| ())),
        case("ThresholdNotMet", "the device itself", note(&[9], |_| ())),
        refused("NotForThisDevice", "another's", |body| body["devices"] = json!([stranger])),
        refused("ManifestSchema", "nobody's", |body| body["devices"] = json!([])),
        refused("ManifestSchema", "not in order", |body| body["devices"] = json!([device_facts().id, stranger])),
        refused("ManifestSchema", "twice", |body| body["devices"] = json!([device_facts().id, device_facts().id])),
        refused("ManifestSchema", "with another member", |body| body["all"] = true.into()),
        refused("ManifestSchema", "without an end", |body| {
            drop(body.as_object_mut().expect("one").remove("expires_at"))
        }),
        refused("ManifestSchema", "of no time", |body| body["expires_at"] = (-1).into()),
        refused("WrongDeployment", "another's deployment", |body| body["deployment"] = "quay".into()),
        refused("EpochMismatch", "of another epoch", |body| body["epoch"] = 2.into()),
        refused("RootTooOld", "for a later root", |body| body["root_version"] = 3.into()),
        // Its own time is a time that has been, too.
        refused("Expired", "ended as it began", |body| body["expires_at"] = GOLDEN_AT.into()),
        refused("IssuedAtImplausible", "of a far future", |body| body["issued_at"] = (UNTIL + 400_000_000).into()),
    ];
    for case in &cases {
        device.refuses(case);
    }
    // Signed as an enrolment is, and named one.
    let as_other = framed(DocumentKind::Enrolment, &canonical::write(&body()).expect("canonical"), &[4, 5]);
    device.refuses(&case("ManifestSchema", "as an enrolment", as_other));
}

#[test]
fn the_hubs_word_is_not_enough_where_there_is_a_hub() {
    let mut device = Device::with_golden();
    device.takes(&with_third());
    device.refuses(&case("ThresholdNotMet", "by the hub's key", note(&[17], |_| ())));
    let by_policy = note(&[14, 15], |body| body["root_version"] = 3.into());
    assert!(matches!(device.offer(&by_policy).result, Imported::UsageMayLeave { .. }), "the control");
}
