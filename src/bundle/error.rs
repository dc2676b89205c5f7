//! Why a bundle is refused: one closed list of names, the same in code, journal, command line and documents.
//!
//! A refusal is a name (stable, for machines and manuals), a detail (what was found, for the person
//! in front of it) and an advice (what to do). Text that comes out of a bundle is never put into a
//! detail unless its form was checked before.

/// The refusals as one table: the name, then what the operator does about it.
macro_rules! refusals {
    ($($name:ident: $advice:literal,)*) => {
        /// A bundle was refused, and nothing of it was taken. Each variant holds what was found; its
        /// documentation, which is also [`Refused::advice`], says what to do.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        pub enum Refused {
            $(
                #[doc = concat!("What to do: ", $advice, ".")]
                #[error("{0}; {advice}", advice = $advice)]
                $name(String),
            )*
        }

        impl Refused {
            /// Every name, in the order of the steps that give them.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The stable name, as in the journal and in BUNDLE.md.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// What was found.
            #[must_use]
            pub fn detail(&self) -> &str {
                match self { $(Self::$name(detail) => detail,)* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn advice(&self) -> &'static str {
                match self { $(Self::$name(_) => $advice,)* }
            }
        }
    };
}

refusals! {
    // 0: the importer
    SourceNotRegular: "give the bundle itself, not a link, folder, pipe or device",
    SourceIo: "check the medium and the disk, then copy the bundle again",
    SourceChanged: "wait until the copy has ended, then offer the bundle again",
    NoSpace: "free space in the state folder, then offer the bundle again",
    TooManyCandidates: "leave only the bundles meant for this device in the folder",
    ImportBusy: "wait for the running import to end, then offer the bundle again",
    // 1–5: the container
    BadMagic: "copy the file again in binary mode; it may also not be a bundle at all",
    Truncated: "copy the file again",
    UnsupportedFormat: "update this program, or build the bundle for format 1",
    UnknownBundleType: "update this program, or check what made the file",
    ReservedNotZero: "copy the file again, or check what made it",
    SectionTooLarge: "split or shrink the policy; the limits are in the manual",
    SigSectionMalformed: "copy the file again, or sign it again from the unsigned bundle",
    TrailingData: "copy the file again",
    // 6: the root chain
    RootChainMalformed: "build the bundle again with the root documents as they were signed",
    RootSchema: "build the bundle again with the root documents as they were signed",
    RootInvalid: "make a root whose keys and thresholds are sound",
    RootWrongDeployment: "take the bundle of this device's own deployment",
    RootGap: "bring the bundle together with every root between the device's and the newest",
    RootFork: "stop, and find out who signed a second root of the same version",
    RootThresholdOld: "have more holders of the old root's role root sign the new root",
    RootThresholdNew: "have more holders of the new root's own role root sign it",
    RootEpochRegression: "take a root of the device's epoch or a later one",
    // 7: signatures
    SignersNotAscending: "sign the bundle again with the tool; it sorts the signatures",
    SignatureInvalid: "copy the file again; if it stays, find out who altered it",
    ThresholdNotMet: "have more holders of the role's keys sign the bundle",
    // 8: the manifest
    ManifestNotCanonical: "build the bundle with the tool; hand-edited manifests are not taken",
    ManifestSchema: "build the bundle with the tool of a matching version",
    TypeMismatch: "check what made the file: preamble and manifest name different types",
    // 9–11: for whom, and when
    IssuedAtImplausible: "set the clock of the workstation that builds bundles",
    WrongDeployment: "take the bundle of this device's own deployment",
    RootTooOld: "bring a bundle that carries the newer roots",
    EpochMismatch: "build the bundle for the root's present epoch",
    TargetEmpty: "name devices, labels or all in the bundle's target",
    NotForThisDevice: "take the bundle that names this device",
    UnsupportedRequirement: "update this program, or build the bundle without that feature",
    Expired: "build and sign a fresh bundle",
    // 12: order
    KnownBad: "find out from the device's journal and log why it failed, and build a bundle with a higher sequence number",
    BelowSecurityFloor: "build a bundle with a higher sequence number; the floor never goes back",
    Equivocation: "stop, and find out who signed two bundles of one sequence number",
    Rollback: "build a bundle with a higher sequence number",
    SecurityFloorInvalid: "set the security floor between the device's and the bundle's own sequence number",
    DeltaBaseMismatch: "bring the bundle that it follows first, or one that follows what the device serves",
    PermitForbidden: "name the exact devices that the permit is for, and a bundle that did not fail its trial there",
    PermitUsed: "nothing is left to do if the permitted bundle serves; else sign a permit with a higher sequence number",
    PermitNotApplicable: "sign a permit from the bundle that serves on the device",
    PermitDigestMismatch: "bring the bundle that the permit names, or a permit for this one",
    ResetNotApplicable: "nothing is left to do where the device's time is right; else make a reset that takes back what its status says",
    NoInstaller: "install the package by hand; its service takes releases from then on",
    RevocationRollback: "build the list with a higher sequence number",
    EnrolmentRollback: "enrol the device with a higher sequence number",
    // 13–15: entries
    EntryCount: "build the bundle with the tool",
    EntryName: "give the entry a name of a-z, 0-9, dot, dash and underscore",
    EntryNotAllowed: "build the bundle with the entries that its type has",
    EntryKindUnknown: "update this program, or build the bundle without that entry",
    EntryDuplicate: "build the bundle with one entry of each kind",
    EntryTooLarge: "shrink that part of the policy",
    PayloadLengthMismatch: "build the bundle with the tool",
    EntryDigestMismatch: "copy the file again; if it stays, find out who altered it",
    RevocationShrunk: "build the list from the one before it; what it took away stays until it has expired",
    WeakKey: "replace the weak key by a sound one at its issuer",
    DuplicateKid: "give each key of the issuer an id of its own",
    PrivateKeyInBundle: "consider that key compromised; pin its public half only",
    SemanticInvalid: "correct the policy source and build again",
    // 16: the bundle's own probes
    ProbeFailed: "correct the policy or the probe, whichever is wrong, and build again",
    // 17–18: commit and journal
    StateLost: "check the disk of the state folder; the device keeps serving what it has",
    JournalBroken: "keep the journal's files for examination; the device starts a new one",
}

