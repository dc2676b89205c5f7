//! The vocabulary of `case.toml`; `README.md` beside the cases says it in words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate::ids::DeviceId;

/// One case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is attacked, and how.
    pub about: String,
    /// What the device takes before, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// What becomes of the device before anything is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// What befalls its files while it is off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
    /// What arrives, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offer: Vec<Offer>,
}

/// A start that is not like any other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// So many times the process that served ended out of order, in one boot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ends: u8,
    /// The results of the lines that the start writes into the journal, among others.
    pub journal: Vec<String>,
    /// What serves from here on: a file of `before`, or `nothing`; absent: the last policy of `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<String>,
    /// Whether the journal's chain is broken from here on, and told to be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chain_broken: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(n: &u8) -> bool {
    *n == 0
}

/// What befalls one file of the state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// Its path in the state folder; `{FILE}` stands for the digest of that bundle.
    pub file: String,
    pub how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Cut off in its middle.
    Torn,
    /// One bit in its middle is another.
    Flipped,
    /// Of no bytes.
    Emptied,
    Removed,
    /// There, with one byte, where there was none.
    Added,
    /// In place of it the file of the same name of the slot of `world/golden.tgb`.
    Swapped,
    /// The line before its last is gone.
    LineRemoved,
}

/// Something that arrives, and what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The file.
    pub file: String,
    /// How it stands there, where that is no plain file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrange: Option<Arrange>,
    /// The result's name; of a sweep all names that occur.
    pub expect: Vec<String>,
    /// The root version that the device has from here on; absent: the one that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<u64>,
    /// The least that the time can be from here on; absent: it did not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<i64>,
    /// What of it the journal holds, where that is not the result and the medium.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Told>,
}

/// What the journal holds of an offer, where its line is not what it is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// Nothing: another process holds the journal.
    Nothing,
    /// The result and the medium, and the importer tells its caller of what it could not write down.
    WithTrouble,
}

/// What cannot be a file in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrange {
    Fifo,
    Symlink,
    SymlinkToNothing,
    SymlinkLoop,
    Folder,
    Socket,
    CharacterDevice,
    Unreadable,
    HostileName,
    Absent,
    Grows,
    Shrinks,
    Vanishes,
    Replaced,
    Padded,
    TenThousandFiles,
    TwoImporters,
    NoSpace,
    NoSpaceForHead,
    NoSpaceForPayload,
    NoSpaceForRoot,
    BrokenSlotDisk,
    BrokenStateDisk,
    EveryTruncation,
    EveryBit,
}

impl Arrange {
    pub const ALL: [Self; 25] = [
        Self::Fifo,
        Self::Symlink,
        Self::SymlinkToNothing,
        Self::SymlinkLoop,
        Self::Folder,
        Self::Socket,
        Self::CharacterDevice,
        Self::Unreadable,
        Self::HostileName,
        Self::Absent,
        Self::Grows,
        Self::Shrinks,
        Self::Vanishes,
        Self::Replaced,
        Self::Padded,
        Self::TenThousandFiles,
        Self::TwoImporters,
        Self::NoSpace,
        Self::NoSpaceForHead,
        Self::NoSpaceForPayload,
        Self::NoSpaceForRoot,
        Self::BrokenSlotDisk,
        Self::BrokenStateDisk,
        Self::EveryTruncation,
        Self::EveryBit,
    ];
}

/// Who the device of the cases is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Its id.
    pub id: DeviceId,
    /// By what all that arrives comes.
    pub medium: String,
    /// Its labels before any enrolment.
    pub labels: BTreeMap<String, String>,
}

impl Case {
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("case.toml");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub fn text(&self) -> String {
        toml::to_string(self).expect("a case is plain data")
    }

    /// The refusals that it expects, of offers and of the start.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let started = self.start.iter().flat_map(|start| &start.journal);
        self.offer.iter().flat_map(|offer| &offer.expect).chain(started).map(String::as_str)
    }
}
