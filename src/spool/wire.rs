//! What the writer thread and its child say to each other over a socket pair.
//!
//! ```text
//! frame = u32 length, big-endian, at most FRAME_LIMIT ‖ that many bytes
//! to the child:   one frame, a postcard `Request`
//! from the child: one frame, a postcard `Reply`, after any number of `Opening` and `Opened`; after `File` a second
//!                 frame, the file's bytes
//! ```

use std::fmt;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::Digest;
use crate::spool::WhenFull;
use crate::spool::backlog::Stock;
use crate::spool::losses::Losses;
use crate::spool::segment::FILE_LIMIT;

/// Longest frame, in bytes.
pub(super) const FRAME_LIMIT: usize = FILE_LIMIT;

/// What the child is asked. The first request of a child's life is `Open`.
/// `now_ms` is the wall clock, in milliseconds since the Unix epoch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Open the spool.
    Open { setup: Setup, known: Known, now_ms: i64 },
    /// Seal what waits.
    Seal(Seal),
    /// The oldest file, after this stream and number.
    Oldest { after: Option<(u64, u64)>, now_ms: i64 },
    /// Delete a file that the hub has.
    Acknowledge { stream: u64, seq: u64, digest: Digest, now_ms: i64 },
}

/// The seed of the device's key. `Debug` shows nothing of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

/// Where the spool is and how it is to be kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    pub folder: std::path::PathBuf,
    pub seed: Seed,
    pub generation_size: u64,
    pub backlog_limit: u64,
    pub when_full: WhenFull,
    pub free_floor: u64,
}

/// What the daemon knows from the children before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Known {
    /// What has left generations: their number, and how much.
    pub left: Vec<(u32, Stock)>,
    /// The number of a generation that children fail at again and again: it is lost.
    pub condemned: Option<u32>,
    /// The number of a generation of which a sync failed: it is to be written again.
    pub unsynced: Option<u32>,
}

/// What a seal needs to know of the running intakes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Seal {
    /// Logs that are being written: their id, and up to where their rows are whole. All others are finished.
    pub live: Vec<(u64, u64)>,
    /// Losses that the daemon itself saw.
    pub losses: Losses,
    /// Take what cannot be read of the logs for damaged: it could not be read before either.
    pub around: bool,
    pub policy: Option<Digest>,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It is done.
    Done(Report),
    /// There is such a file; its bytes are the next frame.
    File {
        stream: u64,
        seq: u64,
        digest: Digest,
        report: Report,
    },
    /// There is no such file.
    NoFile(Report),
    /// It did not work; the child ends now.
    Failed {
        why: String,
        blame: Blame,
    },
    /// Not an answer yet: it is opening this generation, or has opened it.
    Opening(u32),
    Opened(u32),
}

/// What is to blame where the child failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Blame {
    /// Nothing that giving something up could help.
    Nothing,
    /// The generation that it used last cannot be read.
    Generation,
    /// A sync of the generation that it used last failed.
    Unsynced,
    /// An open log cannot be read.
    Logs,
}

/// How the spool stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The stream that files go into now.
    pub stream: u64,
    /// Files that wait for a receipt, and their bytes; at most, while not every generation was opened.
    pub files: u64,
    pub bytes: u64,
    /// The disk that they take.
    pub disk_bytes: u64,
    /// For [`Known::left`].
    pub left: Vec<(u32, Stock)>,
    /// Per log: its id, the offset up to which it is sealed (`u64::MAX` once it is done with), its rows up to there.
    pub sealed: Vec<(u64, u64, u32)>,
    /// Whether all that was ever put into the newest generation has left it: the next seal gives its disk back.
    pub is_spent: bool,
    /// Rows of the file that was sealed; 0 if there was nothing to seal.
    pub rows: u32,
    /// Whether something is left to seal that no running intake holds.
    pub left_over: bool,
    /// What was found damaged or went wrong on the way, for the daemon's log.
    pub notes: Vec<String>,
}

/// Sends one message.
pub(super) fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    send_bytes(to, &postcard::to_allocvec(message).map_err(io::Error::other)?)
}

/// Sends one frame of bytes.
pub(super) fn send_bytes(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_LIMIT);
    let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    to.write_all(&len.to_be_bytes())?;
    to.write_all(bytes)
}

/// Receives one message; `None` if the other side has closed.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let Some(bytes) = receive_bytes(from)? else { return Ok(None) };
    postcard::from_bytes(&bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Receives one frame of bytes; `None` if the other side has closed before it.
pub(super) fn receive_bytes(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    match from.read(&mut len)? {
        0 => return Ok(None),
        read => from.read_exact(len.get_mut(read..).unwrap_or_default())?,
    }
    let len = u64::from(u32::from_be_bytes(len));
    if len > FRAME_LIMIT as u64 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    from.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_shows_the_devices_seed() {
        let seed = Seed([0xc5; 32]);
        let (generation_size, backlog_limit, when_full, free_floor) = (1, 2, WhenFull::RollUp, 3);
        let setup = Setup { folder: "f".into(), seed, generation_size, backlog_limit, when_full, free_floor };
        let request = Request::Open { setup, known: Known::default(), now_ms: 4 };
        let shown = format!("{request:?}").to_lowercase();
        assert!(shown.contains("seed") && !shown.contains("197") && !shown.contains("c5"), "{shown}");
    }

    #[test]
    fn a_message_arrives_and_garbage_and_lies_do_not() {
        let mut bytes = Vec::new();
        send(&mut bytes, &Request::Oldest { after: Some((1, 2)), now_ms: 3 }).expect("it fits");
        assert!(matches!(receive(&mut &bytes[..]), Ok(Some(Request::Oldest { after: Some((1, 2)), now_ms: 3 }))));
        assert!(matches!(receive::<Request>(&mut &bytes[..0]), Ok(None)));
        for end in 1..bytes.len() {
            assert!(receive::<Request>(&mut &bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(receive::<Request>(&mut &[0xff; 64][..]).is_err(), "a length that lies");
        assert!(receive::<Request>(&mut &[0, 0, 0, 1, 0xff][..]).is_err(), "an unknown request");
    }
}