impl Refused {
    /// Whether the same file may be taken later though nobody brings it anew: the medium, the disk or the state folder was
    /// in the way, not what it says.
    #[must_use]
    pub const fn is_of_the_moment(&self) -> bool {
        matches!(
            self,
            Self::NoSpace(_) | Self::SourceIo(_) | Self::SourceChanged(_) | Self::ImportBusy(_) | Self::StateLost(_)
        )
    }
}

impl Refused {
    /// Whether somebody must look into it at once: keys of the deployment signed two things of one number.
    #[must_use]
    pub const fn is_alarm(&self) -> bool {
        matches!(self, Self::Equivocation(_))
    }
}

/// What can be wrong with the meaning of the entries (steps 15 and 16); the compiler of the policy says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SemanticProblem {
    /// A verification key that is small-order, too short or known to be broken.
    WeakKey(String),
    /// Two keys of one issuer with one id.
    DuplicateKid(String),
    /// A private or symmetric key where a public one belongs.
    PrivateKeyInBundle(String),
    /// Anything else: a reference to nothing, a limit passed, an entry that does not parse.
    SemanticInvalid(String),
    /// A probe of the bundle's own came out otherwise than its author expects (step 16).
    ProbeFailed(String),
}

impl From<SemanticProblem> for Refused {
    fn from(problem: SemanticProblem) -> Self {
        match problem {
            SemanticProblem::WeakKey(detail) => Self::WeakKey(detail),
            SemanticProblem::DuplicateKid(detail) => Self::DuplicateKid(detail),
            SemanticProblem::PrivateKeyInBundle(detail) => Self::PrivateKeyInBundle(detail),
            SemanticProblem::SemanticInvalid(detail) => Self::SemanticInvalid(detail),
            SemanticProblem::ProbeFailed(detail) => Self::ProbeFailed(detail),
        }
    }
}

/// Text from a file, made safe for a detail: at most 200 characters, none of them a control character.
pub(super) fn plain(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}
