//! The centre's program: flags, configuration, run, exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tidegate::bundle::keyfile::AuthorKey;
use tidegate::cli::unparsed;
use tidegate::exit;
use tidegate::hub::{self, Config, read_key};
use tidegate::ids::hex;

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
    /// Check a configuration file and the key that it names.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// The key that signs receipts.
    #[command(subcommand)]
    Key(KeyCommand),
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
        Command::Key(KeyCommand::New { file }) => new_key(&file).map_err(|error| (exit::CANT_CREATE, error)),
        Command::Key(KeyCommand::Show { file }) => show_key(&file).map_err(|error| (exit::DATA, error)),
    };
    report(outcome)
}

fn report(outcome: Result<(), (u8, anyhow::Error)>) -> ExitCode {
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
    report(outcome.map_err(|error| {
        let code = if error.is_configuration() { exit::CONFIG } else { exit::IO };
        (code, error.into())
    }))
}

fn check(config: &Path) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    let key = read_key(&config.key_file)?;
    println!("ok: {} devices, receipts by key {}", config.devices.len(), key.public().id());
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
