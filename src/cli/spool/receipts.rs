//! `tidegate spool receipts`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::Progress;
use super::usage::{At, Usage};
use crate::cli::{Refusal, print, runtime};
use crate::stick::folder::Folder;
use crate::stick::receipts::{Outcome, take};
use crate::stick::{Item, Strange};

/// Take the hub's receipts from a stick.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate spool receipts /media/stick")]
pub(in crate::cli) struct Receipts {
    /// The stick, or a folder on it, as it came back from the hub.
    folder: PathBuf,
    /// Print how it ended as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Takes the receipts in `root`; `told` hears of each. Gives what is strange among them.
pub(in crate::cli) async fn take_receipts(
    usage: &Usage,
    root: &Folder,
    told: impl FnMut(&Item, Outcome),
) -> anyhow::Result<Vec<Strange>> {
    Ok(take(usage, root, usage.device, &usage.hubs()?, told).await?)
}

pub(super) fn run(arguments: &Receipts) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let root = Folder::open(&arguments.folder).with_context(|| arguments.folder.display().to_string())?;
    let usage = arguments.at.open(&runtime)?;
    let progress = Progress::new(None, arguments.json);
    let mut outcomes: Vec<(String, Outcome)> = Vec::new();
    let strange = runtime.block_on(take_receipts(&usage, &root, |item, outcome| {
        progress.step(&format!("{item}: {}", outcome.name()), outcome.is_bad());
        outcomes.push((item.to_string(), outcome));
    }));
    progress.end();
    let strange = strange?;
    let count = |of: fn(Outcome) -> bool| outcomes.iter().filter(|(_, outcome)| of(*outcome)).count();
    let deleted = count(Outcome::lets_go);
    let bad = count(Outcome::is_bad) + strange.len();
    if arguments.json {
        let receipts: Vec<_> = outcomes
            .iter()
            .map(|(path, outcome)| serde_json::json!({ "path": path, "outcome": outcome.name(), "bad": outcome.is_bad() }))
            .collect();
        let strange: Vec<_> = strange.iter().map(|it| serde_json::json!({ "path": it.path, "why": it.why })).collect();
        println!("{}", serde_json::json!({ "deleted": deleted, "receipts": receipts, "strange": strange }));
    } else {
        for it in &strange {
            println!("{}: skipped: {}", print::visible(&it.path), it.why);
        }
        println!("{} receipts; {deleted} files deleted; {bad} to look into", outcomes.len());
    }
    if bad > 0 { Err(Refusal.into()) } else { Ok(()) }
}
