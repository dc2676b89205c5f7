//! Bundles of type 2: the revocation role takes access away and never gives it back.

use serde_json::{Value, json};
use tidegate::bundle::entry::{CutOff, CutOffKind, HashedId, Revocations};
use tidegate::keys::sha256;

use super::sound::{self, LATE, LISTS, MADE_AT, POLICY, Parts};
use super::{CANDIDATE, Folder, folder, refused};

const ISS: &str = "https://site.example";

pub fn cut_off(value: &str, before: i64) -> CutOff {
    CutOff { kind: CutOffKind::Client, issuer: ISS.into(), value: value.into(), before }
}

/// The entry of a list of these ids, each with the moment until which it counts.
pub fn table(ids: &[(u64, i64)], cut_offs: &[CutOff]) -> Vec<u8> {
    let ids = ids.iter().map(|(hash, until)| HashedId { hash: *hash, until: *until }).collect();
    Revocations { cut_offs: cut_offs.to_vec(), ids }.to_bytes()
}

pub fn till() -> [CutOff; 1] {
    [cut_off("till", 500)]
}

/// List 3, which the device of most cases has; its first id counts no more.
pub fn held() -> Vec<u8> {
    sound::list(3, table(&[(1, MADE_AT), (5, LATE), (9, LATE)], &till()))
}

/// A sound list 4.
pub fn parts() -> Parts {
    sound::list_parts(&sound::root(), 4, table(&[(5, LATE), (9, LATE)], &till()))
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("lists", slug, name, about, bytes)
}

fn with(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    case(slug, name, about, parts().changed(change).signed(&LISTS))
}

/// A list that comes after the one that is held.
fn after(slug: &str, name: &str, about: &str, list: Vec<u8>) -> Folder {
    folder("lists", slug, about).before("held.tgb", held()).offer(CANDIDATE, name, list)
}

fn shrunk(slug: &str, about: &str, ids: &[(u64, i64)], cut_offs: &[CutOff]) -> Folder {
    after(slug, "RevocationShrunk", about, sound::list(4, table(ids, cut_offs)))
}

/// List 4 of another table.
fn of(slug: &str, about: &str, table: Vec<u8>) -> Folder {
    let list = sound::list_parts(&sound::root(), 4, table).signed(&LISTS);
    case(slug, "SemanticInvalid", about, list)
}

