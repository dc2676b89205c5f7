//! What the commands ask that make a bundle without a policy folder: who makes it, why, under which root, until when.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;

use super::bundle::chain;
use super::root::read_root;
use super::{TOOL, now};
use crate::bundle::manifest::{Author, Target};
use crate::bundle::pack::{self, Draft};
use crate::bundle::root::RootDocument;
use crate::disk;
use crate::units::UnixSeconds;

#[derive(Debug, clap::Args)]
pub(super) struct Authored {
    /// Where the bundle is written.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// The root document.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The roots that it brings, each signed in full.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    root_chain: Vec<PathBuf>,
    /// Who makes it, for the journal of the devices.
    #[arg(long)]
    author: String,
    /// Why, likewise.
    #[arg(long, default_value = "")]
    reason: String,
    /// The moment after which it is not taken any more.
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    expires: Option<UnixSeconds>,
    /// The time to write into it, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
}

impl Authored {
    /// When it is made.
    pub(super) fn now(&self) -> UnixSeconds {
        self.now.unwrap_or_else(now)
    }

    /// A draft for `target`, without entries, that takes nothing back.
    pub(super) fn draft(&self, target: Target, seq: u64) -> Draft {
        Draft {
            author: Author { who: self.author.clone(), tool: TOOL.to_owned(), reason: self.reason.clone() },
            target,
            seq,
            security_floor: 0,
            issued_at: self.now(),
            expires_at: self.expires,
            base: None,
            requires: Vec::new(),
            entries: BTreeMap::new(),
        }
    }

    /// Has `assemble` make the bundle under the root, adds the roots that it brings, and writes it; the bundle and the root.
    pub(super) fn write(
        &self,
        assemble: impl FnOnce(&RootDocument) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<(Vec<u8>, RootDocument)> {
        let (root, links) = chain(&read_root(&self.root)?, &self.root_chain)?;
        let bundle = pack::with_chain(&assemble(&root)?, &links)?;
        disk::replace(&self.output, &bundle, 0o644).with_context(|| format!("writing {}", self.output.display()))?;
        Ok((bundle, root))
    }
}
