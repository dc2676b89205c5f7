//! The enrolment that a device keeps, and the numbers of those that it has taken.
//!
//! ```text
//! trust/enrolment.0 and .1   (store/pair); body, big-endian:
//!   off  size  field
//!   0    1     version = 2
//!   1    8     root         version of the root that the enrolment was taken under
//!   9    8     epoch        of the last enrolment by the role policy
//!   17   8     seq          its number; 0 = none
//!   25   32    digest
//!   57   48    likewise of the last one by the role hub
//!   105  …     the enrolment, as it came
//! ```
//!
//! The numbers stand apart from the enrolment, so that they hold where its signatures cannot be judged: while a root is
//! lost, or after another was pinned by hand. Version 1 has the root and the enrolment alone; it is read, and written as
//! version 2 by the next write.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::activate::Slots;
use super::document::Document;
use super::enrolment::{self, Enrolment, Held, Labels, Place, Places, Ruling};
use super::error::Refused;
use super::manifest::DeviceFacts;
use super::root::{Role, RootDocument};
use super::roots::Roots;
use super::trust::Trust;
use super::verify::{Findings, Judge, Purpose};
use crate::disk::Disk;
use crate::ids::Digest;
use crate::store::pair::{Found, Pair};
use crate::units::UnixSeconds;

const VERSION: u8 = 2;
/// The first byte of a root's version, which no root has reached.
const WITHOUT_PLACES: u8 = 0;

/// The kept enrolment.
#[derive(Debug)]
pub struct Enrolled {
    pair: Pair,
    held: Option<Held>,
    places: Places,
    /// What is kept and cannot be judged: a root that comes may vouch for it.
    unjudged: Option<Kept>,
}

/// What a record holds.
#[derive(Debug)]
struct Kept {
    root: u64,
    places: Option<Places>,
    document: Vec<u8>,
}

impl Enrolled {
    /// Reads what is kept in `folder`, judged by the root under which it was taken; and what is wrong with it, if
    /// anything.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, slots: &Slots, device: &DeviceFacts) -> (Self, Option<String>) {
        let (pair, found) = Pair::open(disk, folder, "enrolment");
        let mut enrolled = Self { pair, held: None, places: Places::default(), unjudged: None };
        let body = match &found {
            Found::Fresh => return (enrolled, None),
            Found::Lost => {
                let what = "both records of the enrolment; the device has no labels";
                return (enrolled, Some(what.into()));
            }
            Found::Record(body) | Found::Survivor(body) => body,
        };
        let Some(kept) = Kept::from_bytes(body) else {
            return (enrolled, Some("the enrolment (of another version); the device has no labels".into()));
        };
        enrolled.places = kept.places.unwrap_or_else(|| kept.claimed());
        let why = match kept.judge(slots.root_of(kept.root), device) {
            Ok(held) => {
                if kept.places.is_none() {
                    enrolled.places = Places::default().with(&held);
                }
                enrolled.held = Some(held);
                let what = "one of the two records of the enrolment; it may be the one before the last";
                matches!(found, Found::Survivor(_)).then(|| what.into())
            }
            Err(why) => {
                enrolled.unjudged = Some(kept);
                Some(format!("the enrolment ({}); the device has no labels", why.name()))
            }
        };
        (enrolled, why)
    }

    /// Judges what could not be judged before once more, after a root came. The enrolment, if it is believed now.
    pub(super) fn judge_again(&mut self, slots: &Slots, device: &DeviceFacts) -> Option<&Enrolment> {
        let kept = self.unjudged.as_ref()?;
        let held = kept.judge(slots.root_of(kept.root), device).ok()?;
        self.unjudged = None;
        self.held = Some(held);
        self.enrolment()
    }

    /// What the device is told of itself.
    #[must_use]
    pub fn enrolment(&self) -> Option<&Enrolment> {
        self.held.as_ref().map(|held| &held.enrolment)
    }

    /// Which enrolment that is.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.held.as_ref().map(|held| held.digest)
    }

    /// Keeps `held` as it came, under `root`. On an error what is kept is the one before it, or this one.
    pub(super) fn keep(&mut self, held: Held, document: &Document, root: &RootDocument) -> io::Result<()> {
        let places = self.places.with(&held);
        self.pair.write(&to_bytes(root.version(), &places, &document.to_bytes()))?;
        (self.held, self.places, self.unjudged) = (Some(held), places, None);
        Ok(())
    }
}

