//! `manifest.json`, the last file that an export writes: what it left on the stick, for people and for a second export.
//!
//! It proves nothing and nothing is refused for it: what it lists proves itself, and a stick without one is only one whose
//! export did not come to its end. It is not signed, for only the daemon has the device's key.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::folder::Folder;
use crate::ids::{DeviceId, Digest};
use crate::units::UnixSeconds;

/// Its name.
pub const FILE: &str = "manifest.json";
/// Most bytes of it: some hundred thousand files.
pub const MANIFEST_LIMIT: usize = 32 << 20;

/// What an export left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whose files.
    pub device: DeviceId,
    /// When the export ended, by the machine's wall clock.
    pub made_at: UnixSeconds,
    /// By `STREAM/NAME`.
    pub files: BTreeMap<String, Listed>,
}

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// SHA-256 of the usage file, which its receipt names.
    pub usage: Digest,
    /// SHA-256 of the file on the stick: another one where it is sealed.
    pub sha256: Digest,
    /// Its length on the stick, in bytes.
    pub bytes: u64,
}

impl Manifest {
    /// An empty one.
    #[must_use]
    pub fn new(device: DeviceId) -> Self {
        Self { device, made_at: 0, files: BTreeMap::new() }
    }

    /// That in the folder of `device`; `None` where there is none that can be used.
    #[must_use]
    pub fn read(folder: &Folder, device: DeviceId) -> Option<Self> {
        let read: Self = serde_json::from_slice(&folder.read(FILE, MANIFEST_LIMIT).ok()?).ok()?;
        (read.device == device).then_some(read)
    }

    /// Writes it into the device's folder.
    pub fn write(&self, folder: &Folder) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        folder.write(FILE, &bytes)
    }
}
