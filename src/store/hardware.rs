//! The machine that the state folder lives on: a card that was copied to another one, or restored, is seen.
//!
//! ```text
//! hardware   JSON: {"machine":D?,"moved":"CardCloned"|"CardRestored"?,"serial":D?}, in the state folder
//! D          hex of SHA-256("tidegate/v1/hardware\0" ‖ name ‖ "\0" ‖ value): a backup tells nobody the numbers
//! ```
//!
//! `serial` is the board's, as its firmware tells it; `machine` the system's `/etc/machine-id`. What is not known on
//! either side is not compared: an update, or firmware that keeps silent, must alarm nobody. A card that was copied
//! bit by bit and runs on the same board is not seen here; the hub sees its stream fork.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::ids::Digest;
use crate::keys::sha256;

/// Name of the record in the state folder.
pub const FILE: &str = "hardware";
const MAX_RECORD: u64 = 1_024;
const MAX_VALUE: u64 = 256;

/// The board's serial number, where firmware tells it.
const SERIALS: [&str; 2] = ["/sys/firmware/devicetree/base/serial-number", "/sys/class/dmi/id/board_serial"];
const MACHINE: &str = "/etc/machine-id";
/// With it, the machine id is one of this boot only (machine-id(5)), and so names nothing.
const TRANSIENT: &str = "/run/machine-id";

/// What became of the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moved {
    /// The board is another one: the card was copied, or put into another machine.
    CardCloned,
    /// The board may be the same, the system is another one: the state folder was restored from a backup.
    CardRestored,
}

impl Moved {
    /// All, for whoever tells them apart.
    pub const ALL: [Self; 2] = [Self::CardCloned, Self::CardRestored];

    /// The name in journal, status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CardCloned => "CardCloned",
            Self::CardRestored => "CardRestored",
        }
    }
}

/// What is known of a machine, and of the card in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<Digest>,
    /// What became of the card since the device was enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<Digest>,
}

impl Hardware {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let serial = SERIALS.iter().find_map(|path| value(Path::new(path)));
        let machine = value(Path::new(MACHINE)).filter(|_| !Path::new(TRANSIENT).exists());
        Self::of(serial.as_deref(), machine.as_deref())
    }

    /// The machine of that serial number and that machine id.
    #[must_use]
    pub fn of(serial: Option<&str>, machine: Option<&str>) -> Self {
        let digest = |name: &str, value: &str| sha256(format!("tidegate/v1/hardware\0{name}\0{value}").as_bytes());
        Self {
            machine: machine.map(|value| digest("machine", value)),
            moved: None,
            serial: serial.map(|value| digest("serial", value)),
        }
    }

    /// The record in the state folder; `None` before the first, `InvalidData` where it is damaged.
    pub fn read(state: &Path) -> io::Result<Option<Self>> {
        match disk::read_limited(&state.join(FILE), MAX_RECORD) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::from)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the record; durable when it returns.
    pub fn write(&self, state: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        disk::replace(&state.join(FILE), &bytes, 0o600)
    }

    /// What became of the card that was last in the machine `self`, and is `here` now.
    #[must_use]
    pub fn moved_to(&self, here: &Self) -> Option<Moved> {
        let differ = |then: Option<Digest>, now: Option<Digest>| then.zip(now).is_some_and(|(then, now)| then != now);
        if differ(self.serial, here.serial) {
            return Some(Moved::CardCloned);
        }
        differ(self.machine, here.machine).then_some(Moved::CardRestored)
    }

    /// The record from here on: what is known now, and what was known and is not told now.
    #[must_use]
    pub fn followed_by(self, here: Self) -> Self {
        let moved = self.moved_to(&here).or(self.moved);
        let (serial, machine) = (here.serial.or(self.serial), here.machine.or(self.machine));
        Self { machine, moved, serial }
    }
}

/// A firmware's or system's own value; placeholders of boards that have none are none.
fn value(path: &Path) -> Option<String> {
    let bytes = disk::read_limited(&PathBuf::from(path), MAX_VALUE).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let is_one = text.chars().any(|c| c.is_ascii_alphanumeric() && c != '0')
        && !["none", "default string", "to be filled by o.e.m.", "not specified", "uninitialized"]
            .contains(&text.to_lowercase().as_str());
    is_one.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: (Option<&str>, Option<&str>) = (Some("100000003d1d1c69"), Some("3d1219c7"));

    #[test]
    fn another_board_is_a_clone_and_another_system_a_restored_card() {
        let recorded = Hardware::of(THERE.0, THERE.1);
        for (serial, machine, moved) in [
            (THERE.0, THERE.1, None),
            (Some("2"), THERE.1, Some(Moved::CardCloned)),
            (Some("2"), Some("other"), Some(Moved::CardCloned)),
            (THERE.0, Some("other"), Some(Moved::CardRestored)),
            (None, Some("other"), Some(Moved::CardRestored)),
            // What is not known alarms nobody.
            (None, None, None),
            (Some("2"), None, Some(Moved::CardCloned)),
            (None, THERE.1, None),
        ] {
            assert_eq!(recorded.moved_to(&Hardware::of(serial, machine)), moved, "{serial:?} {machine:?}");
        }
        assert_eq!(Hardware::default().moved_to(&recorded), None);
    }

    #[test]
    fn what_was_known_is_not_forgotten_and_a_move_is_told_until_it_is_settled() {
        let recorded = Hardware::of(THERE.0, THERE.1);
        assert_eq!(recorded.clone().followed_by(Hardware::default()), recorded);
        let moved = recorded.followed_by(Hardware::of(Some("2"), None));
        assert_eq!((moved.moved, moved.machine), (Some(Moved::CardCloned), Hardware::of(None, THERE.1).machine));
        let again = moved.clone().followed_by(Hardware::of(Some("2"), THERE.1));
        assert_eq!((again.moved, moved.moved_to(&again)), (Some(Moved::CardCloned), None), "told once, and kept");
    }

    #[test]
    fn the_record_is_kept_without_the_numbers_and_damage_is_told() {
        let state = tempfile::tempdir().expect("a folder");
        assert_eq!(Hardware::read(state.path()).expect("nothing there"), None);
        let here = Hardware::of(THERE.0, THERE.1);
        here.write(state.path()).expect("written");
        assert_eq!(Hardware::read(state.path()).expect("there"), Some(here));
        let text = std::fs::read_to_string(state.path().join(FILE)).expect("text");
        assert!(!text.contains("3d1219c7") && !text.contains("1d1c69"), "{text}");
        std::fs::write(state.path().join(FILE), &text[..text.len() / 2]).expect("written");
        assert!(Hardware::read(state.path()).is_err());
    }

    #[test]
    fn a_placeholder_of_the_firmware_is_no_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serial");
        for (bytes, seen) in [
            (&b"100000003d1d1c69\0"[..], Some("100000003d1d1c69")),
            (b"abc\n", Some("abc")),
            (b"0000000000000000\0", None),
            (b"Default string\n", None),
            (b"uninitialized\n", None),
            (b"", None),
        ] {
            std::fs::write(&path, bytes).expect("written");
            assert_eq!(value(&path).as_deref(), seen, "{bytes:?}");
        }
    }
}
