//! `tidegate sideload`: what a stick holds for this device, into its inbox, and the receipts back onto the stick.
//!
//! The daemon owns the state folder, so the files go the way of all others: through the inbox, one after the other,
//! each offered once the one before it is judged. With `--grant` also the usage that comes and goes with it (`usage`).

mod usage;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::bundle::container::MAX_FILE;
use crate::bundle::document::MAX_DOCUMENT;
use crate::bundle::root::RootDocument;
use crate::bundle::scan::{Candidate, Kind, Scan, known_root, scan};
use crate::bundle::staging::open_regular;
use crate::bundle::{Receipt, Refused, USAGE_MAY_LEAVE, is_taken};
use crate::cli::carry::{inbox_name, is_of, unverified};
use crate::cli::receipt::read_public;
use crate::cli::root::read_root;
use crate::cli::spool::At;
use crate::cli::{Refusal, print};
use crate::disk::read_limited;
use crate::ids::{DeviceId, Digest};
use crate::keys::{PublicKey, sha256};
use crate::store::device_key;

/// Refusals after which a lower number of the same kind is refused too. Not of enrolments: each role has numbers of its own.
const OUT_OF_ORDER: [&str; 5] = ["BelowSecurityFloor", "Equivocation", "Rollback", "RevocationRollback", "PermitUsed"];
/// Between two looks for a receipt.
const PAUSE: Duration = Duration::from_millis(50);

/// Bring what a folder, such as a stick's, holds for this device.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate sideload /media/stick")]
pub(super) struct Sideload {
    /// The folder; those in it are not looked into.
    folder: PathBuf,
    /// The daemon's inbox.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate/inbox")]
    inbox: PathBuf,
    /// The root document that was pinned to this device.
    #[arg(long, value_name = "FILE", default_value = "/etc/tidegate/root.json")]
    root: PathBuf,
    /// The daemon's state folder: later roots and the device's id are read there, where that may be read.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate")]
    state: PathBuf,
    /// The device's public key, a file of 64 hex digits, where the private one does not lie in the state folder: a systemd
    /// credential.
    #[arg(long, value_name = "FILE")]
    device_key: Option<PathBuf>,
    /// A folder for the receipts, where they are not to be beside the files: the stick is mounted read-only.
    #[arg(long, value_name = "DIR")]
    receipts: Option<PathBuf>,
    /// Take the hub's receipts for usage from the folder too; and where usage may leave on it, by a note that is there or by
    /// usb.export of the settings, write the usage key to seal it to there, for `tidegate spool export --to`.
    #[arg(long, value_name = "FILE")]
    grant: Option<PathBuf>,
    /// How long the daemon may take for each file, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    #[command(flatten)]
    at: At,
}

/// Most lines of what is told on the stick.
const MAX_LINES: usize = 1_000;

/// What is said, and kept to be put onto the stick: whoever carries it has no other way to see it.
#[derive(Debug, Default)]
struct Told {
    lines: Vec<String>,
    left_out: usize,
}

impl Told {
    fn line(&mut self, line: &str) {
        println!("{}", print::visible(line));
        self.keep(line);
    }

    /// For the stick only.
    fn keep(&mut self, line: &str) {
        if self.lines.len() < MAX_LINES { self.lines.push(print::visible(line)) } else { self.left_out += 1 }
    }

    fn of(&mut self, path: &Path, result: &str, detail: &str) {
        self.line(&format!("{}: {result}: {detail}", path.to_string_lossy()));
    }

    fn write(&self, folder: &Path, device: Option<DeviceId>) -> io::Result<()> {
        let device = device.map_or_else(|| "unknown".to_owned(), |device| device.to_string());
        let more = (self.left_out > 0).then(|| format!("and {} more\r\n", self.left_out));
        let lines = self.lines.iter().map(|line| format!("{line}\r\n")).chain(more);
        fs::write(folder.join(format!("tidegate-{device}.txt")), lines.collect::<String>())
    }
}

pub(super) fn run(arguments: &Sideload) -> anyhow::Result<()> {
    let root = known_root(&read_root(&arguments.root)?, &arguments.state);
    let key = match &arguments.device_key {
        Some(path) => Some(read_public(path)?),
        None => device_key::existing(&arguments.state, None).ok().map(|key| key.public()),
    };
    let device = key.as_ref().map(|key| DeviceId::from(key.id()));
    let mut told = Told::default();
    let done = take(arguments, (&root, key.as_ref(), device), &mut told);
    match &done {
        Ok(true) => {}
        Ok(false) => told.line("nothing there that this device takes"),
        Err(error) => told.keep(&format!("{error:#}")),
    }
    if let Some(receipts) = &arguments.receipts {
        let named = || format!("what was told could not be put into {}", receipts.display());
        told.write(receipts, device).with_context(named)?;
    }
    if done? { Ok(()) } else { Err(Refusal.into()) }
}

