//! `root show`: a root in words, or the roots that a bundle brings. It vouches for nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{counted, previous_beside, read_root, read_signed};
use crate::bundle::container::{MAGIC, MAX_FILE};
use crate::bundle::pack;
use crate::bundle::root::{Role, RootDocument, Signers};
use crate::bundle::succession::SignedRoot;
use crate::cli::print;
use crate::disk::read_limited;
use crate::ids::KeyId;
use crate::keys::KeyAlg;

/// Show a root, or the roots that a bundle brings.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Show {
    /// A root document, or a bundle.
    file: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(show: &Show) -> anyhow::Result<()> {
    let roots = read(&show.file)?;
    if show.json {
        let told: Vec<_> = roots.iter().map(|(signed, old)| as_json(signed, old.as_ref())).collect();
        // A root document is one; a bundle has a list, which may be empty.
        let said = match &told[..] {
            [one] if !is_bundle(&show.file)? => one.clone(),
            all => json!({ "roots": all }),
        };
        println!("{said:#}");
        return Ok(());
    }
    for (at, (signed, old)) in roots.iter().enumerate() {
        print!("{}{}", if at > 0 { "\n" } else { "" }, text(signed, old.as_ref()));
    }
    if roots.is_empty() {
        println!("This bundle brings no root.");
    }
    Ok(())
}

fn is_bundle(path: &Path) -> anyhow::Result<bool> {
    use std::io::Read as _;
    let mut first = Vec::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    Ok(first == MAGIC)
}

/// The roots in a file, each with the one before it where that is known.
fn read(path: &Path) -> anyhow::Result<Vec<(SignedRoot, Option<RootDocument>)>> {
    if !is_bundle(path)? {
        let signed = read_signed(path)?;
        let old = previous_beside(path, signed.root()).map(|path| read_root(&path)).transpose()?;
        return Ok(vec![(signed, old)]);
    }
    let bundle = read_limited(path, MAX_FILE).with_context(|| format!("bundle {}", path.display()))?;
    let head = pack::head(&bundle)?;
    let mut roots: Vec<(SignedRoot, Option<RootDocument>)> = Vec::new();
    for link in head.chain()? {
        let old = roots.last().map(|(signed, _)| signed.root().clone());
        let root = RootDocument::parse(link.document)?;
        roots.push((SignedRoot::with_signatures(root, link.signatures), old));
    }
    Ok(roots)
}

/// What each of the roles' keys is, with whom it is held by.
fn held(root: &RootDocument, role: Role) -> String {
    let names: Vec<_> = root.role_keys(role).filter_map(|key| root.holder(key.id())).collect();
    names.join(", ")
}

fn roles_of(root: &RootDocument, id: KeyId) -> Vec<&'static str> {
    Role::ALL.into_iter().filter(|role| root.role_keys(*role).any(|key| key.id() == id)).map(Role::name).collect()
}

/// What the signatures say, a line a judge.
fn signed_by(signed: &SignedRoot, old: Option<&RootDocument>) -> Vec<String> {
    let root = signed.root();
    match signed.signers(old) {
        Err(refused) => vec![format!("WRONG: {}: {}", refused.name(), refused.detail())],
        Ok(_) if signed.signatures().is_empty() => vec!["nobody, as far as this file tells".to_owned()],
        Ok(signers) => {
            let of_old = old.zip(signers.by_old.as_ref());
            let judges = of_old.into_iter().chain([(root, &signers.by_new)]);
            let told = |(judge, signers): (&RootDocument, &Signers)| {
                format!("version {}'s root keys: {}", judge.version(), counted(signers, judge))
            };
            let unseen = old.is_none() && root.version() > 1;
            let unseen =
                unseen.then(|| format!("version {}'s root keys: not checked, it is not here", root.version() - 1));
            judges.map(told).chain(unseen).collect()
        }
    }
}

fn text(signed: &SignedRoot, old: Option<&RootDocument>) -> String {
    let root = signed.root();
    let mut rows = vec![
        ("root", format!("version {} of deployment {}", root.version(), root.deployment())),
        ("digest", root.digest().to_string()),
        ("epoch", root.epoch().to_string()),
        ("issued at", print::moment(root.issued_at())),
    ];
    rows.extend(signed_by(signed, old).into_iter().map(|line| ("signed by", line)));
    let role = |role: Role| {
        let keys = root.role_keys(role).count();
        let threshold = root.threshold(role).map_or_else(|| "nobody".to_owned(), |n| format!("{n} of {keys}"));
        vec![role.name().to_owned(), threshold, held(root, role)]
    };
    let key = |(name, key): &(String, crate::keys::PublicKey)| {
        let alg = alg(key.alg()).to_owned();
        vec![name.clone(), key.id().to_string(), alg, roles_of(root, key.id()).join(", ")]
    };
    let roles: Vec<_> = Role::ALL.into_iter().map(role).collect();
    let keys: Vec<_> = root.draft().keys.iter().map(key).collect();
    format!("{}\nroles\n{}\nkeys\n{}", print::pairs(&rows), print::columns(&roles), print::columns(&keys))
}

fn alg(alg: KeyAlg) -> &'static str {
    match alg {
        KeyAlg::Ed25519 => "Ed25519",
        KeyAlg::EcdsaP256 => "ECDSA P-256",
    }
}

fn as_json(signed: &SignedRoot, old: Option<&RootDocument>) -> Value {
    let root = signed.root();
    let roles = Role::ALL.into_iter().filter_map(|role| {
        let keys: Vec<_> = root.role_keys(role).map(|key| json!(root.holder(key.id()))).collect();
        Some((role.name().to_owned(), json!({"threshold": root.threshold(role)?, "keys": keys})))
    });
    let key = |(name, key): &(String, crate::keys::PublicKey)| {
        let id = key.id();
        json!({"name": name, "key_id": id, "algorithm": alg(key.alg()), "roles": roles_of(root, id)})
    };
    json!({
        "deployment": root.deployment(),
        "version": root.version(),
        "epoch": root.epoch(),
        "issued_at": root.issued_at(),
        "digest": root.digest(),
        "roles": roles.collect::<serde_json::Map<_, _>>(),
        "keys": root.draft().keys.iter().map(key).collect::<Vec<_>>(),
        "signed_by": signed_by(signed, old),
    })
}