pub fn cases() -> Vec<Folder> {
    let full = [(5, LATE), (9, LATE)];
    let entry =
        |kind: &str, bytes: &[u8]| json!({"kind": kind, "len": bytes.len(), "name": kind, "sha256": sha256(bytes)});
    let whole = || table(&full, &till());
    let routes = sound::next().value()["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|entry| entry["kind"] == "routes")
        .expect("routes")
        .clone();
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = whole();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    vec![
        case("by-the-policy-role", "ThresholdNotMet", "A list by the policy role.", parts().signed(&POLICY)),
        case("by-the-roots-keys", "ThresholdNotMet", "A list by the role root.", parts().signed(&[1, 2, 3])),
        case("signed-as-a-policy", "SignatureInvalid", "A list whose signature is over the media type of a policy.", {
            let moved = Parts { bundle_type: tidegate::bundle::container::BundleType::Policy, ..parts() };
            parts().with(&[moved.signature(7)])
        }),
        with("says-policy", "TypeMismatch", "A policy by the revocation role, in the container of a list.", |m| {
            m["type"] = "policy".into()
        }),
        with("of-nothing", "EntryCount", "A list of no entry.", |m| m["entries"] = json!([])),
        with("routes-in-place", "EntryNotAllowed", "A list of routes.", |m| m["entries"] = json!([routes])),
        case("routes-too", "EntryNotAllowed", "A list with routes beside its table.", {
            let payload = [&whole()[..], b"r"].concat();
            let parts =
                parts().changed(|m| m["entries"] = json!([entry("revocations", &whole()), entry("routes", b"r")]));
            Parts { payload, ..parts }.signed(&LISTS)
        }),
        case("table-twice", "EntryDuplicate", "A list of two tables.", {
            let payload = whole().repeat(2);
            let parts = parts()
                .changed(|m| m["entries"] = json!([entry("revocations", &whole()), entry("revocations", &whole())]));
            Parts { payload, ..parts }.signed(&LISTS)
        }),
        of("table-of-0", "A table of no bytes.", Vec::new()),
        with("with-a-floor", "SecurityFloorInvalid", "A list that raises the floor of policies.", |m| {
            m["security_floor"] = 1.into()
        }),
        with("with-a-base", "UnsupportedRequirement", "A list that stands on another bundle.", |m| {
            m["base"] = "ab".repeat(32).into()
        }),
        with("with-a-permit", "ManifestSchema", "A list that is leave for something too.", |m| {
            m["permit"] = json!({"from": "ab".repeat(32), "to": "cd".repeat(32)});
        }),
        with("another-sites", "NotForThisDevice", "A list for another site.", |m| {
            m["target"] = json!({"labels": {"site": ["quay"]}})
        }),
        with("other-deployment", "WrongDeployment", "A list of another deployment.", |m| {
            m["deployment"] = "quay".into()
        }),
        with("expired", "Expired", "A list that expired in 1970.", |m| m["expires_at"] = 1.into()),
        case("table-altered", "EntryDigestMismatch", "A byte of the table was altered on the way.", {
            let mut list = parts().signed(&LISTS);
            *list.last_mut().expect("a pool") ^= 1;
            list
        }),
        of("no-table", "Text in place of a table.", b"no table".to_vec()),
        of("ids-unsorted", "Ids out of order, in a table that is read as it comes by.", {
            let mut bytes = whole();
            let ids = 20 + 25;
            bytes.copy_within(ids + 16..ids + 24, ids);
            bytes[ids + 16..ids + 24].copy_from_slice(&5_u64.to_be_bytes());
            bytes
        }),
        of("id-twice", "One id twice.", patched(20 + 25 + 16, &5_u64.to_be_bytes())),
        of("ids-of-2-32", "More ids than bytes: nothing may be reserved for them.", patched(12, &[0xff; 4])),
        of("pool-of-2-32", "A pool longer than the table.", patched(16, &[0xff; 4])),
        of("kind-unknown", "A cut-off of a kind that there is not.", patched(20, &[9])),
        of("text-outside", "A cut-off of a text behind the pool.", patched(21, &[0, 0xff, 0, 0])),
        after(
            "rollback",
            "RevocationRollback",
            "The list before the one that is held.",
            sound::list(2, table(&full, &till())),
        ),
        after(
            "same-number",
            "Equivocation",
            "Another list of the number that is held.",
            sound::list(3, table(&full, &till())),
        ),
        shrunk("shrunk-to-nothing", "Everything is given back.", &[], &[]),
        shrunk("without-the-first-id", "The first id that counts is given back.", &[(9, LATE)], &till()),
        shrunk("without-the-last-id", "The last id is given back.", &[(5, LATE)], &till()),
        shrunk("another-in-its-place", "As many ids as before, one of them another.", &[(5, LATE), (8, LATE)], &till()),
        shrunk("id-ends-sooner", "An id that counts for a second less.", &[(5, LATE), (9, LATE - 1)], &till()),
        shrunk("id-ended", "An id that counts no more when the list is made.", &[(5, LATE), (9, MADE_AT)], &till()),
        shrunk("without-the-cut-off", "The cut-off is given back.", &full, &[]),
        shrunk("earlier-cut-off", "A cut-off a second earlier.", &full, &[cut_off("till", 499)]),
        shrunk("cut-off-of-another", "A cut-off of a client whose name begins alike.", &full, &[cut_off("tills", 500)]),
        shrunk(
            "cut-off-of-another-kind",
            "The cut-off of a subject in place of a client's.",
            &full,
            &[CutOff { kind: CutOffKind::Subject, ..cut_off("till", 500) }],
        ),
        shrunk(
            "cut-off-of-another-issuer",
            "The cut-off at another issuer.",
            &full,
            &[CutOff { issuer: "https://other.example".into(), ..cut_off("till", 500) }],
        ),
        folder(
            "lists",
            "permit-cannot-shorten",
            "A permit was taken; it leads to a policy, and no list falls short by it.",
        )
        .before("held.tgb", held())
        .before("permit.tgb", sound::permit(1, &sound::golden(), &sound::older()))
        .offer("list.tgb", "RevocationShrunk", sound::list(4, table(&[], &[]))),
    ]
}