/// Whether anything of the folder was taken, or may leave on it.
fn take(
    arguments: &Sideload,
    (root, key, device): (&RootDocument, Option<&PublicKey>, Option<DeviceId>),
    told: &mut Told,
) -> anyhow::Result<bool> {
    let Scan { candidates, refused } = match scan(&arguments.folder, root, device) {
        Ok(scan) => scan,
        Err(refused) => {
            told.line(&format!("refused: {}: {refused}", refused.name()));
            return Ok(false);
        }
    };
    for (path, why) in &refused {
        told.of(path, why.name(), why.detail());
    }
    let medium = medium(&arguments.folder);
    let mut left = candidates;
    let mut done: BTreeSet<Kind> = BTreeSet::new();
    let mut permitted = Vec::new();
    let (mut taken, mut has_note) = (0_u32, false);
    while let Some(candidate) = next(&mut left, &done, &permitted) {
        let (receipt, bytes) = match offer(arguments, &medium, key, &candidate.path) {
            Ok(offered) => offered,
            Err(error) if error.is::<Refused>() => {
                told.line(&format!("{}: {error:#}", candidate.path.to_string_lossy()));
                continue;
            }
            Err(error) => return Err(error),
        };
        told.of(&candidate.path, &receipt.result, &receipt.detail);
        let is_last_word = is_taken(&receipt.result) || OUT_OF_ORDER.contains(&&*receipt.result);
        // What brings a root comes before higher numbers; what a permit leads back to is meant to stay.
        let is_higher = |other: &Candidate| other.kind == candidate.kind && other.seq > candidate.seq;
        if is_last_word && (permitted.contains(&candidate.digest) || !left.iter().any(is_higher)) {
            done.insert(candidate.kind);
        }
        if is_taken(&receipt.result) {
            taken += 1;
            // The device's word on what it read, whatever the stick showed before.
            has_note |= receipt.result == USAGE_MAY_LEAVE;
            permitted.extend(candidate.permits);
        }
        let receipts = arguments.receipts.as_ref().and_then(|folder| Some(folder.join(candidate.path.file_name()?)));
        if let Err(error) = put_beside(receipts.as_ref().unwrap_or(&candidate.path), &bytes) {
            eprintln!("tidegate: no receipt on the stick ({error}); it stays in {}", arguments.inbox.display());
        }
    }
    let came = match &arguments.grant {
        Some(grant) => usage::exchange(&arguments.folder, &arguments.at, grant, has_note, told)?,
        None => false,
    };
    Ok(taken > 0 || came)
}

/// The next to offer: of kinds that are not done; the bundle that a permit of this stick names before others of its kind.
fn next(left: &mut Vec<Candidate>, done: &BTreeSet<Kind>, permitted: &[Digest]) -> Option<Candidate> {
    let at = left.iter().position(|candidate| !done.contains(&candidate.kind))?;
    let first = left.get(at).filter(|first| !first.brings_root && matches!(first.kind, Kind::Policy | Kind::Release));
    let named = first
        .and_then(|first| left.iter().position(|other| other.kind == first.kind && permitted.contains(&other.digest)));
    Some(left.remove(named.unwrap_or(at)))
}

