//! Lists of revocations that give nothing back.

use serde_json::{Value, json};
use tidegate::bundle::entry::{CutOff, CutOffKind};

use super::super::lists::{self, cut_off, held, table, till};
use super::super::sound::{self, FAR, LATE, LISTS};
use super::super::{CANDIDATE, Folder, folder};
use super::taken;

const FULL: [(u64, i64); 2] = [(5, LATE), (9, LATE)];

fn with(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    taken(slug, about, lists::parts().changed(change).signed(&LISTS))
}

/// A list that comes after the one that is held, and is in force when it comes again.
fn after(slug: &str, about: &str, list: Vec<u8>) -> Folder {
    folder("taken", slug, about)
        .before("held.tgb", held())
        .offer(CANDIDATE, "Activated", list)
        .again(CANDIDATE, "AlreadyInstalled")
        .again("held.tgb", "RevocationRollback")
}

/// The list 4 of this table, after the one that is held.
fn grown(slug: &str, about: &str, ids: &[(u64, i64)], cut_offs: &[CutOff]) -> Folder {
    after(slug, about, sound::list(4, table(ids, cut_offs)))
}

/// On a device in 2095, which holds an id until `until`; the next list, which was made at `made`, lacks it.
fn lapsing(family: &'static str, slug: &str, name: &str, about: &str, until: i64, made: i64) -> Folder {
    let next = sound::list_parts(&sound::root(), 4, table(&FULL, &[])).changed(|m| m["issued_at"] = made.into());
    let folder = folder(family, slug, about).in_2095();
    folder
        .before("lapsing.tgb", sound::list(3, table(&[(1, until), (5, LATE), (9, LATE)], &[])))
        .offer(CANDIDATE, name, next.signed(&LISTS))
        .from(made)
}

pub fn cases() -> Vec<Folder> {
    let made = FAR + 1_000_000;
    vec![
        with("list", "The first list of all, beside a policy of a higher number.", |_| ()),
        taken("list-of-none", "A list that revokes nothing.", sound::list(1, table(&[], &[]))),
        with("list-expires", "A list that expires in the year 3000.", |m| m["expires_at"] = LATE.into()),
        with("list-for-its-label", "A list for the device's label.", |m| {
            m["target"] = json!({"labels": {"site": ["pier"]}})
        }),
        with("list-for-this-device", "A list for this device.", |m| {
            m["target"] = json!({"devices": [sound::device().id]})
        }),
        with("list-of-2-53", "A list of the largest number that there can be.", |m| m["seq"] = (1_u64 << 53).into()),
        with("list-named", "A list whose entry has a name of its own.", |m| m["entries"][0]["name"] = "x".into()),
        with("list-made-later", "A list that was made days after all else: it is at least so late.", |m| {
            m["issued_at"] = (sound::MADE_AT + 1_000_000).into()
        })
        .from(sound::MADE_AT + 1_000_000),
        folder("taken", "list-on-a-fresh-device", "A list on a device on which nothing serves.")
            .on_a_fresh_device()
            .offer(CANDIDATE, "Activated", held())
            .from(sound::MADE_AT)
            .offer("policy.tgb", "Activated", sound::golden()),
        grown("list-as-before", "A list of all that the one before holds and that still counts.", &FULL, &till()),
        grown(
            "list-of-more",
            "A list of more ids, before, between and behind, and of more cut-offs.",
            &[(0, LATE), (5, LATE), (7, LATE), (9, LATE), (u64::MAX, LATE)],
            &[
                CutOff { kind: CutOffKind::Subject, ..cut_off("till", 1) },
                cut_off("desk", 1),
                cut_off("till", 500),
                cut_off("tills", 1),
            ],
        ),
        grown("list-for-longer", "An id that counts for longer.", &[(5, LATE + 1), (9, LATE)], &till()),
        grown("list-cut-off-later", "A cut-off a second later.", &FULL, &[cut_off("till", 501)]),
        after("list-after-a-jump", "A list a thousand numbers on.", sound::list(1_003, table(&FULL, &till()))),
        lapsing(
            "taken",
            "list-without-the-lapsed",
            "Activated",
            "An id is left out in the second until which it counted, which is that of the list.",
            made,
            made,
        ),
        lapsing(
            "lists",
            "a-second-too-soon",
            "RevocationShrunk",
            "An id is left out a second before it counts no more, by the moment of the list.",
            made + 1,
            made,
        ),
    ]
}
