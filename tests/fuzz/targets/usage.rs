//! Usage files as the hub receives them: every check that it makes before its ledger hears of one.
//!
//! ```text
//! 89…                       a file as it comes: only the golden ones are ever believed
//! flags, header, body       (flags < 0x20) the harness lays the file and signs it with the device's key
//!   1 a tombstone           2 header: u8 length and its bytes; else u8: the low half is seq − 1, the high one the first's
//!   4 body: u32 length of what is in it and a zstd frame; else columns, which the harness compresses
//!   8 another key signs     16 one byte in the middle is altered after signing
//! ```
//!
//! Columns are read a second time here, by the tables of `docs/usage-format.md` and not by the code.

use std::net::IpAddr;
use std::sync::LazyLock;

use tidegate::ids::{Digest, RequestId, StreamId};
use tidegate::keys::{PublicKey, sha256};
use tidegate::spool::chain::{Known, Link, Verdict, judge};
use tidegate::spool::record::{Client, Gap, GapReason, Outcome, Pseudonym, RollUp, Row, UsageRecord};
use tidegate::spool::segment::{
    self, BODY_LIMIT, Builder, Error, FILE_LIMIT, HEADER_LIMIT, Header, Place, RAW_LIMIT, ROWS_LIMIT, SEQ_LIMIT,
    SIGNATURE_LEN, StandsFor, Unverified, Verified, is_begun_by,
};
use tidegate::units::TimeQuality;

use super::world;

/// The seed of the device's key.
const DEVICE: u8 = 9;
const PREAMBLE: usize = 24;
const MAGIC: [u8; 8] = *b"\x89TGU\r\n\x1a\n";
const TYPE: &str = "application/vnd.tidegate.usage.v1";
const STREAM: StreamId = StreamId(0x1122_3344_5566_7788);

pub const TOMBSTONE: u8 = 1;
pub const HEADER: u8 = 2;
pub const BODY: u8 = 4;
pub const ANOTHER_KEY: u8 = 8;
pub const ALTERED: u8 = 16;

/// Some requests, with a form of everything, and some sums and gaps.
#[must_use]
pub fn rows() -> Vec<Row<'static>> {
    let clients = [
        Client::Absent,
        Client::Whole(IpAddr::from([192, 0, 2, 7])),
        Client::Whole(IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7])),
        Client::Network4([192, 0, 2]),
        Client::Network6([0x20, 1, 0xd, 0xb8, 0, 1]),
        Client::Hashed(Pseudonym([7; 10])),
    ];
    let mut rows = Vec::new();
    for (n, client) in (0..).zip(clients) {
        let mut id = [n; 16];
        id[0] = n % 2;
        let upstream_us = u32::from(n) * 7;
        rows.push(Row::Request(UsageRecord {
            at_ms: 1_764_000_000_000 + i64::from(n % 4) * 250,
            time: [TimeQuality::Synced, TimeQuality::Floor, TimeQuality::Lost][usize::from(n) % 3],
            request: RequestId(if n < 4 { id } else { [[0; 8], [n; 8]].concat().try_into().expect("16 bytes") }),
            api: "petstore",
            version: "1.0",
            route: "/pets/{id}",
            method: ["GET", "POST"][usize::from(n) % 2],
            status: 200 + u16::from(n),
            outcome: Outcome::ALL[usize::from(n) % Outcome::ALL.len()],
            application: "till",
            plan: "gold",
            principal: ["", "alice", "é"][usize::from(n) % 3],
            bytes_in: u64::from(n) << 40,
            bytes_out: 512,
            total_us: upstream_us + 3,
            upstream_us,
            upstream: "127.0.0.1:9000",
            client,
            consumer: "shop",
            issuer: "https://idp.example",
        }));
    }
    rows.extend(sums());
    rows
}

/// What a tombstone may tell.
#[must_use]
pub fn sums() -> Vec<Row<'static>> {
    let sum = RollUp {
        from_ms: 1_764_000_000_000,
        to_ms: 1_764_000_059_999,
        outcome: Outcome::Admitted,
        count: 12_345,
        bytes_in: 1,
        bytes_out: 2,
        api: "petstore",
        application: "till",
    };
    let gap = |reason, count| Row::Gap(Gap { reason, from_ms: -1, to_ms: 5, count });
    vec![Row::RollUp(sum), gap(GapReason::UncleanStop, None), gap(GapReason::Dropped, Some(7))]
}

fn place(seq: u64, first: u64) -> Place {
    Place {
        stream: STREAM,
        seq,
        previous: (first > 1).then_some(Digest([0xa1; 32])),
        policy: seq.is_multiple_of(2).then_some(Digest([0xb2; 32])),
    }
}

