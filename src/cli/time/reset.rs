//! `time reset`: a new document, and the first signatures.

use std::path::PathBuf;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{finish, read_root, summary};
use crate::bundle::manifest::{Author, Target};
use crate::bundle::reset::TimeReset;
use crate::cli::PassphraseSource;
use crate::clock::Reading;
use crate::ids::DeviceId;
use crate::units::UnixSeconds;

/// Make a time reset and sign it with keys of the role root.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reset {
    /// The root document of the devices.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A key of the role root; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// What time it is, in Unix seconds or as 2026-11-26T10:00:00Z. Not later than it is: it becomes a lower bound.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: UnixSeconds,
    /// A device that it is for; may be given several times. Default: every device of the deployment.
    #[arg(long, value_name = "ID")]
    device: Vec<DeviceId>,
    /// Its number, which must be above that of the last reset. Default: this machine's time in Unix seconds.
    #[arg(long)]
    seq: Option<u64>,
    /// Why it is made; for the devices' journal.
    #[arg(long, default_value = "")]
    reason: String,
    /// Who makes it. Default: the user's name.
    #[arg(long)]
    who: Option<String>,
    /// Where it is written; end its name in .tgb.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Reads Unix seconds or RFC 3339.
fn moment(text: &str) -> Result<UnixSeconds, String> {
    let date = || OffsetDateTime::parse(text, &Rfc3339).map(OffsetDateTime::unix_timestamp);
    text.parse().or_else(|_| date()).map_err(|_| "write Unix seconds or 2026-11-26T10:00:00Z".to_owned())
}

pub(super) fn run(arguments: &Reset) -> anyhow::Result<()> {
    let root = read_root(&arguments.root)?;
    let now = Reading::now().wall_ms.div_euclid(1_000);
    let who = arguments.who.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    let reset = TimeReset {
        at: arguments.at,
        author: Author {
            who,
            tool: concat!("tidegate ", env!("CARGO_PKG_VERSION")).into(),
            reason: arguments.reason.clone(),
        },
        deployment: root.deployment().into(),
        epoch: root.epoch(),
        seq: arguments.seq.unwrap_or_else(|| u64::try_from(now).unwrap_or(0).max(1)),
        target: if arguments.device.is_empty() { Target::All } else { Target::Devices(arguments.device.clone()) },
    };
    print!("{}", summary(&reset));
    if reset.at > now {
        println!("That is later than this machine's clock says; tokens that end before it will be refused.");
    }
    finish(reset.assemble()?, &root, (&arguments.key, &arguments.passphrase), &arguments.output)
}
