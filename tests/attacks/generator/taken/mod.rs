//! The family `taken`: the twins of the hostile cases, each just inside of what those are refused for. A verifier that
//! refuses too much, or forgets what begins anew, fails here and nowhere else.

mod documents;
mod epochs;
mod issuers;
mod lists;
mod manifests;
mod order;
mod roots;
mod routes;
mod tables;
mod times;

use serde_json::Value;

use super::{CANDIDATE, Folder, folder, sound};

/// A device on which the golden bundle serves takes this policy or list.
fn taken(slug: &str, about: &str, bytes: Vec<u8>) -> Folder {
    folder("taken", slug, about).offer(CANDIDATE, "Activated", bytes)
}

/// The next policy after `change` of what it means.
fn meaning(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    taken(slug, about, sound::compiled(change, |text| text))
}

/// Two or more things of one kind, in the order of their names.
fn twin(of: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut twin = of.clone();
    change(&mut twin);
    twin
}

pub fn cases() -> Vec<Folder> {
    let families = [
        manifests::cases(),
        roots::cases(),
        epochs::cases(),
        order::cases(),
        routes::cases(),
        issuers::cases(),
        tables::cases(),
        lists::cases(),
        documents::cases(),
        times::cases(),
    ];
    families.into_iter().flatten().collect()
}
