//! `tidegate spool`: the usage that waits on this device, and its way by stick.

mod export;
mod ls;
mod receipts;
mod usage;
mod verify;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use crate::exit;

pub(super) use receipts::take_receipts;
pub(super) use usage::{At, Usage};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show what waits on this device.
    Ls(ls::Ls),
    /// Write what waits onto a stick; it goes on waiting until a receipt has come.
    Export(export::Export),
    /// Take the hub's receipts from a stick, and let go of what the hub has.
    Receipts(receipts::Receipts),
    /// Check usage files and receipts anywhere: form, signatures, and the chain from file to file.
    Verify(verify::Verify),
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Receipts(arguments) => receipts::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
    }
}

/// This binary as the spool's child.
pub(super) fn child() -> ExitCode {
    match crate::spool::child::run() {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            eprintln!("tidegate: the spool's child: {error}");
            ExitCode::from(exit::IO)
        }
    }
}

/// A bar on a terminal, plain lines anywhere else, nothing where the answer is JSON.
struct Progress {
    bar: Option<ProgressBar>,
    speaks: bool,
}

impl Progress {
    fn new(total: Option<u64>, json: bool) -> Self {
        let shows = !json && std::io::stderr().is_terminal();
        let bar = shows.then(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let style = ProgressStyle::with_template("{bar:30} {pos:>6}/{len} files  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, speaks: !json }
    }

    /// One file is done. Where somebody should look into it, a line is left also beside the bar.
    fn step(&self, line: &str, is_bad: bool) {
        let line = super::print::visible(line);
        match &self.bar {
            Some(bar) if is_bad => bar.suspend(|| println!("{line}")),
            Some(bar) => bar.set_message(line),
            None if self.speaks => println!("{line}"),
            None => {}
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
