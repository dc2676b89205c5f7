//! What a person says before a key signs: the first digits of the digest of what is signed, typed and not clicked.

use std::io::{self, BufRead, IsTerminal as _, Write};

use anyhow::bail;

use crate::ids::Digest;

/// So many hex digits of the digest are typed.
const TYPED: usize = 8;

/// How the signer says that this is to be signed.
#[derive(Debug, clap::Args)]
pub(super) struct Confirm {
    /// Sign without asking.
    #[arg(long)]
    yes: bool,
    /// Sign without asking if this is the digest of what is signed, else not at all: exit code 65.
    #[arg(long, value_name = "DIGEST")]
    confirm: Option<Digest>,
}

impl Confirm {
    /// Whether a script signs, and no person.
    pub(super) fn asks_nobody(&self) -> bool {
        self.yes
    }

    /// Ends well only if what has this `digest` is to be signed by `names`.
    pub(super) fn check(&self, digest: Digest, names: &str) -> anyhow::Result<()> {
        match self.confirm {
            Some(wanted) if wanted != digest => {
                bail!("not signed: its digest is {digest}, and --confirm says {wanted}")
            }
            Some(_) => return Ok(()),
            None if self.yes => return Ok(()),
            None => {}
        }
        if !io::stdin().is_terminal() {
            bail!(
                "not signed: standard input is not a terminal, so nobody can confirm; read what is shown above, then \
                 run the same command again with --confirm {digest}"
            );
        }
        if !typed(digest, names, &mut io::stdin().lock(), &mut io::stdout())? {
            bail!("not signed: these are not the first {TYPED} digits of its digest");
        }
        Ok(())
    }
}

/// Asks, and says whether the answer is the beginning of the digest.
fn typed(digest: Digest, names: &str, from: &mut dyn BufRead, to: &mut dyn Write) -> io::Result<bool> {
    write!(to, "\nTo sign this as {names}, type the first {TYPED} digits of its digest: ")?;
    to.flush()?;
    let mut answer = String::new();
    from.read_line(&mut answer)?;
    let answer = answer.trim().to_ascii_lowercase();
    Ok(answer.len() >= TYPED && digest.to_string().starts_with(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_the_digest_confirms() {
        let digest = Digest([0xa5; 32]);
        let mut asked = Vec::new();
        for (answer, confirms) in [
            ("a5a5a5a5\n", true),
            (" A5A5A5A5A5 \n", true),
            (&format!("{digest}\n"), true),
            ("a5a5a5a\n", false),
            ("y\n", false),
            ("yes\n", false),
            ("\n", false),
            ("", false),
            ("a5a5a5a6\n", false),
            (&format!("{digest}0\n"), false),
        ] {
            let answered = typed(digest, "\"ada\"", &mut answer.as_bytes(), &mut asked).expect("in memory");
            assert_eq!(answered, confirms, "{answer:?}");
        }
        assert!(String::from_utf8_lossy(&asked).contains("as \"ada\""));
    }
}
