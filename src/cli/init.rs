//! `tidegate init`: a policy folder that builds as it stands, keys to sign it with, and the root that devices trust.
//!
//! ```text
//! DIR/…                     the files of config/policy-example, commented
//! DIR/keys/root-N.key       the root role: any two of three sign the next root
//! DIR/keys/policy.key       the policy role: signs bundles; policy-N.key where it has several keys
//! DIR/keys/hub.key          the hub role: signs receipts
//! DIR/keys/revocation.key   the revocation role: signs lists of revocations
//! DIR/keys/permit.key       the permit role: signs permits
//! DIR/keys/release.key      the release role: signs new versions of the programs
//! DIR/keys/issuer.pem       signs tokens for a first try; its public half is pinned in issuers/site.toml
//! DIR/root.json             root version 1, byte for byte what devices are given
//! DIR/root.sigs             its signature block
//! ```
//!
//! Nothing is ever written over: every file is made new, or the command stops before it made any.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::passphrase::{PassphraseSource, VARIABLE};
use super::print;
use crate::bundle::container::MAX_SIGNATURES;
use crate::bundle::keyfile::{AuthorKey, Passphrase, encrypt_pem};
use crate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use crate::bundle::succession::SignedRoot;
use crate::clock::Reading;
use crate::policy::issuer::Alg;
use crate::token::mint::MintKey;
use crate::units::UnixSeconds;

/// Make a policy folder: commented example files, keys and a root document.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate init policy --deployment harbour --policy-keys 3 --policy-threshold 2")]
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
    /// How many policy keys are made.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub policy_keys: usize,
    /// How many of them must sign a policy.
    #[arg(long, default_value_t = 1, value_name = "K")]
    pub policy_threshold: usize,
    #[command(flatten)]
    pub passphrase: PassphraseSource,
    /// Leave the keys in clear, and do not ask.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub no_passphrase: bool,
}

/// The roles that have one key each, named like the role.
const SINGLE: [Role; 4] = [Role::Hub, Role::Revocation, Role::Permit, Role::Release];

const ISSUER_FILE: &str = "issuers/site.toml";
/// The folder's files, as they are shipped.
const FILES: [(&str, &str); 9] = [
    ("deployment.toml", include_str!("../../config/policy-example/deployment.toml")),
    ("targets.toml", include_str!("../../config/policy-example/targets.toml")),
    ("plans.toml", include_str!("../../config/policy-example/plans.toml")),
    ("applications.toml", include_str!("../../config/policy-example/applications.toml")),
    ("subscriptions.toml", include_str!("../../config/policy-example/subscriptions.toml")),
    ("revocations.toml", include_str!("../../config/policy-example/revocations.toml")),
    ("probes.toml", include_str!("../../config/policy-example/probes.toml")),
    ("apis/example.toml", include_str!("../../config/policy-example/apis/example.toml")),
    (ISSUER_FILE, include_str!("../../config/policy-example/issuers/site.toml")),
];

pub(super) fn run(arguments: &Init) -> anyhow::Result<()> {
    let now = Reading::now().wall_ms.div_euclid(1000);
    let passphrase = if arguments.no_passphrase { None } else { arguments.passphrase.for_new("the keys")? };
    let root = init(arguments, passphrase.as_ref(), now)?;
    let (dir, keys) = (arguments.dir.display(), policy_names(arguments));
    let (policy, threshold) = (arguments.policy_keys, arguments.policy_threshold);
    let rows = [
        ("deployment", root.deployment().to_owned()),
        ("root", format!("version 1, {} of {} keys, {}", arguments.root_threshold, arguments.root_keys, root.digest())),
        ("policy", format!("{threshold} of {policy} keys")),
        ("others", format!("1 key each: {}", SINGLE.map(Role::name).join(", "))),
        ("folder", dir.to_string()),
        ("keys", if passphrase.is_some() { "under a passphrase, but for hub.key" } else { "IN CLEAR" }.to_owned()),
    ];
    print!("{}", print::pairs(&rows));
    if passphrase.is_none() {
        eprintln!(
            "\nwarning: the keys lie in clear, and whoever reads them can sign: `tidegate key encrypt FILE` puts a passphrase\n\
             on one; init takes one for all, with --passphrase-file, {VARIABLE} or at a terminal."
        );
    }
    let alone = if threshold == 1 { "one key alone signs policy, " } else { "" };
    eprintln!(
        "\nwarning: {alone}one key alone signs for each of the other roles, and all keys lie in {dir}/keys.\n\
         In earnest: make each key on the machine of who holds it, keep root keys on sticks in different places, ask\n\
         for at least two policy signers (--policy-keys 3 --policy-threshold 2), keep revocation, permit and release\n\
         keys apart from the policy keys, and give hub.key to the hub alone."
    );
    println!("\nNext:");
    println!("  tidegate bundle build {dir} -o {dir}/policy-1.tgb");
    for name in keys.iter().take(threshold) {
        println!("  tidegate bundle sign {dir}/policy-1.tgb --key {dir}/keys/{name}.key");
    }
    println!("  tidegate bundle verify {dir}/policy-1.tgb --root {dir}/root.json");
    Ok(())
}

