//! Who signs a document of a device, under which root, and where it goes: of enrolments and of notes.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::write;
use crate::bundle::document::Document;
use crate::bundle::keyfile::AuthorKey;
use crate::bundle::root::{Role, RootDocument};
use crate::cli::bundle::root_beside;
use crate::cli::confirm::Confirm;
use crate::cli::root::read_root;
use crate::cli::{PassphraseSource, now};
use crate::ids::Digest;
use crate::units::UnixSeconds;

#[derive(Debug, clap::Args)]
pub(super) struct Signing {
    /// A key file of a role that may sign it; may be given several times.
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
    /// Where it is written.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Signing {
    /// When it is made.
    pub(super) fn now(&self) -> UnixSeconds {
        self.now.unwrap_or_else(now)
    }

    /// The root, and the keys, each of which has one of `roles` in it.
    pub(super) fn open(&self, roles: &[Role]) -> anyhow::Result<(RootDocument, Vec<AuthorKey>)> {
        let root = self.root.clone().or_else(|| self.key.iter().find_map(|key| root_beside(key)));
        let root = read_root(&root.context("no root.json lies beside the key: name it with --root")?)?;
        let keys = self.key.iter().map(|path| self.passphrase.open(path)).collect::<anyhow::Result<Vec<_>>>()?;
        for AuthorKey { name, key } in &keys {
            let id = key.public().id();
            if !roles.iter().any(|role| root.role_keys(*role).any(|key| key.id() == id)) {
                let roles: Vec<_> = roles.iter().map(|role| format!("the role {}", role.name())).collect();
                bail!("key {name:?} has in this root not {}", roles.join(" or "));
            }
        }
        Ok((root, keys))
    }

    /// Ends well only if what has this `digest` is to be signed by `keys`.
    pub(super) fn confirm(&self, digest: Digest, keys: &[AuthorKey]) -> anyhow::Result<()> {
        let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
        self.confirm.check(digest, &names.join(", "))
    }

    /// Writes it, and says so.
    pub(super) fn write(&self, document: &Document) -> anyhow::Result<()> {
        write(&self.output, document)?;
        println!("\nSigned: {}", self.output.display());
        Ok(())
    }
}
