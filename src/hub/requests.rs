//! What devices ask to be, kept for whoever enrols them: one file for each device, `ID.request.tgd`.
//!
//! Anybody can send one, so all is bounded: the length of each, how many there are, and one for a key, the last. That it
//! is signed by the key that it shows is checked, so that nobody asks in another's name; nothing of it is believed or
//! does anything. A person compares the id with the device's own, signs what they think right, and removes the file.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use super::refusal::Refusal;
use crate::bundle::document::{Document, MAX_DOCUMENT};
use crate::bundle::enrolment::Request;
use crate::disk;
use crate::ids::DeviceId;

/// Longest request, in bytes.
pub(super) const LENGTH_LIMIT: usize = MAX_DOCUMENT as usize;
/// Most devices whose requests wait.
const MOST: usize = 256;
/// How the files end.
const ENDING: &str = ".request.tgd";

/// The folder.
#[derive(Debug)]
pub(super) struct Requests {
    folder: PathBuf,
    /// Held by whoever writes.
    writing: Mutex<()>,
}

impl Requests {
    /// `folder` must be there.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::read_dir(&folder)?;
        Ok(Self { folder, writing: Mutex::default() })
    }

    /// Judges a request and keeps it, in place of the one before it; whose it is.
    pub(super) async fn keep(self: Arc<Self>, bytes: Vec<u8>) -> Result<DeviceId, Refusal> {
        let kept = tokio::task::spawn_blocking(move || {
            let document = Document::parse(&bytes).map_err(|refused| Refusal::Request(refused.name()))?;
            let (request, _) = Request::verify(&document).map_err(|refused| Refusal::Request(refused.name()))?;
            self.write(request.device, &bytes)?;
            Ok(request.device)
        });
        kept.await.map_err(|_| Refusal::RequestsFailed)?
    }

    fn write(&self, device: DeviceId, bytes: &[u8]) -> Result<(), Refusal> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.join(format!("{device}{ENDING}"));
        // The same once more costs the disk nothing.
        let there = disk::read_limited(&path, MAX_DOCUMENT);
        if there.as_ref().is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        let written = match there {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.count().is_ok_and(|count| count >= MOST) => {
                return Err(Refusal::RequestsFull);
            }
            _ => disk::replace(&path, bytes, 0o640),
        };
        written.map_err(|error| {
            warn!(%error, folder = %self.folder.display(), "a device's request could not be kept");
            Refusal::RequestsFailed
        })
    }

    fn count(&self) -> io::Result<usize> {
        let is_one = |entry: &io::Result<fs::DirEntry>| {
            entry.as_ref().is_ok_and(|entry| entry.file_name().as_encoded_bytes().ends_with(ENDING.as_bytes()))
        };
        Ok(fs::read_dir(&self.folder)?.filter(is_one).count())
    }
}
