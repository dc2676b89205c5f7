//! Every truncation and every flipped bit of a sound file of each type. The whole file is taken at the end.

use super::sound::{self, SEQ};
use super::{Arrange, Folder, documents, folder, lists, permits, resets};

fn sweep(
    slug: &str,
    about: &str,
    arrange: Arrange,
    expect: &[&str],
    file: &str,
    bytes: Vec<u8>,
    taken: &str,
) -> Folder {
    let expect: Vec<String> = expect.iter().map(|name| (*name).to_owned()).collect();
    folder("sweeps", slug, about)
        .offer(file, "", bytes)
        .arranged(arrange)
        .with(|offer| offer.expect = expect)
        .again(file, taken)
        .with(|offer| offer.floor = (taken == "TimeReset").then_some(resets::AT))
}

/// By which names the flips of a file of that type are refused. A document has its signatures in text, and no lengths.
fn bits(slug: &str) -> &'static [&'static str] {
    match slug {
        "policy" => &[
            "BadMagic",
            "EntryDigestMismatch",
            "ReservedNotZero",
            "SectionTooLarge",
            "SigSectionMalformed",
            "SignatureInvalid",
            "SignersNotAscending",
            "ThresholdNotMet",
            "TrailingData",
            "Truncated",
            "UnknownBundleType",
            "UnsupportedFormat",
        ],
        "list" => &[
            "BadMagic",
            "EntryDigestMismatch",
            "ReservedNotZero",
            "SectionTooLarge",
            "SigSectionMalformed",
            "SignatureInvalid",
            "ThresholdNotMet",
            "TrailingData",
            "Truncated",
            "UnknownBundleType",
            "UnsupportedFormat",
        ],
        "permit" => &[
            "BadMagic",
            "ReservedNotZero",
            "SectionTooLarge",
            "SigSectionMalformed",
            "SignatureInvalid",
            "ThresholdNotMet",
            "TrailingData",
            "Truncated",
            "UnknownBundleType",
            "UnsupportedFormat",
        ],
        "enrolment" => &[
            "BadMagic",
            "SigSectionMalformed",
            "SignatureInvalid",
            "SignersNotAscending",
            "ThresholdNotMet",
            "Truncated",
            "UnknownBundleType",
        ],
        _ => &[
            "BadMagic",
            "SectionTooLarge",
            "SignatureInvalid",
            "SignersNotAscending",
            "ThresholdNotMet",
            "TrailingData",
            "Truncated",
            "UnsupportedFormat",
        ],
    }
}

pub fn cases() -> Vec<Folder> {
    let rotated = || {
        let next = sound::policy_under(&sound::third(), SEQ + 1, "next", &[14, 15]);
        sound::bringing(&next, &[sound::to_third()])
    };
    let files = [
        ("policy", "candidate.tgb", sound::policy(SEQ + 1, "next"), "Activated"),
        ("list", "candidate.tgb", lists::parts().signed(&sound::LISTS), "Activated"),
        ("permit", "candidate.tgb", permits::parts().signed(&sound::PERMITS), "Permitted"),
        ("enrolment", "candidate.tgd", documents::enrolment(1, "quay"), "Enrolled"),
        ("time-reset", "candidate.tgb", resets::reset(1), "TimeReset"),
    ];
    let mut cases = Vec::new();
    for (slug, file, bytes, taken) in files {
        // What is shorter than the first word of a document begins like nothing.
        let truncated: &[&str] = if slug == "enrolment" { &["BadMagic", "Truncated"] } else { &["Truncated"] };
        let about = format!("Every truncation of a sound file: {slug}.");
        cases.push(sweep(
            &format!("{slug}-truncated"),
            &about,
            Arrange::EveryTruncation,
            truncated,
            file,
            bytes.clone(),
            taken,
        ));
        let about = format!("Every flipped bit of a sound file: {slug}.");
        cases.push(sweep(&format!("{slug}-flipped"), &about, Arrange::EveryBit, bits(slug), file, bytes, taken));
    }
    let about = "Every truncation of a sound policy that brings the next root.";
    cases.push(
        sweep(
            "rotation-truncated",
            about,
            Arrange::EveryTruncation,
            &["Truncated"],
            "candidate.tgb",
            rotated(),
            "Activated",
        )
        .keeps_root(3),
    );
    cases
}
