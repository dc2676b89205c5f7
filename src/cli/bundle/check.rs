//! `bundle check`: what callers and devices would find later, found at the desk.

use std::path::PathBuf;

use serde_json::json;

use super::lint::{Dates, Finding, Severity, findings};
use super::{entries, read_bundle};
use crate::bundle::container::BundleType;
use crate::bundle::manifest::Manifest;
use crate::bundle::pack;
use crate::cli::{Refusal, print, source};
use crate::clock::Reading;
use crate::units::UnixSeconds;

/// Look for what callers would find at request time: exit code 0, or 65 if there is an error.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Check {
    /// A policy bundle, or a policy folder.
    policy: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Take warnings for errors.
    #[arg(long)]
    strict: bool,
    /// The time, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
}

pub(super) fn run(arguments: &Check) -> anyhow::Result<()> {
    let now = arguments.now.unwrap_or_else(|| Reading::now().wall_ms.div_euclid(1000));
    let found = if arguments.policy.is_dir() {
        match source::read(&arguments.policy) {
            Ok(source) => findings(&source.entries(), None, now),
            Err(source::Error::Problems(problems)) => problems.iter().map(in_source).collect(),
            Err(error) => return Err(error.into()),
        }
    } else {
        let bundle = read_bundle(&arguments.policy)?;
        let head = pack::head(&bundle)?;
        anyhow::ensure!(
            head.preamble().bundle_type == BundleType::Policy,
            "this is a {} bundle; only policies are checked",
            head.preamble().bundle_type.name()
        );
        let manifest = Manifest::parse(head.manifest(), BundleType::Policy)?;
        let dates = Dates { issued_at: manifest.issued_at(), expires_at: manifest.expires_at() };
        findings(&entries(&arguments.policy)?, Some(dates), now)
    };
    let count = |severity| found.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let is_sound = errors == 0 && !(arguments.strict && warnings > 0);
    if arguments.json {
        let verdict = if is_sound { "sound" } else { "refused" };
        println!("{}", serde_json::to_string_pretty(&json!({ "verdict": verdict, "findings": found }))?);
    } else {
        found.iter().for_each(|finding| print!("{}", text(finding)));
        let verdict = if is_sound { "sound" } else { "refused" };
        println!("{verdict}: {errors} error(s), {warnings} warning(s)");
    }
    if is_sound { Ok(()) } else { Err(Refusal.into()) }
}

fn in_source(problem: &source::Problem) -> Finding {
    let says = problem.to_string();
    Finding { severity: Severity::Error, rule: "SourceInvalid", says, advice: "correct the file".to_owned() }
}

fn text(finding: &Finding) -> String {
    let Finding { severity, rule, says, advice } = finding;
    format!("{severity}: {rule}: {}\n  {}\n", print::visible(says), print::visible(advice))
}
