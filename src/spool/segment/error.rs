//! Every reason to refuse a usage file, by name.

/// Why a usage file is refused or cannot be made. The variants are in the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than its lengths say: copy it again from its source.
    #[error("the file is cut off")]
    Truncated,
    /// Not a usage file, or damaged by a text-mode copy.
    #[error("not a usage file")]
    BadMagic,
    /// Written by a newer Tidegate: update this program.
    #[error("unsupported format")]
    UnsupportedFormat,
    /// Written by a newer Tidegate: update this program.
    #[error("unknown kind of usage file")]
    UnknownKind,
    /// Altered, or written by a newer Tidegate.
    #[error("a reserved byte is not zero")]
    ReservedNotZero,
    /// A length is beyond its limit: altered, or not made by Tidegate.
    #[error("a section is larger than its limit")]
    SectionTooLarge,
    /// Bytes follow the end: copy it again from its source.
    #[error("bytes follow the end of the file")]
    TrailingData,
    /// The header is not of this format: altered.
    #[error("malformed header")]
    HeaderMalformed,
    /// Another device's file, or the device has a new key: enrol the device's present key.
    #[error("the file names another key")]
    KeyMismatch,
    /// Altered, or not made by the device: keep it apart and look into it.
    #[error("invalid signature")]
    SignatureInvalid,
    /// The body was altered after signing: copy it again from its source.
    #[error("the body does not have the signed digest")]
    BodyDigestMismatch,
    /// The body is not one zstd frame of the announced length: a defect of the device.
    #[error("the body does not decompress to its announced length")]
    BodyNotZstd,
    /// The columns are not of this format: a defect of the device.
    #[error("malformed columns")]
    ColumnsMalformed,
    /// Rows, counts or times are not those of the header: a defect of the device.
    #[error("the rows are not those that the header tells")]
    RowsMismatch,
    /// The builder holds as much as a file may: seal it and go on with the next.
    #[error("the file is full")]
    Full,
    /// Nothing to seal.
    #[error("no rows")]
    Empty,
    /// The sequence number is 0, too high, or does not fit `previous`: a defect of the caller.
    #[error("an impossible place in the chain")]
    BadPlace,
    /// Compression failed, for want of memory: try again.
    #[error("compression failed")]
    Compress,
}

impl Error {
    /// Its name in problem documents, logs and docs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "Truncated",
            Self::BadMagic => "BadMagic",
            Self::UnsupportedFormat => "UnsupportedFormat",
            Self::UnknownKind => "UnknownKind",
            Self::ReservedNotZero => "ReservedNotZero",
            Self::SectionTooLarge => "SectionTooLarge",
            Self::TrailingData => "TrailingData",
            Self::HeaderMalformed => "HeaderMalformed",
            Self::KeyMismatch => "KeyMismatch",
            Self::SignatureInvalid => "SignatureInvalid",
            Self::BodyDigestMismatch => "BodyDigestMismatch",
            Self::BodyNotZstd => "BodyNotZstd",
            Self::ColumnsMalformed => "ColumnsMalformed",
            Self::RowsMismatch => "RowsMismatch",
            Self::Full => "Full",
            Self::Empty => "Empty",
            Self::BadPlace => "BadPlace",
            Self::Compress => "Compress",
        }
    }
}
