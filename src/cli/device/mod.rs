//! `tidegate device`: on the device, what it asks to be; at the desk, what it is told.

mod export_usage;
mod signing;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use signing::Signing;

use crate::bundle::document::{Document, DocumentKind, MAX_DOCUMENT};
use crate::bundle::enrolment::{Enrolment, Labels, Request, Signed};
use crate::bundle::keyfile::AuthorKey;
use crate::bundle::root::{Role, RootDocument};
use crate::cli::print;
use crate::cli::root::read_root;
use crate::disk::{self, read_limited};
use crate::ids::{DeviceId, Digest, hex};
use crate::keys::PublicKey;
use crate::store::device_key;
use crate::upload::{self, Undelivered};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// On the device: print its id, and make its key where it has none yet, as the daemon would at its first start.
    Key(MakeKey),
    /// On the device: make a request that its key signs, as a file or at the hub, and print its id and its public key.
    Request(Ask),
    /// At the desk: give a device its labels, signed by the policy or the hub role.
    Enrol(Enrol),
    /// At the desk: let sticks take the usage of named devices along, signed by the policy role.
    ExportUsage(export_usage::ExportUsage),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate device key")]
pub(super) struct MakeKey {
    /// The daemon's state folder. A key is made there by the folder's own user alone.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate")]
    state: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate device request --label site=quay -o pump-3.request.tgd\n  tidegate device request \
                  --label site=quay --hub https://hub.example.com --hub-pin 4f1c…"
)]
pub(super) struct Ask {
    /// The daemon's state folder, where its key lies.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate")]
    state: PathBuf,
    /// The daemon's key, where it is given by a credential: /run/credentials/tidegated.service/device.key.
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    device_key: Option<PathBuf>,
    /// A label that the device would like to have, KEY=VALUE; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::cli::pair)]
    label: Vec<(String, String)>,
    /// What kind of machine it is, for people. Default: as its firmware says.
    #[arg(long)]
    model: Option<String>,
    /// Where the request is written.
    #[arg(short, long, value_name = "FILE", required_unless_present = "hub")]
    output: Option<PathBuf>,
    /// The hub to which the request is brought, as one of upload.hubs of the daemon's settings.
    #[arg(long, value_name = "URL")]
    hub: Option<String>,
    /// SHA-256 of the hub's SubjectPublicKeyInfo in hex, as upload.hub_pins; may be given several times.
    #[arg(long, value_name = "DIGEST", requires = "hub")]
    hub_pin: Vec<Digest>,
    /// PEM of the authorities that may issue the hub's certificate, as upload.authority_file.
    #[arg(long, value_name = "FILE", requires = "hub")]
    authority_file: Option<PathBuf>,
    /// Let http:// go beyond this machine, as upload.allow_plain_http.
    #[arg(long, requires = "hub")]
    allow_plain_http: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate device enrol pump-3.request.tgd --key policy/keys/policy.key --label site=quay \
                  -o pump-3.tgd"
)]
pub(super) struct Enrol {
    /// The device's request; or an enrolment that others have signed, to sign it too.
    request: PathBuf,
    /// A label that the device gets, KEY=VALUE; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::cli::pair)]
    label: Vec<(String, String)>,
    /// The labels that the device asks for, too.
    #[arg(long)]
    labels_as_requested: bool,
    /// Its place in the order of this device's enrolments. Default: this machine's time in Unix seconds.
    #[arg(long)]
    seq: Option<u64>,
    #[command(flatten)]
    signing: Signing,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Key(arguments) => make_key(&arguments.state),
        Command::Request(arguments) => request(&arguments),
        Command::Enrol(arguments) => enrol(&arguments),
        Command::ExportUsage(arguments) => export_usage::run(&arguments),
    }
}

/// Made by anybody but the daemon's own user it would be a key that the daemon cannot read.
fn make_key(state: &Path) -> anyhow::Result<()> {
    let owner = state.metadata().with_context(|| state.display().to_string())?.uid();
    let key = if owner == rustix::process::geteuid().as_raw() {
        device_key::open(state, None)?
    } else {
        let whose = || format!("{} is user {owner}'s: only that user can make the key there", state.display());
        device_key::existing(state, None).with_context(whose)?
    };
    print!("{}\n", DeviceId::from(key.public().id()));
    Ok(())
}

fn request(arguments: &Ask) -> anyhow::Result<()> {
    let key = match &arguments.device_key {
        Some(credential) => device_key::credential(credential)?,
        None => device_key::existing(&arguments.state, None)?,
    };
    let model = arguments.model.clone().or_else(firmware_model).unwrap_or_else(|| "unknown".to_owned());
    let document = Request::sign(&key, labels(&arguments.label)?, &model)?;
    let public = key.public();
    if let Some(output) = &arguments.output {
        write(output, &document)?;
    }
    if arguments.hub.is_some() {
        bring(arguments, &public, &document)?;
    }
    let output = arguments.output.as_ref().map(|output| output.display().to_string());
    print!(
        "{}",
        print::pairs(&[
            ("device", DeviceId::from(public.id()).to_string()),
            ("public key", hex(public.raw())),
            ("model", model),
            ("request", output.into_iter().chain(arguments.hub.clone()).collect::<Vec<_>>().join(" ")),
        ])
    );
    Ok(())
}

