//! What is on a stick, by names alone: nothing is opened but folders.

use std::fmt;
use std::io;

use super::folder::Folder;
use super::manifest;
use super::{Form, Name, RECEIPTS};
use crate::ids::{DeviceId, StreamId};

/// One file of a stick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The device's folder; of a receipt nobody's.
    pub device: Option<DeviceId>,
    /// The stream's folder and the file's name.
    pub name: Name,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, name } = self;
        match device {
            Some(device) => write!(f, "{device}/{}/{}", name.stream, name.file_name()),
            None => write!(f, "{RECEIPTS}/{}/{}", name.stream, name.file_name()),
        }
    }
}

impl Item {
    /// Reads it from the stick `root`, to `limit` bytes.
    pub fn read(&self, root: &Folder, limit: usize) -> io::Result<Vec<u8>> {
        let above = self.device.map_or_else(|| RECEIPTS.to_owned(), |device| device.to_string());
        root.folder(&above)?.folder(&self.name.stream.to_string())?.read(&self.name.file_name(), limit)
    }
}

/// What is among the files and none of ours: its path, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strange {
    /// Where it is, from the stick's own folder.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// The usage files of every device on the stick, in the order of their streams, and what is strange among them. What lies
/// beside the devices' folders is nobody's business.
pub fn walk(root: &Folder) -> io::Result<(Vec<Item>, Vec<Strange>)> {
    let (mut items, mut strange) = (Vec::new(), Vec::new());
    for above in root.names()? {
        let Some(device) = above.parse::<DeviceId>().ok().filter(|device| device.to_string() == above) else {
            continue;
        };
        let skips = |name: &str| name == manifest::FILE;
        match root.folder(&above) {
            Ok(folder) => streams(&folder, &above, Some(device), skips, &mut items, &mut strange),
            Err(error) => strange.push(Strange { path: above, why: no_folder(&error) }),
        }
    }
    items.sort_by_key(|item: &Item| (item.device, item.name.stream, item.name.seq, item.name));
    Ok((items, strange))
}

/// The receipts on the stick, and what is strange among them; both empty where there is no such folder.
pub fn walk_receipts(root: &Folder) -> io::Result<(Vec<Item>, Vec<Strange>)> {
    let (mut items, mut strange) = (Vec::new(), Vec::new());
    match root.folder(RECEIPTS) {
        Ok(folder) => streams(&folder, RECEIPTS, None, |_| false, &mut items, &mut strange),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => strange.push(Strange { path: RECEIPTS.into(), why: no_folder(&error) }),
    }
    items.sort_by_key(|item| item.name);
    Ok((items, strange))
}

fn streams(
    folder: &Folder,
    above: &str,
    device: Option<DeviceId>,
    skips: impl Fn(&str) -> bool,
    items: &mut Vec<Item>,
    strange: &mut Vec<Strange>,
) {
    let names = folder.names().unwrap_or_else(|error| {
        strange.push(Strange { path: above.into(), why: format!("cannot be read: {error}") });
        Vec::new()
    });
    for below in names.into_iter().filter(|name| !skips(name)) {
        let path = format!("{above}/{below}");
        let stream = below.parse::<StreamId>().ok().filter(|stream| stream.to_string() == below);
        let Some(stream) = stream else {
            strange.push(Strange { path, why: "no stream's folder".into() });
            continue;
        };
        let names = match folder.folder(&below).and_then(|folder| folder.names()) {
            Ok(names) => names,
            Err(error) => {
                strange.push(Strange { path, why: no_folder(&error) });
                continue;
            }
        };
        for name in names {
            let is_fitting = |name: &Name| (name.form == Form::Receipt) == device.is_none();
            match Name::parse(stream, &name).filter(is_fitting) {
                Some(name) => items.push(Item { device, name }),
                None if name.ends_with(".part") => {
                    strange.push(Strange {
                        path: format!("{path}/{name}"),
                        why: "half a file: a write was cut off".into(),
                    });
                }
                None => strange.push(Strange { path: format!("{path}/{name}"), why: "not a name of ours".into() }),
            }
        }
    }
}

fn no_folder(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotADirectory => "a link or a file in the place of a folder".into(),
        _ => format!("cannot be opened: {error}"),
    }
}
