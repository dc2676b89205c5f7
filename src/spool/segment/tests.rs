use std::net::IpAddr;

use proptest::prelude::*;

use super::super::record::{Client, Gap, GapReason, Outcome, Pseudonym, RollUp, SAMPLE, UsageRecord};
use super::*;
use crate::ids::RequestId;
use crate::units::TimeQuality;

const PLACE: Place = Place { stream: StreamId(7), seq: 1, previous: None, policy: Some(Digest([3; 32])) };

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32]).expect("a seed makes a key")
}

fn record(n: u64) -> UsageRecord<'static> {
    let mut id = [5; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    UsageRecord {
        at_ms: SAMPLE.at_ms + n.cast_signed() * 7,
        request: RequestId(id),
        route: if n.is_multiple_of(3) { "/pets/{id}" } else { "/pets" },
        client: Client::Whole(IpAddr::from([127, 0, 0, 1])),
        ..SAMPLE
    }
}

fn gap() -> Row<'static> {
    Row::Gap(Gap { reason: GapReason::UncleanStop, from_ms: 1, to_ms: 1_699_999_999_999, count: None })
}

fn sealed(rows: &[Row<'_>]) -> Vec<u8> {
    let mut builder = Builder::new();
    for row in rows {
        builder.push(row).expect("the file has room");
    }
    builder.seal(&PLACE, &key()).expect("rows can be sealed")
}

fn small() -> Vec<u8> {
    sealed(&[Row::Request(record(1)), gap(), Row::Request(record(2))])
}

/// A file with any body, signed as a faulty or hostile device would.
fn forged(raw_len: usize, body: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = *Unverified::parse(&small()).expect("it parses").claimed();
    header.body = sha256(body);
    change(&mut header);
    assemble(&header, raw_len, body, &key())
}

fn refusal(file: &[u8]) -> Error {
    open(file, &key().public()).expect_err("it must be refused")
}

#[test]
fn what_was_pushed_is_what_is_read_grouped_by_kind() {
    let sum = Row::RollUp(RollUp {
        from_ms: 5,
        to_ms: 6,
        outcome: Outcome::TokenMissing,
        count: 7,
        bytes_in: 8,
        bytes_out: 9,
        api: "",
        application: "",
    });
    let file = sealed(&[gap(), Row::Request(record(1)), sum, Row::Request(record(2))]);
    let read = open(&file, &key().public()).expect("it opens");
    let rows: Vec<_> = read.rows().collect();
    assert_eq!(rows, [Row::Request(record(1)), Row::Request(record(2)), gap(), sum]);
    let header = read.header();
    assert_eq!((header.requests, header.others, header.first_ms), (2, 2, 1));
    assert_eq!(header.place(), PLACE);
    assert_eq!(header.device(), key().public().id().into());
    assert_eq!(read.digest(), sha256(&file));
}

#[test]
fn the_same_rows_give_the_same_bytes_and_none_give_no_file() {
    let mut builder = Builder::new();
    for row in [Row::Request(record(1)), gap(), Row::Request(record(2))] {
        builder.push(&row).expect("the file has room");
    }
    assert_eq!(builder.seal(&PLACE, &key()), Ok(small()));
    assert_eq!(Builder::new().seal(&PLACE, &key()), Err(Error::Empty));
}

#[test]
fn a_builder_is_full_at_the_limits_and_what_it_holds_can_be_read() {
    let mut builder = Builder::new();
    for n in 0..u64::from(ROWS_LIMIT) {
        builder.push(&Row::Request(record(n))).expect("the file has room");
    }
    assert_eq!(builder.push(&gap()), Err(Error::Full));
    let file = builder.seal(&PLACE, &key()).expect("rows can be sealed");
    assert_eq!(open(&file, &key().public()).map(|file| file.rows().count()), Ok(ROWS_LIMIT as usize));

    let (mut builder, mut pushed) = (Builder::new(), 0);
    let principal = |n: u32| format!("{n:0256}");
    while builder.push(&Row::Request(UsageRecord { principal: &principal(pushed), ..record(0) })).is_ok() {
        pushed += 1;
    }
    assert!(pushed > 5_000 && builder.raw_len() <= RAW_LIMIT, "{pushed}");
    let file = builder.seal(&PLACE, &key()).expect("rows can be sealed");
    assert!(file.len() <= FILE_LIMIT);
    assert_eq!(open(&file, &key().public()).map(|file| file.rows().count()), Ok(pushed as usize));
}

#[test]
fn an_impossible_place_is_neither_sealed_nor_read() {
    let previous = Some(Digest([1; 32]));
    for (seq, previous) in [(0, None), (0, previous), (1, previous), (2, None), (SEQ_LIMIT + 1, previous)] {
        let mut builder = Builder::new();
        builder.push(&gap()).expect("the file has room");
        assert_eq!(builder.seal(&Place { seq, previous, ..PLACE }, &key()), Err(Error::BadPlace), "{seq}");
        let file = forged(76, b"x", |header| (header.seq, header.previous) = (seq, previous));
        assert_eq!(refusal(&file), Error::HeaderMalformed, "{seq}");
    }
}

#[test]
fn every_truncation_and_every_addition_is_refused() {
    let file = small();
    for end in 0..file.len() {
        assert_eq!(refusal(&file[..end]), Error::Truncated, "cut at {end}");
    }
    assert_eq!(refusal(&[&file[..], &[0]].concat()), Error::TrailingData);
}

#[test]
fn every_one_bit_flip_is_refused() {
    let file = small();
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refusal(&flipped);
    }
    assert!(open(&file, &key().public()).is_ok(), "the control opens");
}

