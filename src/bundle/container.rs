//! The file format of a bundle: steps 1 to 5. It knows lengths and places, and nothing of their meaning.
//!
//! ```text
//! off  size  field                                       (big-endian)
//! 0    8     magic 89 54 47 42 0D 0A 1A 0A               a 7-bit, text-mode or cut-off copy shows at once
//! 8    2     format = 1
//! 10   1     type: 1 policy, 2 revocation, 3 permit, 4 release
//! 11   1     reserved = 0
//! 12   4     trust_len     0..262144
//! 16   4     manifest_len  1..131072
//! 20   4     sigs_len      = 1 + 96n, n 0..16
//! 24   8     payload_len   0..16777216
//! 32   …     trust chain   repeated: u32 doc_len (1..16384) | root document | sig block; at most 64
//! …    …     manifest      canonical JSON
//! …    …     sig block     u8 n | n × ( key id 32 | signature 64 ), key ids strictly ascending
//! …    …     payload       blobs back to back, in manifest order
//! end = 32 + trust_len + manifest_len + sigs_len + payload_len, exactly
//! ```
//!
//! Memory held: the head, at most 386 KiB. The payload stays where it is.

use std::io::{self, Read};

use super::error::Refused;
use crate::ids::KeyId;

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"\x89TGB\r\n\x1a\n";
/// The one format that this version reads and writes.
pub const FORMAT: u16 = 1;
/// Bytes before the first section.
pub const PREAMBLE: usize = 32;
/// Most bytes of the trust chain.
pub const MAX_TRUST: u32 = 262_144;
/// Most bytes of the manifest.
pub const MAX_MANIFEST: u32 = 131_072;
/// Most signatures of one document.
pub const MAX_SIGNATURES: u8 = 16;
/// Most bytes of the payload.
pub const MAX_PAYLOAD: u64 = 16_777_216;
/// Most bytes of one root document.
pub const MAX_ROOT: u32 = 16_384;
/// Most root documents of one chain.
pub const MAX_CHAIN: usize = 64;
/// Most bytes of a whole bundle.
pub const MAX_FILE: u64 =
    PREAMBLE as u64 + MAX_TRUST as u64 + MAX_MANIFEST as u64 + sigs_len(MAX_SIGNATURES) as u64 + MAX_PAYLOAD;

/// Most bytes of one link of a chain.
pub const MAX_LINK: u64 = 4 + MAX_ROOT as u64 + sigs_len(MAX_SIGNATURES) as u64;

const SIGNATURE: usize = 96;

/// What a bundle is; bound into its signature through the media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BundleType {
    /// Routes, issuers, limits: the whole policy.
    Policy = 1,
    /// A full list of what is revoked.
    Revocation = 2,
    /// Leave to go from one exact bundle to another.
    Permit = 3,
    /// A release of the daemon.
    Release = 4,
}

impl BundleType {
    /// The word of the manifest's `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Revocation => "revocation",
            Self::Permit => "permit",
            Self::Release => "release",
        }
    }

    /// The media type that its signatures are over.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Policy => "application/vnd.tidegate.policy.v1+json",
            Self::Revocation => "application/vnd.tidegate.revocation.v1+json",
            Self::Permit => "application/vnd.tidegate.permit.v1+json",
            Self::Release => "application/vnd.tidegate.release.v1+json",
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Policy),
            2 => Some(Self::Revocation),
            3 => Some(Self::Permit),
            4 => Some(Self::Release),
            _ => None,
        }
    }
}

/// One signature and who claims to have made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Whose.
    pub key: KeyId,
    /// Over the PAE of the document.
    pub bytes: [u8; 64],
}

/// One document of the trust chain, not yet judged.
#[derive(Debug, Clone)]
pub struct ChainLink<'a> {
    /// The link's exact bytes: length, document, signature block.
    pub bytes: &'a [u8],
    /// The root document's exact bytes.
    pub document: &'a [u8],
    /// Its signatures, ascending.
    pub signatures: Vec<Signature>,
}

/// The first 32 bytes, checked against the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// What the bundle is.
    pub bundle_type: BundleType,
    trust: u32,
    manifest: u32,
    sigs: u32,
    payload: u64,
}

impl Preamble {
    /// Lays out a bundle of these section lengths in bytes; `SectionTooLarge` where one is over its limit.
    pub fn new(
        bundle_type: BundleType,
        trust: usize,
        manifest: usize,
        signatures: usize,
        payload: u64,
    ) -> Result<Self, Refused> {
        let sigs = u8::try_from(signatures).ok().filter(|n| *n <= MAX_SIGNATURES).map(sigs_len);
        let sigs =
            sigs.ok_or_else(|| Refused::SectionTooLarge(format!("{signatures} signatures; at most {MAX_SIGNATURES}")))?;
        let trust = u32::try_from(trust).unwrap_or(u32::MAX);
        let manifest = u32::try_from(manifest).unwrap_or(u32::MAX);
        let preamble = Self { bundle_type, trust, manifest, sigs, payload };
        preamble.check_limits()?;
        Ok(preamble)
    }

