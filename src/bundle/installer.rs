//! What root takes of what the daemon hands over: a release is judged again, from nothing that the daemon can change.
//!
//! The daemon is not believed: whoever took it over must not become root by it. So the pinned root, the numbers that were
//! seen and the private copy are root's own; what lies in the daemon's folder is opened without following a link, read
//! once, and counts for what its signatures say. This judges and records; what is installed, and whether it stays, is for
//! systemd/release.
//!
//! ```text
//! state.0 and .1   (store/pair, `state`) releases that were installed or failed, the permit that waits, the newest root
//! seen             the body of that record once more, readable by all: the daemon goes by it (`handover`)
//! roots/<version>  (`roots`) the roots that followed the pinned one
//! device           the device's id, as it was when it was first known: 32 hex digits
//! new.deb          the package to be installed; durable before `next` is there
//! next             what new.deb is: version · seq · security floor · 1 if a permit leads there, else 0 · digest
//! candidate        the private copy, while it is judged
//! ```
//!
//! A release's number counts as seen once it is installed or has failed, never before: one that a power cut stops
//! half-way is gone on with, by `next`.

mod beneath;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use beneath::Beneath;

use super::activate::OpenError;
use super::container::{self, MAX_LINK};
use super::enrolled;
use super::error::{Refused, SemanticProblem};
use super::handover::{self, PERMIT, RELEASE, SEEN};
use super::manifest::{DeviceFacts, Entry, EntryKind};
use super::root::RootDocument;
use super::roots::Roots;
use super::staging::{Staged, stage};
use super::start::{Records, lost_root};
use super::state::{Chosen, State};
use super::trust::{Rotated, Seen, Trust, follow};
use super::verify::{Findings, Hashed, Judge, Purpose, Source as _, Verdict, Verified, Whole, verify};
use crate::disk::{Disk, Machine};
use crate::ids::{DeviceId, Digest};
use crate::store::device_key;
use crate::store::pair::{Found, Pair};
use crate::store::time::BUILD_TIME;
use crate::units::UnixSeconds;

/// The package that waits to be installed.
pub const PACKAGE: &str = "new.deb";
/// What that is.
pub const NEXT: &str = "next";

const DEVICE: &str = "device";
const STATE: &str = "state";
/// Most bytes of `next` and `device`.
const MAX_LINE: u64 = 1_024;

/// A release that waits to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The version of its package.
    pub version: String,
    /// Its sequence number, and which bundle has it.
    pub seen: Seen,
    /// Below this sequence number nothing is taken once it is installed.
    pub security_floor: u64,
    /// Whether a permit leads there: its version may be an older one.
    pub permitted: bool,
}

/// What became of what the daemon handed over.
#[derive(Debug)]
pub struct Taken {
    /// Of the permit, if there was one.
    pub permit: Option<Result<(), Refused>>,
    /// Of the release, if there was one: to be installed, or there already.
    pub release: Option<Result<Option<Next>, Refused>>,
}

/// The installer's own folder, and the daemon's, which it looks into.
#[derive(Debug)]
pub struct Installer {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    daemon: Arc<Beneath>,
    pair: Pair,
    state: State,
    roots: Roots,
    trust: Trust,
}

