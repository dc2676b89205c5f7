//! A list of revocations (type 2) as a device reads it: step 15, once from front to end.
//!
//! A million ids are 16 MB in the file and 8 MB in use. Neither the entry nor its rows are ever held as a whole: each
//! id is checked, compared with the list before it and kept as its hash, as it comes by. Both lists are in order, so
//! one pass over each says whether anything is missing.

use std::io::{self, Read};

use super::compile;
use super::entry::{CutOffRow, CutOffRows, EntryError, HashedId, RevocationReader};
use super::error::Refused;
use super::manifest::EntryKind;
use super::trust::Table;
use crate::policy::revocations::{Builder, Revocations, RevokedId};
use crate::units::UnixSeconds;

/// Reads the entry of `len` bytes, which must take away all that the list `before` does and that still counts when it
/// is at least `lower`: every id, for as long or longer, and every cut-off, as late or later.
pub(super) fn read(
    entry: impl Read,
    len: u64,
    before: Option<&dyn Table>,
    lower: UnixSeconds,
) -> Result<Revocations, Refused> {
    let mut new = RevocationReader::new(entry, len).map_err(unsound)?;
    let old = before.map(|table| table.read().and_then(|(from, len)| RevocationReader::new(from, len)));
    let mut old = old.transpose().map_err(unread)?;
    let mut list = Builder::with_capacity(new.ids_left());
    let mut last = None;
    while let Some(id) = new.next_id().map_err(unsound)? {
        if last.replace(id.hash).is_some_and(|last| last >= id.hash) {
            return Err(invalid(&EntryError::NotCanonical));
        }
        if let Some(old) = &mut old {
            pass(old, Some(id), lower)?;
        }
        list.list(RevokedId(id.hash));
    }
    let cut_offs = new.finish().map_err(unsound)?;
    cut_offs.check().map_err(|error| invalid(&error))?;
    if let Some(mut old) = old {
        pass(&mut old, None, lower)?;
        check_cut_offs(&old.finish().map_err(unread)?, &cut_offs)?;
    }
    cut_offs.rows().for_each(|row| compile::cut_off(&mut list, &row));
    Ok(list.build())
}

/// Goes on in the list before, to what lies behind `new`, or to its end.
fn pass(old: &mut RevocationReader<impl Read>, new: Option<HashedId>, lower: UnixSeconds) -> Result<(), Refused> {
    while let Some(id) = old.peek().filter(|old| new.is_none_or(|new| old.hash <= new.hash)) {
        let kept = new.is_some_and(|new| new.hash == id.hash && new.until >= id.until);
        if !kept && id.until > lower {
            let detail = format!("it lacks the id {:016x}, which counts until {}", id.hash, id.until);
            return Err(Refused::RevocationShrunk(detail));
        }
        old.next_id().map_err(unread)?;
    }
    Ok(())
}

fn check_cut_offs(old: &CutOffRows, new: &CutOffRows) -> Result<(), Refused> {
    let mut new = new.rows().peekable();
    for old in old.rows() {
        while new.next_if(|new| name(new) < name(&old)).is_some() {}
        if !new.peek().is_some_and(|new| name(new) == name(&old) && new.before >= old.before) {
            let kind = format!("{:?}", old.kind).to_lowercase();
            return Err(Refused::RevocationShrunk(format!("it lacks the cut-off of a {kind} at {}", old.before)));
        }
    }
    Ok(())
}

fn name<'a>(row: &CutOffRow<'a>) -> impl Ord + use<'a> {
    (row.kind, row.issuer, row.value)
}

fn invalid(error: &EntryError) -> Refused {
    Refused::SemanticInvalid(format!("entry {}: {error}", EntryKind::Revocations))
}

fn unsound(error: io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::InvalidData => invalid(&EntryError::Malformed),
        _ => Refused::SourceIo(format!("reading entry {}: {error}", EntryKind::Revocations)),
    }
}

fn unread(error: io::Error) -> Refused {
    Refused::StateLost(format!("reading the list in force: {error}"))
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
