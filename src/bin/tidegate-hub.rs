//! The centre's program: flags, configuration, run, exit code.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tidegate::bundle::keyfile::AuthorKey;
use tidegate::cli::unparsed;
use tidegate::exit;
use tidegate::hub::{
    self, Config, Day, Enrolled, Export, Exported, Format, Period, Query, ReportBy, ReportError, Streams, Subject,
    read_key,
};
use tidegate::ids::{DeviceId, hex};
use tidegate::units::Span;

/// The centre of a fleet of Tidegate gateways: takes in their usage, every record exactly once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM.
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration file and all that it names: keys, root, folders, database, certificate.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// The key that signs receipts.
    #[command(subcommand)]
    Key(KeyCommand),
    /// The devices of a hub, which may be running: it heeds a change within two seconds.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Take in the usage files on a stick, also while the hub runs, and leave receipts on it.
    Import {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The stick, or a folder on it.
        folder: PathBuf,
        /// Print what became of the files as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the document that names the key to which devices seal usage on sticks; the key is made where there is none.
    UsageKey {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Where to write it, such as usage-key.tgd.
        out: PathBuf,
    },
    /// What the hub has counted, on standard output; a hub may run meanwhile. Days are of UTC.
    Report(ReportArguments),
    /// Write usage in another's file form into a folder, for who still feeds its analytics.
    Export(ExportArguments),
}

#[derive(clap::Args)]
struct ReportArguments {
    /// Of what: usage, gaps or devices.
    #[arg(default_value = "usage")]
    subject: Subject,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// A line for each: of usage by api, application, device, day, outcome; of gaps by device, day, reason.
    #[arg(long, value_delimiter = ',')]
    by: Vec<ReportBy>,
    /// The first day, as 2026-01-31.
    #[arg(long)]
    from: Option<Day>,
    /// The last day.
    #[arg(long)]
    to: Option<Day>,
    /// Only this device.
    #[arg(long)]
    device: Option<DeviceId>,
    /// Of devices: only those of which nothing was heard for so long, as 24h.
    #[arg(long)]
    silent: Option<Span>,
    /// table, csv (RFC 4180) or json (one object a line).
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(clap::Args)]
struct ExportArguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// The form: wso2, the usage files of its API Microgateway 3.
    #[arg(long, value_parser = ["wso2"])]
    format: String,
    /// The version of the event streams: 3.0.0, 3.1.0 or 3.2.0.
    #[arg(long, default_value = "3.2.0")]
    streams: Streams,
    /// The first day, as 2026-01-31.
    #[arg(long)]
    from: Option<Day>,
    /// The last day.
    #[arg(long)]
    to: Option<Day>,
    /// Only this device.
    #[arg(long)]
    device: Option<DeviceId>,
    /// Where the files are to be.
    folder: PathBuf,
}

