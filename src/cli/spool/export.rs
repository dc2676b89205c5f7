//! `tidegate spool export`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::Progress;
use super::usage::At;
use crate::bundle::document::MAX_DOCUMENT;
use crate::cli::{Misused, now, runtime};
use crate::disk::read_limited;
use crate::ids::StreamId;
use crate::stick::Source as _;
use crate::stick::export::{Exported, Order, Stopped, export};
use crate::stick::key::UsageKey;
use crate::units::Bytes;

const HOW: &str = "say whether the files on the stick are to be sealed: --to usage-key.tgd, which `tidegate-hub usage-key` \
                   makes, so that only the hub can read them; or --clear, so that whoever finds the stick can";

/// Write what waits onto a stick.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate spool export /media/stick --to usage-key.tgd")]
pub(in crate::cli) struct Export {
    /// The stick, or a folder on it.
    folder: PathBuf,
    /// Only files from this number on; with STREAM, only that stream and those after it.
    #[arg(long, value_name = "[STREAM.]SEQ", value_parser = since)]
    since: Option<(Option<StreamId>, u64)>,
    /// Most bytes to write, such as 4GiB.
    #[arg(long, value_name = "BYTES")]
    limit: Option<Bytes>,
    /// Seal the files to the hub's usage key.
    #[arg(long, value_name = "FILE", conflicts_with = "clear")]
    to: Option<PathBuf>,
    /// Write them as they are: whoever finds the stick can read them.
    #[arg(long)]
    clear: bool,
    /// Print how it ended as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

fn since(text: &str) -> Result<(Option<StreamId>, u64), String> {
    let wrong = || "write SEQ, or STREAM.SEQ with 16 hex digits".to_owned();
    let (stream, seq) = match text.split_once('.') {
        Some((stream, seq)) => (Some(stream.parse().map_err(|_| wrong())?), seq),
        None => (None, text),
    };
    Ok((stream, seq.parse().map_err(|_| wrong())?))
}

pub(super) fn run(arguments: &Export) -> anyhow::Result<()> {
    if arguments.to.is_none() && !arguments.clear {
        return Err(Misused(HOW).into());
    }
    let runtime = runtime()?;
    let usage = arguments.at.open(&runtime)?;
    let seal = match &arguments.to {
        Some(path) => {
            let named = || format!("usage key {}", path.display());
            let bytes = read_limited(path, MAX_DOCUMENT).with_context(named)?;
            Some(UsageKey::verify(&bytes, &usage.root()?).with_context(named)?)
        }
        None => None,
    };
    let order = Order {
        folder: &arguments.folder,
        since: arguments.since,
        limit: arguments.limit.map(|limit| limit.0),
        seal,
        now: now(),
    };
    let progress = Progress::new(usage.waiting(), arguments.json);
    let exported = runtime.block_on(export(&usage, &order, |step| {
        let word = if step.was_there { "there already" } else { "written" };
        let (device, stream, name) = (step.device, step.name.stream, step.name.file_name());
        progress.step(&format!("{device}/{stream}/{name}: {word}, {} bytes", step.bytes), false);
    }));
    progress.end();
    let exported = exported?;
    told(&exported, arguments.json);
    match (exported.stopped, exported.no_manifest) {
        (Some(Stopped::StickFull), _) => Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
            .context("the stick is full; what is on it is good, so bring it, and take another for the rest"),
        (_, Some(error)) => Err(std::io::Error::other(error))
            .context("the manifest could not be written; the files are good without it"),
        _ => Ok(()),
    }
}

fn told(exported: &Exported, json: bool) {
    let Exported { files, bytes, there, unknown, stopped, no_manifest } = exported;
    let stopped = stopped.map(|stopped| match stopped {
        Stopped::Limit => "limit",
        Stopped::StickFull => "stick-full",
    });
    if json {
        let manifest = no_manifest.is_none();
        let told = serde_json::json!({
            "files": files, "bytes": bytes, "there": there, "unknown": unknown, "stopped": stopped, "manifest": manifest,
        });
        println!("{told}");
        return;
    }
    println!("{files} files written, {bytes} bytes; {there} were there already");
    if *unknown > 0 {
        println!("{unknown} files are of a form that this version does not know; they stay");
    }
    if stopped == Some("limit") {
        println!("the limit is reached: there may be more");
    }
}
