//! `release status`: what the installer says of the last release that came.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::bundle::installer::has_run;
use crate::cli::print;
use crate::disk::read_limited;

/// Most bytes of the installer's word.
const MAX_STATUS: u64 = 4_096;

/// Show how the last release that came to this device ended.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Status {
    /// The installer's folder.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate-release")]
    folder: PathBuf,
    /// As it stands in status.json.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(status: &Status) -> anyhow::Result<()> {
    let path = status.folder.join("status.json");
    let text = match read_limited(&path, MAX_STATUS) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && has_run(&status.folder) => {
            println!("no release has come to this device");
            return Ok(());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "nothing on this device installs releases: the package does, by tidegate-release.service; without it a new \
             version is installed by hand"
        ),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let said: BTreeMap<String, Value> = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    if status.json {
        println!("{}", serde_json::to_string_pretty(&said)?);
        return Ok(());
    }
    let row = |(name, value): (&String, &Value)| {
        (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let rows: Vec<(String, String)> = said.iter().map(row).collect();
    let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (&**name, value.clone())).collect();
    print!("{}", print::pairs(&rows));
    Ok(())
}