/// A file of each kind that the device made.
pub static GOLDEN: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let builder = |rows: &[Row<'_>]| {
        let mut builder = Builder::new();
        rows.iter().for_each(|row| builder.push(row).expect("there is room"));
        builder
    };
    let (key, stands_for) = (world::key(DEVICE), StandsFor { first: 2, digest: Digest([0xd4; 32]) });
    [
        builder(&rows()).seal(&place(1, 1), key).expect("it seals"),
        builder(&rows()[..2]).seal(&place(4, 4), key).expect("it seals"),
        builder(&sums()).bury(&place(3, 2), stands_for, key).expect("it seals"),
    ]
});

/// The columns of one of the golden files.
#[must_use]
pub fn columns(golden: usize) -> Vec<u8> {
    let file = &GOLDEN[golden];
    let [header, body, raw] = lengths(file).expect("a golden file has a preamble");
    let frame = &file[PREAMBLE + header..][..body];
    zstd::bulk::decompress(frame, raw).expect("a golden file decompresses")
}

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    let key = world::key(DEVICE).public();
    let taken = match bytes {
        [flags @ 0..0x20, rest @ ..] => signed(*flags, rest, &key),
        _ => as_it_comes(bytes, &key),
    };
    assert_eq!(sent(bytes).is_some_and(|file| received(&file)), taken, "taken once, and refused the other time");
    taken
}

/// The file that an input makes: what the hub is sent.
#[must_use]
pub fn sent(bytes: &[u8]) -> Option<Vec<u8>> {
    match bytes {
        [flags @ 0..0x20, rest @ ..] => lay(*flags, rest).map(|laid| laid.file),
        _ => Some(bytes.to_vec()),
    }
}

/// What the hub does with it before its ledger, and nothing else: `bin/usage.rs` measures it.
#[must_use]
pub fn received(file: &[u8]) -> bool {
    let key = world::key(DEVICE).public();
    Unverified::parse(file).and_then(|file| file.verify(&key)).is_ok()
}

/// Whatever the bytes, whoever trusts `key` believes what its device made, and nothing else.
pub fn as_it_comes(bytes: &[u8], key: &PublicKey) -> bool {
    let opened = framed(bytes, key);
    let is_golden = GOLDEN.iter().any(|golden| golden == bytes);
    assert_eq!(opened.is_ok(), is_golden, "believed, and not golden, or the other way round");
    opened.is_ok_and(|file| believed(bytes, &file, key))
}

/// A file of the fuzzer's words under the real key's signature.
fn signed(flags: u8, input: &[u8], key: &PublicKey) -> bool {
    let Some(Laid { file: bytes, columns, is_made }) = lay(flags, input) else { return false };
    let opened = framed(&bytes, key);
    let is_forged = flags & (ANOTHER_KEY | ALTERED) != 0;
    assert!(!is_forged || opened.is_err(), "believed, and not what the device signed");
    if is_made && !is_forged {
        assert_eq!(opened.is_ok(), fits(&columns, flags & TOMBSTONE != 0), "{:?}", opened.map(|file| *file.header()));
    }
    let Ok(file) = opened else { return false };
    let read = read(&columns).expect("what is believed is as the tables say");
    assert!(file.rows().eq(read.iter().copied()), "the rows are read otherwise than the tables say");
    believed(&bytes, &file, key)
}

/// Whether columns may be a file's, by the tables.
fn fits(columns: &[u8], is_tombstone: bool) -> bool {
    let Some(rows) = read(columns) else { return false };
    let has_requests = rows.iter().any(|row| matches!(row, Row::Request(_)));
    !rows.is_empty() && columns.len() <= RAW_LIMIT && !(is_tombstone && has_requests)
}

/// What the harness made of an input.
struct Laid {
    file: Vec<u8>,
    columns: Vec<u8>,
    /// Header and body are the harness's: they are taken where the columns are good.
    is_made: bool,
}

