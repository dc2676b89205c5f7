//! `tidegate token`: makes tokens and their keys at the desk, and judges a token as a device would.

mod batch;
mod check;
mod keygen;
mod mint;

use clap::Subcommand;

use crate::policy::issuer::Alg;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token and print it.
    #[command(after_help = "Example:\n  tidegate token mint --key policy/keys/issuer.pem --kid 2026-01 \\\n    \
                            --iss https://tokens.example.com --aud edge --sub alice --client till-1 --scope pets:read --ttl 1h\n  \
                            tidegate token mint --key issuer.pem --iss https://site.example.com --aud edge --ttl 180d \\\n    \
                            --batch tills.csv > tokens.jsonl")]
    Mint(mint::Mint),
    /// Make a key pair that signs tokens, and the JWKS to pin.
    #[command(after_help = "Example:\n  tidegate token keygen --out policy/keys --name site-2 --kid 2026-02")]
    Keygen(keygen::Keygen),
    /// Judge a token as a device would: exit code 0 or 65.
    #[command(after_help = "Example:\n  tidegate token check --bundle policy-7.tgb \"$TOKEN\"")]
    Check(check::Check),
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Mint(arguments) => mint::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
    }
}

/// Reads the name of an algorithm.
fn alg(text: &str) -> Result<Alg, String> {
    let names = || Alg::ALL.map(Alg::name).join(", ");
    Alg::from_name(text).ok_or_else(|| format!("write one of: {}", names()))
}