#[test]
fn another_key_is_refused_even_if_the_header_names_it() {
    let other = SigningKey::from_seed(&[2; 32]).expect("a seed makes a key").public();
    assert_eq!(open(&small(), &other).err(), Some(Error::KeyMismatch));
    let file = forged(76, b"x", |header| header.key = other.id());
    assert_eq!(open(&file, &other).err(), Some(Error::SignatureInvalid));
}

#[test]
fn a_length_beyond_its_limit_is_refused_before_anything_is_read() {
    for (offset, len) in [(12, HEADER_LIMIT + 1), (16, BODY_LIMIT + 1), (20, RAW_LIMIT + 1), (12, 0), (16, 0), (20, 75)]
    {
        let mut file = small();
        file[offset..offset + 4].copy_from_slice(&(len as u32).to_be_bytes());
        assert_eq!(refusal(&file), Error::SectionTooLarge, "{offset}");
    }
    let mut file = small();
    file[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(refusal(&file), Error::SectionTooLarge);
}

#[test]
fn a_decompression_bomb_never_gets_more_than_it_announced() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).expect("it compresses");
    for announced in [RAW_MIN, RAW_LIMIT] {
        assert_eq!(refusal(&forged(announced, &bomb, |_| ())), Error::BodyNotZstd);
    }
    let short = zstd::bulk::compress(&[0; 100], LEVEL).expect("it compresses");
    assert_eq!(refusal(&forged(101, &short, |_| ())), Error::BodyNotZstd);
    assert_eq!(refusal(&forged(100, b"not zstd", |_| ())), Error::BodyNotZstd);
}

#[test]
fn signed_rows_that_the_header_tells_otherwise_are_refused() {
    let small = small();
    let parsed = Unverified::parse(&small).expect("it parses");
    let lies: [fn(&mut Header); 4] = [
        |header| header.requests += 1,
        |header| header.others = 0,
        |header| header.first_ms -= 1,
        |header| header.last_ms = i64::MAX,
    ];
    for lie in lies {
        assert_eq!(refusal(&forged(parsed.raw_len, parsed.body, lie)), Error::RowsMismatch);
    }
}

#[test]
fn a_signed_body_of_garbage_is_refused_without_a_panic() {
    let small = small();
    let parsed = Unverified::parse(&small).expect("it parses");
    let raw = zstd::bulk::decompress(parsed.body, parsed.raw_len).expect("it decompresses");
    let judge = |raw: &[u8]| {
        let body = zstd::bulk::compress(raw, LEVEL).expect("it compresses");
        open(&forged(raw.len(), &body, |_| ()), &key().public()).map(|file| file.rows().count())
    };
    assert_eq!(judge(&raw), Ok(3), "the control opens");
    assert_eq!(judge(&[0xff; 400]), Err(Error::ColumnsMalformed));
    let mut refused = 0;
    for at in 0..raw.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = raw.clone();
            changed[at] = value;
            // A device may sign what it likes inside a string; what counts is that nothing panics.
            refused += usize::from(judge(&changed).is_err());
        }
    }
    assert!(refused > raw.len(), "{refused}");
    // A dictionary of two million empty entries would take forty times its size in memory.
    let mut fat = raw[..76].to_vec();
    fat[..4].copy_from_slice(&1_000_000u32.to_be_bytes());
    fat.resize(76 + 1_000_000, 0);
    assert_eq!(judge(&fat), Err(Error::ColumnsMalformed));
}

