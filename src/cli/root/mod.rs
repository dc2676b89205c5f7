//! `tidegate root`: the document that says which keys a deployment trusts, and the next one after it.
//!
//! ```text
//! root-2.json   the document: what devices are given, and what is signed
//! root-2.sigs   beside it, the signatures so far; both go from signer to signer
//! ```

mod changes;
mod new;
mod rotate;
mod show;
mod sign;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::bundle::container::MAX_ROOT;
use crate::bundle::keyfile::PublicHalf;
use crate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft, Signers};
use crate::bundle::succession::{MAX_BLOCK, SignedRoot};
use crate::disk::read_limited;
use crate::ids::KeyId;
use crate::keys::PublicKey;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a first root from the public halves of keys that were made elsewhere.
    #[command(
        after_help = "Example:\n  tidegate root new -o root.json --deployment harbour --add root=ada.pub --add root=ben.pub \\\n    \
                            --add policy=ada.pub --threshold root=2"
    )]
    New(new::New),
    /// Make the next root: other keys, other thresholds, or a new epoch.
    #[command(
        after_help = "Example:\n  tidegate root rotate policy/root.json -o policy/root-2.json --remove root-1 --add root=dora.pub"
    )]
    Rotate(rotate::Rotate),
    /// Sign a root, after showing what it changes.
    #[command(after_help = "Example:\n  tidegate root sign policy/root-2.json --key policy/keys/root-2.key")]
    Sign(sign::Sign),
    /// Show a root, or the roots that a bundle brings.
    #[command(after_help = "Example:\n  tidegate root show policy/root.json --json")]
    Show(show::Show),
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::New(arguments) => new::run(&arguments),
        Command::Rotate(arguments) => rotate::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
    }
}

/// The root document in a file.
pub(super) fn read_root(path: &Path) -> anyhow::Result<RootDocument> {
    let named = || format!("root document {}", path.display());
    let bytes = read_limited(path, u64::from(MAX_ROOT) + 1).with_context(named)?;
    RootDocument::from_file(&bytes).with_context(named)
}

/// The root document in a file, and the signatures in the one beside it, if that is there.
pub(super) fn read_signed(path: &Path) -> anyhow::Result<SignedRoot> {
    let root = read_root(path)?;
    let beside = signatures_of(path);
    let named = || format!("signatures {}", beside.display());
    match read_limited(&beside, MAX_BLOCK) {
        Ok(block) => SignedRoot::parse(root.bytes(), &block).with_context(named),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SignedRoot::unsigned(root)),
        Err(error) => Err(error).with_context(named),
    }
}

/// `root-2.sigs` of `root-2.json`.
fn signatures_of(path: &Path) -> PathBuf {
    path.with_extension("sigs")
}

/// Reads ROLE=VALUE of a flag.
fn with_role(text: &str) -> Result<(Role, String), String> {
    let (role, value) = super::pair(text)?;
    let names = || Role::ALL.map(Role::name).join(", ");
    let role = Role::from_name(&role).ok_or_else(|| format!("write ROLE=…, with a role of: {}", names()))?;
    Ok((role, value))
}

/// Reads ROLE=NUMBER of a flag.
fn threshold(text: &str) -> Result<(Role, usize), String> {
    let (role, value) = with_role(text)?;
    Ok((role, value.parse().map_err(|_| "write ROLE=NUMBER".to_owned())?))
}

/// Who plays what, by key and not by index.
#[derive(Debug, Default)]
struct Roles {
    keys: Vec<(String, PublicKey)>,
    roles: Vec<(Role, Vec<KeyId>, usize)>,
}

impl Roles {
    fn of(draft: &RootDraft) -> Self {
        let id = |at: &usize| draft.keys.get(*at).map(|(_, key)| key.id());
        let role =
            |(role, held): (&Role, &RoleKeys)| (*role, held.keys.iter().filter_map(id).collect(), held.threshold);
        Self { keys: draft.keys.clone(), roles: draft.roles.iter().map(role).collect() }
    }

