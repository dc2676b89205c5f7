//! A device's own records, read at the desk: what it has seen decides what it takes. Nothing is written: the start of
//! the device runs over a disk that drops every write, so the same code says what the device would go by.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::bundle::activate::{Slots, Started};
use crate::bundle::compile;
use crate::bundle::enrolled::Enrolled;
use crate::bundle::manifest::DeviceFacts;
use crate::bundle::root::RootDocument;
use crate::bundle::trust::Trust;
use crate::clock::{BootId, Reading};
use crate::disk::{Disk, Machine};
use crate::ids::DeviceId;
use crate::store::device_key;
use crate::store::time::{BUILD_TIME, Known, TimeFile};
use crate::units::UnixSeconds;

/// What a device goes by.
pub(super) struct Records {
    /// Root, history and list.
    pub(super) trust: Trust,
    /// The least that the time can be, by its own floor.
    pub(super) lower: UnixSeconds,
    /// What it was told of itself, and its floor's record, if they are known.
    pub(super) kept: Option<(Enrolled, TimeFile)>,
}

/// Reads the state folder of a device that was given `pinned`; a copy of the folder serves as well.
pub(super) fn read(state: &Path, pinned: RootDocument, device: &DeviceFacts) -> anyhow::Result<Records> {
    let named = || format!("state folder {}", state.display());
    std::fs::read_dir(state).with_context(named)?;
    let disk: Arc<dyn Disk> = Arc::new(ReadOnly);
    // A boot that never was: this look is no end of the process that serves a bundle on trial.
    let boot = BootId([0; 16]);
    let Started { slots, serving, list, .. } =
        Slots::open(Arc::clone(&disk), state, pinned, device, compile, boot).with_context(named)?;
    let (enrolled, unenrolled) = Enrolled::open(Arc::clone(&disk), &state.join("trust"), &slots, device);
    if let Some(what) = unenrolled {
        eprintln!("note: {what}");
    }
    let trust = slots.trust().clone();
    let signed = serving.map(|active| active.manifest.issued_at()).into_iter();
    let signed = signed.chain(list.map(|list| list.manifest.issued_at()));
    let known = Known {
        build: BUILD_TIME,
        signed: signed.fold(trust.root.issued_at(), UnixSeconds::max),
        used: trust.history.highest.is_some() || trust.history.revoked.is_some(),
        epoch: trust.root.epoch(),
    };
    let now = Reading::now();
    let (time, _) = TimeFile::open(disk, &state.join("trust"), BootId::now(), &now, known);
    let lower = time.floor().bounds(&now, false).lower;
    Ok(Records { trust, lower, kept: Some((enrolled, time)) })
}

/// The id of the device whose state it is; `None` where its key is not in the folder or cannot be read.
pub(super) fn device_id(state: &Path) -> Option<DeviceId> {
    device_key::existing(state, None).ok().map(|key| key.public().id().into())
}

/// The machine's disk, to be looked at. What is not there is empty.
#[derive(Debug)]
struct ReadOnly;

impl Disk for ReadOnly {
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
        Machine.open(path)
    }

    fn write(&self, _: &Path, _: &[u8], _: u32) -> io::Result<()> {
        Ok(())
    }

    fn append(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn cut(&self, _: &Path, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match Machine.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names,
        }
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        Machine.free_bytes(path)
    }
}
