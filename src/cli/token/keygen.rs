//! `token keygen`: a private key that signs tokens, 0600, and its public half as JWKS.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::init::create;
use crate::cli::source::entry_key;
use crate::policy::issuer::Alg;
use crate::token::mint::MintKey;

/// Make a key pair that signs tokens, and the JWKS to pin.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Keygen {
    /// The folder that NAME.pem and NAME.jwks.json are written into.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// The files' name.
    #[arg(long, default_value = "issuer")]
    name: String,
    /// EdDSA, ES256 or ES384. Make RSA keys with `openssl genpkey`; `token mint` reads them.
    #[arg(long, default_value = "EdDSA", value_parser = super::alg)]
    alg: Alg,
    /// The key's id. Default: the first 16 hex digits of its public half's SHA-256.
    #[arg(long)]
    kid: Option<String>,
}

pub(super) fn run(keygen: &Keygen) -> anyhow::Result<()> {
    let (private, public) = ["pem", "jwks.json"].map(|end| keygen.out.join(format!("{}.{end}", keygen.name))).into();
    if let Some(there) = [&private, &public].into_iter().find(|path| path.exists()) {
        let never = io::Error::new(io::ErrorKind::AlreadyExists, "there already; keys are never written over");
        return Err(never).with_context(|| there.display().to_string());
    }
    let key = MintKey::generate(keygen.alg)?;
    let kid = keygen.kid.clone();
    let kid = kid.unwrap_or_else(|| key.public().digest().to_string().chars().take(16).collect());
    let key = key.named(&kid);
    let pem = key.private_pem().context("a generated key has its private half")?;
    let entry = entry_key(key.public());
    let mut jwk = serde_json::to_value(&entry.jwk)?;
    for (name, value) in [("alg", json!(entry.alg)), ("kid", json!(kid)), ("use", json!("sig"))] {
        jwk[name] = value;
    }
    create(&private, pem.as_bytes(), 0o600)?;
    create(&public, format!("{:#}\n", json!({"keys": [jwk]})).as_bytes(), 0o644)?;
    println!("private  {} (mode 0600; keep it off devices)", private.display());
    println!("public   {}", public.display());
    println!(
        "\nCopy the public one into issuers/ of the policy folder, and pin it in issuers/NAME.toml:\n\n  [[keys]]"
    );
    println!("  file = \"issuers/{}.jwks.json\"", keygen.name);
    Ok(())
}