// Names 128 bytes, methods 24, route, issuer and principal 256: as docs/usage-format.md has them.
#[test]
fn a_signed_text_that_is_longer_than_the_format_allows_is_refused() {
    let small = small();
    let parsed = Unverified::parse(&small).expect("it parses");
    let raw = zstd::bulk::decompress(parsed.body, parsed.raw_len).expect("it decompresses");
    let judge = |dictionary: usize, lengths: &[usize]| {
        let mut sections: Vec<&[u8]> = Vec::new();
        let mut rest = &raw[76..];
        for length in raw[..76].as_chunks::<4>().0 {
            let (section, after) = rest.split_at(u32::from_be_bytes(*length) as usize);
            sections.push(section);
            rest = after;
        }
        let entry: Vec<u8> = lengths.iter().flat_map(|length| text_of(*length)).collect();
        sections[dictionary] = &entry;
        let mut changed: Vec<u8> = sections.iter().flat_map(|section| (section.len() as u32).to_be_bytes()).collect();
        changed.extend(sections.concat());
        let body = zstd::bulk::compress(&changed, LEVEL).expect("it compresses");
        open(&forged(changed.len(), &body, |_| ()), &key().public()).map(|_| ())
    };
    for (dictionary, limits) in [(0, &[128, 128, 256, 24, 128][..]), (1, &[128, 128, 128, 256]), (2, &[256])] {
        assert_eq!(judge(dictionary, limits), Ok(()), "the control opens");
        for place in 0..limits.len() {
            let mut lengths = limits.to_vec();
            lengths[place] += 1;
            assert_eq!(judge(dictionary, &lengths), Err(Error::ColumnsMalformed), "{dictionary}: {lengths:?}");
        }
    }
}

/// A text of so many bytes as it stands in a dictionary.
fn text_of(length: usize) -> Vec<u8> {
    let head = if length < 0x80 { vec![length as u8] } else { vec![length as u8 | 0x80, (length >> 7) as u8] };
    [head, vec![b'a'; length]].concat()
}

fn text(max: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("same".to_owned()),
        proptest::collection::vec(any::<char>(), 0..max).prop_map(|chars| chars.into_iter().collect())
    ]
}

type Drawn = (i64, [u8; 16], Vec<String>, (u16, usize, u8), (u64, u64), (u32, u32), Client);

fn drawn() -> impl Strategy<Value = Drawn> {
    let texts = proptest::collection::vec(text(24), 10);
    let id = prop_oneof![
        any::<[u8; 16]>(),
        any::<u8>().prop_map(|last| {
            let mut id = [1; 16];
            id[15] = last;
            id
        })
    ];
    let client = prop_oneof![
        Just(Client::Absent),
        any::<[u8; 4]>().prop_map(|ip| Client::Whole(IpAddr::from(ip))),
        any::<[u8; 16]>().prop_map(|ip| Client::Whole(IpAddr::from(ip))),
        any::<[u8; 3]>().prop_map(Client::Network4),
        any::<[u8; 6]>().prop_map(Client::Network6),
        any::<[u8; 10]>().prop_map(|hash| Client::Hashed(Pseudonym(hash)))
    ];
    let ending = (any::<u16>(), 0..Outcome::ALL.len(), 0..3u8);
    (any::<i64>(), id, texts, ending, any::<(u64, u64)>(), any::<(u32, u32)>(), client)
}

fn row(drawn: &Drawn) -> Row<'_> {
    let (at_ms, id, texts, (status, outcome, quality), bytes, (total_us, upstream_us), client) = drawn;
    let outcome = Outcome::ALL[*outcome];
    if *status % 8 == 0 {
        let (from_ms, to_ms, api, application) = (*at_ms, *at_ms / 2, texts[0].as_str(), texts[1].as_str());
        let (count, bytes_in, bytes_out) = (u64::from(*total_us), bytes.0, bytes.1);
        return Row::RollUp(RollUp { from_ms, to_ms, outcome, count, bytes_in, bytes_out, api, application });
    }
    let qualities = [TimeQuality::Synced, TimeQuality::Floor, TimeQuality::Lost];
    Row::Request(UsageRecord {
        at_ms: *at_ms,
        time: qualities[usize::from(*quality)],
        request: RequestId(*id),
        api: &texts[0],
        version: &texts[1],
        route: &texts[2],
        method: clip(&texts[3]),
        status: *status,
        outcome,
        application: &texts[4],
        plan: &texts[5],
        principal: &texts[6],
        bytes_in: bytes.0,
        bytes_out: bytes.1,
        total_us: *total_us,
        upstream_us: *upstream_us,
        upstream: &texts[7],
        client: *client,
        consumer: &texts[8],
        issuer: &texts[9],
    })
}