impl Installer {
    /// Opens the installer's `folder`, which must be there, beside the `daemon`'s state folder; `pinned` is the root that
    /// the operator placed. Roots that the daemon has learned of are followed, each by its own signatures.
    pub fn open(folder: &Path, daemon: &Path, pinned: RootDocument) -> Result<Self, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(Machine);
        let roots = Roots::open(Arc::clone(&disk), folder.join("roots"), pinned)?;
        let (pair, found) = Pair::open(Arc::clone(&disk), folder, STATE);
        if found == Found::Lost {
            let what = "both records of what was installed are broken: remove state.0 and state.1 there to begin anew";
            return Err(OpenError::State(io::Error::other(what)));
        }
        let read = |body| State::from_bytes(body).ok_or(OpenError::Newer);
        let state = found.body().map(read).transpose()?.unwrap_or_default();
        let records = if matches!(found, Found::Survivor(_)) { Records::Damaged } else { Records::Sound };
        let lost = lost_root(&state, records, &roots)?;
        let state = if lost.is_none() { state.under(roots.newest()) } else { state };
        let trust = Trust { lost, ..Trust::new(roots.newest().clone()) };
        let daemon = Arc::new(Beneath::of(daemon));
        let mut installer = Self { disk, folder: folder.into(), daemon, pair, state, roots, trust };
        installer.catch_up();
        installer.follow_daemon()?;
        installer.commit(installer.state)?;
        Ok(installer)
    }

    /// The last release that was installed, and the highest that was seen.
    #[must_use]
    pub fn history(&self) -> (Option<Digest>, Option<Seen>) {
        (self.trust.releases.serving, self.trust.releases.highest)
    }

    /// Judges what the daemon handed over, and takes it out of its folder, whatever it is: nothing is tried twice.
    pub fn take(&mut self) -> io::Result<Taken> {
        let permit = self.taken(PERMIT, Self::permit)?;
        let release = self.taken(RELEASE, Self::release)?;
        Ok(Taken { permit, release })
    }

    /// What waits to be installed.
    pub fn next(&self) -> io::Result<Option<Next>> {
        let line = match self.disk.read(&self.folder.join(NEXT), MAX_LINE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            line => line?,
        };
        let broken =
            || io::Error::other("`next` there is not as it was written: remove it, and bring the release again");
        Next::parse(&line).map(Some).ok_or_else(broken)
    }

    /// What waited is installed and serves.
    pub fn installed(&mut self) -> io::Result<()> {
        let Some(Next { seen, security_floor, .. }) = self.next()? else { return Ok(()) };
        if self.trust.releases.serving == Some(seen.digest) {
            return Ok(()); // noted before the power was cut
        }
        self.commit(self.state.after(seen, security_floor, self.trust.releases.serving).passed())
    }

    /// What waited was installed, did not serve, and is not tried again.
    pub fn failed(&mut self) -> io::Result<()> {
        let Some(Next { seen, .. }) = self.next()? else { return Ok(()) };
        if self.state.known_bad.contains(seen.digest) {
            return Ok(());
        }
        let highest = self.state.highest.filter(|highest| highest.seq >= seen.seq).or(Some(seen));
        self.commit(State { highest, pending: None, known_bad: self.state.known_bad.and(seen.digest), ..self.state })
    }

    /// What `judge` makes of the daemon's file `name`.
    fn taken<T>(
        &mut self,
        name: &str,
        judge: fn(&mut Self, Verdict<()>, &Staged) -> Result<T, Refused>,
    ) -> io::Result<Option<Result<T, Refused>>> {
        let path = Path::new(handover::FOLDER).join(name);
        // Under another name first: what the daemon hands over meanwhile is another file, and has its turn.
        let (offered, path) = (path.as_path(), path.with_extension("taken"));
        if !self.daemon.claim(offered, &path)? {
            return Ok(None);
        }
        // 0a to 0c: no link is followed, it is copied once, and the daemon's file is never looked at again
        let staged = match self.daemon.regular(&path) {
            Ok(None) => return Ok(None),
            Ok(Some(offered)) => stage(offered, &self.folder, &*self.disk),
            Err(refused) => Err(refused),
        };
        let judged = staged.and_then(|staged| {
            let verdict = self.judge(&staged)?;
            judge(self, verdict, &staged)
        });
        self.daemon.remove(&path)?;
        Ok(Some(judged))
    }

    /// Steps 1 to 14. Roots that came with it are kept, whatever becomes of it.
    fn judge(&mut self, staged: &Staged) -> Result<Verdict<()>, Refused> {
        let device = self.device().map_err(|error| Refused::StateLost(format!("the device's id: {error}")))?;
        let by = Judge { trust: &self.trust, lower: self.lower(), device: &device, purpose: Purpose::Install };
        let mut found = Findings::default();
        let no_policy = |_: &_| Err(SemanticProblem::SemanticInvalid("a policy; releases are installed here".into()));
        let verdict = verify(&mut Whole(&staged.file), &by, no_policy, &mut found);
        self.advance(&found.roots).map_err(|error| Refused::StateLost(format!("writing a root: {error}")))?;
        verdict
    }

    fn permit(&mut self, verdict: Verdict<()>, _: &Staged) -> Result<(), Refused> {
        match verdict {
            Verdict::AlreadyInstalled(_) => Ok(()),
            Verdict::Permit(verified) if self.trust.permits_release(verified.policy()) => {
                let seen = Seen { seq: verified.manifest().seq(), digest: verified.digest() };
                let written = self.commit(self.state.permitting(seen, *verified.policy()));
                written.map_err(|error| Refused::StateLost(format!("writing the state record: {error}")))
            }
            _ => Err(Refused::TypeMismatch("it is no permit for a release".into())),
        }
    }

    fn release(&mut self, verdict: Verdict<()>, staged: &Staged) -> Result<Option<Next>, Refused> {
        let release = match verdict {
            Verdict::AlreadyInstalled(_) => return Ok(None),
            Verdict::Release(release) => release,
            _ => return Err(Refused::TypeMismatch("it is no release".into())),
        };
        let own = release.policy().iter().find(|entry| Some(entry.kind) == EntryKind::OWN_PACKAGE);
        let own = own.ok_or_else(|| Refused::NotForThisDevice("it has no package for this architecture".into()))?;
        let manifest = release.manifest();
        let pending = self.trust.releases.pending.filter(|permit| Some(permit.from) == self.trust.releases.serving);
        let next = Next {
            version: manifest.version().unwrap_or_default().to_owned(),
            seen: Seen { seq: manifest.seq(), digest: release.digest() },
            security_floor: manifest.security_floor(),
            permitted: pending.is_some_and(|permit| permit.to == release.digest()),
        };
        self.keep(&release, own, staged)?;
        let written = self.disk.replace(&self.folder.join(NEXT), next.line().as_bytes(), 0o600);
        written.map_err(|error| Refused::SourceIo(format!("writing `next`: {error}")))?;
        Ok(Some(next))
    }

    /// The package, durable; its bytes are hashed once more as they go by.
    fn keep(&self, release: &Verified<Vec<Entry>>, entry: &Entry, staged: &Staged) -> Result<(), Refused> {
        let payload = release.head().preamble().head_len();
        let mut source = Whole(&staged.file);
        let unread = |error| Refused::SourceIo(format!("reading entry {}: {error}", entry.kind));
        let mut blob = Hashed::of(source.blob(entry, payload).map_err(unread)?, entry);
        let written = self.disk.write_from(&self.folder.join(PACKAGE), &mut blob, 0o600);
        let written = written.and_then(|()| self.disk.sync_folder(&self.folder));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Refused::NoSpace(format!("the package: {error}"))
            }
            _ => Refused::SourceIo(format!("writing the package: {error}")),
        })?;
        blob.check()
    }

    /// The least that the time can be. Neither a clock nor the daemon's floor is believed.
    fn lower(&self) -> UnixSeconds {
        BUILD_TIME.max(self.trust.root.issued_at())
    }

    /// Who this device is. The id stays what it was when it was first known; labels are those that an enrolment vouches
    /// for.
    fn device(&self) -> io::Result<DeviceFacts> {
        let noted = self.folder.join(DEVICE);
        let id: Option<DeviceId> = match self.disk.read(&noted, MAX_LINE) {
            Ok(line) => Some(parse_line(&line).ok_or_else(|| io::Error::other("`device` there is not 32 hex digits"))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = self.daemon.read(Path::new(device_key::FILE), device_key::LEN);
                let id = key.ok().and_then(|key| device_key::parse(&key)).map(|key| DeviceId::from(key.public().id()));
                id.map_or(Ok(()), |id| self.disk.replace(&noted, format!("{id}\n").as_bytes(), 0o600))?;
                id
            }
            Err(error) => return Err(error),
        };
        // An id that no target names.
        let bare = DeviceFacts { id: id.unwrap_or(DeviceId([0; 16])), labels: Default::default() };
        let daemon: Arc<dyn Disk> = Arc::<Beneath>::clone(&self.daemon);
        let labels = enrolled::labels(daemon, Path::new("trust"), &self.roots, &bare);
        Ok(DeviceFacts { labels, ..bare })
    }

    /// The roots that the daemon has learned of since.
    fn follow_daemon(&mut self) -> io::Result<()> {
        let mut followed: Vec<Rotated> = Vec::new();
        loop {
            let newest = followed.last().map_or(&self.trust.root, |next| &next.root);
            let version = newest.version().saturating_add(1).to_string();
            let Ok(link) = self.daemon.read(&Path::new("trust/roots").join(version), MAX_LINK) else { break };
            let lower = self.lower().max(newest.issued_at());
            let mut next = Vec::new();
            let ended = container::chain(&link).and_then(|chain| follow(newest, &chain, Some(lower), &mut next));
            match (ended, next.pop()) {
                (Ok(()), Some(next)) => followed.push(next),
                _ => break,
            }
        }
        if self.trust.lost.is_some_and(|lost| !followed.iter().any(|next| lost.is(&next.root))) {
            return Ok(());
        }
        self.advance(&followed)
    }

    /// Keeps roots that follow.
    fn advance(&mut self, followed: &[Rotated]) -> io::Result<()> {
        let Some(Rotated { root, .. }) = followed.last() else { return Ok(()) };
        self.roots.keep(followed)?;
        let state = self.state.under(root);
        self.roots.taken(followed);
        self.trust = self.trust.rotated(followed).into_owned();
        self.commit(state)
    }

    /// Writes the record, and tells the daemon.
    fn commit(&mut self, state: State) -> io::Result<()> {
        // A root that is lost stays named by the record until a chain leads there again.
        if state != self.state || self.disk.open(&self.folder.join(SEEN)).is_err() {
            self.pair.write(&state.to_bytes())?;
        }
        self.disk.replace(&self.folder.join(SEEN), &state.to_bytes(), 0o644)?;
        self.state = state;
        self.catch_up();
        Ok(())
    }

    fn catch_up(&mut self) {
        self.trust.releases = self.state.history(self.state.active.map(|Chosen { digest, .. }| digest), None);
    }
}

impl Next {
    fn line(&self) -> String {
        let Self { version, seen, security_floor, permitted } = self;
        format!("{version} {} {security_floor} {} {}\n", seen.seq, u8::from(*permitted), seen.digest)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split(' ');
        let mut word = || words.next();
        let version = word()?.to_owned();
        let (seq, security_floor) = (word()?.parse().ok()?, word()?.parse().ok()?);
        let permitted = match word()? {
            "1" => true,
            "0" => false,
            _ => return None,
        };
        let digest = word()?.parse().ok()?;
        Some(Self { version, seen: Seen { seq, digest }, security_floor, permitted })
    }
}

/// Whether an installer has ever run in `folder`, and what waits there, for those who only look: as far as they may read.
pub fn has_run(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(SEEN)).is_ok()
}

fn parse_line<T: std::str::FromStr>(line: &[u8]) -> Option<T> {
    std::str::from_utf8(line).ok()?.trim_end().parse().ok()
}