/// `policy`, or `policy-1` and so on.
fn policy_names(arguments: &Init) -> Vec<String> {
    match arguments.policy_keys {
        1 => vec![Role::Policy.name().to_owned()],
        count => (1..=count).map(|n| format!("{}-{n}", Role::Policy.name())).collect(),
    }
}

/// Makes the folder; gives the root document. The keys are put under the passphrase, but for the hub's: a service has
/// nobody to ask.
pub fn init(arguments: &Init, passphrase: Option<&Passphrase>, now: UnixSeconds) -> anyhow::Result<RootDocument> {
    let dir = &arguments.dir;
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        let there = io::Error::new(io::ErrorKind::AlreadyExists, "the folder is not empty; nothing was written");
        return Err(there).with_context(|| dir.display().to_string());
    }
    check("root", arguments.root_threshold, arguments.root_keys)?;
    check("policy", arguments.policy_threshold, arguments.policy_keys)?;
    let make = |names: Vec<String>| names.iter().map(|name| AuthorKey::generate(name)).collect::<Result<Vec<_>, _>>();
    let roots = make((1..=arguments.root_keys).map(|n| format!("root-{n}")).collect())?;
    let policy = make(policy_names(arguments))?;
    let single = make(SINGLE.map(|role| role.name().to_owned()).to_vec())?;
    let signed = first_root(arguments, &[&roots, &policy, &single], now)?;
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
    for key in roots.iter().chain(&policy).chain(&single) {
        let path = dir.join("keys").join(format!("{}.key", key.name));
        let passphrase = passphrase.filter(|_| key.name != Role::Hub.name());
        key.create_with(&path, passphrase).with_context(|| path.display().to_string())?;
    }
    let private = issuer.private_pem().context("a generated key has its private half")?;
    let private = passphrase.map_or(Ok(private.clone()), |passphrase| encrypt_pem(&private, passphrase))?;
    create(&dir.join("keys/issuer.pem"), private.as_bytes(), 0o600)?;
    create(&dir.join("keys/.gitignore"), b"*\n", 0o644)?;
    create(&dir.join("root.json"), signed.root().bytes(), 0o644)?;
    create(&dir.join("root.sigs"), &signed.block(), 0o644)?;
    Ok(signed.root().clone())
}

/// Whether that many can sign: a bundle has room for so many signatures and no more.
fn check(role: &str, threshold: usize, keys: usize) -> anyhow::Result<()> {
    if threshold == 0 || threshold > keys {
        bail!("{threshold} of {keys} {role} keys cannot sign");
    }
    if threshold > usize::from(MAX_SIGNATURES) {
        bail!(
            "a threshold of {threshold} {role} keys can never be met: a bundle has at most {MAX_SIGNATURES} signatures"
        );
    }
    Ok(())
}

/// The root of these keys: root, policy, and one for each of [`SINGLE`].
fn first_root(
    arguments: &Init,
    [roots, policy, single]: &[&[AuthorKey]; 3],
    now: UnixSeconds,
) -> anyhow::Result<SignedRoot> {
    let keys = roots.iter().chain(*policy).chain(*single);
    let keys: Vec<_> = keys.map(|key| (key.name.clone(), key.key.public())).collect();
    let (policies, singles) = (roots.len(), roots.len() + policy.len());
    let role = |keys: Range<usize>, threshold| RoleKeys { keys: keys.collect(), threshold };
    let mut roles = BTreeMap::from([
        (Role::Root, role(0..policies, arguments.root_threshold)),
        (Role::Policy, role(policies..singles, arguments.policy_threshold)),
    ]);
    roles.extend(SINGLE.into_iter().zip(singles..).map(|(name, at)| (name, role(at..at + 1, 1))));
    let deployment = arguments.deployment.clone();
    let root = RootDocument::build(RootDraft { deployment, epoch: 1, version: 1, issued_at: now, keys, roles })?;
    let mut signed = SignedRoot::unsigned(root);
    roots.iter().take(arguments.root_threshold).try_for_each(|key| signed.sign(None, &key.key))?;
    Ok(signed)
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