/// Judges an enrolment for the device of `by`; `enrolled` is what it has taken, `None` that it is not known.
pub fn judge(
    enrolled: Option<&Enrolled>,
    document: &Document,
    by: &Judge<'_>,
    found: &mut Findings,
) -> Result<Ruling, Refused> {
    let none = Places::default();
    let taken = enrolled.map_or((None, &none), |enrolled| (enrolled.digest(), &enrolled.places));
    enrolment::judge(document, by, taken, found)
}

/// The labels that what is kept in `folder` gives to `device`, for a reader who holds `roots`; none where nobody vouches
/// for them.
pub(super) fn labels(disk: Arc<dyn Disk>, folder: &Path, roots: &Roots, device: &DeviceFacts) -> Labels {
    let (_, found) = Pair::open(disk, folder, "enrolment");
    let kept = found.body().and_then(Kept::from_bytes);
    let held = kept.and_then(|kept| kept.judge(roots.nearest(kept.root), device).ok());
    held.map(|held| held.enrolment.labels).unwrap_or_default()
}

impl Kept {
    fn from_bytes(body: &[u8]) -> Option<Self> {
        let from = &mut &*body;
        let has_places = *body.first()? != WITHOUT_PLACES;
        if has_places && take::<1>(from)? != [VERSION] {
            return None;
        }
        let root = u64::from_be_bytes(take(from)?);
        let places = if has_places { Some(Places { policy: place(from)?, hub: place(from)? }) } else { None };
        Some(Self { root, places, document: from.to_vec() })
    }

    /// `root` is that under which it was taken.
    fn judge(&self, root: &RootDocument, device: &DeviceFacts) -> Result<Held, Refused> {
        let trust = Trust::new(root.clone());
        let by = Judge { trust: &trust, lower: UnixSeconds::MIN, device, purpose: Purpose::Serve };
        let document = Document::parse(&self.document)?;
        match enrolment::judge(&document, &by, (None, &Places::default()), &mut Findings::default())? {
            Ruling::Next(held) => Ok(held),
            Ruling::AlreadyInstalled => Err(Refused::StateLost("it is none".into())),
        }
    }

    /// The place that it claims for itself, where no record tells it and nobody vouches for it.
    fn claimed(&self) -> Places {
        let read = || {
            let document = Document::parse(&self.document).ok()?;
            let enrolment: Enrolment = document.read().ok()?;
            Some(Places::default().with(&Held { enrolment, digest: document.digest(), role: Role::Policy }))
        };
        read().unwrap_or_default()
    }
}

fn to_bytes(root: u64, places: &Places, document: &[u8]) -> Vec<u8> {
    let place = |place: Option<Place>| {
        let Place { epoch, seq, digest } = place.unwrap_or(Place { epoch: 0, seq: 0, digest: Digest([0; 32]) });
        [&epoch.to_be_bytes()[..], &seq.to_be_bytes(), &digest.0].concat()
    };
    [&[VERSION][..], &root.to_be_bytes(), &place(places.policy), &place(places.hub), document].concat()
}

/// The outer one is a record that ends too soon.
#[expect(clippy::option_option, reason = "the inner one is that there is none")]
fn place(from: &mut &[u8]) -> Option<Option<Place>> {
    let (epoch, seq) = (u64::from_be_bytes(take(from)?), u64::from_be_bytes(take(from)?));
    let digest = Digest(take(from)?);
    Some((seq > 0).then_some(Place { epoch, seq, digest }))
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}
