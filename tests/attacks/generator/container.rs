//! Steps 1 to 5: the bytes before anything is believed.

use tidegate::bundle::container::{MAX_MANIFEST, MAX_PAYLOAD, MAX_TRUST};

use super::{Arrange, Folder, refused, sound};

fn next() -> Vec<u8> {
    sound::policy(sound::SEQ + 1, "next")
}

/// The next bundle with `bytes` written at `at`.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut bundle = next();
    bundle[at..at + bytes.len()].copy_from_slice(bytes);
    bundle
}

/// The next bundle with the length at `at` another by so many bytes, and the file as long as it was.
fn shifted(lies: &[(usize, i64)]) -> Vec<u8> {
    let mut bundle = next();
    for (at, by) in lies {
        let field = &mut bundle[*at..*at + 4];
        let truth = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        let lie = u32::try_from(i64::from(truth) + by).expect("a length");
        field.copy_from_slice(&lie.to_be_bytes());
    }
    bundle
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("container", slug, name, about, bytes)
}

/// The offsets of the lengths; of the payload's the low half.
const TRUST_LEN: usize = 12;
const MANIFEST_LEN: usize = 16;
const SIGS_LEN: usize = 20;
const PAYLOAD_LEN: usize = 28;

pub fn cases() -> Vec<Folder> {
    let next = next();
    let count = 32 + sound::next().manifest.len();
    assert_eq!(next[count], 2, "the count of signatures");
    let mut chained = sound::bringing(&next, &[sound::to_third()]);
    let chain = chained.len() - next.len();
    chained[chain + count] = 1;
    let mut reset = sound::policy(sound::SEQ + 1, "next");
    reset[3] = b'T';
    vec![
        case(
            "eighth-bit-stripped",
            "BadMagic",
            "A 7-bit copy: the first byte lost its eighth bit.",
            patched(0, &[0x09]),
        ),
        case("line-ends-converted", "BadMagic", "A text-mode copy: CR LF became LF LF.", patched(4, b"\n\n\x1a\n")),
        case("a-zip", "BadMagic", "The beginning of an archive.", [b"PK\x03\x04", &next[4..]].concat()),
        case("utf-8-mark", "BadMagic", "A byte order mark before the bundle.", [b"\xef\xbb\xbf", &next[..]].concat()),
        case(
            "bundle-as-time-reset",
            "UnsupportedFormat",
            "A bundle under the magic of a time reset, whose header has other fields.",
            {
                reset[8..10].copy_from_slice(&[0, 3]);
                reset
            },
        ),
        case("empty-file", "Truncated", "A file of no bytes.", Vec::new()),
        case("magic-alone", "Truncated", "The magic and nothing behind it.", next[..8].to_vec()),
        case(
            "preamble-alone",
            "Truncated",
            "The whole preamble, and none of the sections that it counts.",
            next[..32].to_vec(),
        ),
        case("one-byte-short", "Truncated", "The last byte is missing.", next[..next.len() - 1].to_vec()),
        case("one-byte-more", "TrailingData", "A byte after the end.", [&next[..], b"\0"].concat()),
        case("bundle-twice", "TrailingData", "A second bundle after the first.", next.repeat(2)),
        case("format-0", "UnsupportedFormat", "A format before the first.", patched(8, &[0, 0])),
        case("format-2", "UnsupportedFormat", "A format of the future.", patched(8, &[0, 2])),
        case(
            "format-little-endian",
            "UnsupportedFormat",
            "Format 1 with its bytes the other way round.",
            patched(8, &[1, 0]),
        ),
        case("type-0", "UnknownBundleType", "A type before the first.", patched(10, &[0])),
        case("type-5", "UnknownBundleType", "A type after the last.", patched(10, &[5])),
        case("reserved-byte", "ReservedNotZero", "The reserved byte is 1.", patched(11, &[1])),
        case("manifest-of-0", "SectionTooLarge", "No manifest.", patched(MANIFEST_LEN, &[0; 4])),
        case(
            "manifest-over",
            "SectionTooLarge",
            "The manifest one byte over its limit.",
            patched(MANIFEST_LEN, &(MAX_MANIFEST + 1).to_be_bytes()),
        ),
        case(
            "manifest-at-its-limit-of-nothing",
            "Truncated",
            "The manifest as long as can be, in a file that is not.",
            patched(MANIFEST_LEN, &MAX_MANIFEST.to_be_bytes()),
        ),
        case(
            "chain-over",
            "SectionTooLarge",
            "The chain of roots one byte over its limit.",
            patched(TRUST_LEN, &(MAX_TRUST + 1).to_be_bytes()),
        ),
        case(
            "payload-over",
            "SectionTooLarge",
            "The payload one byte over its limit.",
            patched(24, &(MAX_PAYLOAD + 1).to_be_bytes()),
        ),
        case(
            "payload-of-2-64",
            "SectionTooLarge",
            "A payload of 2^64 - 1 bytes: the sum of the lengths would overflow.",
            patched(24, &[0xff; 8]),
        ),
        case(
            "payload-of-2-32",
            "SectionTooLarge",
            "A payload whose low 32 bits are true, and one bit above them is set.",
            patched(27, &[1]),
        ),
        case(
            "seventeen-signatures",
            "SectionTooLarge",
            "Room for seventeen signatures.",
            patched(SIGS_LEN, &(1_u32 + 96 * 17).to_be_bytes()),
        ),
        case(
            "no-signature-block",
            "SigSectionMalformed",
            "Not even the count of signatures.",
            patched(SIGS_LEN, &0_u32.to_be_bytes()),
        ),
        case(
            "signature-and-a-half",
            "SigSectionMalformed",
            "Room for a signature and a half.",
            patched(SIGS_LEN, &(1_u32 + 144).to_be_bytes()),
        ),
        case(
            "count-one-less",
            "SigSectionMalformed",
            "The count says one signature of two: the second would be payload.",
            patched(count, &[1]),
        ),
        case(
            "count-one-more",
            "SigSectionMalformed",
            "The count says three signatures of two: the third would be payload.",
            patched(count, &[3]),
        ),
        case("count-of-255", "SigSectionMalformed", "The count says 255 signatures.", patched(count, &[255])),
        case(
            "count-before-chain",
            "SigSectionMalformed",
            "A wrong count beside a good chain: the count is judged first, so the chain's root is not taken.",
            chained,
        ),
        case(
            "trust-length-one-more",
            "Truncated",
            "The chain is said to be one byte longer.",
            shifted(&[(TRUST_LEN, 1)]),
        ),
        case(
            "manifest-length-one-less",
            "TrailingData",
            "The manifest is said to be one byte shorter.",
            shifted(&[(MANIFEST_LEN, -1)]),
        ),
        case(
            "manifest-into-payload",
            "SigSectionMalformed",
            "A byte of the manifest is counted to the payload; the file's length stays right.",
            shifted(&[(MANIFEST_LEN, -1), (PAYLOAD_LEN, 1)]),
        ),
        case(
            "signature-into-payload",
            "SigSectionMalformed",
            "A whole signature is counted to the payload; the file's length stays right.",
            shifted(&[(SIGS_LEN, -96), (PAYLOAD_LEN, 96)]),
        ),
        case(
            "manifest-into-chain",
            "RootChainMalformed",
            "The manifest's first bytes are counted to the chain; the file's length stays right.",
            shifted(&[(MANIFEST_LEN, -1), (TRUST_LEN, 1)]),
        ),
        case("larger-than-any", "SectionTooLarge", "A file larger than any bundle: it is not copied.", next.clone())
            .arranged(Arrange::Padded),
    ]
}