#[derive(Subcommand)]
enum DeviceCommand {
    /// Enrol a device, or take its revocation back.
    Add {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// What people call it.
        name: String,
        /// Its raw Ed25519 key, 64 hex digits: `tidegate device request` on the device shows it.
        key: String,
    },
    /// Show all devices that were ever enrolled.
    List {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Take nothing from a device and give it nothing any more, whatever else enrols it.
    Revoke {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The device's id, 32 hex digits.
        device: DeviceId,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make a key file, for the owner only, and show the public half for the root's hub role.
    New {
        /// Where to write it; never over an existing file.
        file: PathBuf,
    },
    /// Show the public half of a key file.
    Show {
        /// The key file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return unparsed(&error),
    };
    let outcome = match arguments.command {
        Command::Run { config } => return run(&config),
        Command::Check { config } => check(&config).map_err(|error| (exit::CONFIG, error)),
        Command::Import { config, folder, json } => import(&config, &folder, json),
        Command::UsageKey { config, out } => usage_key(&config, &out).map_err(|error| (exit::CANT_CREATE, error)),
        Command::Device(command) => device(command),
        Command::Report(arguments) => report(arguments),
        Command::Export(arguments) => export(arguments),
        Command::Key(KeyCommand::New { file }) => new_key(&file).map_err(|error| (exit::CANT_CREATE, error)),
        Command::Key(KeyCommand::Show { file }) => show_key(&file).map_err(|error| (exit::DATA, error)),
    };
    concluded(outcome)
}

fn concluded(outcome: Result<(), (u8, anyhow::Error)>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::from(exit::OK),
        Err((code, error)) => {
            eprintln!("tidegate-hub: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn run(config: &Path) -> ExitCode {
    let outcome = Config::read(config)
        .map_err(hub::Error::from)
        .and_then(|config| hub::run(config, |address| println!("listening on {address}")));
    concluded(outcome.map_err(coded))
}

/// With the exit code that it calls for.
fn coded(error: hub::Error) -> (u8, anyhow::Error) {
    let code = if error.is_configuration() { exit::CONFIG } else { exit::IO };
    (code, error.into())
}

fn check(config: &Path) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    let wrong: Vec<String> =
        hub::check(&config).into_iter().map(|error| format!("{:#}", anyhow::Error::from(error))).collect();
    if !wrong.is_empty() {
        anyhow::bail!("{}", wrong.join("\n  "));
    }
    let key = read_key(&config.key_file)?;
    println!("ok: {} listed devices, receipts by key {}", config.devices.len(), key.public().id());
    Ok(())
}

fn device(command: DeviceCommand) -> Result<(), (u8, anyhow::Error)> {
    let read = |config: &Path| Config::read(config).map_err(|error| coded(error.into()));
    match command {
        DeviceCommand::Add { config, name, key } => {
            let id = hub::add_device(&read(&config)?, &name, &key).map_err(coded)?;
            println!("enrolled {id} {name}");
        }
        DeviceCommand::List { config } => {
            for Enrolled { device, by, is_revoked } in hub::devices(&read(&config)?).map_err(coded)? {
                let standing = if is_revoked { "revoked" } else { "enrolled" };
                println!("{} {standing} by {} {:?} key {}", device.id(), by.name(), device.name, hex(device.key.raw()));
            }
        }
        DeviceCommand::Revoke { config, device } => {
            if !hub::revoke_device(&read(&config)?, device).map_err(coded)? {
                let unknown = "the ledger has no such device; `device list` shows them. One that only an enrolment in the \
                               folder of bundles names is revoked after `device add`";
                return Err((exit::DATA, anyhow::anyhow!(unknown)));
            }
            println!("revoked {device}");
        }
    }
    Ok(())
}

fn report(arguments: ReportArguments) -> Result<(), (u8, anyhow::Error)> {
    let ReportArguments { subject, config, by, from, to, device, silent, format } = arguments;
    let is_of_devices = subject == Subject::Devices;
    let unfit = [
        (silent.is_some() && !is_of_devices, "--silent is of devices: `report devices --silent 24h`"),
        (is_of_devices && !by.is_empty(), "a report of devices has a line for each device: leave --by away"),
        (is_of_devices && (from, to) != (None, None), "a report of devices is of now: leave --from and --to away"),
    ];
    if let Some((_, why)) = unfit.into_iter().find(|(is_so, _)| *is_so) {
        return Err((exit::USAGE, anyhow::anyhow!(why)));
    }
    let query = Query { subject, by, period: Period { from, to }, device, silent, format };
    let config = Config::read(&config).map_err(|error| coded(error.into()))?;
    let (mut out, mut aside) = (BufWriter::new(io::stdout().lock()), io::stderr().lock());
    match hub::report(&config, &query, &mut out, &mut aside) {
        Err(error) if error.is_reader_gone() => Ok(()),
        Err(error @ ReportError::NotBy { .. }) => Err((exit::USAGE, error.into())),
        Err(error) => Err((if error.is_configuration() { exit::CONFIG } else { exit::IO }, error.into())),
        Ok(()) => Ok(()),
    }
}

fn export(arguments: ExportArguments) -> Result<(), (u8, anyhow::Error)> {
    let ExportArguments { config, format: _, streams, from, to, device, folder } = arguments;
    let config = Config::read(&config).map_err(|error| coded(error.into()))?;
    let asked = Export { streams, period: Period { from, to }, device, folder };
    let done = hub::export_wso2(&config, &asked).map_err(|error| {
        let code = if error.is_configuration() { exit::CONFIG } else { exit::IO };
        (code, error.into())
    })?;
    let Exported { files, requests, faults, throttled, refused, summed, lost, unknown, altered } = done;
    println!("{files} files: {requests} request, {faults} fault and {throttled} throttle events");
    let left_out = [
        (refused, "requests refused before their API, for which the form has no event"),
        (summed, "requests that are told as sums only"),
        (lost, "requests that are lost for certain"),
        (unknown, "intervals in which nobody can know what is lost"),
    ];
    for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        println!("not in them: {count} {what}");
    }
    if altered > 0 {
        println!("{altered} texts held a separator of the form or a control character, which was replaced");
    }
    Ok(())
}

/// Never over an existing file: receipts that its key signed would no longer be believed.
fn new_key(file: &Path) -> anyhow::Result<()> {
    AuthorKey::generate("hub")?.create(file).with_context(|| file.display().to_string())?;
    show_key(file)
}

fn show_key(file: &Path) -> anyhow::Result<()> {
    let public = read_key(file)?.public();
    println!("public {}", hex(public.raw()));
    println!("key id {}", public.id());
    Ok(())
}

/// Tells what became of each file; 65 where one was refused, 74 where a receipt could not be written.
fn import(config: &Path, folder: &Path, json: bool) -> Result<(), (u8, anyhow::Error)> {
    let config = Config::read(config).map_err(|error| (exit::CONFIG, error.into()))?;
    let mut files = Vec::new();
    let imported = hub::import(&config, folder, |item, outcome, no_receipt| {
        let no_receipt = no_receipt.map(|error| error.to_string());
        if json {
            let path = item.to_string();
            files.push(serde_json::json!({ "path": path, "outcome": outcome.name(), "no_receipt": no_receipt }));
        } else {
            let no_receipt = no_receipt.map(|error| format!(" (no receipt on the stick: {error})")).unwrap_or_default();
            println!("{item}: {}{no_receipt}", outcome.name());
        }
    });
    let hub::Imported { kept, refused, no_receipt, strange, manifest } = imported.map_err(|error| {
        let code = if matches!(error, hub::ImportError::Config(_)) { exit::CONFIG } else { exit::IO };
        (code, error.into())
    })?;
    if json {
        let strange: Vec<_> = strange.iter().map(|it| serde_json::json!({ "path": it.path, "why": it.why })).collect();
        let told = serde_json::json!({
            "kept": kept, "refused": refused, "no_receipt": no_receipt, "files": files, "strange": strange,
            "manifest": manifest,
        });
        println!("{told}");
    } else {
        // A name on a stick is a stranger's: nothing of it may steer the terminal.
        strange.iter().for_each(|it| println!("{}: skipped: {}", it.path.escape_debug(), it.why));
        manifest.iter().for_each(|line| println!("{}", line.escape_debug()));
        println!("{kept} files are here now, {refused} refused");
    }
    match (refused, no_receipt) {
        (_, 1..) => Err((exit::IO, anyhow::anyhow!("{no_receipt} receipts could not be written onto the stick"))),
        (1.., _) => Err((exit::DATA, anyhow::anyhow!("{refused} files were refused; they are still on the stick"))),
        _ => Ok(()),
    }
}

fn usage_key(config: &Path, out: &Path) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    let id = hub::usage_key(&config, out).with_context(|| out.display().to_string())?;
    println!("usage key {id}");
    Ok(())
}
