//! `token check`: the daemon's verifier on one token, with the keys of a bundle or of a JWKS.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::bundle::Refused;
use crate::bundle::compile::compile;
use crate::cli::{Refusal, bundle, print};
use crate::clock::Reading;
use crate::disk::read_limited;
use crate::ids::Digest;
use crate::keys::sha256;
use crate::policy::issuer::{Issuer, IssuerTerms, Issuers, Profile};
use crate::policy::revocations::Revocations;
use crate::token::keys::{self, KeyTerms, MAX_KEY_FILE};
use crate::token::{Circumstances, MAX_TOKEN, TimeVerdict, VerifiedClaims, install, judge, verify};
use crate::units::{TimeBounds, UnixSeconds};

/// Judge a token as a device would: exit code 0 or 65.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Check {
    /// The token; - reads it from standard input.
    #[arg(default_value = "-")]
    token: String,
    /// With the issuers and revocations of this bundle, which is not itself judged.
    #[arg(long, value_name = "FILE", conflicts_with = "jwks", required_unless_present = "jwks")]
    bundle: Option<PathBuf>,
    /// With the keys of this JWKS, JWK or PEM file.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    jwks: Option<PathBuf>,
    /// The iss that the keys belong to.
    #[arg(long, value_name = "ISS", conflicts_with = "bundle")]
    issuer: Option<String>,
    /// An audience of which the token must name one; may be given several times.
    #[arg(long)]
    aud: Vec<String>,
    /// strict or wso2.
    #[arg(long, default_value = "strict", value_parser = profile, conflicts_with = "bundle")]
    profile: Profile,
    /// Take WSO2's published demo keys.
    #[arg(long, conflicts_with = "bundle")]
    allow_demo_keys: bool,
    /// The certificate that the caller shows, PEM: for a token that is bound to one.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The time, in Unix seconds. Default: this machine's.
    #[arg(long, value_name = "UNIX")]
    now: Option<UnixSeconds>,
    /// Judge as a device that knows only that it is not earlier than this, in Unix seconds.
    #[arg(long, value_name = "UNIX", conflicts_with = "now")]
    floor: Option<UnixSeconds>,
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::from_name(text).ok_or_else(|| "write strict or wso2".to_owned())
}

pub(super) fn run(check: &Check) -> anyhow::Result<()> {
    install();
    let (issuers, revocations, audiences) = match (&check.bundle, &check.jwks) {
        (Some(file), _) => {
            let policy = compile(&bundle::entries(file)?).map_err(Refused::from)?;
            (policy.issuers, policy.revocations, check.aud.clone())
        }
        (None, Some(file)) => (pinned(check, file)?, Revocations::default(), Vec::new()),
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    let audiences: Vec<Box<str>> = audiences.into_iter().map(Into::into).collect();
    let token = token(&check.token)?;
    let now = || check.now.unwrap_or_else(|| Reading::now().wall_ms.div_euclid(1000));
    let bounds = check.floor.map_or_else(|| TimeBounds::exact(now()), TimeBounds::floor);
    let certificate = check.certificate.as_deref().map(shown_certificate).transpose()?;
    let certificate = certificate.as_ref().map(|digest| &digest.0);
    let now = Circumstances { audiences: &audiences, bounds, revocations: &revocations, certificate };
    match verify(&token, &issuers).and_then(|claims| judge(&claims, &now).map(|verdict| (claims, verdict))) {
        Ok((claims, verdict)) => {
            println!("accepted");
            print!("{}", print::pairs(&shown(&claims, verdict, &issuers)));
            Ok(())
        }
        Err(error) => {
            println!("refused: {}: {error}", error.name());
            Err(Refusal.into())
        }
    }
}

/// The issuer that the flags describe.
fn pinned(check: &Check, file: &Path) -> anyhow::Result<Issuers> {
    let named = || format!("keys {}", file.display());
    let bytes = read_limited(file, MAX_KEY_FILE as u64).with_context(named)?;
    let terms = KeyTerms { alg: None, allow_demo_keys: check.allow_demo_keys };
    let iss = check.issuer.clone().unwrap_or_default();
    let issuer = Issuer::new(IssuerTerms {
        name: iss.as_str().into(),
        iss: iss.into(),
        profile: check.profile,
        audiences: check.aud.iter().map(|aud| aud.as_str().into()).collect(),
        keys: keys::import(&bytes, terms).with_context(named)?.into(),
        ..IssuerTerms::default()
    });
    Ok(Issuers::new([issuer.context("give the audience with --aud where the profile wants one")?], 0)?)
}

/// SHA-256 of a PEM file's first certificate: the caller's own, those that issued it come after it.
fn shown_certificate(file: &Path) -> anyhow::Result<Digest> {
    let named = || format!("certificate {}", file.display());
    let bytes = read_limited(file, MAX_KEY_FILE as u64).with_context(named)?;
    Ok(sha256(&CertificateDer::from_pem_slice(&bytes).with_context(named)?))
}

/// The token's bytes; a line end after it is not a part of it.
fn token(argument: &str) -> anyhow::Result<Vec<u8>> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed, and its line end: the verifier says that it is too large.
    std::io::stdin().lock().take(MAX_TOKEN as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes.trim_ascii_end().to_vec())
}

fn shown(claims: &VerifiedClaims, verdict: TimeVerdict, issuers: &Issuers) -> Vec<(&'static str, String)> {
    let text = |text: Option<&str>| text.unwrap_or("(none)").to_owned();
    let issuer = issuers.at(claims.issuer()).map(|issuer| format!("{} ({})", issuer.name(), issuer.iss()));
    let joined = |texts: Vec<&str>| if texts.is_empty() { "(none)".to_owned() } else { texts.join(", ") };
    let time = match verdict {
        TimeVerdict::Certain => "certain",
        TimeVerdict::ByFloor => "by floor: only a lower bound of the time is known",
    };
    vec![
        ("issuer", text(issuer.as_deref())),
        ("subject", text(claims.sub())),
        ("client", text(claims.client())),
        ("scopes", joined(claims.scopes().collect())),
        ("audiences", joined(claims.audiences().collect())),
        ("expires", claims.exp().map_or_else(|| "never".to_owned(), print::moment)),
        ("time", time.to_owned()),
    ]
}
