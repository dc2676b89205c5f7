//! `tidegate import openapi`: a document becomes a file in `apis/` of a policy folder.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::init::create;
use super::openapi::{self, MAX_DOCUMENT, Overrides};
use super::print;
use super::source;
use crate::disk::read_limited;
use crate::policy::Auth;

/// An OpenAPI 3 or Swagger 2 document, in YAML or JSON.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate import openapi petstore.yaml --into policy --upstream http://127.0.0.1:9000"
)]
pub struct Import {
    /// The document.
    pub file: PathBuf,
    /// The policy folder that gets the API. Without it, the file is printed.
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// The API's name. Default: the document's title.
    #[arg(long)]
    pub name: Option<String>,
    /// The API's version. Default: the document's.
    #[arg(long)]
    pub version: Option<String>,
    /// What its paths begin with. Default: the document's.
    #[arg(long, value_name = "PATH")]
    pub base_path: Option<String>,
    /// Where requests go. Default: the document's first server.
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// An issuer of the folder whose tokens it takes; may be given several times. Default: the folder's only one.
    #[arg(long)]
    pub issuer: Vec<String>,
}

/// What an import made.
#[derive(Debug)]
pub struct Imported {
    /// The text of the file.
    pub text: String,
    /// The file, if it was written.
    pub path: Option<PathBuf>,
    /// How many routes it has.
    pub routes: usize,
    /// What a person should look at.
    pub report: Vec<String>,
}

pub(super) fn run(arguments: &Import) -> anyhow::Result<()> {
    let imported = import(arguments)?;
    match &imported.path {
        Some(path) => println!("{}: {} routes", path.display(), imported.routes),
        None => print!("{}", imported.text),
    }
    if !imported.report.is_empty() {
        eprintln!("\nTo look at:");
        imported.report.iter().for_each(|line| eprintln!("  - {}", print::visible(line)));
    }
    Ok(())
}

/// Reads the document, and writes the file if a folder is given.
pub fn import(arguments: &Import) -> anyhow::Result<Imported> {
    let named = || arguments.file.display().to_string();
    let bytes = read_limited(&arguments.file, MAX_DOCUMENT).with_context(named)?;
    let over = Overrides {
        name: arguments.name.clone(),
        version: arguments.version.clone(),
        base_path: arguments.base_path.clone(),
        upstream: arguments.upstream.clone(),
    };
    let api = openapi::read(&bytes, &over).with_context(named)?;
    let mut report = api.report.clone();
    let folder = arguments.into.as_deref().map(source::defined).transpose()?;
    let issuers = match (&arguments.issuer[..], folder.as_ref().map(|folder| &folder.issuers[..])) {
        ([], Some([only])) => vec![only.clone()],
        (given, _) => given.to_vec(),
    };
    if issuers.is_empty() {
        report.push("issuers: name those whose tokens the API takes".to_owned());
    }
    if folder.is_some() && api.routes.iter().any(|route| route.auth == Auth::Token) {
        report.push(
            "subscriptions: an application needs one to this API, unless the file says subscription = false".to_owned(),
        );
    }
    let named = api.routes.iter().map(|route| &route.plan).chain([&api.plan]).flatten();
    let mut unknown: Vec<_> = named.filter(|plan| folder.as_ref().is_some_and(|f| !f.plans.contains(plan))).collect();
    unknown.sort();
    unknown.dedup();
    report.extend(unknown.iter().map(|plan| format!("plan {plan:?} is not in plans.toml: add it before building")));
    let https =
        api.upstreams.iter().filter(|(_, upstream)| upstream.endpoints.iter().any(|url| url.starts_with("https:")));
    report.extend(https.map(|(name, _)| format!("upstream {name:?} is https: give it the certificates as ca")));

    let origin = arguments.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = openapi::write(&api, &origin, &issuers);
    let slug = openapi::slug(&format!("{}-{}", api.name, api.version));
    let path = arguments.into.as_deref().map(|folder| write(folder, &slug, &text)).transpose()?;
    Ok(Imported { text, path, routes: api.routes.len(), report })
}

fn write(folder: &Path, slug: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join("apis").join(format!("{slug}.toml"));
    std::fs::create_dir_all(folder.join("apis")).with_context(|| folder.display().to_string())?;
    create(&path, text.as_bytes(), 0o644)?;
    Ok(path)
}
