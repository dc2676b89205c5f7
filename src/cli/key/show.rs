//! `key show`: whose key a file is.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use crate::bundle::keyfile::{PublicHalf, Secret};
use crate::cli::print;
use crate::ids::hex;
use crate::keys::KeyAlg;

/// Show whose key a file is, without its secret.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Show {
    /// A key file, or a public half.
    file: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Write the public half into a new file.
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
}

pub(super) fn run(show: &Show) -> anyhow::Result<()> {
    let named = || format!("key {}", show.file.display());
    let (half, secret) = PublicHalf::open(&show.file).with_context(named)?;
    if let Some(path) = &show.public {
        half.create(path).with_context(|| path.display().to_string())?;
    }
    let alg = match half.key.alg() {
        KeyAlg::Ed25519 => "Ed25519",
        KeyAlg::EcdsaP256 => "ECDSA P-256",
    };
    let (word, says) = match secret {
        Secret::Absent => ("absent", "not in this file: it is the public half alone"),
        Secret::Clear => ("clear", "IN CLEAR: whoever reads the file can sign"),
        Secret::Encrypted => ("encrypted", "under a passphrase"),
    };
    let (id, public) = (half.key.id().to_string(), hex(half.key.raw()));
    if show.json {
        let said = json!({"name": half.name, "algorithm": alg, "key_id": id, "public": public, "secret": word});
        println!("{said:#}");
        return Ok(());
    }
    let rows = [
        ("name", half.name),
        ("algorithm", alg.to_owned()),
        ("key id", id),
        ("public", public),
        ("secret", says.to_owned()),
    ];
    print!("{}", print::pairs(&rows));
    Ok(())
}