/// To the hub, which keeps it for whoever enrols there.
fn bring(arguments: &Ask, device: &PublicKey, document: &Document) -> anyhow::Result<()> {
    let Ask { hub, hub_pin, authority_file, allow_plain_http, .. } = arguments;
    let config = upload::Config {
        hubs: hub.iter().cloned().collect(),
        hub_pins: hub_pin.clone(),
        authority_file: authority_file.clone(),
        allow_plain_http: *allow_plain_http,
        ..upload::Config::default()
    };
    upload::deliver(&config, device, document.to_bytes()).map_err(|error| {
        let advice = match &error {
            Undelivered::Setting(_) => "see --hub, --hub-pin, --authority-file and --allow-plain-http",
            Undelivered::Refused { .. } => "the hub does not take the request",
            Undelivered::Start(_) | Undelivered::Failed(_) => {
                "the request is not at the hub: try again, or carry it with -o FILE"
            }
        };
        anyhow::Error::new(error).context(advice)
    })
}

fn enrol(arguments: &Enrol) -> anyhow::Result<()> {
    let (root, keys) = arguments.signing.open(&[Role::Policy, Role::Hub])?;
    let given = read_document(&arguments.request)?;
    let signed = (given.kind() == DocumentKind::Enrolment).then_some(given.clone());
    let enrolment: Enrolment = match &signed {
        Some(signed) => {
            if !arguments.label.is_empty() || arguments.labels_as_requested || arguments.seq.is_some() {
                bail!("it is an enrolment already: its labels and its number are what others have signed");
            }
            signed.read()?
        }
        None => {
            let (request, device) = Request::verify(&given)?;
            draft(arguments, &root, &request, &device)?
        }
    };
    let labels: Vec<_> = enrolment.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    print!(
        "{}",
        print::pairs(&[
            ("device", enrolment.device.to_string()),
            ("labels", labels.join(" ")),
            ("deployment", enrolment.deployment.clone()),
            ("seq", enrolment.seq.to_string()),
            ("digest", enrolment.digest()?.to_string()),
        ])
    );
    arguments.signing.confirm(enrolment.digest()?, &keys)?;
    let sign = |signed: Option<Document>, key: &AuthorKey| match signed {
        Some(signed) => signed.signed_too(&key.key).map(Some),
        None => Document::sign(DocumentKind::Enrolment, &enrolment, &key.key).map(Some),
    };
    let document = keys.iter().try_fold(signed, sign)?.context("no key is given")?;
    arguments.signing.write(&document)?;
    match Enrolment::verify(&document, &root) {
        Ok(Signed { role, .. }) => println!("It is complete: signed by the role {}.", role.name()),
        Err(refused) => println!("Pass it on, more must sign: {}", print::visible(refused.detail())),
    }
    Ok(())
}

fn draft(arguments: &Enrol, root: &RootDocument, request: &Request, device: &PublicKey) -> anyhow::Result<Enrolment> {
    let mut given = if arguments.labels_as_requested { request.labels.clone() } else { Labels::new() };
    given.extend(labels(&arguments.label)?);
    let now = arguments.signing.now();
    let seq = arguments.seq.or_else(|| u64::try_from(now).ok()).context("the clock is before 1970: give --seq")?;
    Ok(Enrolment::new(root, device, given, seq, now)?)
}

/// The key of an enrolment that a role of the root vouches for.
pub(super) fn enrolled_key(enrolment: &Path, root: &Path) -> anyhow::Result<PublicKey> {
    let root = read_root(root)?;
    let signed = Enrolment::verify(&read_document(enrolment)?, &root);
    Ok(signed.with_context(|| format!("enrolment {}", enrolment.display()))?.key)
}

fn read_document(path: &Path) -> anyhow::Result<Document> {
    let named = || format!("document {}", path.display());
    Document::parse(&read_limited(path, MAX_DOCUMENT).with_context(named)?).with_context(named)
}

fn write(path: &Path, document: &Document) -> anyhow::Result<()> {
    disk::replace(path, &document.to_bytes(), 0o644).with_context(|| format!("writing {}", path.display()))
}

fn labels(pairs: &[(String, String)]) -> anyhow::Result<Labels> {
    let mut labels = Labels::new();
    for (key, value) in pairs {
        if labels.insert(key.clone(), value.clone()).is_some() {
            bail!("the label {key} is given twice");
        }
    }
    Ok(labels)
}

/// What the device tree or the DMI calls this machine.
fn firmware_model() -> Option<String> {
    let read = |path: &str| {
        let bytes = read_limited(Path::new(path), 4_096).ok()?;
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).take(64).collect();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    read("/sys/firmware/devicetree/base/model").or_else(|| read("/sys/class/dmi/id/product_name"))
}
