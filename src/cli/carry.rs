//! What `sideload` and `push` share: names that are safe anywhere, and which receipt is a file's.

use std::ffi::OsStr;

use crate::bundle::document::{Document, DocumentKind};
use crate::bundle::{Receipt, is_taken};
use crate::ids::Digest;

/// Longest name that a file gets in an inbox, of its own.
const MAX_NAME: usize = 96;

/// A name for the inbox that says how the file came: `usb=0781:5567=policy-7.tgb`. Whatever could mean something to a
/// shell, a terminal or a file system is written as `_`.
pub(super) fn inbox_name(medium: &str, from: &str, name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let (stem, ending) = name.rsplit_once('.').unwrap_or((&name, "tgb"));
    let ending = if ending == "tgd" { "tgd" } else { "tgb" };
    format!("{medium}={}={}.{ending}", safe(from), safe(stem))
}

fn safe(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':');
    text.chars().take(MAX_NAME).map(|c| if plain(c) { c } else { '_' }).collect()
}

/// Whether it is the word on the file that was sent, by that one's SHA-256. A receipt without one is of a file that the
/// device could not copy: of any file, but never of one that was taken.
pub(super) fn is_of(receipt: &Receipt, sent: Digest) -> bool {
    receipt.file_sha256.map_or(!is_taken(&receipt.result), |judged| judged == sent)
}

/// A receipt as it was found, not verified.
pub(super) fn unverified(bytes: &[u8]) -> anyhow::Result<Receipt> {
    let document = Document::parse(bytes)?;
    document.expect(DocumentKind::ImportReceipt)?;
    Ok(document.read()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_the_inbox_means_nothing_to_anybody() {
        for (name, safe) in [
            ("policy-7.tgb", "usb=a b"),
            ("$(reboot); rm -rf *.tgb", "usb=a b"),
            ("a/../b\n'\".tgd", "usb=a b"),
            (".tgb", "usb=a b"),
            (&"x".repeat(4_000), "usb=a b"),
        ] {
            let made = inbox_name("usb", safe, OsStr::new(name));
            assert!(made.len() < 255 && made.starts_with("usb=usb_a_b="), "{made}");
            assert!(made.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@:=".contains(&b)), "{made}");
        }
        assert_eq!(inbox_name("scp", "ada@desk", OsStr::new("p.tgd")), "scp=ada@desk=p.tgd");
    }
}
