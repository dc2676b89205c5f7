//! The usage that comes and goes with a stick: the hub's receipts in, and whether usage may go out.
//!
//! It goes out by leave of a note on the stick that the device took, or of `usb.export = "any"`, and always sealed: to the
//! usage key on the stick, or else the one of the settings, as a key of the root's hub role signed it.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::Told;
use crate::bundle::document::{Document, MAX_DOCUMENT};
use crate::bundle::root::RootDocument;
use crate::bundle::staging::open_regular;
use crate::cli::runtime;
use crate::cli::spool::{At, Usage, take_receipts};
use crate::config::Export;
use crate::disk::{self, read_limited};
use crate::stick::RECEIPTS;
use crate::stick::folder::Folder;
use crate::stick::key::UsageKey;

/// The name that `tidegate-hub usage-key` gives its document.
const USAGE_KEY: &str = "usage-key.tgd";

/// Takes the receipts that are on `stick`; where usage may go out, `grant` is made: the usage key to seal it to. Whether
/// anything came of it.
pub(super) fn exchange(
    stick: &Path,
    at: &At,
    grant: &Path,
    has_note: bool,
    device_told: &mut Told,
) -> anyhow::Result<bool> {
    // What is there already tells of another stick.
    match fs::remove_file(grant) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| grant.display().to_string());
        }
        _ => {}
    }
    let has_receipts = fs::symlink_metadata(stick.join(RECEIPTS)).is_ok_and(|found| found.is_dir());
    let runtime = runtime()?;
    let usage = at.open(&runtime)?;
    let mut came = false;
    if has_receipts {
        let folder = Folder::open(stick).with_context(|| stick.display().to_string())?;
        let (mut receipts, mut deleted) = (0_u64, 0_u64);
        let strange = runtime.block_on(take_receipts(&usage, &folder, |item, outcome| {
            (receipts, deleted) = (receipts + 1, deleted + u64::from(outcome.lets_go()));
            if outcome.is_bad() {
                device_told.line(&format!("{item}: {}", outcome.name()));
            }
        }))?;
        for it in strange {
            device_told.line(&format!("{}: skipped: {}", it.path, it.why));
        }
        device_told.line(&format!("{receipts} receipts of the hub; {deleted} files deleted"));
        came |= deleted > 0;
    }
    if has_note || usage.usb().export == Export::Any {
        match key(stick, &usage) {
            Ok(document) => {
                disk::replace(grant, &document, 0o600).with_context(|| grant.display().to_string())?;
                device_told.line("usage goes along");
                came = true;
            }
            Err(error) => device_told.line(&format!("NoUsageKey: usage stays: {error:#}")),
        }
    }
    Ok(came)
}

/// The document of the key to seal to: the stick's, or else that of the settings.
fn key(stick: &Path, usage: &Usage) -> anyhow::Result<Vec<u8>> {
    let root = usage.root()?;
    let brought = stick.join(USAGE_KEY);
    if fs::symlink_metadata(&brought).is_ok() {
        let mut file = open_regular(&brought)?.into_file().0;
        let document = Document::of(&mut file)?.context("not a signed document");
        return checked(&document?.to_bytes(), &root).context(USAGE_KEY);
    }
    let Some(path) = &usage.usb().usage_key else {
        anyhow::bail!(
            "put {USAGE_KEY}, which `tidegate-hub usage-key` makes, onto the stick, or name one in usb.usage_key"
        );
    };
    let named = || format!("usb.usage_key {}", path.display());
    checked(&read_limited(path, MAX_DOCUMENT).with_context(named)?, &root).with_context(named)
}

fn checked(bytes: &[u8], root: &RootDocument) -> anyhow::Result<Vec<u8>> {
    UsageKey::verify(bytes, root)?;
    Ok(bytes.to_vec())
}
