//! `bundle verify`: the device's own judgement, on the workstation.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use anyhow::Context as _;

use super::read_root;
use super::records::{self, Records};
use crate::bundle::compile::compile;
use crate::bundle::document::{Document, DocumentKind};
use crate::bundle::enrolled::{self, Enrolled};
use crate::bundle::enrolment::Ruling;
use crate::bundle::error::Refused;
use crate::bundle::manifest::DeviceFacts;
use crate::bundle::root::RootDocument;
use crate::bundle::trust::Trust;
use crate::bundle::usage_note;
use crate::bundle::verify::{Findings, Judge, Purpose, Verdict, Whole, verify};
use crate::cli::{Refusal, now, print};
use crate::clock::Reading;
use crate::ids::{DeviceId, KeyId};
use crate::store::time::TimeFile;
use crate::units::UnixSeconds;

/// Judge a bundle or an enrolment as a device would: exit code 0 or 65.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Verify {
    /// The bundle or the enrolment.
    bundle: PathBuf,
    /// The root document that the device was given.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The state folder of the device, or a copy of it: what it has seen counts too. Nothing in it is changed.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The device's id. Default: that of the key in its state folder, else one that no target names.
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// A label of the device, KEY=VALUE; may be given several times. Default: those of the enrolment in its state folder.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::cli::pair)]
    label: Vec<(String, String)>,
    /// The least that the time can be, in Unix seconds. Default: the floor in the state folder, else this machine's time.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
}

pub(super) fn run(arguments: &Verify) -> anyhow::Result<()> {
    let pinned = read_root(&arguments.root)?;
    let id = arguments.device.or_else(|| records::device_id(arguments.state.as_deref()?));
    let labels: BTreeMap<_, _> = arguments.label.iter().cloned().collect();
    let mut device = DeviceFacts { id: id.unwrap_or(DeviceId([0; 16])), labels };
    let records = match &arguments.state {
        Some(state) => records::read(state, pinned, &device)?,
        None => Records { trust: Trust::new(pinned), lower: now(), kept: None },
    };
    let Records { trust, lower, kept } = records;
    let enrolment = kept.as_ref().and_then(|(enrolled, _)| enrolled.enrolment());
    if let Some(enrolment) = enrolment.filter(|_| device.labels.is_empty()) {
        device.labels.clone_from(&enrolment.labels);
    }
    let lower = arguments.now.unwrap_or(lower);
    let judge = Judge { trust: &trust, lower, device: &device, purpose: Purpose::Install };
    let mut file = File::open(&arguments.bundle).with_context(|| format!("bundle {}", arguments.bundle.display()))?;
    let mut found = Findings::default();
    match judged(&mut file, (kept.as_ref(), arguments.now), &judge, &mut found) {
        Ok(Accepted { what, is_new }) => {
            println!("accepted");
            let newest = found.roots.last().map_or(&trust.root, |next| &next.root);
            let signers: Vec<_> = found.signers.iter().map(|key| signer(newest, *key)).collect();
            let seq = found.seq.map(|seq| seq.to_string()).unwrap_or_default();
            let mut rows = vec![what, ("seq", seq), ("signed by", signers.join(", "))];
            if !found.roots.is_empty() {
                rows.push(("root", format!("it brings version {}", newest.version())));
            }
            if !is_new {
                rows.push(("device", "has it already".to_owned()));
            }
            print!("{}", print::pairs(&rows));
            Ok(())
        }
        Err(refused) => {
            println!("refused: {}: {}", refused.name(), print::visible(refused.detail()));
            println!("what to do: {}", refused.advice());
            Err(Refusal.into())
        }
    }
}

/// What a device would take.
struct Accepted {
    what: (&'static str, String),
    /// Whether it does not have it yet.
    is_new: bool,
}

/// As the importer does it.
fn judged(
    file: &mut File,
    (kept, floor): (Option<&(Enrolled, TimeFile)>, Option<UnixSeconds>),
    by: &Judge<'_>,
    found: &mut Findings,
) -> Result<Accepted, Refused> {
    if let Some(document) = Document::of(file)? {
        if document.kind() == DocumentKind::ExportUsage {
            let until = usage_note::judge(&document, by, found)?;
            return Ok(Accepted { what: ("usage may leave until", print::moment(until)), is_new: true });
        }
        let ruling = enrolled::judge(kept.map(|(enrolled, _)| enrolled), &document, by, found)?;
        let what = ("digest", document.digest().to_string());
        return Ok(Accepted { what, is_new: ruling != Ruling::AlreadyInstalled });
    }
    let verdict = verify(&mut Whole(file), by, compile, found)?;
    if let Verdict::TimeReset(reset) = &verdict {
        floor.map_or(Ok(()), |floor| reset.is_needed_at(floor))?;
        kept.filter(|_| floor.is_none()).map_or(Ok(()), |(_, time)| reset.apply(time, &Reading::now()))?;
    }
    let what = match &verdict {
        Verdict::Accepted(verified) => ("digest", verified.digest().to_string()),
        Verdict::Revocations(list) => ("digest", list.digest().to_string()),
        Verdict::Permit(permit) => ("digest", permit.digest().to_string()),
        Verdict::Release(release) => ("digest", release.digest().to_string()),
        Verdict::AlreadyInstalled(digest) => ("digest", digest.to_string()),
        Verdict::TimeReset(reset) => ("sets the time to", print::moment(reset.at)),
    };
    Ok(Accepted { what, is_new: !matches!(verdict, Verdict::AlreadyInstalled(_)) })
}

fn signer(root: &RootDocument, key: KeyId) -> String {
    root.holder(key).map_or_else(|| key.to_string(), str::to_owned)
}
