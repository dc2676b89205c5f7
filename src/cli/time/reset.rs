//! `time reset`: a new document, and the first signatures.

use std::path::PathBuf;

use super::{Holders, finish, summary};
use crate::bundle::manifest::{Author, Target};
use crate::bundle::reset::TimeReset;
use crate::cli::root::read_root;
use crate::cli::{TOOL, moment, now};
use crate::ids::DeviceId;
use crate::units::UnixSeconds;

/// Make a time reset and sign it with keys of the role root.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub(in crate::cli) struct Reset {
    #[command(flatten)]
    holders: Holders,
    /// What time it is, in Unix seconds or as 2026-11-26T10:00:00Z. Not later than it is: it becomes a lower bound.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: UnixSeconds,
    /// The least floor that it takes back, likewise: `/status` tells that of a device (`time.lower`). Devices whose floor is
    /// earlier refuse it, at any later day too.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    undoes: UnixSeconds,
    /// A device that it is for; may be given several times.
    #[arg(long, value_name = "ID", group = "whose")]
    device: Vec<DeviceId>,
    /// It is for every device of the deployment whose floor is that far ahead.
    #[arg(long, group = "whose")]
    all: bool,
    /// Its number, which must be above that of the last reset. Default: this machine's time in Unix seconds.
    #[arg(long)]
    seq: Option<u64>,
    /// Why it is made; for the devices' journal.
    #[arg(long, default_value = "")]
    reason: String,
    /// Who makes it, likewise.
    #[arg(long)]
    author: String,
    /// Where it is written; end its name in .tgb.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(arguments: &Reset) -> anyhow::Result<()> {
    let root = read_root(&arguments.holders.root)?;
    let now = now();
    let reset = TimeReset {
        at: arguments.at,
        author: Author { who: arguments.author.clone(), tool: TOOL.into(), reason: arguments.reason.clone() },
        deployment: root.deployment().into(),
        epoch: root.epoch(),
        seq: arguments.seq.unwrap_or_else(|| u64::try_from(now).unwrap_or(0).max(1)),
        target: if arguments.all { Target::All } else { Target::Devices(arguments.device.clone()) },
        undoes: arguments.undoes,
    };
    let file = reset.assemble()?;
    print!("{}", summary(&file, &reset)?);
    if reset.at > now {
        println!("That is later than this machine's clock says; tokens that end before it will be refused.");
    }
    finish(file, &root, &arguments.holders, &arguments.output)
}