fn clip(text: &str) -> &str {
    super::super::record::clip(text, super::super::record::METHOD_LIMIT)
}

proptest! {
    #[test]
    fn any_rows_come_back_whole(drawn in proptest::collection::vec(drawn(), 1..80)) {
        let rows: Vec<_> = drawn.iter().map(row).collect();
        let file = open(&sealed(&rows), &key().public()).expect("it opens");
        let is_request = |row: &&Row<'_>| matches!(row, Row::Request(_));
        let expected: Vec<_> =
            rows.iter().filter(is_request).chain(rows.iter().filter(|row| !is_request(row))).copied().collect();
        prop_assert_eq!(file.rows().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut file = small()[..12].to_vec();
        file.extend(&bytes);
        prop_assert!(open(&file, &key().public()).is_err());
        prop_assert!(open(&bytes, &key().public()).is_err());
    }
}

const STANDS_FOR: StandsFor = StandsFor { first: 3, digest: Digest([9; 32]) };

fn tombstone(stands_for: StandsFor, seq: u64, previous: Option<Digest>) -> Result<Vec<u8>, Error> {
    let mut builder = Builder::new();
    builder.push(&gap()).expect("the file has room");
    builder.bury(&Place { seq, previous, policy: None, ..PLACE }, stands_for, &key())
}

#[test]
fn a_tombstone_tells_what_it_stands_for_under_the_signature() {
    let previous = Some(Digest([8; 32]));
    let file = tombstone(STANDS_FOR, 7, previous).expect("it can be sealed");
    let read = open(&file, &key().public()).expect("it opens");
    let header = read.header();
    assert_eq!((header.first(), header.seq, header.stands_for), (3, 7, Some(STANDS_FOR)));
    assert_eq!(header.chain_digest(read.digest()), STANDS_FOR.digest);
    assert_eq!(read.rows().collect::<Vec<_>>(), [gap()]);
    let plain = open(&small(), &key().public()).expect("it opens");
    assert_eq!((plain.header().first(), plain.header().chain_digest(plain.digest())), (1, plain.digest()));

    for at in 24..file.len() {
        let mut altered = file.clone();
        altered[at] ^= 1;
        assert!(open(&altered, &key().public()).is_err(), "byte {at}");
    }
    // As a plain file it has bytes too many, and a plain file as a tombstone too few.
    let as_kind = |file: &[u8], kind: u8| {
        let mut file = file.to_vec();
        file[10] = kind;
        refusal(&file)
    };
    assert_eq!(as_kind(&file, 1), Error::HeaderMalformed);
    assert_eq!(as_kind(&small(), 2), Error::HeaderMalformed);
    assert_eq!(as_kind(&small(), 3), Error::UnknownKind);
}

#[test]
fn a_tombstone_has_no_requests_and_a_possible_place() {
    let previous = Some(Digest([8; 32]));
    let at = |first, seq, previous| tombstone(StandsFor { first, ..STANDS_FOR }, seq, previous).map(drop);
    assert_eq!(at(1, 1, None), Ok(()));
    assert_eq!(at(1, 9, None), Ok(()));
    for (first, seq, previous) in [(0, 2, previous), (3, 2, previous), (1, 2, previous), (2, 2, None)] {
        assert_eq!(at(first, seq, previous), Err(Error::BadPlace), "{first} to {seq}");
    }
    let mut builder = Builder::new();
    builder.push(&Row::Request(record(1))).expect("the file has room");
    let place = Place { seq: 7, previous, policy: None, ..PLACE };
    assert_eq!(builder.bury(&place, STANDS_FOR, &key()), Err(Error::RowsMismatch));
    // Nor does one that a faulty device made of requests.
    let mut header = *Unverified::parse(&small()).expect("it parses").claimed();
    header.stands_for = Some(StandsFor { first: 1, ..STANDS_FOR });
    assert_eq!(refusal(&assemble(&header, 100, b"x", &key())), Error::HeaderMalformed);
}
