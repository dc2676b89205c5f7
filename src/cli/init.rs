//! `tidegate init`: a policy folder that builds as it stands, keys to sign it with, and the root that devices trust.
//!
//! ```text
//! DIR/…                 the files of config/policy-example, commented
//! DIR/keys/root-N.key   the root role: any two of three sign the next root
//! DIR/keys/policy.key   the policy role: signs bundles
//! DIR/keys/hub.key      the hub role: signs receipts
//! DIR/keys/issuer.pem   signs tokens for a first try; its public half is pinned in issuers/site.toml
//! DIR/root.json         root version 1, byte for byte what devices are given
//! DIR/root.sigs         its signature block
//! ```
//!
//! Nothing is ever written over: every file is made new, or the command stops before it made any.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::print;
use crate::bundle::container::{Signature, signature_block};
use crate::bundle::keyfile::AuthorKey;
use crate::bundle::root::{self, Role, RoleKeys, RootDocument, RootDraft};
use crate::clock::Reading;
use crate::policy::issuer::Alg;
use crate::token::mint::MintKey;
use crate::units::UnixSeconds;

/// Make a policy folder: commented example files, keys and a root document.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate init policy --deployment harbour")]
pub struct Init {
    /// The folder; it must not exist, or be empty.
    pub dir: PathBuf,
    /// The deployment's name: what all devices under one root share.
    #[arg(long, default_value = "example")]
    pub deployment: String,
    /// How many root keys are made.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub root_keys: usize,
    /// How many of them must sign the next root.
    #[arg(long, default_value_t = 2, value_name = "K")]
    pub root_threshold: usize,
}

const ISSUER_FILE: &str = "issuers/site.toml";
/// The folder's files, as they are shipped.
const FILES: [(&str, &str); 8] = [
    ("deployment.toml", include_str!("../../config/policy-example/deployment.toml")),
    ("targets.toml", include_str!("../../config/policy-example/targets.toml")),
    ("plans.toml", include_str!("../../config/policy-example/plans.toml")),
    ("applications.toml", include_str!("../../config/policy-example/applications.toml")),
    ("subscriptions.toml", include_str!("../../config/policy-example/subscriptions.toml")),
    ("revocations.toml", include_str!("../../config/policy-example/revocations.toml")),
    ("apis/petstore.toml", include_str!("../../config/policy-example/apis/petstore.toml")),
    (ISSUER_FILE, include_str!("../../config/policy-example/issuers/site.toml")),
];

pub(super) fn run(arguments: &Init) -> anyhow::Result<()> {
    let now = Reading::now().wall_ms.div_euclid(1000);
    let root = init(arguments, now)?;
    let dir = arguments.dir.display();
    let rows = [
        ("deployment", root.deployment().to_owned()),
        ("root", format!("version 1, {} of {} keys, {}", arguments.root_threshold, arguments.root_keys, root.digest())),
        ("folder", dir.to_string()),
    ];
    print!("{}", print::pairs(&rows));
    eprintln!(
        "\nwarning: one key signs policy and all keys lie in {dir}/keys. In earnest: make each key on the machine of\n\
         who holds it, keep root keys on sticks in different places, ask for at least two policy signers, and give\n\
         hub.key to the hub alone."
    );
    println!("\nNext:");
    println!("  tidegate bundle build {dir} -o {dir}/policy-1.tgb");
    println!("  tidegate bundle sign {dir}/policy-1.tgb --key {dir}/keys/policy.key");
    println!("  tidegate bundle verify {dir}/policy-1.tgb --root {dir}/root.json");
    Ok(())
}

/// Makes the folder; gives the root document.
pub fn init(arguments: &Init, now: UnixSeconds) -> anyhow::Result<RootDocument> {
    let dir = &arguments.dir;
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        let there = io::Error::new(io::ErrorKind::AlreadyExists, "the folder is not empty; nothing was written");
        return Err(there).with_context(|| dir.display().to_string());
    }
    if arguments.root_threshold == 0 || arguments.root_threshold > arguments.root_keys {
        bail!("{} of {} root keys cannot sign", arguments.root_threshold, arguments.root_keys);
    }
    let roots = (1..=arguments.root_keys).map(|n| AuthorKey::generate(&format!("root-{n}")));
    let roots = roots.collect::<Result<Vec<_>, _>>()?;
    let (policy, hub) = (AuthorKey::generate("policy")?, AuthorKey::generate("hub")?);
    let (root, signatures) = first_root(arguments, &roots, &policy, &hub, now)?;
    let issuer = MintKey::generate(Alg::EdDsa)?;

    for folder in ["", "apis", "issuers", "keys"] {
        let path = dir.join(folder);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    for (name, text) in FILES {
        let text = match name {
            "deployment.toml" => text.replacen("\"example\"", &toml_text(&arguments.deployment), 1),
            ISSUER_FILE => with_public_key(text, &issuer.public_pem())?,
            _ => text.to_owned(),
        };
        create(&dir.join(name), text.as_bytes(), 0o644)?;
    }
    for key in roots.iter().chain([&policy, &hub]) {
        let path = dir.join("keys").join(format!("{}.key", key.name));
        key.create(&path).with_context(|| path.display().to_string())?;
    }
    let private = issuer.private_pem().context("a generated key has its private half")?;
    create(&dir.join("keys/issuer.pem"), private.as_bytes(), 0o600)?;
    create(&dir.join("keys/.gitignore"), b"*\n", 0o644)?;
    create(&dir.join("root.json"), root.bytes(), 0o644)?;
    create(&dir.join("root.sigs"), &signature_block(&signatures), 0o644)?;
    Ok(root)
}

fn first_root(
    arguments: &Init,
    roots: &[AuthorKey],
    policy: &AuthorKey,
    hub: &AuthorKey,
    now: UnixSeconds,
) -> anyhow::Result<(RootDocument, Vec<Signature>)> {
    let keys: Vec<_> = roots.iter().chain([policy, hub]).map(|key| (key.name.clone(), key.key.public())).collect();
    let count = roots.len();
    let alone = |at| RoleKeys { keys: vec![at], threshold: 1 };
    let everyone = RoleKeys { keys: (0..count).collect(), threshold: arguments.root_threshold };
    let roles = BTreeMap::from([(Role::Root, everyone), (Role::Policy, alone(count)), (Role::Hub, alone(count + 1))]);
    let deployment = arguments.deployment.clone();
    let root = RootDocument::build(RootDraft { deployment, epoch: 1, version: 1, issued_at: now, keys, roles })?;
    let sign =
        |key: &AuthorKey| Signature { key: key.key.public().id(), bytes: key.key.sign(root::MEDIA_TYPE, root.bytes()) };
    let mut signatures: Vec<_> = roots.iter().take(arguments.root_threshold).map(sign).collect();
    signatures.sort_by_key(|signature| signature.key);
    Ok((root, signatures))
}

/// The example issuer with this public key in place of its own.
fn with_public_key(text: &str, pem: &str) -> anyhow::Result<String> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----\n";
    let ends = text.find(BEGIN).zip(text.find(END));
    let (start, end) = ends.context("the example issuer pins a key")?;
    Ok([&text[..start], pem, &text[end + END.len()..]].concat())
}

fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Writes a file that was not there.
pub(super) fn create(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}
