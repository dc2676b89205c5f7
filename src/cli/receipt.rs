//! `tidegate receipt`: what a device says of a bundle that was brought to it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::device::enrolled_key;
use super::{Refusal, print};
use crate::bundle::Receipt;
use crate::bundle::document::MAX_DOCUMENT;
use crate::disk::read_limited;
use crate::ids::unhex;
use crate::keys::{KeyAlg, PublicKey};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Check the receipt that a device left beside a bundle: exit code 0 or 65.
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate receipt verify policy-7.tgb.result.json --device-key pump-3.pub")]
pub(super) struct Verify {
    /// The receipt, NAME.result.json.
    receipt: PathBuf,
    #[command(flatten)]
    believe: Believe,
}

/// Whose receipt it must be.
#[derive(Debug, clap::Args)]
pub(super) struct Believe {
    /// The device's public key: a file of 64 hex digits.
    #[arg(long, value_name = "FILE")]
    device_key: Option<PathBuf>,
    /// The device's enrolment, which holds its key; the root says whether it is to be believed.
    #[arg(long, value_name = "FILE", requires = "root", conflicts_with = "device_key")]
    enrolment: Option<PathBuf>,
    /// The root document, for the enrolment.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

impl Believe {
    /// The key, if one is named.
    pub(super) fn key(&self) -> anyhow::Result<Option<PublicKey>> {
        match (&self.device_key, &self.enrolment, &self.root) {
            (Some(path), ..) => read_public(path).map(Some),
            (None, Some(enrolment), Some(root)) => enrolled_key(enrolment, root).map(Some),
            (None, ..) => Ok(None),
        }
    }

    /// Whether none is named.
    pub(super) fn is_blind(&self) -> bool {
        self.device_key.is_none() && self.enrolment.is_none()
    }
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Verify(arguments) => verify(&arguments),
    }
}

fn verify(arguments: &Verify) -> anyhow::Result<()> {
    let key = arguments.believe.key()?;
    let key = key.context("name the device's key with --device-key, or its enrolment with --enrolment and --root")?;
    let named = || format!("receipt {}", arguments.receipt.display());
    let bytes = read_limited(&arguments.receipt, MAX_DOCUMENT).with_context(named)?;
    match Receipt::verify(&bytes, &key) {
        Ok(receipt) => {
            print!("{}", told(&receipt));
            Ok(())
        }
        Err(refused) => {
            println!("refused: {}: {}", refused.name(), print::visible(refused.detail()));
            println!("what to do: do not believe the receipt; {}", refused.advice());
            Err(Refusal.into())
        }
    }
}

/// A receipt that was verified, for people.
pub(super) fn told(receipt: &Receipt) -> String {
    let some = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let journal = receipt.journal.map(|end| format!("file {}, byte {}, hash {}", end.file, end.length, end.hash));
    print::pairs(&[
        ("result", receipt.result.clone()),
        ("detail", receipt.detail.clone()),
        ("file", receipt.name.clone()),
        ("digest", some(receipt.digest.map(|digest| digest.to_string()))),
        ("seq", some(receipt.seq.map(|seq| seq.to_string()))),
        ("device", receipt.device.to_string()),
        ("time", format!("{} ({})", print::moment(receipt.at), receipt.quality.name())),
        ("boot", receipt.boot.clone()),
        ("journal", some(journal)),
    ])
}

/// A device's public key: 64 hex digits, as `device request` prints them.
pub(super) fn read_public(path: &Path) -> anyhow::Result<PublicKey> {
    let named = || format!("key {}", path.display());
    let bytes = read_limited(path, 65).with_context(named)?;
    let raw = std::str::from_utf8(&bytes).ok().and_then(|text| unhex::<32>(text.trim_end()).ok());
    let Some(raw) = raw else { bail!("key {}: not 64 lower-case hex digits", path.display()) };
    PublicKey::new(KeyAlg::Ed25519, &raw).with_context(named)
}
