//! How an import ended, and what journal and receipt say of it.

use std::borrow::Cow;
use std::io;

use super::activate::{Active, Resumed};
use super::enrolment::Enrolment;
use super::error::Refused;
use super::manifest::Permit;
use super::receipt::Receipt;
use super::staging::Identity;
use crate::ids::Digest;
use crate::policy::revocations::Revocations;
use crate::units::UnixSeconds;

/// What to do where judging a file brought about a defect.
pub const DEFECT: &str = "this program is at fault, not the file: report it with the file, which is kept, and the log's line of the \
                          defect; a newer version of this program may take it";

/// The name of [`Imported::UsageMayLeave`].
pub const USAGE_MAY_LEAVE: &str = "UsageMayLeave";

/// How an import ended.
#[derive(Debug)]
pub enum Imported<T> {
    /// The bundle is active: swap this policy in.
    Activated(Box<Active<T>>),
    /// The list of revocations is in force: swap it in.
    Revoked(Box<Active<Revocations>>),
    /// The permit waits for the bundle that it names.
    Permitted(Permit),
    /// The release of this version is with the installer, whose word on it is the last.
    HandedOver {
        /// Of its packages.
        version: String,
        /// Its sequence number.
        seq: u64,
    },
    /// The root set the time floor, which may be lower now.
    TimeReset {
        /// What it was.
        from: UnixSeconds,
        /// What it is.
        to: UnixSeconds,
    },
    /// The device's labels are those of this enrolment from here on.
    Enrolled(Box<Enrolment>),
    /// The stick that brought it may take usage along; nothing changed.
    UsageMayLeave {
        /// The moment from which on it may not.
        until: UnixSeconds,
    },
    /// It was active already.
    AlreadyInstalled,
    /// Judging it brought about a defect of this program; the text is what that said of itself. The file is as good as it was.
    Defect(String),
    /// It was refused, and what served still serves.
    Refused(Refused),
}

impl<T> Imported<T> {
    /// The name in journal and receipt.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Activated(_) | Self::Revoked(_) => "Activated",
            Self::Permitted(_) => "Permitted",
            Self::HandedOver { .. } => "HandedOver",
            Self::TimeReset { .. } => "TimeReset",
            Self::Enrolled(_) => "Enrolled",
            Self::UsageMayLeave { .. } => USAGE_MAY_LEAVE,
            Self::AlreadyInstalled => "AlreadyInstalled",
            Self::Defect(_) => "Defect",
            Self::Refused(refused) => refused.name(),
        }
    }

    /// What was found, for people.
    pub(super) fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::Refused(refused) => refused.detail().into(),
            Self::Defect(said) => said.into(),
            Self::Activated(_) => "in force".into(),
            Self::Revoked(list) => {
                let (ids, cut_offs) = list.policy.len();
                format!("a list of {ids} ids and {cut_offs} cut-offs").into()
            }
            Self::Permitted(Permit { from, to }) => format!("from bundle {from} to bundle {to}").into(),
            Self::HandedOver { version, .. } => {
                format!("version {version} is handed to the installer; `tidegate release status` tells how it ends")
                    .into()
            }
            Self::TimeReset { from, to } => format!("the time floor was {from}, and is {to}").into(),
            Self::Enrolled(enrolment) => {
                let labels = enrolment.labels.iter().map(|(key, value)| format!(" {key}={value}"));
                format!("enrolled as{}", labels.collect::<String>()).into()
            }
            Self::UsageMayLeave { until } => {
                format!("the stick that brought this may take usage along, until {until}").into()
            }
            Self::AlreadyInstalled => "in force already".into(),
        }
    }

    /// The same, and what to do about it.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Refused(refused) => refused.to_string(),
            Self::Defect(said) => format!("{said}; {DEFECT}"),
            _ => self.detail().into_owned(),
        }
    }
}

/// Whether a receipt's result, a name of [`Imported::name`], says that the device has what was brought.
#[must_use]
pub fn is_taken(result: &str) -> bool {
    matches!(
        result,
        "Activated" | "Permitted" | "HandedOver" | "TimeReset" | "Enrolled" | USAGE_MAY_LEAVE | "AlreadyInstalled"
    )
}

/// An import, ended.
#[derive(Debug)]
pub struct ImportOutcome<T> {
    /// The file's name.
    pub name: String,
    /// How it ended.
    pub result: Imported<T>,
    /// The bundle's claimed identity, as far as it could be read.
    pub digest: Option<Digest>,
    /// What serves again through a root or a list that came, to be put in force before the result.
    pub resumed: Resumed<T>,
    /// The version of the root that came with it and is trusted from here on, whatever became of the bundle.
    pub root: Option<u64>,
    /// The file that was judged: what stands at its path now may be another one. `None` where it was not opened.
    pub judged: Option<Identity>,
    /// What to sign and leave beside the file, once the policy is in force.
    pub receipt: Receipt,
    /// What could not be written down (journal, time floor), for the log; the result stands all the same.
    pub unrecorded: Option<io::Error>,
}