fn lay(flags: u8, input: &[u8]) -> Option<Laid> {
    let (first, rest) = input.split_first()?;
    let (given, rest) = if flags & HEADER == 0 {
        (None, rest)
    } else {
        let (given, rest) = rest.split_at_checked(usize::from(*first))?;
        (Some(given), rest)
    };
    let (body, columns, raw_len) = if flags & BODY == 0 {
        (zstd::bulk::compress(rest, 1).ok()?, rest.to_vec(), u32::try_from(rest.len()).ok()?)
    } else {
        let (len, frame) = rest.split_first_chunk()?;
        let raw_len = u32::from_be_bytes(*len);
        let columns = zstd::bulk::decompress(frame, RAW_LIMIT).unwrap_or_default();
        (frame.to_vec(), columns, raw_len)
    };
    let header = match given {
        Some(given) => given.to_vec(),
        None => header(flags, *first, &body, &columns),
    };
    let key = world::key(if flags & ANOTHER_KEY == 0 { DEVICE } else { 1 });
    let len = |len: usize| u32::try_from(len).map(u32::to_be_bytes).ok();
    let kind = if flags & TOMBSTONE == 0 { 1 } else { 2 };
    let mut file =
        [&MAGIC[..], &[0, 1, kind, 0], &len(header.len())?, &len(body.len())?, &raw_len.to_be_bytes()].concat();
    file.extend(header);
    let signature = key.sign(TYPE, &file);
    file.extend(&body);
    file.extend(signature);
    if flags & ALTERED != 0 {
        let middle = file.len() / 2;
        file[middle] ^= 1;
    }
    Some(Laid { file, columns, is_made: flags & (HEADER | BODY) == 0 })
}

/// The header that fits the columns.
fn header(flags: u8, numbers: u8, body: &[u8], columns: &[u8]) -> Vec<u8> {
    let rows = read(columns).unwrap_or_default();
    let spans = rows.iter().map(|row| match row {
        Row::Request(record) => (record.at_ms, record.at_ms),
        Row::RollUp(sum) => (sum.from_ms.min(sum.to_ms), sum.from_ms.max(sum.to_ms)),
        Row::Gap(gap) => (gap.from_ms.min(gap.to_ms), gap.from_ms.max(gap.to_ms)),
    });
    let span = spans.reduce(|(from, to), (from_ms, to_ms)| (from.min(from_ms), to.max(to_ms))).unwrap_or_default();
    let requests = rows.iter().filter(|row| matches!(row, Row::Request(_))).count() as u32;
    let is_tombstone = flags & TOMBSTONE != 0;
    let seq = u64::from(numbers & 15) + 1;
    let first = if is_tombstone { (u64::from(numbers >> 4) + 1).min(seq) } else { seq };
    let Place { stream, previous, policy, .. } = place(seq, first);
    let header = Header {
        stream,
        seq,
        key: world::key(DEVICE).public().id(),
        previous,
        policy,
        body: sha256(body),
        requests: if is_tombstone { 0 } else { requests },
        others: rows.len() as u32 - requests,
        first_ms: span.0,
        last_ms: span.1,
        stands_for: None,
    };
    let mut bytes = postcard::to_allocvec(&header).expect("a header is written");
    if is_tombstone {
        bytes.extend(postcard::to_allocvec(&StandsFor { first, digest: Digest([0xd4; 32]) }).expect("it is written"));
    }
    bytes
}

fn lengths(bytes: &[u8]) -> Option<[usize; 3]> {
    let words = bytes.get(12..PREAMBLE)?.as_chunks::<4>().0;
    let [header, body, raw] = words else { return None };
    Some([header, body, raw].map(|word| u32::from_be_bytes(*word) as usize))
}

/// The frame of a file, and what whoever sees only its beginning says of it.
fn framed(bytes: &[u8], key: &PublicKey) -> Result<Verified, Error> {
    let parsed = Unverified::parse(bytes);
    let opened = segment::open(bytes, key);
    let Ok(parsed) = parsed else {
        assert_eq!(parsed.err(), opened.as_ref().err().copied(), "two reasons for one file");
        return opened;
    };
    let [header, body, raw] = lengths(bytes).expect("what is parsed has a preamble");
    assert!(
        (1..=HEADER_LIMIT).contains(&header) && (1..=BODY_LIMIT).contains(&body) && (76..=RAW_LIMIT).contains(&raw)
    );
    assert!(bytes.len() == PREAMBLE + header + body + SIGNATURE_LEN && bytes.len() <= FILE_LIMIT);
    assert!(bytes.starts_with(&MAGIC) && bytes[8..10] == [0, 1] && [1, 2].contains(&bytes[10]) && bytes[11] == 0);
    let claimed = parsed.claimed();
    assert_eq!(claimed.stands_for.is_some(), bytes[10] == 2);
    assert!((1..=SEQ_LIMIT).contains(&claimed.seq) && (1..=claimed.seq).contains(&claimed.first()));
    assert_eq!(claimed.previous.is_none(), claimed.first() == 1);
    assert_eq!(parsed.is_whole(), sha256(&bytes[PREAMBLE + header..][..body]) == claimed.body);
    // The hub gives a place to whoever shows the signature with the head, and to nobody else.
    let signature = bytes.last_chunk().expect("what is parsed has a signature");
    let head = &bytes[..PREAMBLE + header];
    let begun = is_begun_by(head, signature, key);
    for short in [0, PREAMBLE - 1, PREAMBLE, head.len() - 1] {
        assert!(is_begun_by(&bytes[..short], signature, key).is_none(), "begun by {short} bytes");
    }
    let refused = opened.as_ref().err().copied();
    match begun {
        Some(true) => assert_ne!(refused, Some(Error::SignatureInvalid), "let in, and then not"),
        Some(false) => assert!(matches!(refused, Some(Error::KeyMismatch | Error::SignatureInvalid)), "{refused:?}"),
        None => panic!("a whole head, and nobody knows"),
    }
    opened
}

