//! `tidegate key`: the files of the keys that sign roots and bundles, one key a person.

mod new;
mod secret;
mod show;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key on this machine, and its public half for whoever makes the root.
    #[command(after_help = "Example:\n  tidegate key new ada --out /media/ada")]
    New(new::New),
    /// Show whose key a file is, without its secret.
    #[command(after_help = "Example:\n  tidegate key show policy/keys/policy.key")]
    Show(show::Show),
    /// Put a key under a passphrase, in its own file.
    #[command(after_help = "Example:\n  tidegate key encrypt policy/keys/root-1.key")]
    Encrypt(secret::Encrypt),
    /// Take the passphrase off, for a key that a service must read.
    #[command(after_help = "Example:\n  tidegate key decrypt policy/keys/hub.key")]
    Decrypt(secret::Decrypt),
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::New(arguments) => new::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::Encrypt(arguments) => secret::encrypt(&arguments),
        Command::Decrypt(arguments) => secret::decrypt(&arguments),
    }
}
