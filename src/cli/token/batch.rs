//! The list of `token mint --batch`: whom the tokens are for, a line each.
//!
//! ```text
//! sub,client,scope,x5t#S256
//! ada,till-1,orders:write stock:read,
//! ,till-2,,dGhpcnR5LXR3byBieXRlcyBvZiBhIFNIQS0yNTYuLi4
//! ```
//!
//! RFC 4180 with a header line that names the columns, in any order; one of `sub` and `client` has to be there and filled.
//! `scope` has single spaces between scopes, and stands in place of the command's. `x5t#S256` (RFC 8705, 3.1: the
//! base64url SHA-256 of a certificate) binds the token to whoever has the certificate's key.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Most bytes of a list: some fifty thousand tokens.
pub(super) const MAX_LIST: u64 = 4 << 20;

const COLUMNS: [&str; 4] = ["sub", "client", "scope", "x5t#S256"];

/// Whom one token is for. What is empty in the list is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) sub: Option<String>,
    pub(super) client: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) x5t: Option<String>,
}

/// Reads the whole list; nothing is minted of one that has an error anywhere.
pub(super) fn read(list: &[u8]) -> anyhow::Result<Vec<Holder>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(list);
    let header = reader.headers().context("not CSV")?.clone();
    if let Some(unknown) = header.iter().find(|column| !COLUMNS.contains(column)) {
        bail!("there is no column {unknown:?}: the columns are {}", COLUMNS.join(", "));
    }
    if let Some(twice) = COLUMNS.iter().find(|name| header.iter().filter(|column| column == *name).count() > 1) {
        bail!("the column {twice:?} is there twice");
    }
    let column = |name| header.iter().position(|column| column == name);
    let [sub, client, scope, x5t] = COLUMNS.map(column);
    let mut holders = Vec::new();
    for record in reader.records() {
        let record = record.context("not CSV")?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |at: Option<usize>| record.get(at?).filter(|cell| !cell.is_empty()).map(str::to_owned);
        let holder = Holder { sub: cell(sub), client: cell(client), scope: cell(scope), x5t: cell(x5t) };
        ensure!(holder.sub.is_some() || holder.client.is_some(), "line {line}: neither sub nor client is filled");
        if let Some(x5t) = &holder.x5t {
            let is_sha256 = URL_SAFE_NO_PAD.decode(x5t).is_ok_and(|bytes| bytes.len() == 32);
            ensure!(is_sha256, "line {line}: {x5t:?} is not a SHA-256 in base64url");
        }
        holders.push(holder);
    }
    ensure!(!holders.is_empty(), "the list names nobody");
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X5T: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    #[test]
    fn a_list_reads_with_its_columns_in_any_order_and_empty_cells_are_absent() {
        let text = format!("client, x5t#S256, sub\ntill-1,{X5T},\"Ada, L.\"\ntill-2,,\n");
        let read = read(text.as_bytes()).expect("a good list");
        let text = |text: &str| Some(text.to_owned());
        let first = Holder { sub: text("Ada, L."), client: text("till-1"), scope: None, x5t: text(X5T) };
        assert_eq!(read, [first, Holder { client: text("till-2"), ..Holder::default() }]);
    }

    #[test]
    fn a_wrong_list_says_where_it_is_wrong() {
        for (list, says) in [
            ("", "names nobody"),
            ("sub\n", "names nobody"),
            ("subject\nada\n", "\"subject\""),
            ("sub,sub\na,b\n", "twice"),
            ("sub,client\na,b\n,\n", "line 3"),
            ("sub,x5t#S256\na,AAAA\n", "line 2"),
            ("sub,client\na\n", "not CSV"),
        ] {
            let error = format!("{:#}", read(list.as_bytes()).expect_err(list));
            assert!(error.contains(says), "{list:?}: {error}");
        }
    }
}
