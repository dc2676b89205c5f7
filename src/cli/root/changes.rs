//! What one root changes against the one before it, as lines for a person who signs.

use std::fmt::Write as _;

use crate::bundle::root::{Role, RootDocument};
use crate::cli::print::visible;
use crate::ids::KeyId;

/// One line a change; `(nothing but its version and date)` where there is none.
pub(super) fn changes(old: &RootDocument, new: &RootDocument) -> String {
    let mut text = String::new();
    let mut say = |line: String| {
        let _ = writeln!(text, "  {}", visible(&line));
    };
    if old.deployment() != new.deployment() {
        say(format!("~ deployment {} → {}", old.deployment(), new.deployment()));
    }
    if old.epoch() != new.epoch() {
        let (from, to) = (old.epoch(), new.epoch());
        say(format!("~ EPOCH {from} → {to}: sequence numbers, floors and lists of all devices begin anew"));
    }
    for role in Role::ALL {
        let name = role.name();
        let keys = |root: &RootDocument| root.role_keys(role).map(crate::keys::PublicKey::id).collect::<Vec<KeyId>>();
        let (before, after) = (keys(old), keys(new));
        let holder = |root: &RootDocument, id: KeyId| format!("{} ({id})", root.holder(id).unwrap_or("?"));
        for id in before.iter().filter(|id| !after.contains(id)) {
            say(format!("- {name}: {}", holder(old, *id)));
        }
        for id in after.iter().filter(|id| !before.contains(id)) {
            say(format!("+ {name}: {}", holder(new, *id)));
        }
        let of = |root: &RootDocument, keys: &[KeyId]| {
            root.threshold(role)
                .map_or_else(|| "nobody".to_owned(), |threshold| format!("{threshold} of {}", keys.len()))
        };
        let (from, to) = (of(old, &before), of(new, &after));
        if from != to {
            say(format!("~ {name}: {from} → {to}"));
        }
    }
    for (name, key) in &new.draft().keys {
        if let Some(before) = old.holder(key.id()).filter(|before| before != name) {
            say(format!("~ key {}: its name {before:?} → {name:?}", key.id()));
        }
    }
    if text.is_empty() { "  (nothing but its version and date)\n".to_owned() } else { text }
}
