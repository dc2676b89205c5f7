//! The store `clickhouse`: a server that several hubs may share, drawn in `config/clickhouse.sql`.
//!
//! There are no transactions, and a hub may die between any two statements, so the order is all:
//!
//! ```text
//! 1 read what is near the files, judge
//! 2 rows            count for nothing without a claim
//! 3 claims          from here on the files count
//! 4 read again: does another's claim, written since 1, contradict one of ours? Withdraw ours, keep the file apart
//! 5 forks, marks    then the receipts
//! ```
//!
//! Whatever is written twice is the same twice, and reads are through FINAL or a GROUP BY of the whole key. Of two hubs
//! that claim contradicting files at once, at least one sees the other's claim at 4, so never do both give a receipt; if
//! both withdraw, the device's next try settles it. A hub that died before 4 leaves a claim that counts and that nobody
//! was told of: the device sends again.

mod binary;
mod http;
mod near;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::binary::Rows;
use self::http::Http;
use self::near::{Near, Stream, number, unhexed};
use super::super::config::ClickHouse as Config;
use super::{By, Device, Enrolled, Error as LedgerError, Heard, Incoming, Judged, Store, is_apart, known};
use crate::ids::DeviceId;
use crate::keys::{KeyAlg, PublicKey, random};
use crate::spool::backlog::Waits;
use crate::spool::chain::{self, Link, Verdict};

const TABLES: &str = include_str!("../../../config/clickhouse.sql");
/// Bytes of rows in one insert; a little more, by one row. Some seventy thousand requests: the server makes files of each.
const INSERT: usize = 16 << 20;
/// Forked files of one stream that are kept with their bytes; later ones are only counted.
const FORKS_KEPT: u64 = 16;

