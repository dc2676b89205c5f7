//! `tidegate device export-usage`: leave for sticks to take the usage of named devices along.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::read_document;
use super::signing::Signing;
use crate::bundle::document::{Document, DocumentKind};
use crate::bundle::root::{Role, RootDocument};
use crate::bundle::usage_note::UsageNote;
use crate::cli::print;
use crate::ids::DeviceId;
use crate::units::UnixSeconds;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate device export-usage --device 0123456789abcdef0123456789abcdef --until 2026-12-31T00:00:00Z \\\n    \
                        --key policy/keys/policy.key -o export-usage.tgd"
)]
pub(in crate::cli) struct ExportUsage {
    /// A device whose usage may leave; may be given several times.
    #[arg(long, value_name = "ID", required_unless_present = "note")]
    device: Vec<DeviceId>,
    /// The moment from which on it may not any more.
    #[arg(long, value_name = "TIME", value_parser = crate::cli::moment, required_unless_present = "note")]
    until: Option<UnixSeconds>,
    /// A note that others have signed, to sign it too.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "until", "now"])]
    note: Option<PathBuf>,
    #[command(flatten)]
    signing: Signing,
}

pub(super) fn run(arguments: &ExportUsage) -> anyhow::Result<()> {
    let (root, keys) = arguments.signing.open(&[Role::Policy])?;
    let (first, others) = keys.split_first().context("no key is given")?;
    let signed = match &arguments.note {
        Some(path) => {
            let signed = read_document(path)?;
            signed.expect(DocumentKind::ExportUsage)?;
            signed
        }
        None => Document::sign(DocumentKind::ExportUsage, &draft(arguments, &root)?, &first.key)?,
    };
    let note: UsageNote = signed.read()?;
    let devices: Vec<_> = note.devices.iter().map(ToString::to_string).collect();
    print!(
        "{}",
        print::pairs(&[
            ("usage may leave of", devices.join(" ")),
            ("until", print::moment(note.expires_at)),
            ("deployment", note.deployment.clone()),
            ("digest", signed.digest().to_string()),
        ])
    );
    arguments.signing.confirm(signed.digest(), &keys)?;
    let signed = [first].into_iter().chain(others).try_fold(signed, |signed, key| signed.signed_too(&key.key))?;
    arguments.signing.write(&signed)?;
    match UsageNote::verify(&signed, &root) {
        Ok(_) => println!("It is complete: put it onto the stick, beside the hub's usage-key.tgd."),
        Err(refused) => println!("Pass it on, more must sign: {}", print::visible(refused.detail())),
    }
    Ok(())
}

fn draft(arguments: &ExportUsage, root: &RootDocument) -> anyhow::Result<UsageNote> {
    let until = arguments.until.context("--until is missing")?;
    let now = arguments.signing.now();
    if until <= now {
        bail!("--until lies in the past");
    }
    Ok(UsageNote::new(root, arguments.device.clone(), now, until)?)
}
