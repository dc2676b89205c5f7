//! Whether the state folder is still on its own machine, looked at once at a start.

use std::io;
use std::path::Path;

use tracing::{error, warn};

use crate::bundle::{Importer, Moment};
use crate::policy::Policy;
use crate::spool;
use crate::store::hardware::{Hardware, Moved};

/// Compares this machine with the record, tells a difference, and gives the spool a new life then; what became of the
/// card since the device was enrolled. Call it before the spool is started.
pub(super) fn look(state: &Path, importer: &mut Importer<Policy>, now: &Moment) -> Option<Moved> {
    let recorded = Hardware::read(state).unwrap_or_else(|error| {
        warn!(%error, "the record of the machine is damaged; it is made again");
        None
    });
    let recorded = recorded.unwrap_or_default();
    let here = Hardware::here();
    if let Some(moved) = recorded.moved_to(&here) {
        let aside = match spool::renew(&state.join("spool")) {
            Ok(aside) => aside,
            // Not recorded, so that the next start tries again.
            Err(error) => {
                error!(result = moved.name(), %error, "the state folder is another machine's, and usage cannot be parted");
                return Some(moved);
            }
        };
        let aside = aside.map(|path| format!("; what was not sealed is in {}", path.display())).unwrap_or_default();
        let detail = format!("usage goes on in a new stream{aside}");
        error!(result = moved.name(), "the state folder comes from another machine: {detail}; enrol the device anew");
        if let Err(error) = importer.record_card(moved, &detail, now) {
            warn!(%error, "the journal could not be written");
        }
    }
    let record = recorded.clone().followed_by(here);
    if record != recorded
        && let Err(error) = record.write(state)
    {
        warn!(%error, "the record of the machine could not be written");
    }
    record.moved
}

/// Whoever enrolled the device knows where it is.
pub(super) fn settle(state: &Path) -> io::Result<()> {
    let Some(mut record) = Hardware::read(state)? else { return Ok(()) };
    if record.moved.take().is_some() { record.write(state) } else { Ok(()) }
}
