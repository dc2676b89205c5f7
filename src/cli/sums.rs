//! `tidegate sums`: whether the files of a release are those that its makers signed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::confirm::Confirm;
use super::root::read_root;
use super::{PassphraseSource, Refusal, print};
use crate::bundle::root::Role;
use crate::bundle::succession::MAX_BLOCK;
use crate::bundle::sums::{MAX_SUMS, SignedSums};
use crate::disk::{self, read_limited};
use crate::keys::sha256;

/// Most bytes of a file of a release.
const MAX_LISTED: u64 = 64 << 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Sign a list of checksums, as sha256sum makes it; the signatures lie beside it in a file that ends in .sigs.
    #[command(after_help = "Example:\n  tidegate sums sign SHA256SUMS --key release.key --root root.json")]
    Sign(Sign),
    /// Check the signatures of such a list, and the files beside it: exit code 0 or 65.
    #[command(after_help = "Example:\n  tidegate sums verify SHA256SUMS --root /etc/tidegate/root.json")]
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
pub(super) struct Sign {
    /// The list.
    sums: PathBuf,
    /// A key file; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The root document: a key that does not have its role release is refused.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The list.
    sums: PathBuf,
    /// The root document whose role release must have signed.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Sign(arguments) => sign(&arguments),
        Command::Verify(arguments) => verify(&arguments),
    }
}

fn sign(arguments: &Sign) -> anyhow::Result<()> {
    let Sign { sums: path, key, root, confirm, passphrase } = arguments;
    let root = root.as_deref().map(read_root).transpose()?;
    let mut sums = read(path)?;
    let rows = [("list", path.display().to_string()), ("digest", sums.digest().to_string())];
    print!("{}", print::pairs(&rows));
    for line in sums.lines() {
        println!("  {}  {}", line.digest, print::visible(&line.name));
    }
    let keys = key.iter().map(|path| passphrase.open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
    confirm.check(sums.digest(), &names.join(", "))?;
    for key in &keys {
        sums.sign(root.as_ref(), &key.key).with_context(|| format!("key {:?}", key.name))?;
    }
    let beside = signatures_of(path);
    disk::replace(&beside, &sums.block(), 0o644).with_context(|| format!("writing {}", beside.display()))?;
    println!("\nSigned: {}", beside.display());
    if let Some(root) = &root {
        let signers = sums.signers(root)?;
        println!("It has {} of {} signatures of the role release.", signers.keys.len(), signers.threshold);
    }
    Ok(())
}

/// The signatures first: what nobody vouches for is told as such, and no file is looked at.
fn verify(arguments: &Verify) -> anyhow::Result<()> {
    let root = read_root(&arguments.root)?;
    let path = &arguments.sums;
    let sums = read(path)?;
    let signed = sums.signers(&root).and_then(|signers| signers.meet(Role::Release));
    let signers = match signed {
        Ok(signers) => signers,
        Err(refused) => {
            println!("refused: {}: {}", refused.name(), print::visible(refused.detail()));
            println!("what to do: install none of these files; have them from who made them, with their signatures");
            return Err(Refusal.into());
        }
    };
    let holders = signers.iter().map(|key| root.holder(*key).unwrap_or("a key without a name"));
    println!("signed by {}", print::visible(&holders.collect::<Vec<_>>().join(", ")));
    let (mut good, mut wrong) = (0, 0);
    for line in sums.lines() {
        let file = path.with_file_name(&line.name);
        let verdict = match read_limited(&file, MAX_LISTED) {
            Ok(bytes) if sha256(&bytes) == line.digest => {
                good += 1;
                "good"
            }
            Err(error) if error.kind() == ErrorKind::NotFound => "not here",
            Err(error) if error.kind() != ErrorKind::FileTooLarge => {
                return Err(error).with_context(|| file.display().to_string());
            }
            _ => {
                wrong += 1;
                "WRONG"
            }
        };
        println!("{verdict:<8}  {}", print::visible(&line.name));
    }
    if wrong == 0 && good > 0 {
        return Ok(());
    }
    println!("refused: {}", if wrong > 0 { "another file than was signed" } else { "none of the files is here" });
    Err(Refusal.into())
}

fn read(path: &Path) -> anyhow::Result<SignedSums> {
    let named = || format!("checksums {}", path.display());
    let list = read_limited(path, MAX_SUMS).with_context(named)?;
    let beside = signatures_of(path);
    let block = match read_limited(&beside, MAX_BLOCK) {
        Ok(block) => Some(block),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("signatures {}", beside.display())),
    };
    SignedSums::parse(&list, block.as_deref()).with_context(named)
}

/// `SHA256SUMS.sigs` of `SHA256SUMS`.
fn signatures_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sigs");
    name.into()
}
