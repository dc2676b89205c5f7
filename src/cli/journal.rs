//! `tidegate journal`: what happened to a device's policy, in words, and whether anybody altered the record of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::{Refusal, print};
use crate::bundle::journal::{Examined, Line, examine, examine_file};
use crate::disk::{Machine, read_limited};

/// Largest single file that is read, in bytes: a journal's files have one MiB.
const MAX_FILE: u64 = 2 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print a device's journal; with --verify, exit code 65 if its chain is broken.
    #[command(after_help = "Example:\n  tidegate journal show --verify --state /var/lib/tidegate")]
    Show(Show),
}

/// Print a device's journal.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The folder of a journal, or one file of it.
    #[arg(required_unless_present = "state", conflicts_with = "state")]
    path: Option<PathBuf>,
    /// The state folder of a device, or a copy of it.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Take a break of the chain for an error: exit code 65.
    #[arg(long)]
    verify: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Show(show) = command;
    let path = show.path.clone().or_else(|| show.state.as_ref().map(|state| state.join("journal")));
    let found = read(&path.context("name the journal, or the state folder with --state")?)?;
    if show.json {
        let said = json!({"lines": found.lines, "breaks": found.breaks, "torn": found.torn});
        println!("{said:#}");
    } else {
        found.lines.iter().for_each(|line| print!("{}", text(line)));
        found.torn.iter().for_each(|torn| println!("note: {}", print::visible(torn)));
        found.breaks.iter().for_each(|broken| println!("BROKEN: {}", print::visible(broken)));
        let count = found.lines.len();
        match found.breaks.len() {
            0 => println!("{count} line(s); each follows the one before"),
            breaks => println!("{count} line(s); the chain breaks at {breaks} place(s)"),
        }
    }
    if show.verify && !found.breaks.is_empty() { Err(Refusal.into()) } else { Ok(()) }
}

fn read(path: &Path) -> anyhow::Result<Examined> {
    let named = || format!("journal {}", path.display());
    if path.is_dir() {
        return examine(&Machine, path).with_context(named);
    }
    let bytes = read_limited(path, MAX_FILE).with_context(named)?;
    Ok(examine_file(&path.file_name().unwrap_or_default().to_string_lossy(), &bytes))
}

/// A line as a person reads it: when, what and how it ended; then what is known about it.
fn text(line: &Line) -> String {
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    };
    let (event, quality) = (word(serde_json::to_value(line.event)), word(serde_json::to_value(line.quality)));
    let mut facts = Vec::new();
    facts.extend((!line.detail.is_empty()).then(|| line.detail.clone()));
    facts.extend(line.file.as_ref().map(|file| format!("file {file}")));
    facts.extend(line.medium.as_ref().map(|medium| format!("by {medium}")));
    facts.extend(line.seq.map(|seq| format!("seq {seq}")));
    facts.extend(line.digest.map(|digest| format!("digest {digest}")));
    let signers: Vec<_> = line.signers.iter().map(ToString::to_string).collect();
    facts.extend((!signers.is_empty()).then(|| format!("signed by {}", signers.join(", "))));
    if let Some(author) = &line.author {
        facts.push(format!("author {}, with {}", author.who, author.tool));
        facts.extend((!author.reason.is_empty()).then(|| format!("reason {}", author.reason)));
    }
    facts.extend((line.suppressed > 0).then(|| format!("{} offers before it were not written", line.suppressed)));
    let head = format!("{} ({quality})  {event}: {}", print::moment(line.at), line.result);
    let facts = facts.iter().map(|fact| format!("    {}\n", print::visible(fact))).collect::<String>();
    format!("{}\n{facts}", print::visible(&head))
}
