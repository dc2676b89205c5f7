//! The policy source folder: what people write, read whole, every problem told at once, and compiled to entries.
//!
//! ```text
//! deployment.toml       whose policy it is, who speaks for it, which target
//! targets.toml          [targets.NAME]       which devices
//! apis/*.toml           one API a file, its routes, and [upstreams.NAME]
//! issuers/*.toml        one issuer a file, with its pinned public keys
//! plans.toml            [plans.NAME]         limits
//! applications.toml     [applications.NAME]  who calls, with their consumer keys
//! subscriptions.toml    [[subscriptions]]    or subscriptions.csv: who may use what, and how much
//! revocations.toml      [[revoked]], [[cut_offs]]
//! probes.toml           [probes.NAME]        requests whose verdicts are known
//! root.json             the root document; keys/ holds the signing keys and is never read here
//! ```
//!
//! Key and certificate files (PEM, JWKS) lie beside the files that name them. The same folder gives the same bytes,
//! whatever the order of its files and rows. Nothing outside the folder is read, through a link neither. Unknown
//! files, folders, fields and names are refused with the nearest right one.

mod apis;
mod deployment;
mod fields;
mod issuers;
mod keys;
mod pages;
mod plans;
mod probes;
mod problem;
mod revocations;
mod subscribers;
mod usage;

use std::collections::BTreeMap;
use std::path::Path;

pub(super) use apis::template_fault;
pub use deployment::{Deployment, last_seq, remember_seq};
pub(super) use keys::entry_key;
pub use keys::{NotAKey, pinned_keys};
pub use pages::Error;
pub use plans::parse_limit;
pub use problem::{Problem, Spot};
pub(super) use revocations::in_order;

use crate::bundle::entry::{Issuers, JsonEntry as _, Probes, Revocations, Routes, Subscriptions, Throttle};
use crate::bundle::{Entries, EntryKind};
use pages::Pages;
use problem::{Names, Problems};

/// A folder without problems, compiled.
#[derive(Debug)]
pub struct Source {
    /// What goes into the manifest.
    pub deployment: Deployment,
    /// APIs, routes and upstreams.
    pub routes: Routes,
    /// Issuers.
    pub issuers: Issuers,
    /// Plans.
    pub throttle: Throttle,
    /// Applications and subscriptions.
    pub subscriptions: Subscriptions,
    /// What is taken back.
    pub revocations: Revocations,
    /// Requests whose verdicts are known.
    pub probes: Probes,
    /// What is right, but may not be what was meant.
    pub notes: Vec<Problem>,
}

impl Source {
    /// The entries of a bundle.
    #[must_use]
    pub fn entries(&self) -> Entries {
        let mut entries = BTreeMap::from([
            (EntryKind::Routes, self.routes.to_bytes()),
            (EntryKind::Issuers, self.issuers.to_bytes()),
            (EntryKind::Throttle, self.throttle.to_bytes()),
            (EntryKind::Subscriptions, self.subscriptions.to_bytes()),
            (EntryKind::Revocations, self.revocations.to_bytes()),
        ]);
        if !self.probes.probes.is_empty() {
            entries.insert(EntryKind::Probes, self.probes.to_bytes());
        }
        entries
    }
}

/// Reads and compiles the folder; `Err` holds every problem of it.
pub fn read(folder: &Path) -> Result<Source, Error> {
    let problems = Problems::default();
    let pages = Pages::read(folder, &problems)?;
    // A name in a file that cannot be read would be unknown everywhere else: syntax first.
    if !pages.check_syntax(&problems) {
        return Err(Error::Problems(problems.into_sorted()));
    }
    let notes = Problems::default();
    let (throttle, plan_names) = plans::read(&pages, &problems);
    let (issuers, issuer_names) = issuers::read(&pages, folder, &problems, &notes);
    let (mut routes, api_names) = apis::read(&pages, folder, &plan_names, &issuer_names, &problems);
    let subscriptions = subscribers::read(&pages, &api_names, &plan_names, &problems);
    let revocations = revocations::read(&pages, &issuers, &issuer_names, &problems);
    let probes = probes::read(&pages, &problems);
    let deployment = deployment::read(&pages, &problems);
    routes.usage = deployment.as_ref().map(|deployment| deployment.usage).unwrap_or_default();
    if routes.apis.is_empty() {
        notes.report(&Spot::file("apis"), "no API yet: every request will be answered 404");
    }
    match deployment {
        Some(deployment) if problems.is_empty() => {
            let notes = notes.into_sorted();
            Ok(Source { deployment, routes, issuers, throttle, subscriptions, revocations, probes, notes })
        }
        _ => Err(Error::Problems(problems.into_sorted())),
    }
}

/// The plans and issuers that the folder names, for `import`; without judging the rest.
pub fn defined(folder: &Path) -> Result<Defined, Error> {
    let problems = Problems::default();
    let pages = Pages::read(folder, &problems)?;
    let (_, plans) = plans::read(&pages, &problems);
    let (_, issuers) = issuers::read(&pages, folder, &problems, &Problems::default());
    let owned = |names: Names| names.all().map(str::to_owned).collect();
    Ok(Defined { plans: owned(plans), issuers: owned(issuers) })
}

/// Names that a new API may use.
#[derive(Debug, Default)]
pub struct Defined {
    /// Plans.
    pub plans: Vec<String>,
    /// Issuers.
    pub issuers: Vec<String>,
}
