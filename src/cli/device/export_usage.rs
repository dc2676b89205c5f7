//! `tidegate device export-usage`: leave for sticks to take the usage of named devices along.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::{read_document, write};
use crate::bundle::document::{Document, DocumentKind};
use crate::bundle::keyfile::AuthorKey;
use crate::bundle::root::{Role, RootDocument};
use crate::bundle::usage_note::UsageNote;
use crate::cli::bundle::root_beside;
use crate::cli::confirm::Confirm;
use crate::cli::root::read_root;
use crate::cli::{PassphraseSource, now, print};
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
    /// A key file of the policy role; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The root document. Default: root.json of the folder that the key's folder lies in.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The time to write into it, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// Where the note is written.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(arguments: &ExportUsage) -> anyhow::Result<()> {
    let root = arguments.root.clone().or_else(|| arguments.key.iter().find_map(|key| root_beside(key)));
    let root = read_root(&root.context("no root.json lies beside the key: name it with --root")?)?;
    let keys = arguments.key.iter().map(|path| arguments.passphrase.open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    for AuthorKey { name, key } in &keys {
        let id = key.public().id();
        if !root.role_keys(Role::Policy).any(|key| key.id() == id) {
            bail!("key {name:?} has not the role policy in this root");
        }
    }
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
    let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
    arguments.confirm.check(signed.digest(), &names.join(", "))?;
    let signed = [first].into_iter().chain(others).try_fold(signed, |signed, key| signed.signed_too(&key.key))?;
    write(&arguments.output, &signed)?;
    println!("\nSigned: {}", arguments.output.display());
    match UsageNote::verify(&signed, &root) {
        Ok(_) => println!("It is complete: put it onto the stick, beside the hub's usage-key.tgd."),
        Err(refused) => println!("Pass it on, more must sign: {}", print::visible(refused.detail())),
    }
    Ok(())
}

fn draft(arguments: &ExportUsage, root: &RootDocument) -> anyhow::Result<UsageNote> {
    let until = arguments.until.context("--until is missing")?;
    let now = arguments.now.unwrap_or_else(now);
    if until <= now {
        bail!("--until lies in the past");
    }
    Ok(UsageNote::new(root, arguments.device.clone(), now, until)?)
}
