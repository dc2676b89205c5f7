//! One bundle from a path to the policy in force: steps 0 to 18 in one call.
//!
//! The importer owns the state folder: slots, trust, time floor and journal have one writer. Whoever
//! brings bundles (inbox, stick, push, pull) comes through here. A refusal changes nothing but the
//! journal and, where signatures vouch for them, the root and the time floor. Blocking: never call it on a
//! reactor's thread.

mod defect;
mod opening;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use defect::Defective;
use opening::{start_lines, trouble_lines};

use super::activate::{Active, Compile, OpenError, Resumed, Slots, Started};
use super::container::MAX_ROOT;
use super::document::{Document, DocumentKind};
use super::enrolled::{self, Enrolled};
use super::enrolment::{Enrolment, Held, Ruling};
use super::error::{Refused, plain};
use super::handover::{self, Handover};
use super::journal::{Event, Journal, Line};
use super::manifest::{DeviceFacts, Entry, Permit};
use super::medium::Medium;
use super::outcome::{ImportOutcome, Imported};
use super::receipt::Receipt;
use super::reset::TimeReset;
use super::root::{Role, RootDocument};
use super::staging::{Identity, Staged, open_regular, stage};
use super::start::Origin;
use super::trust::History;
use super::usage_note;
use super::verify::{Findings, Judge, Purpose, Verdict, Verified, Whole, verify};
use crate::clock::{BootId, Reading};
use crate::disk::{Disk, read_limited};
use crate::ids::Digest;
use crate::keys::PublicKey;
use crate::policy::revocations::Revocations;
use crate::store::hardware::Moved;
use crate::store::time::{BUILD_TIME, Known, TimeFile};
use crate::units::UnixSeconds;

/// Where the importer works, and for which device.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state folder; it must be there.
    pub state: PathBuf,
    /// The root that the operator placed (`trust.root`).
    pub root: PathBuf,
    /// Who this device is.
    pub device: DeviceFacts,
    /// How long a new policy is on trial.
    pub trial: Duration,
}

/// The moment of a call: the clocks, and whether the operator trusts the wall clock now.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The clocks.
    pub reading: Reading,
    /// Whether a source of `time.trust` says that the wall clock is set.
    pub trusted: bool,
}

/// An importer with what serves at its start.
#[derive(Debug)]
pub struct Opened<T> {
    /// For more bundles.
    pub importer: Importer<T>,
    /// What serves; `None` is safe mode.
    pub serving: Option<Active<T>>,
    /// The list of revocations in force.
    pub list: Option<Active<Revocations>>,
    /// Why that.
    pub origin: Origin,
    /// What could not be written down (state record, time floor, journal), for the log: a full disk stops no
    /// start of a device whose folders are there.
    pub unrecorded: Option<io::Error>,
}

/// The importer. One for a state folder.
#[derive(Debug)]
pub struct Importer<T> {
    disk: Arc<dyn Disk>,
    /// The state folder.
    state: PathBuf,
    staging: PathBuf,
    /// Who it is without an enrolment.
    bare: DeviceFacts,
    device: DeviceFacts,
    slots: Slots,
    journal: Journal,
    time: Arc<TimeFile>,
    enrolled: Enrolled,
    handover: Handover,
    compile: Compile<T>,
    trial: Duration,
    /// What is on trial, and since when it has served without a defect, by CLOCK_BOOTTIME.
    tried: Option<(Digest, Duration)>,
    defective: Defective,
    _lock: File,
}

/// What a file turned out to be.
enum Judged<T> {
    Bundle(Verdict<T>),
    Enrolment(Ruling, Document),
    /// Usage may leave, until this moment.
    UsageNote(UnixSeconds),
    /// It brought about a defect before.
    Defective,
}

/// What became of a file, of the roots that came with it, and what serves again by it.
type Taken<T> = (Imported<T>, Result<(), Refused>, Resumed<T>);