    /// Steps 1 to 3. Pure arithmetic on 32 bytes.
    pub fn parse(bytes: &[u8; PREAMBLE]) -> Result<Self, Refused> {
        let be32 = |at: usize| bytes[at..at + 4].iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
        // 1 preamble
        if bytes[..8] != MAGIC {
            return Err(Refused::BadMagic("the first eight bytes are not those of a bundle".into()));
        }
        let format = u16::from_be_bytes([bytes[8], bytes[9]]);
        if format != FORMAT {
            return Err(Refused::UnsupportedFormat(format!("format {format}; this version reads format {FORMAT}")));
        }
        let bundle_type = BundleType::from_number(bytes[10])
            .ok_or_else(|| Refused::UnknownBundleType(format!("type {}", bytes[10])))?;
        if bytes[11] != 0 {
            return Err(Refused::ReservedNotZero(format!("the reserved byte is {}", bytes[11])));
        }
        let payload = u64::from(be32(24)) << 32 | u64::from(be32(28));
        let preamble = Self { bundle_type, trust: be32(12), manifest: be32(16), sigs: be32(20), payload };
        // 2 section limits
        preamble.check_limits()?;
        // 3 signature-section arithmetic
        let whole = preamble.sigs >= 1 && (preamble.sigs - 1).is_multiple_of(SIGNATURE as u32);
        if !whole {
            return Err(Refused::SigSectionMalformed(format!("sigs_len {} is not 1 + 96n", preamble.sigs)));
        }
        Ok(preamble)
    }

    fn check_limits(&self) -> Result<(), Refused> {
        let over = |section: &str, length: u64, least: u64, most: u64| {
            if (least..=most).contains(&length) {
                return Ok(());
            }
            Err(Refused::SectionTooLarge(format!("{section} is {length}; the limits are {least} to {most}")))
        };
        over("trust_len", self.trust.into(), 0, MAX_TRUST.into())?;
        over("manifest_len", self.manifest.into(), 1, MAX_MANIFEST.into())?;
        over("sigs_len", self.sigs.into(), 0, sigs_len(MAX_SIGNATURES).into())?;
        over("payload_len", self.payload, 0, MAX_PAYLOAD)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; PREAMBLE] {
        let mut bytes = [0; PREAMBLE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_be_bytes());
        bytes[10] = self.bundle_type as u8;
        bytes[12..16].copy_from_slice(&self.trust.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.manifest.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.sigs.to_be_bytes());
        bytes[24..].copy_from_slice(&self.payload.to_be_bytes());
        bytes
    }

    /// Bytes before the payload.
    #[must_use]
    pub fn head_len(&self) -> u64 {
        PREAMBLE as u64 + u64::from(self.trust) + u64::from(self.manifest) + u64::from(self.sigs)
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.payload
    }

    /// Bytes of the whole bundle.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.head_len() + self.payload
    }
}

const fn sigs_len(n: u8) -> u32 {
    1 + SIGNATURE as u32 * n as u32
}

/// All before the payload, in memory.
#[derive(Debug, Clone)]
pub struct Head {
    preamble: Preamble,
    bytes: Vec<u8>,
}

impl Head {
    /// Steps 1 to 5: reads the head of a bundle that is `length` bytes long.
    pub fn read(source: &mut dyn Read, length: u64) -> Result<Self, Refused> {
        let mut first = [0; PREAMBLE];
        let got = fill(source, &mut first)?;
        let magic = got.min(MAGIC.len());
        if first[..magic] != MAGIC[..magic] {
            return Err(Refused::BadMagic("the first bytes are not those of a bundle".into()));
        }
        if got < PREAMBLE {
            return Err(Refused::Truncated(format!("{got} bytes; the preamble alone has {PREAMBLE}")));
        }
        // 1 to 3
        let preamble = Preamble::parse(&first)?;
        // 4 exact file length
        let expected = preamble.file_len();
        if length < expected {
            return Err(Refused::Truncated(format!("{length} bytes of {expected}")));
        }
        if length > expected {
            return Err(Refused::TrailingData(format!("{length} bytes; the bundle ends at {expected}")));
        }
        // 5 read the head
        let head = usize::try_from(preamble.head_len()).expect("the section limits keep the head below 386 KiB");
        let mut bytes = vec![0; head];
        bytes[..PREAMBLE].copy_from_slice(&first);
        let got = fill(source, &mut bytes[PREAMBLE..])?;
        if got + PREAMBLE < head {
            return Err(Refused::Truncated(format!("the head ends after {} bytes of {head}", got + PREAMBLE)));
        }
        // 3 again, now that the count byte is here: it must be the n of sigs_len = 1 + 96n
        let count = bytes[head - preamble.sigs as usize];
        if sigs_len(count) != preamble.sigs {
            let detail = format!("it counts {count} signatures, which sigs_len {} does not hold", preamble.sigs);
            return Err(Refused::SigSectionMalformed(detail));
        }
        Ok(Self { preamble, bytes })
    }

