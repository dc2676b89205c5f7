//! Steps 8 to 11: the manifest's form, and for whom and when it is.

use serde_json::json;
use tidegate::bundle::trust::MAX_AHEAD;

use tidegate::store::time::BUILD_TIME;

use crate::world::{GOLDEN_AT, device_facts, judge, with_manifest};

#[test]
fn a_target_that_names_the_device_is_taken() {
    for target in [
        json!({"all": true}),
        json!({"devices": ["08".repeat(16), device_facts().id.to_string()]}),
        json!({"labels": {"site": ["quay", "pier"]}}),
    ] {
        assert!(judge(&with_manifest(b"p", |m| m["target"] = target.clone())).is_ok(), "{target}");
    }
}

#[test]
fn a_bundle_that_has_not_expired_is_taken() {
    assert!(judge(&with_manifest(b"p", |m| m["expires_at"] = (GOLDEN_AT + 1).into())).is_ok());
}

#[test]
fn a_bundle_may_be_made_ten_years_after_the_least_that_the_time_can_be_and_no_second_later() {
    // The judge's time is the build's.
    let made_at = |at: i64| judge(&with_manifest(b"p", |m| m["issued_at"] = at.into()));
    assert!(made_at(BUILD_TIME + MAX_AHEAD).is_ok());
    assert_eq!(made_at(BUILD_TIME + MAX_AHEAD + 1).expect_err("too far ahead").name(), "IssuedAtImplausible");
}
