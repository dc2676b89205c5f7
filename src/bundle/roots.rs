//! The roots that a device keeps: the pinned one, which is the anchor, and those that bundles brought after it.
//!
//! ```text
//! trust/roots/<version>   one link of a trust chain as it came: u32 doc_len | root document | sig block
//! ```
//!
//! A link is durable, its name included, before a state record names its root. At each start the chain is followed
//! again from the pinned root, link by link, by the rules of step 6; what does not follow counts for nothing. A
//! slot is judged by the root of its time, so the roots on the way are held too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::{self, MAX_LINK};
use super::root::RootDocument;
use super::trust::{Rotated, follow};
use crate::disk::Disk;

/// The roots from the pinned one on, and where they are kept.
#[derive(Debug)]
pub(super) struct Roots {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    pinned: RootDocument,
    later: Vec<RootDocument>,
}

impl Roots {
    /// Follows the chain that is kept in `folder`, which is made if it is not there.
    pub(super) fn open(disk: Arc<dyn Disk>, folder: PathBuf, pinned: RootDocument) -> io::Result<Self> {
        disk.create_folder(&folder)?;
        disk.sync_folder(folder.parent().unwrap_or(Path::new("/")))?;
        let mut roots = Self { disk, folder, pinned, later: Vec::new() };
        while let Some(next) = roots.next() {
            roots.later.push(next);
        }
        Ok(roots)
    }

    /// The root that the operator placed.
    pub(super) fn pinned(&self) -> &RootDocument {
        &self.pinned
    }

    /// The last that follows.
    pub(super) fn newest(&self) -> &RootDocument {
        self.later.last().unwrap_or(&self.pinned)
    }

    /// All, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &RootDocument> {
        self.later.iter().rev().chain([&self.pinned])
    }

    /// The root of that version, or the nearest one that is known.
    pub(super) fn nearest(&self, version: u64) -> &RootDocument {
        self.newest_first().find(|root| root.version() <= version).unwrap_or(&self.pinned)
    }

    /// The highest version of which there is a file, whatever that is worth.
    pub(super) fn highest_kept(&self) -> Option<u64> {
        self.kept().unwrap_or_default().into_iter().max()
    }

    /// Keeps the roots that follow, durably. They count for [`Roots::newest`] once they are `taken`.
    pub(super) fn keep(&self, rotated: &[Rotated]) -> io::Result<()> {
        rotated.iter().try_for_each(|next| self.disk.replace(&self.path(next.root.version()), &next.link, 0o600))
    }

    /// The roots that were kept are the newest from here on.
    pub(super) fn taken(&mut self, rotated: &[Rotated]) {
        self.later.extend(rotated.iter().map(|next| next.root.clone()));
    }

    /// Frees the names after the newest: a chain that follows no more must not look like one that was lost. Best effort.
    pub(super) fn drop_others(&self) {
        for version in self.kept().unwrap_or_default() {
            if version > self.newest().version() {
                let _ = self.disk.remove_file(&self.path(version));
            }
        }
    }

    /// What is kept as the next version, if it follows.
    fn next(&self) -> Option<RootDocument> {
        let newest = self.newest();
        let bytes = self.disk.read(&self.path(newest.version().checked_add(1)?), MAX_LINK).ok()?;
        let mut next = Vec::new();
        follow(newest, &container::chain(&bytes).ok()?, None, &mut next).ok()?;
        let [Rotated { root, .. }] = <[Rotated; 1]>::try_from(next).ok()?;
        Some(root)
    }

    fn kept(&self) -> io::Result<Vec<u64>> {
        Ok(self.disk.list(&self.folder)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn path(&self, version: u64) -> PathBuf {
        self.folder.join(version.to_string())
    }
}
