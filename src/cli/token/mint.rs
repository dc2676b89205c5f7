//! `token mint`: an access token (RFC 9068) signed with a key on this machine, or one for each line of a list, to be
//! brought to a site that has no issuer of its own and no network.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::batch::{self, Holder};
use crate::cli::PassphraseSource;
use crate::clock::Reading;
use crate::disk::read_limited;
use crate::ids::hex;
use crate::keys::random;
use crate::policy::issuer::Alg;
use crate::token::keys::MAX_KEY_FILE;
use crate::token::mint::MintKey;
use crate::units::{Span, UnixSeconds};

/// Make a token and print it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Mint {
    /// The private key: PEM (PKCS#8, or PKCS#1 for RSA) or a JWK.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Who issues it.
    #[arg(long)]
    iss: String,
    /// Whom it is about.
    #[arg(long, conflicts_with = "batch")]
    sub: Option<String>,
    /// The consumer key of the application (claim client_id).
    #[arg(long, conflicts_with = "batch")]
    client: Option<String>,
    /// A token for each line of this list (columns sub, client, scope, x5t#S256), as one JSON object a line: client, exp,
    /// jti, sub and token.
    #[arg(long, value_name = "FILE.csv")]
    batch: Option<PathBuf>,
    /// A scope; may be given several times.
    #[arg(long)]
    scope: Vec<String>,
    /// An audience; may be given several times.
    #[arg(long)]
    aud: Vec<String>,
    /// How long it lives: 90s, 1h, 30d.
    #[arg(long, default_value = "1h")]
    ttl: Span,
    /// The key's id.
    #[arg(long)]
    kid: Option<String>,
    /// The algorithm, where the key leaves a choice: RS256, PS256, …
    #[arg(long, value_parser = super::alg)]
    alg: Option<Alg>,
    /// The header's typ; "" for none.
    #[arg(long, default_value = "at+jwt")]
    typ: String,
    /// One more claim, NAME=VALUE; JSON where it parses as that, else a text. May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::cli::pair)]
    claim: Vec<(String, String)>,
    /// When it is issued, in Unix seconds. Default: this machine's time.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

pub(super) fn run(mint: &Mint) -> anyhow::Result<()> {
    let named = || format!("key {}", mint.key.display());
    let file = read_limited(&mint.key, MAX_KEY_FILE as u64).with_context(named)?;
    let file = mint.passphrase.open_pem(file, &mint.key)?;
    let mut key = MintKey::import(&file, mint.alg).with_context(named)?;
    if let Some(kid) = &mint.kid {
        key = key.named(kid);
    }
    let now = mint.now.unwrap_or_else(|| Reading::now().wall_ms.div_euclid(1000));
    let typ = Some(mint.typ.as_str()).filter(|typ| !typ.is_empty());
    let Some(batch) = &mint.batch else {
        let holder = Holder { sub: mint.sub.clone(), client: mint.client.clone(), ..Holder::default() };
        println!("{}", key.mint(typ, &claims(mint, &holder, now)?)?);
        return Ok(());
    };
    let named = || format!("list {}", batch.display());
    let list = batch::read(&read_limited(batch, batch::MAX_LIST).with_context(named)?).with_context(named)?;
    // Whole or not at all: who brings it to a site does not count its lines.
    let mut lines = String::new();
    for holder in &list {
        let claims = claims(mint, holder, now)?;
        let told = [("client", "client_id"), ("exp", "exp"), ("jti", "jti"), ("sub", "sub")];
        let told = told.into_iter().filter_map(|(name, claim)| Some((name.to_owned(), claims.get(claim)?.clone())));
        let mut line: Map<String, Value> = told.collect();
        line.insert("token".into(), key.mint(typ, &claims)?.into());
        lines.push_str(&Value::from(line).to_string());
        lines.push('\n');
    }
    print!("{lines}");
    Ok(())
}

fn claims(mint: &Mint, holder: &Holder, now: UnixSeconds) -> anyhow::Result<Map<String, Value>> {
    let life = i64::try_from(mint.ttl.0.as_secs()).unwrap_or(i64::MAX);
    let id = random::<16>().context("the system gives no random bytes")?;
    let mut claims = Map::new();
    let mut say = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    say("iss", json!(mint.iss));
    say("iat", json!(now));
    say("exp", json!(now.saturating_add(life)));
    say("jti", json!(hex(&id)));
    holder.sub.as_ref().map(|sub| say("sub", json!(sub)));
    holder.client.as_ref().map(|client| say("client_id", json!(client)));
    holder.x5t.as_ref().map(|x5t| say("cnf", json!({"x5t#S256": x5t})));
    match &mint.aud[..] {
        [] => None,
        [one] => say("aud", json!(one)),
        several => say("aud", json!(several)),
    };
    let scope = holder.scope.clone().or_else(|| (!mint.scope.is_empty()).then(|| mint.scope.join(" ")));
    scope.map(|scope| say("scope", json!(scope)));
    for (name, value) in &mint.claim {
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        if claims.insert(name.clone(), value).is_some() && !["iat", "exp", "jti"].contains(&name.as_str()) {
            bail!("the claim {name} is said twice");
        }
    }
    Ok(claims)
}
