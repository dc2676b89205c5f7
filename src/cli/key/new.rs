//! `key new`: a key on the machine of who holds it, and the public half that goes into the root.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::bundle::keyfile::AuthorKey;
use crate::cli::passphrase::PassphraseSource;
use crate::cli::print;

/// Make a key on this machine, and its public half for whoever makes the root.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct New {
    /// Who holds it; it stands in the root document.
    name: String,
    /// The folder that NAME.key and NAME.pub are written into.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// Leave the key in clear, and do not ask.
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
}

pub(super) fn run(new: &New) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_file_name = new.name.chars().all(plain) && !new.name.starts_with('.');
    ensure!(
        is_file_name && (1..=64).contains(&new.name.len()),
        "a key's name is 1 to 64 letters, digits, dots, dashes and underscores, and names its files"
    );
    let [private, public] = ["key", "pub"].map(|end| new.out.join(format!("{}.{end}", new.name)));
    if let Some(there) = [&private, &public].into_iter().find(|path| path.exists()) {
        let never = io::Error::new(io::ErrorKind::AlreadyExists, "there already; keys are never written over");
        return Err(never).with_context(|| there.display().to_string());
    }
    let key = AuthorKey::generate(&new.name)?;
    let asked = || new.passphrase.for_new(&format!("the key {:?}", new.name));
    let passphrase = if new.no_passphrase { None } else { asked()? };
    key.create_with(&private, passphrase.as_ref()).with_context(|| private.display().to_string())?;
    key.public().create(&public).with_context(|| public.display().to_string())?;
    let secret = if passphrase.is_some() { "under a passphrase" } else { "IN CLEAR" };
    let rows = [
        ("key", key.key.public().id().to_string()),
        ("private", format!("{} (mode 0600, {secret})", private.display())),
        ("public", public.display().to_string()),
    ];
    print!("{}", print::pairs(&rows));
    let (private, public) = (private.display(), public.display());
    println!("\nGive the public file alone to whoever makes the root: tidegate root rotate … --add ROLE={public}");
    if passphrase.is_none() {
        eprintln!(
            "warning: whoever reads {private} can sign; `tidegate key encrypt {private}` puts a passphrase on it"
        );
    }
    Ok(())
}