/// Why ClickHouse cannot be used. Whatever it is, nothing was acknowledged, and devices send again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Write it as `http://host:8123`, without a path.
    #[error("`clickhouse.url` is not http://HOST:PORT")]
    Url,
    /// Use letters, digits and `_`.
    #[error("`clickhouse.database` is not a name")]
    DatabaseName,
    /// The password's file cannot be read: check its path and permissions.
    #[error("{path}")]
    Password {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// User or password cannot stand in a header: they are plain text on one line.
    #[error("`clickhouse.user` or the password is not plain text")]
    Credentials,
    /// The system gives no runtime.
    #[error("cannot start ClickHouse's client")]
    Runtime(#[source] std::io::Error),
    /// The server is away, or does not listen there: start it, or correct `clickhouse.url`.
    #[error("cannot reach ClickHouse")]
    Connect(#[source] std::io::Error),
    /// The connection broke: see the server's log.
    #[error("the connection to ClickHouse")]
    Http(#[source] hyper::Error),
    /// The server took too long: see its load.
    #[error("ClickHouse did not answer in time")]
    Timeout,
    /// The answer broke off or is longer than any of ours can be.
    #[error("ClickHouse's answer is cut off or too long")]
    AnswerCutOff,
    /// The server refused: do what it says (disk, rights, password, a table that somebody changed).
    #[error("ClickHouse says: {0}")]
    Says(String),
    /// The server answered what was not asked: somebody changed the tables.
    #[error("ClickHouse's answer cannot be read")]
    Answer,
    /// The system gives no random numbers.
    #[error("no random numbers")]
    Random,
}

/// The server, by its connection.
#[derive(Debug)]
pub(super) struct ClickHouse {
    http: Http,
}

/// What was judged of one file of a batch.
#[derive(Debug, Clone, Copy)]
struct Entry {
    link: Link,
    stream: Stream,
    verdict: Verdict,
    received_ms: i64,
    claim: Option<u64>,
}

impl ClickHouse {
    /// Makes nothing: for who only reads.
    pub(super) fn connect(config: &Config) -> Result<Self, Error> {
        Ok(Self { http: Http::new(config)? })
    }

    /// Gives each line of a statement's answer to `each`, until that says `false`.
    pub(super) fn lines(&mut self, sql: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Error> {
        self.http.lines(sql, each)
    }

    /// Makes what is missing of database and tables.
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        let mut http = Http::new(config)?;
        http.create_database()?;
        for statement in statements(TABLES) {
            http.execute(&statement)?;
        }
        Ok(Self { http })
    }

    /// Lets it die where `fuse` says, or live again.
    #[cfg(test)]
    pub(super) fn fuse(&mut self, fuse: Option<super::tests::Fuse>) {
        self.http.fuse = fuse;
    }

    fn insert(&mut self, table: &str, columns: &str, rows: Rows) -> Result<(), Error> {
        if rows.0.is_empty() {
            return Ok(());
        }
        self.http.insert(&format!("INSERT INTO {table} ({columns}) FORMAT RowBinary"), rows.0)
    }

    /// Step 1: a verdict for each file, those before it in the batch taken for held; and how far each stream has come.
    fn judge(&mut self, batch: &[Incoming<'_>], now_ms: i64) -> Result<(Vec<Entry>, BTreeMap<Stream, u64>), Error> {
        let links: Vec<(Stream, Link)> = batch.iter().map(of).collect();
        let mut near = Near::read(&mut self.http, &links)?;
        let contiguous = near::contiguous(&mut self.http, links.iter().map(|(stream, _)| *stream))?;
        let mut entries = Vec::new();
        for (stream, link) in links {
            let so_far = contiguous.get(&stream).copied().unwrap_or(0);
            let verdict = chain::judge(&link, &known(&link, near.of(stream, &link), so_far));
            let held_ms = near.received_ms(stream, &link.digest).filter(|_| verdict == Verdict::Repeat);
            let mut claim = None;
            if !is_apart(verdict) && verdict != Verdict::Repeat {
                claim = Some(u64::from_be_bytes(random().ok_or(Error::Random)?));
                near.add(stream, link, now_ms);
            }
            entries.push(Entry { link, stream, verdict, received_ms: held_ms.unwrap_or(now_ms), claim });
        }
        Ok((entries, contiguous))
    }

    /// Step 2.
    fn write_rows(&mut self, batch: &[Incoming<'_>], entries: &[Entry]) -> Result<(), Error> {
        let (mut requests, mut roll_ups, mut gaps) = (Rows::default(), Rows::default(), Rows::default());
        for (incoming, entry) in batch.iter().zip(entries) {
            if entry.claim.is_none() || entry.verdict == Verdict::Covered {
                continue;
            }
            binary::requests(incoming.file, &entry.link, &mut requests, INSERT, |full| {
                self.insert("request_rows", binary::REQUEST_COLUMNS, Rows(full))
            })?;
            binary::others(incoming.file, &entry.link, &mut roll_ups, &mut gaps);
            if roll_ups.0.len() >= INSERT {
                self.insert("roll_up_rows", binary::ROLL_UP_COLUMNS, std::mem::take(&mut roll_ups))?;
            }
        }
        self.insert("request_rows", binary::REQUEST_COLUMNS, requests)?;
        self.insert("roll_up_rows", binary::ROLL_UP_COLUMNS, roll_ups)?;
        self.insert("gap_rows", binary::GAP_COLUMNS, gaps)
    }

    /// Steps 3 and, with `withdrawn`, the end of 4.
    fn write_claims(
        &mut self,
        batch: &[Incoming<'_>],
        entries: &[Entry],
        now_ms: i64,
        withdrawn: bool,
    ) -> Result<(), Error> {
        let mut rows = Rows::default();
        for (incoming, entry) in batch.iter().zip(entries) {
            if let Some(claim) = entry.claim.filter(|_| !withdrawn || is_apart(entry.verdict)) {
                rows.claim(incoming, &entry.link, claim, now_ms, withdrawn);
            }
        }
        self.insert("claims", binary::CLAIM_COLUMNS, rows)
    }

    /// Step 4: what contradicts a claim of ours is another's, for ours were judged together.
    fn judge_again(&mut self, entries: &mut [Entry]) -> Result<bool, Error> {
        let claimed = entries.iter().filter(|entry| entry.claim.is_some());
        let links: Vec<_> = claimed.map(|entry| (entry.stream, entry.link)).collect();
        if links.is_empty() {
            return Ok(false);
        }
        let near = Near::read(&mut self.http, &links)?;
        let mut apart = BTreeMap::new();
        for (stream, link) in links {
            let others = near.of(stream, &link).filter(|held| held.digest != link.digest);
            let verdict = chain::judge(&link, &known(&link, others, 0));
            if is_apart(verdict) {
                apart.insert(link.digest.0, verdict);
            }
        }
        // A file that came twice in the batch too.
        for entry in entries.iter_mut() {
            entry.verdict = apart.get(&entry.link.digest.0).copied().unwrap_or(entry.verdict);
        }
        Ok(!apart.is_empty())
    }

    /// Step 5.
    fn write_forks(&mut self, batch: &[Incoming<'_>], entries: &[Entry], now_ms: i64) -> Result<(), Error> {
        let apart = batch.iter().zip(entries).filter(|(_, entry)| is_apart(entry.verdict));
        for (incoming, Entry { link, stream, verdict, .. }) in apart {
            let reason = if *verdict == Verdict::ChainFork { "ChainFork" } else { "PreviousMismatch" };
            let kept = self.http.select(&format!(
                "SELECT uniq(digest) FROM fork_files WHERE {} AND digest != {} FORMAT TabSeparated",
                stream.condition(),
                near::fixed(&link.digest.0)
            ))?;
            let mut rows = Rows::default();
            if number::<u64>(std::str::from_utf8(&kept).map_err(|_| Error::Answer)?.trim())? < FORKS_KEPT {
                rows.raw(&stream.device).raw(&stream.stream).u64(link.seq).raw(&link.digest.0).i64(now_ms);
                rows.text(incoming.bytes);
            }
            self.insert("fork_files", "device,stream,seq,digest,received_ms,bytes", rows)?;
            let mut rows = Rows::default();
            rows.raw(&stream.device).raw(&stream.stream).u64(link.seq).raw(&link.digest.0).text(reason).u64(1);
            self.insert("fork_counts", "device,stream,seq,digest,reason,times", rows)?;
        }
        Ok(())
    }

    /// Step 5: how far each stream has come, which was `before` at least. A mark that is missing is made good by the next
    /// file, or by a repeat.
    fn write_marks(&mut self, entries: &[Entry], before: BTreeMap<Stream, u64>, now_ms: i64) -> Result<(), Error> {
        let mut highest: BTreeMap<Stream, u64> = BTreeMap::new();
        for entry in entries {
            let seq = if is_apart(entry.verdict) { 0 } else { entry.link.seq };
            let so_far = highest.entry(entry.stream).or_default();
            *so_far = seq.max(*so_far);
        }
        let contiguous = near::walk(&mut self.http, highest.keys().copied(), before)?;
        let mut rows = Rows::default();
        for (stream, highest) in highest {
            let contact = u64::try_from(now_ms).unwrap_or(0);
            let marks = [(1, contiguous.get(&stream).copied().unwrap_or(0)), (2, highest), (3, contact)];
            for (mark, value) in marks {
                rows.raw(&stream.device).raw(&stream.stream).raw(&[mark]).u64(value);
            }
        }
        self.insert("marks", "device,stream,mark,value", rows)
    }

    /// The line of a device, and its version.
    fn device(&mut self, device: DeviceId) -> Result<Option<(Enrolled, u64)>, LedgerError> {
        let devices = self.read_devices(&format!("WHERE d = {}", near::fixed(&device.0)))?;
        Ok(devices.into_iter().next())
    }

    fn read_devices(&mut self, condition: &str) -> Result<Vec<(Enrolled, u64)>, LedgerError> {
        let answer = self.http.select(&format!(
            "SELECT lower(hex(key)), lower(hex(name)), enrolled_by, version, revoked_ms FROM
             (SELECT device AS d, key, name, enrolled_by, version FROM devices FINAL) AS a
             ANY LEFT JOIN (SELECT device AS d, revoked_ms FROM revocations FINAL) AS b USING d
             {condition} FORMAT TabSeparated"
        ))?;
        let text = std::str::from_utf8(&answer).map_err(|_| Error::Answer)?;
        let mut devices = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [key, name, by, version, revoked_ms] = fields[..] else { return Err(Error::Answer.into()) };
            let key = KeyAlg::Ed25519.unhex(key).map_err(|_| Error::Answer)?;
            let key = PublicKey::new(KeyAlg::Ed25519, &key).map_err(|_| LedgerError::Damaged("devices.key"))?;
            let name = String::from_utf8(unhexed(name)?).map_err(|_| Error::Answer)?;
            let by = By::from_name(by)?;
            let device = Device { key, name, came_by_itself: by == By::Any };
            let enrolled = Enrolled { device, by, is_revoked: number::<i64>(revoked_ms)? != 0 };
            devices.push((enrolled, number(version)?));
        }
        Ok(devices)
    }

    fn write_revocation(&mut self, device: DeviceId, revoked_ms: i64, now_ms: i64) -> Result<(), Error> {
        let condition = near::fixed(&device.0);
        let sql = format!("SELECT max(version) FROM revocations WHERE device = {condition} FORMAT TabSeparated");
        let last = self.http.select(&sql)?;
        let last: u64 = number(std::str::from_utf8(&last).map_err(|_| Error::Answer)?.trim())?;
        let mut rows = Rows::default();
        let version = u64::try_from(now_ms).unwrap_or(0).max(last.saturating_add(1));
        rows.raw(&device.0).i64(revoked_ms).u64(version);
        self.insert("revocations", "device,revoked_ms,version", rows)
    }
}

impl Store for ClickHouse {
    fn take(&mut self, batch: &[Incoming<'_>], now_ms: i64) -> Result<Vec<Judged>, LedgerError> {
        let (mut entries, before) = self.judge(batch, now_ms)?;
        self.write_rows(batch, &entries)?;
        self.write_claims(batch, &entries, now_ms, false)?;
        if self.judge_again(&mut entries)? {
            self.write_claims(batch, &entries, now_ms, true)?;
        }
        self.write_forks(batch, &entries, now_ms)?;
        self.write_marks(&entries, before, now_ms)?;
        for device in batch.iter().map(|incoming| incoming.device).filter(|device| device.came_by_itself) {
            self.enrol(device, By::Any, now_ms)?;
        }
        Ok(entries.iter().map(|entry| Judged { verdict: entry.verdict, received_ms: entry.received_ms }).collect())
    }

    fn devices(&mut self) -> Result<Vec<Enrolled>, LedgerError> {
        Ok(self.read_devices("")?.into_iter().map(|(enrolled, _)| enrolled).collect())
    }

    fn enrol(&mut self, device: &Device, by: By, now_ms: i64) -> Result<(), LedgerError> {
        let before = self.device(device.id())?;
        let is_as_before = before.as_ref().is_some_and(|(before, _)| {
            (&before.device.name, before.by) == (&device.name, by) || (before.by == By::Command && by != By::Command)
        });
        if !is_as_before {
            let last = before.as_ref().map_or(0, |(_, version)| *version);
            let version = u64::try_from(now_ms).unwrap_or(0).max(last.saturating_add(1));
            let mut rows = Rows::default();
            rows.raw(&device.id().0).raw(device.key.raw()).text(&device.name).text(by.name()).i64(now_ms).u64(version);
            self.insert("devices", "device,key,name,enrolled_by,enrolled_ms,version", rows)?;
        }
        if by == By::Command && before.is_some_and(|(before, _)| before.is_revoked) {
            self.write_revocation(device.id(), 0, now_ms)?;
        }
        Ok(())
    }

    fn revoke(&mut self, device: DeviceId, now_ms: i64) -> Result<bool, LedgerError> {
        let known = self.device(device)?;
        if known.as_ref().is_some_and(|(known, _)| !known.is_revoked) {
            self.write_revocation(device, now_ms.max(1), now_ms)?;
        }
        Ok(known.is_some())
    }

    fn changes(&mut self) -> Result<u64, LedgerError> {
        let answer = self.http.select(
            "SELECT groupBitXor(change) FROM (
                 SELECT cityHash64(device, version) AS change FROM devices FINAL
                 UNION ALL SELECT cityHash64(device, version, 'revoked') AS change FROM revocations FINAL
             ) FORMAT TabSeparated",
        )?;
        Ok(number(std::str::from_utf8(&answer).map_err(|_| Error::Answer)?.trim())?)
    }

    fn touch(&mut self, heard: &[Heard], now_ms: i64) -> Result<(), LedgerError> {
        let (mut contacts, mut backlogs) = (Rows::default(), Rows::default());
        for Heard { device, waits } in heard {
            contacts.raw(&device.0).raw(&[0; 8]).raw(&[4]).u64(u64::try_from(now_ms).unwrap_or(0));
            if let Some((Waits { stock, oldest }, told_ms)) = waits {
                backlogs.raw(&device.0).u64(u64::try_from(*told_ms).unwrap_or(0)).u64(stock.files).u64(stock.bytes);
                backlogs.is_null(oldest.is_none());
                if let Some(oldest) = oldest {
                    backlogs.i64(*oldest);
                }
            }
        }
        self.insert("marks", "device,stream,mark,value", contacts)?;
        Ok(self.insert("backlogs", "device,told_ms,files,bytes,oldest_s", backlogs)?)
    }
}

fn of(incoming: &Incoming<'_>) -> (Stream, Link) {
    let header = incoming.file.header();
    let stream = Stream { device: header.device().0, stream: header.stream.0.to_be_bytes() };
    (stream, Link::of(header, incoming.file.digest()))
}

/// The statements of a file of SQL, without its comments. None of ours has `;` or `--` in a text.
fn statements(sql: &str) -> Vec<String> {
    let bare: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let bare = bare.join("\n");
    bare.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}