/// What is believed is one thing: its rows are those that its header counts, they are the same each time and each way they
/// are read, and written again they are the same once more.
pub fn believed(bytes: &[u8], file: &Verified, key: &PublicKey) -> bool {
    let header = *file.header();
    assert_eq!(file.digest(), sha256(bytes));
    assert_eq!(header.key, key.id());
    let rows: Vec<_> = file.rows().collect();
    let (requests, others) = rows.split_at(header.requests as usize);
    assert!(!rows.is_empty() && rows.len() <= ROWS_LIMIT as usize, "{} rows", rows.len());
    assert!(others.len() == header.others as usize && file.others().eq(others.iter().copied()));
    let (dictionaries, indexed) = file.indexed();
    let resolved = indexed.map(|row| dictionaries.resolve(&row).map(Row::Request));
    assert!(resolved.eq(requests.iter().copied().map(Some)), "rows by place are others");
    let lens = [dictionaries.endpoints.len(), dictionaries.callers.len(), dictionaries.principals.len()];
    assert!(lens.iter().all(|len| *len <= ROWS_LIMIT as usize));
    let again = segment::open(bytes, key).expect("it was believed before");
    assert!(again.rows().eq(rows.iter().copied()) && again.digest() == file.digest());
    written_again(&rows, file);
    in_chain(file);
    true
}