    /// Gives a role to the key in a file, under the name that the file says.
    fn add(&mut self, role: Role, file: &str) -> anyhow::Result<()> {
        let (half, _) = PublicHalf::open(Path::new(file)).with_context(|| format!("key {file}"))?;
        let id = half.key.id();
        match self.keys.iter().find(|(name, key)| *name == half.name || *key == half.key) {
            Some((_, key)) if *key == half.key => {}
            Some((name, _)) => bail!(
                "{file}: another key is there under the name {name:?}: remove that with --remove {name}, or give the \
                 new one another name"
            ),
            None => self.keys.push((half.name, half.key)),
        }
        match self.roles.iter_mut().find(|(known, ..)| *known == role) {
            Some((_, keys, _)) if keys.contains(&id) => bail!("{file}: this key has the role {} already", role.name()),
            Some((_, keys, _)) => keys.push(id),
            None => self.roles.push((role, vec![id], 1)),
        }
        Ok(())
    }

    /// Takes a key, by its name or id, out of one role or out of all.
    fn remove(&mut self, wanted: &str) -> anyhow::Result<()> {
        let (role, name) = match with_role(wanted) {
            Ok((role, name)) => (Some(role), name),
            Err(_) => (None, wanted.to_owned()),
        };
        let named = |(holder, key): &&(String, PublicKey)| *holder == name || key.id().to_string() == name;
        let ids: Vec<_> = self.keys.iter().filter(named).map(|(_, key)| key.id()).collect();
        let [id] = ids[..] else {
            let known: Vec<_> = self.keys.iter().map(|(name, _)| name.as_str()).collect();
            bail!("{} keys have the name {name:?}; the root has: {}", ids.len(), known.join(", "));
        };
        let mut removed = false;
        for (_, keys, _) in self.roles.iter_mut().filter(|(known, ..)| role.is_none_or(|role| role == *known)) {
            let before = keys.len();
            keys.retain(|key| *key != id);
            removed |= keys.len() < before;
        }
        anyhow::ensure!(removed, "the key {name:?} does not have that role");
        Ok(())
    }

    fn threshold(&mut self, role: Role, threshold: usize) -> anyhow::Result<()> {
        let known = self.roles.iter_mut().find(|(known, ..)| *known == role);
        known.with_context(|| format!("nobody has the role {}", role.name()))?.2 = threshold;
        Ok(())
    }

    /// Keys and roles as a root has them: a role that nobody plays and a key without a role are left out.
    fn into_parts(self) -> (Vec<(String, PublicKey)>, std::collections::BTreeMap<Role, RoleKeys>) {
        let held = |id: KeyId| self.roles.iter().any(|(_, keys, _)| keys.contains(&id));
        let keys: Vec<_> = self.keys.iter().filter(|(_, key)| held(key.id())).cloned().collect();
        let index = |id: &KeyId| keys.iter().position(|(_, key)| key.id() == *id);
        let role = |(role, ids, threshold): &(Role, Vec<KeyId>, usize)| {
            let mut held: Vec<_> = ids.iter().filter_map(index).collect();
            held.sort_unstable();
            (*role, RoleKeys { keys: held, threshold: *threshold })
        };
        let roles = self.roles.iter().filter(|(_, ids, _)| !ids.is_empty()).map(role).collect();
        (keys, roles)
    }
}

/// `2 of 3 (root-1, dora)`.
fn counted(signers: &Signers, root: &RootDocument) -> String {
    let names: Vec<_> = signers.keys.iter().map(|id| root.holder(*id).unwrap_or("?")).collect();
    let listed = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    format!("{} of {}{listed}", signers.keys.len(), signers.threshold)
}

/// Where the root before `path` is looked for: the document of one version less that lies beside it.
fn previous_beside(path: &Path, root: &RootDocument) -> Option<PathBuf> {
    let before = root.version().checked_sub(1)?;
    let folder = path.parent()?;
    let names = [format!("root-{before}.json"), "root.json".to_owned()];
    let fits = |path: &PathBuf| {
        read_root(path).is_ok_and(|other| other.version() == before && other.deployment() == root.deployment())
    };
    names.iter().map(|name| folder.join(name)).find(fits)
}
