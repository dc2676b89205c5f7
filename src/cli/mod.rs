//! The operator's commands, one file each.
//!
//! A command reads files and flags, calls the same cores as the daemon, and prints: what it made or judged on
//! standard output, everything else on standard error. Only `push`, by the system's ssh, and
//! `device request --hub` touch the network; `spool` asks the daemon on this machine, and nothing ever writes over a key.
//! What ends a command early is told once, as one sentence, and names the exit code of `exit`.

/// As the standard library's, which panic where nobody reads any more (`| head`); these go by [`print::out`].
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::print::out(format_args!($($text)*)) };
}
macro_rules! println {
    ($($text:tt)*) => { $crate::cli::print::out(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::print::aside(format_args!("{}\n", format_args!($($text)*))) };
}

mod authored;
mod bundle;
mod carry;
mod confirm;
#[cfg(feature = "demo")]
mod demo;
mod device;
mod import;
mod init;
mod journal;
mod key;
mod openapi;
mod passphrase;
mod permit;
mod print;
mod push;
mod receipt;
mod release;
mod revoke;
mod root;
mod sideload;
pub mod source;
mod spool;
mod sums;
mod time;
mod token;

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

pub use import::{Import, Imported, import};
pub use init::{Init, init};
pub use passphrase::PassphraseSource;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

use crate::admin::client;
use crate::bundle::Refused;
use crate::bundle::manifest::LAST_SECOND;
use crate::bundle::pack::PackError;
use crate::clock::Reading;
use crate::config::Problems;
use crate::exit;
use crate::spool::backlog::Unavailable;
use crate::units::UnixSeconds;
use crate::upload::Undelivered;

/// Author and check policy for Tidegate gateways, and make what they need to start.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a policy folder: commented example files, keys and a root document.
    Init(init::Init),
    /// Turn other formats into files of a policy folder.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Make, show and encrypt the keys that sign roots and bundles.
    #[command(subcommand)]
    Key(key::Command),
    /// Make, sign and show the root, and the next one after it.
    #[command(subcommand)]
    Root(root::Command),
    /// Build, sign, show and check policy bundles.
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Ask for a device's labels, and give them.
    #[command(subcommand)]
    Device(device::Command),
    /// Check what devices say of bundles that were brought to them.
    #[command(subcommand)]
    Receipt(receipt::Command),
    Sideload(sideload::Sideload),
    Push(push::Push),
    /// Make a list of what is revoked, or the next one after it.
    Revoke(revoke::Revoke),
    /// Make leave for exact devices to go to an exact bundle, though it is older.
    Permit(permit::Permit),
    /// Make new versions of these programs for devices, and show what became of one here.
    #[command(subcommand)]
    Release(release::Command),
    /// Show what happened to a device's policy, and check the record of it.
    #[command(subcommand)]
    Journal(journal::Command),
    /// Make and judge tokens, and the keys that sign them.
    #[command(subcommand)]
    Token(token::Command),
    /// The usage that waits on this device: show it, take it by stick, bring receipts, check files.
    #[command(subcommand)]
    Spool(spool::Command),
    /// Tell devices what time it is, where their floor is wrong.
    #[command(subcommand)]
    Time(time::Command),
    /// Sign and check the checksums of a release.
    #[command(subcommand)]
    Sums(sums::Command),
    /// Show a whole site on this machine, broken on purpose, and its books.
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    /// A process of the demo.
    #[cfg(feature = "demo")]
    #[command(subcommand, hide = true)]
    DemoRole(demo::Role),
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// An OpenAPI 3 or Swagger 2 document, in YAML or JSON.
    Openapi(import::Import),
}

/// A refusal: the command did its work, and the answer is no. Printed already; exit code 65.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refusal;

/// The command cannot be carried out as it was given: exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(&'static str);

/// The argument that makes this binary the spool's child: of `tidegate spool` without a daemon, and of the demo's gateway.
const SPOOL_CHILD: &str = "spool-child";

