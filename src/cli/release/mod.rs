//! `tidegate release`: new versions of these programs as bundles, and the part of their installation that judges.
//!
//! What is installed, and whether it stays, is for systemd/release, which calls `take`, `installed` and `failed`: it must
//! do its work where these programs, just replaced, do not even start.

mod build;
mod install;
mod status;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an unsigned release of packages.
    #[command(
        after_help = "Example:\n  tidegate release build --version 0.2.0 tidegate_0.2.0_arm64.deb tidegate_0.2.0_armhf.deb --seq 2 \\\n    \
                            --root policy/root.json --author ops@example.com -o release-2.tgb"
    )]
    Build(Box<build::Build>),
    /// Show how the last release that came to this device ended.
    #[command(after_help = "Example:\n  tidegate release status")]
    Status(status::Status),
    /// Judge what the daemon handed over; for /usr/lib/tidegate/release, as root.
    #[command(hide = true)]
    Take(install::Folders),
    /// Note that what waited is installed; likewise.
    #[command(hide = true)]
    Installed(install::Folders),
    /// Note that what waited failed; likewise.
    #[command(hide = true)]
    Failed(install::Folders),
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Build(arguments) => build::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Take(folders) => install::take(folders),
        Command::Installed(folders) => install::installed(folders),
        Command::Failed(folders) => install::failed(folders),
    }
}