/// Puts a file into the inbox and waits for its receipt.
fn offer(
    arguments: &Sideload,
    medium: &str,
    key: Option<&PublicKey>,
    path: &Path,
) -> anyhow::Result<(Receipt, Vec<u8>)> {
    let name = inbox_name("usb", medium, path.file_name().unwrap_or_default());
    let inbox = &arguments.inbox;
    let (part, place) = (inbox.join(format!(".{name}.part")), inbox.join(&name));
    let copied = copy(path, &part).and_then(|sent| {
        // What is there already tells of another time.
        remove(&Receipt::beside(&place))?;
        fs::rename(&part, &place).with_context(|| format!("the inbox {}", inbox.display()))?;
        Ok(sent)
    });
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    let sent = copied?;
    let deadline = Instant::now() + Duration::from_secs(arguments.wait);
    loop {
        let mut of_another = "";
        if fs::symlink_metadata(Receipt::beside(&place)).is_ok() {
            let found = receipt(&Receipt::beside(&place), key)
                .map_err(|why| anyhow::anyhow!("the daemon's receipt: {why:#}"))?;
            if is_of(&found.0, sent) {
                return Ok(found);
            }
            of_another = " (the receipt there is of another file)";
        }
        if Instant::now() >= deadline {
            let _ = fs::remove_file(&place);
            let (inbox, wait) = (inbox.display(), arguments.wait);
            bail!("the daemon took nothing from {inbox} within {wait} s{of_another}: is it running?");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reads a receipt from a folder that others may write to: no link is followed, and the device's key must have signed it
/// where that may be read.
fn receipt(path: &Path, key: Option<&PublicKey>) -> anyhow::Result<(Receipt, Vec<u8>)> {
    let mut bytes = Vec::new();
    let (file, _) = open_regular(path)?.into_file();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    let receipt = match key {
        Some(key) => Receipt::verify(&bytes, key)?,
        None => unverified(&bytes)?,
    };
    Ok((receipt, bytes))
}

/// Copies what is a regular file and no longer than a bundle, so that the daemon's user may read it; gives its SHA-256.
fn copy(from: &Path, to: &Path) -> anyhow::Result<Digest> {
    let (source, length) = open_regular(from)?.into_file();
    if length > MAX_FILE {
        return Err(Refused::SectionTooLarge(format!("{length} bytes; a bundle has at most {MAX_FILE}")).into());
    }
    let named = || format!("the inbox {}", to.parent().unwrap_or(to).display());
    remove(to)?; // of a copy that was cut off
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(to).with_context(named)?;
    file.set_permissions(Permissions::from_mode(0o640)).with_context(named)?;
    let mut bytes = Vec::new();
    source.take(MAX_FILE).read_to_end(&mut bytes).with_context(|| from.display().to_string())?;
    file.write_all(&bytes).with_context(named)?;
    Ok(sha256(&bytes))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

/// The receipt beside the file on the stick, by a new file and a rename.
fn put_beside(source: &Path, receipt: &[u8]) -> io::Result<()> {
    let path = Receipt::beside(source);
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let _ = fs::remove_file(&part);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&part)?;
    file.write_all(receipt)?;
    file.sync_all()?;
    fs::rename(&part, &path)
}

/// The stick that the folder is on, as the kernel names it: vendor:product and serial; `unknown` where it is none.
fn medium(folder: &Path) -> String {
    usb(folder).unwrap_or_else(|| "unknown".to_owned())
}

fn usb(folder: &Path) -> Option<String> {
    let device = fs::metadata(folder).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let read = |at: &Path, name: &str| {
        let bytes = read_limited(&at.join(name), 256).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let at = block.ancestors().find(|at| at.join("idVendor").exists())?;
    let serial = read(at, "serial").map(|serial| format!("_{serial}")).unwrap_or_default();
    Some(format!("{}:{}{serial}", read(at, "idVendor")?, read(at, "idProduct")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_permit_of_the_stick_names_comes_before_others_of_its_kind() {
        let candidate = |kind, seq, brings_root| Candidate {
            path: PathBuf::new(),
            kind,
            seq,
            digest: Digest([u8::try_from(seq).expect("small"); 32]),
            brings_root,
            permits: None,
        };
        let stick = || {
            let kinds = [Kind::Policy, Kind::Release].into_iter();
            kinds.flat_map(|kind| [3, 2, 1].map(|seq| candidate(kind, seq, false))).collect::<Vec<_>>()
        };
        let order = |mut left: Vec<Candidate>, permitted: &[Digest]| {
            let done = BTreeSet::new();
            std::iter::from_fn(|| next(&mut left, &done, permitted).map(|next| (next.kind, next.seq)))
                .collect::<Vec<_>>()
        };
        let (policy, release) = (Kind::Policy, Kind::Release);
        let all = [(policy, 3), (policy, 2), (policy, 1), (release, 3), (release, 2), (release, 1)];
        assert_eq!(order(stick(), &[]), all);
        let named = [(policy, 1), (policy, 3), (policy, 2), (release, 1), (release, 3), (release, 2)];
        assert_eq!(order(stick(), &[Digest([1; 32])]), named);
        let mut with_root = stick();
        with_root[0] = candidate(policy, 3, true);
        assert_eq!(order(with_root, &[Digest([1; 32])])[0], (policy, 3), "all else may need the root");
    }
}