impl<T> Importer<T> {
    /// Takes the state folder for this process, verifies the slots, opens time floor and journal.
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: Settings,
        compile: Compile<T>,
        now: &Moment,
    ) -> Result<Opened<T>, OpenError> {
        let Settings { state, root, device: bare, trial } = settings;
        let mut device = bare.clone();
        let lock = lock(&state)?;
        let root = pinned_root(&root)?;
        let (staging, journal) = (state.join("staging"), state.join("journal"));
        for folder in [&staging, &journal] {
            disk.create_folder(folder)?;
        }
        disk.sync_folder(&state)?;
        let Started { slots, serving, list, origin, records, unrecorded } =
            Slots::open(Arc::clone(&disk), &state, root, &device, compile, BootId::now())?;

        let root_issued_at = slots.trust().root.issued_at();
        let of_policy = serving.as_ref().map(|active| active.manifest.issued_at());
        let of_list = list.as_ref().map(|list| list.manifest.issued_at());
        let History { highest, revoked, .. } = slots.trust().history;
        let known = Known {
            build: BUILD_TIME,
            signed: [of_policy, of_list].into_iter().flatten().fold(root_issued_at, UnixSeconds::max),
            used: highest.is_some() || revoked.is_some(),
            epoch: slots.trust().root.epoch(),
        };
        let folder = state.join("trust");
        let (enrolled, unenrolled) = Enrolled::open(Arc::clone(&disk), &folder, &slots, &device);
        if let Some(enrolment) = enrolled.enrolment() {
            device.labels.clone_from(&enrolment.labels);
        }
        let (time, written) = TimeFile::open(Arc::clone(&disk), &folder, BootId::now(), &now.reading, known);
        let bounds = time.floor().bounds(&now.reading, now.trusted);

        let mut journal = Journal::open(Arc::clone(&disk), &journal);
        let (why, started) = start_lines(serving.as_ref(), &origin, bounds);
        let appended = trouble_lines(records, time.was_damaged(), unenrolled, bounds)
            .try_for_each(|line| journal.append(line))
            .and_then(|()| journal.append_start(why, started));
        let unrecorded = unrecorded.or(appended.and(written).err());
        let time = Arc::new(time);
        let (tried, defective, handover) = (None, Defective::default(), Handover::of(&state));
        let importer = Self {
            disk,
            state,
            staging,
            bare,
            device,
            slots,
            journal,
            time,
            enrolled,
            handover,
            compile,
            trial,
            tried,
            defective,
            _lock: lock,
        };
        Ok(Opened { importer, serving, list, origin, unrecorded })
    }

    /// Keys that may sign receipts and time: the root's `hub` role, none while the root is lost. They change with an
    /// import whose outcome names a root.
    pub fn hub_keys(&self) -> impl Iterator<Item = &PublicKey> {
        let trust = self.slots.trust();
        trust.lost.is_none().then(|| trust.root.role_keys(Role::Hub)).into_iter().flatten()
    }

    /// Who this device is; its labels are those of its enrolment, and change with an import that ends `Enrolled` or whose
    /// outcome names a root.
    #[must_use]
    pub fn device(&self) -> &DeviceFacts {
        &self.device
    }

    /// The identity of the enrolment.
    #[must_use]
    pub fn enrolled(&self) -> Option<Digest> {
        self.enrolled.digest()
    }

    /// The time floor; the daemon shares it, and persists it now and then, and at its end.
    #[must_use]
    pub fn time(&self) -> Arc<TimeFile> {
        Arc::clone(&self.time)
    }

    /// The bundle that is on trial, if what serves is.
    #[must_use]
    pub fn on_trial(&self) -> Option<Digest> {
        self.slots.on_trial()
    }

    /// Looks after the trial; to be called every few seconds. `well` says whether every task makes progress and nothing
    /// panicked since the last call: else the trial begins anew. Whether an upstream or the hub answers is no part of it:
    /// pulling a cable must not force an older policy. Returns the bundle that passed.
    pub fn attend(&mut self, now: &Moment, well: bool) -> Result<Option<Digest>, Refused> {
        let Some(bundle) = self.slots.on_trial() else { return Ok(None) };
        let boot = now.reading.boot;
        let since = match self.tried {
            Some((tried, since)) if tried == bundle && well => since,
            _ => self.tried.insert((bundle, boot)).1,
        };
        if boot.saturating_sub(since) < self.trial {
            return Ok(None);
        }
        self.slots.pass()?;
        let bounds = self.time.floor().bounds(&now.reading, now.trusted);
        let mut line = Line::new(Event::TrialPassed, "TrialPassed", bounds);
        line.digest = Some(bundle);
        let written = self.journal.append(line);
        written.map_err(|error| Refused::JournalBroken(format!("the trial's end: {error}")))?;
        Ok(Some(bundle))
    }

    /// Steps 0 to 17.
    fn take(&mut self, path: &Path, now: &Moment, found: &mut Findings, source: &mut SourceFound) -> Taken<T> {
        // By the floor alone, whoever vouches for the wall clock: a wrong NTP must neither refuse a good bundle nor let a list
        // leave out what still counts.
        let floor = self.time.floor().bounds(&now.reading, false).lower;
        let mut staged = None;
        let judged = self.steps(path, floor, found, (source, &mut staged));
        // Step 6's other half: a root that follows stands by its own signatures, whatever became of the bundle.
        let rotated = self.slots.rotate(&found.roots);
        let mut resumed = Resumed::default();
        if !found.roots.is_empty() {
            self.time.under(self.slots.trust().root.epoch());
            if let Some(enrolment) = self.enrolled.judge_again(&self.slots, &self.device) {
                self.device.labels.clone_from(&enrolment.labels);
            }
            resumed = self.slots.resume(&self.device, self.compile);
        }
        let result = match (judged, &rotated) {
            // 17 commit
            (Ok(Judged::Bundle(Verdict::Accepted(verified))), Ok(())) => match self.slots.activate(*verified) {
                Ok(active) => Imported::Activated(Box::new(active)),
                Err(refused) => Imported::Refused(refused),
            },
            (Ok(Judged::Bundle(Verdict::Revocations(verified))), Ok(())) => match self.revoke(*verified, staged) {
                Ok(list) => {
                    resumed.serving = self.slots.resume(&self.device, self.compile).serving.or(resumed.serving);
                    Imported::Revoked(Box::new(list))
                }
                Err(refused) => Imported::Refused(refused),
            },
            (Ok(Judged::Bundle(Verdict::Release(release))), Ok(())) => match self.hand_over(&release, staged) {
                Ok(handed) => handed,
                Err(refused) => Imported::Refused(refused),
            },
            (Ok(Judged::Bundle(Verdict::Permit(verified))), Ok(())) => match self.permit(&verified, staged) {
                Ok(permit) => Imported::Permitted(permit),
                Err(refused) => Imported::Refused(refused),
            },
            (Ok(Judged::Bundle(Verdict::TimeReset(reset))), Ok(())) => match self.reset(&reset, now) {
                Ok(done) => done,
                Err(refused) => Imported::Refused(refused),
            },
            (Ok(Judged::Enrolment(Ruling::Next(held), document)), Ok(())) => match self.enrol(held, &document) {
                Ok(enrolment) => Imported::Enrolled(Box::new(enrolment)),
                Err(refused) => Imported::Refused(refused),
            },
            (
                Ok(Judged::Bundle(Verdict::AlreadyInstalled(_)) | Judged::Enrolment(Ruling::AlreadyInstalled, _)),
                Ok(()),
            ) => Imported::AlreadyInstalled,
            (Ok(Judged::UsageNote(until)), Ok(())) => Imported::UsageMayLeave { until },
            (Ok(Judged::Defective), Ok(())) => Imported::Defect("it brought one about before".into()),
            (Ok(_), Err(refused)) => Imported::Refused(refused.clone()),
            (Err(refused), _) => Imported::Refused(refused),
        };
        (result, rotated, resumed)
    }

    /// Step 18, and what the caller is told.
    fn conclude(
        &mut self,
        path: &Path,
        (medium, now): (&Medium, &Moment),
        (found, source): (&Findings, &SourceFound),
        (result, rotated, resumed): Taken<T>,
    ) -> ImportOutcome<T> {
        // Step 9's other half: what the signatures vouch for raises the floor, of a bundle that a later step refused
        // too. It is written down only here, after step 17, and loses nothing by that: the steps judged with the raised
        // bound all the same, a start takes `issued_at` of what serves into the floor, and a refused bundle whose
        // moment a power cut took from us can be offered again.
        let mut unrecorded = found.moment().and_then(|at| self.time.raise(at, &now.reading).err());

        // 18 journal and receipt
        let name = plain(&path.file_name().unwrap_or_default().to_string_lossy());
        let bounds = self.time.floor().bounds(&now.reading, now.trusted);
        let mut line = Line::new(Event::Import, result.name(), bounds).about(found);
        line.medium = Some(medium.to_string());
        line.file = Some(name.clone());
        line.file_sha256 = source.sha256;
        let roots = if rotated.is_ok() { &*found.roots } else { &[] };
        let rotations = roots.iter().try_for_each(|next| self.journal.append(line.clone().rotated(next)));
        let line = line.saying(&result.detail());
        let appended = match &result {
            Imported::Refused(refused) if refused.is_alarm() => self.journal.append_alarm(line, now.reading.boot),
            Imported::Refused(_) | Imported::AlreadyInstalled | Imported::Defect(_) => {
                self.journal.append_unchanged(line, now.reading.boot)
            }
            _ => self.journal.append(line),
        };
        let journal = (rotations.is_ok() && appended.is_ok()).then(|| self.journal.position());
        let unkept = rotated.as_ref().err().map(|refused| io::Error::other(refused.clone()));
        unrecorded = unkept.or(rotations.err()).or(appended.err()).or(unrecorded);
        let root = roots.last().map(|next| next.root.version());
        let receipt = Receipt {
            at: bounds.lower,
            boot: BootId::now().to_string(),
            detail: result.advice(),
            device: self.device.id,
            digest: found.digest,
            file_sha256: source.sha256,
            journal,
            name: name.clone(),
            quality: bounds.quality,
            result: result.name().to_owned(),
            root,
            seq: found.seq,
        };
        ImportOutcome {
            name,
            result,
            digest: found.digest,
            resumed,
            root,
            judged: source.identity,
            receipt,
            unrecorded,
        }
    }

    /// 17 for a list of revocations: the slot takes it from the private copy.
    fn revoke(
        &mut self,
        verified: Verified<Revocations>,
        staged: Option<Staged>,
    ) -> Result<Active<Revocations>, Refused> {
        let staged = staged.ok_or_else(|| Refused::SourceIo("the private copy is gone".into()))?;
        self.slots.revoke(verified, &mut Whole(&staged.file))
    }

    /// 17 for a release: it is the installer's from here on.
    fn hand_over(&self, release: &Verified<Vec<Entry>>, staged: Option<Staged>) -> Result<Imported<T>, Refused> {
        self.handover.is_due(release, self.slots.trust(), &*self.disk)?;
        self.handover.give(staged, handover::RELEASE, &*self.disk)?;
        let version = release.manifest().version().unwrap_or_default().to_owned();
        Ok(Imported::HandedOver { version, seq: release.manifest().seq() })
    }

    /// 17 for a permit: it waits here for a policy, with the installer for a release.
    fn permit(&mut self, verified: &Verified<Permit>, staged: Option<Staged>) -> Result<Permit, Refused> {
        if !self.slots.trust().permits_release(verified.policy()) {
            return self.slots.permit(verified);
        }
        self.handover.give(staged, handover::PERMIT, &*self.disk)?;
        Ok(*verified.policy())
    }

    /// 12 and 17 for a time reset.
    fn reset(&self, reset: &TimeReset, now: &Moment) -> Result<Imported<T>, Refused> {
        let floor = || self.time.floor().bounds(&now.reading, false).lower;
        let from = floor();
        reset.apply(&self.time, &now.reading)?;
        Ok(Imported::TimeReset { from, to: floor() })
    }

    /// 17 for an enrolment: from here on the labels are its own.
    fn enrol(&mut self, held: Held, document: &Document) -> Result<Enrolment, Refused> {
        let enrolment = held.enrolment.clone();
        let written = self.enrolled.keep(held, document, &self.slots.trust().root);
        written.map_err(|error| Refused::StateLost(format!("writing the enrolment: {error}")))?;
        self.device.labels.clone_from(&enrolment.labels);
        Ok(enrolment)
    }

    /// Writes a refusal that concerns no single file, such as `TooManyCandidates`, into the journal.
    pub fn record(&mut self, refused: &Refused, medium: &Medium, now: &Moment) -> io::Result<()> {
        let bounds = self.time.floor().bounds(&now.reading, now.trusted);
        let mut line = Line::new(Event::Import, refused.name(), bounds).saying(refused.detail());
        line.medium = Some(medium.to_string());
        self.journal.append_unchanged(line, now.reading.boot)
    }

    /// Writes into the journal that the state folder is on another machine than before.
    pub fn record_card(&mut self, moved: Moved, detail: &str, now: &Moment) -> io::Result<()> {
        let bounds = self.time.floor().bounds(&now.reading, now.trusted);
        self.journal.append(Line::new(Event::CardMoved, moved.name(), bounds).saying(detail))
    }

    /// Writes into the journal that the receipt of the file `name` could not be put beside it: a stick may be read-only.
    pub fn record_unreceipted(
        &mut self,
        name: &str,
        error: &io::Error,
        medium: &Medium,
        now: &Moment,
    ) -> io::Result<()> {
        let bounds = self.time.floor().bounds(&now.reading, now.trusted);
        let mut line = Line::new(Event::Unreceipted, "Unreceipted", bounds).saying(&error.to_string());
        line.medium = Some(medium.to_string());
        line.file = Some(plain(name));
        self.journal.append_unchanged(line, now.reading.boot)
    }

    /// Steps 0 to 16.
    fn steps(
        &mut self,
        path: &Path,
        lower: UnixSeconds,
        found: &mut Findings,
        (source, kept): (&mut SourceFound, &mut Option<Staged>),
    ) -> Result<Judged<T>, Refused> {
        let offered = open_regular(path)?;
        source.identity = Some(offered.identity());
        let staged = kept.insert(stage(offered, &self.staging, &*self.disk)?);
        source.sha256 = Some(staged.sha256);
        if self.defective.contains(staged.sha256) {
            return Ok(Judged::Defective);
        }
        self.slots.releases_are(self.handover.history(&self.slots.trust().root, &*self.disk));
        let by = Judge { trust: self.slots.trust(), lower, device: &self.device, purpose: Purpose::Install };
        match Document::of(&mut &staged.file)? {
            Some(document) if document.kind() == DocumentKind::ExportUsage => {
                usage_note::judge(&document, &by, found).map(Judged::UsageNote)
            }
            Some(document) => {
                let ruling = enrolled::judge(Some(&self.enrolled), &document, &by, found)?;
                Ok(Judged::Enrolment(ruling, document))
            }
            None => verify(&mut Whole(&staged.file), &by, self.compile, found).map(Judged::Bundle),
        }
    }
}

/// What step 0 found out about the source.
#[derive(Default)]
struct SourceFound {
    identity: Option<Identity>,
    sha256: Option<Digest>,
}

/// One process at a time: the state has one writer, and its records are read once.
fn lock(state: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(state.join("lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(OpenError::Busy(Refused::ImportBusy("another process imports into this state folder".into())))
        }
        Err(error) => Err(OpenError::State(error.into())),
    }
}

/// The root that the operator placed.
pub fn pinned_root(path: &Path) -> Result<RootDocument, OpenError> {
    let bytes = read_limited(path, u64::from(MAX_ROOT) + 1).map_err(|error| OpenError::NoRoot(path.into(), error))?;
    RootDocument::from_file(&bytes).map_err(OpenError::Root)
}