fn written_again(rows: &[Row<'_>], file: &Verified) {
    let header = file.header();
    let mut builder = Builder::new();
    for row in rows {
        match builder.push(row) {
            Ok(()) => {}
            // A maker leaves room for the longest row; what is read may use it up.
            Err(error) => return assert_eq!(error, Error::Full),
        }
    }
    let key = world::key(DEVICE);
    let sealed = match header.stands_for {
        Some(stands_for) => builder.bury(&header.place(), stands_for, key),
        None => builder.seal(&header.place(), key),
    };
    let sealed = sealed.expect("what was sealed once can be sealed");
    let again = segment::open(&sealed, &key.public()).expect("what is sealed opens");
    assert_eq!(*again.header(), Header { body: again.header().body, ..*header });
    assert!(again.rows().eq(rows.iter().copied()), "other rows, written again");
}

/// The ledger's first question: a file is a repeat of itself, and stands where its numbers say.
fn in_chain(file: &Verified) {
    let header = file.header();
    let link = Link::of(header, file.digest());
    assert_eq!((link.first, link.seq, link.is_tombstone), (header.first(), header.seq, header.stands_for.is_some()));
    assert_eq!(judge(&link, &Known { same: vec![link], ..Known::default() }), Verdict::Repeat);
    let alone = if link.first == 1 { Verdict::Contiguous } else { Verdict::Ahead { missing: 1 } };
    assert_eq!(judge(&link, &Known::default()), alone);
    let other = Link { digest: Digest([0; 32]), chain_digest: Digest([0; 32]), is_tombstone: false, ..link };
    assert_eq!(judge(&link, &Known { same: vec![other], ..Known::default() }), Verdict::ChainFork);
}

/// The rows of columns, as the tables of `docs/usage-format.md` have it; `None` where they are none.
fn read(columns: &[u8]) -> Option<Vec<Row<'_>>> {
    let (table, mut rest) = columns.split_at_checked(19 * 4)?;
    let mut sections = Vec::new();
    for len in table.as_chunks::<4>().0 {
        let (section, after) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        sections.push(Section(section));
        rest = after;
    }
    let [d0, d1, d2, d3, d4, at, i0, i1, i2, i3, i4, bytes_in, bytes_out, upstream, own, tags, ids, steps, others] =
        &mut sections[..]
    else {
        return None;
    };
    let endpoints = d0.all(|entry| entry.texts([128, 128, 256, 24, 128]))?;
    let callers = d1.all(|entry| entry.texts([128, 128, 128, 256]))?;
    let principals = d2.all(|entry| entry.texts([256]))?;
    let clients = d3.all(Section::client)?;
    let endings = d4.all(|entry| entry.some(4))?;
    let (mut rows, mut last_at, mut halves) = (Vec::new(), 0_i64, Vec::<[u64; 2]>::new());
    while let Some(tag) = tags.some(1) {
        let id = match usize::from(tag[0]).checked_sub(1) {
            None => {
                let id = *ids.some(16)?.first_chunk::<16>()?;
                let both = u128::from_be_bytes(id);
                if halves.len() < 255 {
                    halves.push([(both >> 64) as u64, both as u64]);
                }
                id
            }
            Some(known) => {
                let [first, second] = halves.get_mut(known)?;
                *second = second.wrapping_add_signed(steps.signed()?);
                (u128::from(*first) << 64 | u128::from(*second)).to_be_bytes()
            }
        };
        let [api, version, route, method, upstream_name] = *endpoints.get(i0.varint()? as usize)?;
        let [application, plan, consumer, issuer] = *callers.get(i1.varint()? as usize)?;
        let [principal] = *principals.get(i2.varint()? as usize)?;
        let client = *clients.get(i3.varint()? as usize)?;
        let [high, low, outcome, quality] = *endings.get(i4.varint()? as usize)?.first_chunk()?;
        last_at = last_at.wrapping_add(at.signed()?);
        let upstream_us = u32::try_from(upstream.varint()?).ok()?;
        rows.push(Row::Request(UsageRecord {
            at_ms: last_at,
            time: *[TimeQuality::Synced, TimeQuality::Floor, TimeQuality::Lost].get(usize::from(quality))?,
            request: RequestId(id),
            api,
            version,
            route,
            method,
            status: u16::from_be_bytes([high, low]),
            outcome: Outcome::from_number(outcome)?,
            application,
            plan,
            principal,
            bytes_in: bytes_in.varint()?,
            bytes_out: bytes_out.varint()?,
            total_us: u32::try_from(i64::from(upstream_us).checked_add(own.signed()?)?).ok()?,
            upstream_us,
            upstream: upstream_name,
            client,
            consumer,
            issuer,
        }));
        if rows.len() > ROWS_LIMIT as usize {
            return None;
        }
    }
    while !others.0.is_empty() {
        let len = usize::try_from(others.varint()?).ok()?;
        let row = Row::decode(others.some(len)?).ok()?;
        if matches!(row, Row::Request(_)) || rows.len() >= ROWS_LIMIT as usize {
            return None;
        }
        rows.push(row);
    }
    let is_known = |ending: &&[u8]| Outcome::from_number(ending[2]).is_some() && ending[3] <= 2;
    let is_all = rest.is_empty() && sections.iter().all(|section| section.0.is_empty());
    (is_all && endings.iter().all(|ending| is_known(&&**ending))).then_some(rows)
}

/// What is left of a section.
struct Section<'a>(&'a [u8]);

impl<'a> Section<'a> {
    fn some(&mut self, len: usize) -> Option<&'a [u8]> {
        let (some, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(some)
    }

    /// LEB128 of 64 bits in 10 bytes at most.
    fn varint(&mut self) -> Option<u64> {
        let len = self.0.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
        let bytes = self.some(len)?;
        let value = bytes.iter().rev().fold(0_u128, |value, byte| value << 7 | u128::from(byte & 0x7f));
        u64::try_from(value).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        let half = (value / 2).cast_signed();
        Some(if value.is_multiple_of(2) { half } else { -1 - half })
    }

    fn texts<const N: usize>(&mut self, limits: [usize; N]) -> Option<[&'a str; N]> {
        let mut texts = [""; N];
        for (text, limit) in texts.iter_mut().zip(limits) {
            let len = usize::try_from(self.varint()?).ok().filter(|len| *len <= limit)?;
            *text = std::str::from_utf8(self.some(len)?).ok()?;
        }
        Some(texts)
    }

    fn client(&mut self) -> Option<Client> {
        Some(match self.some(1)?[0] {
            0 => Client::Absent,
            4 => Client::Whole(IpAddr::from(*self.some(4)?.first_chunk::<4>()?)),
            5 => Client::Network4(*self.some(3)?.first_chunk()?),
            10 => Client::Hashed(Pseudonym(*self.some(10)?.first_chunk()?)),
            16 => Client::Whole(IpAddr::from(*self.some(16)?.first_chunk::<16>()?)),
            17 => Client::Network6(*self.some(6)?.first_chunk()?),
            _ => return None,
        })
    }

    fn all<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(one(self)?);
        }
        (all.len() <= ROWS_LIMIT as usize).then_some(all)
    }
}