/// What made a bundle, as its manifest says.
const TOOL: &str = concat!("tidegate ", env!("CARGO_PKG_VERSION"));

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == SPOOL_CHILD) {
        return spool::child();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return unparsed(&error),
    };
    let done = match arguments.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Import(ImportCommand::Openapi(arguments)) => import::run(&arguments),
        Command::Key(command) => key::run(command),
        Command::Root(command) => root::run(command),
        Command::Bundle(command) => bundle::run(command),
        Command::Device(command) => device::run(command),
        Command::Receipt(command) => receipt::run(command),
        Command::Sideload(arguments) => sideload::run(&arguments),
        Command::Push(arguments) => push::run(&arguments),
        Command::Revoke(arguments) => revoke::run(&arguments),
        Command::Permit(arguments) => permit::run(&arguments),
        Command::Release(command) => release::run(&command),
        Command::Journal(command) => journal::run(&command),
        Command::Token(command) => token::run(command),
        Command::Spool(command) => spool::run(command),
        Command::Time(command) => time::run(command),
        Command::Sums(command) => sums::run(command),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(&arguments),
        #[cfg(feature = "demo")]
        Command::DemoRole(role) => demo::play(role),
    };
    let done = done.and_then(|()| print::finish().context("standard output"));
    match done {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) if error.is::<Refusal>() => ExitCode::from(exit::DATA),
        Err(error) => {
            let name = refusal_of(&error).map(|name| format!("refused: {name}: ")).unwrap_or_default();
            eprintln!("tidegate: {name}{error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

/// Prints what clap says in place of arguments; gives the exit code of `exit` for it, not clap's own 2.
#[must_use]
pub fn unparsed(error: &clap::Error) -> ExitCode {
    // Help and version are asked for; everything else is a wrong command line.
    let code = if error.use_stderr() { exit::USAGE } else { exit::OK };
    match error.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::from(exit::IO),
        _ => ExitCode::from(code),
    }
}

/// The name with which a device would refuse it, where that is why the command ends.
fn refusal_of(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| match cause.downcast_ref::<PackError>() {
        Some(PackError::Refused(refused)) => Some(refused.name()),
        _ => cause.downcast_ref::<Refused>().map(Refused::name),
    })
}

/// The exit code that fits what went wrong at the bottom of it.
fn code_of(error: &anyhow::Error) -> u8 {
    if matches!(error.downcast_ref(), Some(Undelivered::Failed(_))) {
        return exit::UNAVAILABLE;
    }
    if error.is::<Misused>() {
        return exit::USAGE;
    }
    if error.is::<Problems>() {
        return exit::CONFIG;
    }
    match error.chain().find_map(|cause| cause.downcast_ref()) {
        Some(client::Error::NotPermitted { .. }) => return exit::NO_PERMISSION,
        Some(_) => return exit::UNAVAILABLE,
        None => {}
    }
    let is_held_up = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Unavailable>() || matches!(cause.downcast_ref(), Some(crate::spool::Error::Locked(_)))
    };
    if error.chain().any(is_held_up) {
        return exit::UNAVAILABLE;
    }
    match error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::AlreadyExists) => exit::CANT_CREATE,
        Some(ErrorKind::PermissionDenied) => exit::NO_PERMISSION,
        Some(ErrorKind::FileTooLarge) => exit::DATA,
        Some(_) => exit::IO,
        None => exit::DATA,
    }
}

/// Reads KEY=VALUE of a flag.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Reads a moment of a flag: `2026-01-31T12:00:00Z`, or Unix seconds.
fn moment(text: &str) -> Result<UnixSeconds, String> {
    let date = || OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
    let seconds = text.parse().ok().or_else(date);
    seconds
        .filter(|at| (0..=LAST_SECOND).contains(at))
        .ok_or_else(|| "write 2026-01-31T12:00:00Z or Unix seconds".to_owned())
}

/// A runtime on this thread, for what asks the daemon.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")
}

/// This machine's time.
fn now() -> UnixSeconds {
    Reading::now().wall_ms.div_euclid(1000)
}