    /// The head's exact bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its first 32 bytes.
    #[must_use]
    pub fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// The trust chain's exact bytes.
    #[must_use]
    pub fn trust(&self) -> &[u8] {
        &self.bytes[PREAMBLE..][..self.preamble.trust as usize]
    }

    /// The manifest's exact bytes: what is signed, and whose SHA-256 is the bundle's identity.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.bytes[PREAMBLE + self.preamble.trust as usize..][..self.preamble.manifest as usize]
    }

    /// The manifest's signatures, ascending by key id.
    pub fn signatures(&self) -> Result<Vec<Signature>, Refused> {
        let block = &self.bytes[self.bytes.len() - self.preamble.sigs as usize..];
        let (signatures, rest) = take_signatures(block)?;
        debug_assert!(rest.is_empty(), "the count was checked when the head was read");
        Ok(signatures)
    }

    /// The documents of the trust chain, in file order.
    pub fn chain(&self) -> Result<Vec<ChainLink<'_>>, Refused> {
        chain(self.trust())
    }
}

/// The links of a trust chain; no bytes are no links.
pub fn chain(bytes: &[u8]) -> Result<Vec<ChainLink<'_>>, Refused> {
    let mut links = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if links.len() == MAX_CHAIN {
            return Err(Refused::RootChainMalformed(format!("more than {MAX_CHAIN} documents")));
        }
        let cut = || Refused::RootChainMalformed("a document ends outside the section".into());
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length);
        if !(1..=MAX_ROOT).contains(&length) {
            return Err(Refused::RootChainMalformed(format!("doc_len is {length}; the limits are 1 to {MAX_ROOT}")));
        }
        let (document, after) = after.split_at_checked(length as usize).ok_or_else(cut)?;
        let (signatures, after) = take_signatures(after).map_err(|refused| match refused {
            Refused::SigSectionMalformed(detail) => Refused::RootChainMalformed(detail),
            other => other,
        })?;
        let (bytes, _) = rest.split_at(rest.len() - after.len());
        links.push(ChainLink { bytes, document, signatures });
        rest = after;
    }
    Ok(links)
}

/// A signature block from the front of `bytes`, and what follows it.
pub(super) fn take_signatures(bytes: &[u8]) -> Result<(Vec<Signature>, &[u8]), Refused> {
    let cut = || Refused::SigSectionMalformed("the block ends inside a signature".into());
    let (count, mut rest) = bytes.split_first().ok_or_else(cut)?;
    if *count > MAX_SIGNATURES {
        return Err(Refused::SigSectionMalformed(format!("{count} signatures; at most {MAX_SIGNATURES}")));
    }
    let mut signatures: Vec<Signature> = Vec::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let (key, after) = rest.split_first_chunk::<32>().ok_or_else(cut)?;
        let (signature, after) = after.split_first_chunk::<64>().ok_or_else(cut)?;
        let key = KeyId(*key);
        if signatures.last().is_some_and(|before| before.key >= key) {
            return Err(Refused::SignersNotAscending("the key ids of the signatures do not ascend".into()));
        }
        signatures.push(Signature { key, bytes: *signature });
        rest = after;
    }
    Ok((signatures, rest))
}

/// A signature block's bytes. The caller keeps the key ids ascending and the count within the limit.
#[must_use]
pub fn signature_block(signatures: &[Signature]) -> Vec<u8> {
    debug_assert!(signatures.is_sorted_by(|a, b| a.key < b.key));
    let count = u8::try_from(signatures.len()).expect("at most sixteen signatures");
    let mut block = vec![count];
    for signature in signatures {
        block.extend_from_slice(&signature.key.0);
        block.extend_from_slice(&signature.bytes);
    }
    block
}

/// Reads until `buffer` is full or the source ends; how much was read.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Refused> {
    let mut got = 0;
    while got < buffer.len() {
        match source.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Refused::SourceIo(format!("reading the bundle: {error}"))),
        }
    }
    Ok(got)
}
