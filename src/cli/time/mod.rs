//! `tidegate time`: the root's holders say what time it is, for devices whose floor was raised too far.

mod reset;
mod sign;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;

use super::confirm::Confirm;
use super::{PassphraseSource, print};
use crate::bundle::manifest::Target;
use crate::bundle::reset::{self as format, TimeReset};
use crate::bundle::root::RootDocument;
use crate::disk;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a time reset and sign it with keys of the role root.
    #[command(
        after_help = "Example:\n  tidegate time reset --root policy/root.json --key policy/keys/root-1.key --at 2026-11-26T10:00:00Z \\\n    \
                            --undoes 2035-02-11T08:30:00Z --device ID --author ops@example.com --reason \"the hub's clock ran ahead\" -o reset.tgb"
    )]
    Reset(reset::Reset),
    /// Add signatures to a time reset that others have signed.
    #[command(after_help = "Example:\n  tidegate time sign reset.tgb --root policy/root.json --key root-2.key")]
    Sign(sign::Sign),
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Reset(arguments) => reset::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
    }
}

/// Who signs, and by which root it is judged.
#[derive(Debug, clap::Args)]
struct Holders {
    /// The root document of the devices.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A key of the role root; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// Signs `file`, which was shown, with every key once that is confirmed, and writes it to `output`; then tells who is missing.
fn finish(mut file: Vec<u8>, root: &RootDocument, holders: &Holders, output: &Path) -> anyhow::Result<()> {
    let Holders { key: paths, passphrase, confirm, .. } = holders;
    let keys = paths.iter().map(|path| passphrase.open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
    confirm.check(format::digest(&file)?, &names.join(", "))?;
    for key in &keys {
        file = format::sign(&file, root, &key.key).with_context(|| format!("key {:?}", key.name))?;
    }
    let (_, signers) = TimeReset::inspect(&file, root)?;
    disk::replace(output, &file, 0o644).with_context(|| format!("writing {}", output.display()))?;
    let (have, need) = (signers.keys.len(), signers.threshold);
    println!("\nSigned: {} has {have} of {need} signatures", output.display());
    match need.saturating_sub(have) {
        0 => println!("It is complete. Bring it to the devices as a bundle is brought; each takes it once."),
        missing => println!("Pass it on: {missing} more of the role root must sign it (tidegate time sign)."),
    }
    Ok(())
}

/// What a signer must read before signing.
fn summary(file: &[u8], reset: &TimeReset) -> anyhow::Result<String> {
    let target = match &reset.target {
        Target::All => "every device of the deployment".to_owned(),
        Target::Devices(ids) => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Target::Labels(labels) => {
            let one = |(key, values): (&String, &Vec<String>)| format!("{key}={}", values.join("|"));
            labels.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    };
    Ok(print::pairs(&[
        ("digest", format::digest(file)?.to_string()),
        ("sets the time floor to", format!("{} ({})", print::moment(reset.at), reset.at)),
        ("of", target),
        ("where it is not before", format!("{} ({})", print::moment(reset.undoes), reset.undoes)),
        ("deployment", format!("{}, epoch {}", reset.deployment, reset.epoch)),
        ("number", reset.seq.to_string()),
        ("made by", format!("{}: {}", reset.author.who, reset.author.reason)),
    ]))
}
