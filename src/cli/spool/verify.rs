//! `tidegate spool verify`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::bundle::root::Role;
use crate::cli::device::enrolled_key;
use crate::cli::receipt::read_public;
use crate::cli::root::read_root;
use crate::cli::{Refusal, print};
use crate::ids::unhex;
use crate::keys::{KeyAlg, PublicKey};
use crate::stick::folder::Folder;
use crate::stick::seal::SEALED_LIMIT;
use crate::stick::verify::{Chain, Judged, Verifier};
use crate::stick::{Strange, walk, walk_receipts};

/// Check usage files and receipts: exit code 0, or 65 where one is bad, missing in between, or contradicts another.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate spool verify /media/stick --device-key pump-3.pub --root root.json")]
pub(in crate::cli) struct Verify {
    /// Sticks and files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// A device's public key, 64 hex digits or a file of them; may be given for each device. Without any, signatures of usage
    /// files are not checked.
    #[arg(long, value_name = "HEX|FILE")]
    device_key: Vec<String>,
    /// A device's enrolment, which holds its key; may be given for each device.
    #[arg(long, value_name = "FILE", requires = "root")]
    enrolment: Vec<PathBuf>,
    /// The root document, for enrolments and receipts.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Verify) -> anyhow::Result<()> {
    let mut verifier = verifier(arguments)?;
    let (mut judged, mut strange) = (Vec::<(String, Judged)>::new(), Vec::new());
    for path in &arguments.paths {
        look(path, &mut verifier, &mut judged, &mut strange)?;
    }
    let chains = verifier.chains();
    let is_broken = |chain: &Chain| !chain.holes.is_empty() || !chain.forks.is_empty();
    let bad =
        judged.iter().filter(|(_, judged)| judged.is_bad()).count() + chains.iter().filter(|it| is_broken(it)).count();
    if arguments.json {
        let files: Vec<_> =
            judged.iter().map(|(path, judged)| serde_json::json!({ "path": path, "is": judged })).collect();
        let strange: Vec<_> = strange.iter().map(|it| serde_json::json!({ "path": it.path, "why": it.why })).collect();
        println!("{}", serde_json::json!({ "files": files, "chains": chains, "strange": strange, "bad": bad }));
    } else {
        judged.iter().for_each(|(path, judged)| println!("{}: {}", print::visible(path), words(judged)));
        strange.iter().for_each(|it| println!("{}: skipped: {}", print::visible(&it.path), it.why));
        for Chain { device, stream, first, last, holes, forks } in &chains {
            println!("{device} {stream}: {first} to {last}, {} holes, {} forks", holes.len(), forks.len());
            holes.iter().for_each(|(from, to)| println!("  missing: {from} to {to}"));
            forks.iter().for_each(|seq| println!("  contradicts another: {seq}"));
        }
    }
    if bad > 0 { Err(Refusal.into()) } else { Ok(()) }
}

fn verifier(arguments: &Verify) -> anyhow::Result<Verifier> {
    let mut keys = Vec::new();
    for given in &arguments.device_key {
        keys.push(match unhex::<32>(given) {
            Ok(raw) => PublicKey::new(KeyAlg::Ed25519, &raw).with_context(|| format!("key {given}"))?,
            Err(_) => read_public(Path::new(given))?,
        });
    }
    let root = arguments.root.as_deref();
    for enrolment in &arguments.enrolment {
        keys.push(enrolled_key(enrolment, root.context("--enrolment needs --root")?)?);
    }
    let hubs = match root {
        Some(root) => Some(read_root(root)?.role_keys(Role::Hub).cloned().collect()),
        None => None,
    };
    Ok(Verifier::new(keys, hubs))
}

fn look(
    path: &Path,
    verifier: &mut Verifier,
    judged: &mut Vec<(String, Judged)>,
    strange: &mut Vec<Strange>,
) -> anyhow::Result<()> {
    let named = || path.display().to_string();
    let mut judge = |name: String, bytes: std::io::Result<Vec<u8>>| {
        let is = match bytes {
            Ok(bytes) => verifier.judge(&bytes),
            Err(error) => Judged::Bad { name: format!("Unreadable: {error}") },
        };
        judged.push((name, is));
    };
    if !path.is_dir() {
        let (Some(above), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
            bail!("{}: not a file", named())
        };
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        judge(named(), Folder::open(above).with_context(named)?.read(name, SEALED_LIMIT));
        return Ok(());
    }
    let root = Folder::open(path).with_context(named)?;
    for (items, odd) in [walk(&root).with_context(named)?, walk_receipts(&root).with_context(named)?] {
        for item in items {
            judge(path.join(item.to_string()).display().to_string(), item.read(&root, SEALED_LIMIT));
        }
        strange.extend(odd);
    }
    Ok(())
}

fn words(judged: &Judged) -> String {
    match judged {
        Judged::Usage { first, seq, tombstone, requests, others, signed, .. } => {
            let kind = if *tombstone { format!("tombstone of {first} to {seq}") } else { format!("file {seq}") };
            let proof = if *signed { "signature good" } else { "signature not checked: no key" };
            format!("ok: {kind}, {requests} requests, {others} sums and gaps; {proof}")
        }
        Judged::Sealed { key } => format!("ok: sealed to key {key}; what it holds is for the hub to see"),
        Judged::Receipt { signed: true } => "ok: receipt, signature good".into(),
        Judged::Receipt { signed: false } => "ok: receipt; signature not checked: no root".into(),
        Judged::Bad { name } => format!("refused: {name}"),
    }
}
