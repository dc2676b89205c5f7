//! `tidegate spool ls`.

use serde::Serialize;

use super::usage::At;
use crate::cli::{print, runtime};
use crate::keys::PublicKey;
use crate::spool::record::Row;
use crate::spool::segment::{Header, open};
use crate::stick::Source as _;

/// Show what waits on this device.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate spool ls")]
pub(in crate::cli) struct Ls {
    /// Show each file too.
    #[arg(long)]
    files: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// The files of one stream, or one file.
#[derive(Debug, Serialize)]
struct Held {
    device: String,
    stream: String,
    first: u64,
    last: u64,
    files: u64,
    tombstones: u64,
    bytes: u64,
    requests: u64,
    /// Gaps that the rows tell; absent where the device's key cannot be read, without which no row is believed.
    gaps: Option<u64>,
    oldest_ms: i64,
    newest_ms: i64,
}

impl Held {
    fn of(header: &Header, bytes: &[u8], key: Option<&PublicKey>) -> Self {
        let tombstones = u64::from(header.stands_for.is_some());
        let gaps = key.and_then(|key| {
            let verified = open(bytes, key).ok()?;
            Some(verified.rows().filter(|row| matches!(row, Row::Gap(_))).count() as u64)
        });
        Self {
            device: header.device().to_string(),
            stream: header.stream.to_string(),
            first: header.first(),
            last: header.seq,
            files: 1 - tombstones,
            tombstones,
            bytes: bytes.len() as u64,
            requests: header.requests.into(),
            gaps,
            oldest_ms: header.first_ms,
            newest_ms: header.last_ms,
        }
    }

    fn add(&mut self, file: &Self) {
        self.first = self.first.min(file.first);
        self.last = self.last.max(file.last);
        self.files += file.files;
        self.tombstones += file.tombstones;
        self.bytes += file.bytes;
        self.requests += file.requests;
        self.gaps = self.gaps.zip(file.gaps).map(|(sum, more)| sum + more);
        self.oldest_ms = self.oldest_ms.min(file.oldest_ms);
        self.newest_ms = self.newest_ms.max(file.newest_ms);
    }

    fn row(&self) -> Vec<String> {
        let moment = |ms: i64| print::moment(ms.div_euclid(1000));
        vec![
            self.stream.clone(),
            if self.first == self.last { self.last.to_string() } else { format!("{}-{}", self.first, self.last) },
            self.files.to_string(),
            self.tombstones.to_string(),
            self.bytes.to_string(),
            self.requests.to_string(),
            self.gaps.map_or_else(|| "?".into(), |gaps| gaps.to_string()),
            moment(self.oldest_ms),
            moment(self.newest_ms),
        ]
    }
}

pub(super) fn run(arguments: &Ls) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let usage = arguments.at.open(&runtime)?;
    let key = usage.key();
    let (mut files, mut streams) = (Vec::new(), Vec::<Held>::new());
    let mut after = None;
    while let Some(file) = runtime.block_on(usage.next(after))? {
        if after == Some(file.at) {
            break;
        }
        after = Some(file.at);
        let Ok(unverified) = crate::spool::segment::Unverified::parse(&file.bytes) else { continue };
        let held = Held::of(unverified.claimed(), &file.bytes, key.as_ref());
        let of_stream = |other: &&mut Held| (&other.stream, &other.device) == (&held.stream, &held.device);
        match streams.iter_mut().find(of_stream) {
            Some(stream) => stream.add(&held),
            None => streams.push(Held::of(unverified.claimed(), &file.bytes, key.as_ref())),
        }
        if arguments.files {
            files.push(held);
        }
    }
    let (running, disk_bytes, last_error) = usage.state();
    if arguments.json {
        let told = serde_json::json!({
            "device": usage.device.to_string(), "daemon": running, "disk_bytes": disk_bytes, "last_error": last_error,
            "streams": streams, "files": arguments.files.then_some(files),
        });
        println!("{told}");
        return Ok(());
    }
    let daemon = if running { "runs" } else { "does not run" };
    print!(
        "{}",
        print::pairs(&[
            ("device", usage.device.to_string()),
            ("daemon", daemon.to_owned()),
            ("disk", format!("{disk_bytes} bytes")),
            ("trouble", last_error.unwrap_or_else(|| "none".to_owned())),
        ])
    );
    if streams.is_empty() {
        println!("nothing waits");
        return Ok(());
    }
    let head = ["stream", "seq", "files", "tombstones", "bytes", "requests", "gaps", "oldest", "newest"];
    let shown = if arguments.files { &files } else { &streams };
    let rows: Vec<_> = [head.map(str::to_owned).to_vec()].into_iter().chain(shown.iter().map(Held::row)).collect();
    print!("{}", print::columns(&rows));
    Ok(())
}
