//! Where the passphrase of a key comes from: a file, the environment, or the terminal, which does not show it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::bundle::keyfile::{AuthorKey, KeyFileError, MAX_PASSPHRASE, Passphrase, decrypt_pem, is_encrypted_pem};

/// The variable that holds the passphrase, for scripts.
pub(super) const VARIABLE: &str = "TIDEGATE_PASSPHRASE";
/// How often a person may mistype.
const TRIES: usize = 3;

/// Where the passphrase of the keys comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PassphraseSource {
    /// A file whose first line is the passphrase. Default: TIDEGATE_PASSPHRASE, else the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl PassphraseSource {
    /// Opens a key file, with its passphrase if it has one.
    pub(super) fn open(&self, path: &Path) -> anyhow::Result<AuthorKey> {
        let named = || format!("key {}", path.display());
        let given = self.given()?;
        let mut tries = if given.is_some() { 1 } else { TRIES };
        loop {
            let ask = |name: &str| match &given {
                Some(passphrase) => Ok(passphrase.clone()),
                None => ask(&format!("Passphrase of the key {name:?}: ")),
            };
            match AuthorKey::open_with(path, ask) {
                Err(KeyFileError::WrongPassphrase) if tries > 1 => eprintln!("That is not its passphrase."),
                opened => return opened.with_context(named),
            }
            tries -= 1;
        }
    }

    /// The text of a private key in PEM, decrypted if need be.
    pub(super) fn open_pem(&self, bytes: Vec<u8>, path: &Path) -> anyhow::Result<Vec<u8>> {
        if !is_encrypted_pem(&bytes) {
            return Ok(bytes);
        }
        let passphrase = match self.given()? {
            Some(passphrase) => passphrase,
            None => ask(&format!("Passphrase of {}: ", path.display()))?,
        };
        Ok(decrypt_pem(&String::from_utf8_lossy(&bytes), &passphrase)?.into_bytes())
    }

    /// The passphrase for new keys; `None` is that they shall lie in clear. The terminal is asked twice.
    pub(super) fn for_new(&self, what: &str) -> anyhow::Result<Option<Passphrase>> {
        let given = self.given()?;
        if given.is_some() && cfg!(not(feature = "passphrase")) {
            return Err(KeyFileError::NoSupport.into());
        }
        if given.is_some() || cfg!(not(feature = "passphrase")) || !io::stdin().is_terminal() {
            return Ok(given);
        }
        loop {
            let question = format!("Passphrase for {what} (empty: the keys lie in clear): ");
            let first = read_hidden(&question).context(NOBODY)?;
            if first.is_empty() {
                return Ok(None);
            }
            if read_hidden("The same again: ").context(NOBODY)? == first {
                return Ok(Some(Passphrase::new(&first).context(FORM)?));
            }
            eprintln!("These are not the same.");
        }
    }

    /// The passphrase that must be there.
    pub(super) fn needed(&self, what: &str) -> anyhow::Result<Passphrase> {
        match self.for_new(what)? {
            Some(passphrase) => Ok(passphrase),
            None => bail!("no passphrase: give --passphrase-file FILE or {VARIABLE}, or run this at a terminal"),
        }
    }

    /// From the file or the environment. An empty variable is none.
    fn given(&self) -> anyhow::Result<Option<Passphrase>> {
        if let Some(path) = &self.passphrase_file {
            let named = || format!("passphrase file {}", path.display());
            let file = File::open(path).with_context(named)?;
            let metadata = file.metadata().with_context(named)?;
            if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
                bail!("passphrase file {}: others may read it; it must have mode 0600", path.display());
            }
            let mut line = String::new();
            BufReader::new(file.take(MAX_PASSPHRASE as u64 + 2)).read_line(&mut line).with_context(named)?;
            let text = line.trim_end_matches(['\n', '\r']);
            return Ok(Some(Passphrase::new(text).with_context(|| format!("{}: {FORM}", path.display()))?));
        }
        match std::env::var(VARIABLE) {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => Ok(Some(Passphrase::new(&text).with_context(|| format!("{VARIABLE}: {FORM}"))?)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(error) => Err(error).context(VARIABLE),
        }
    }
}

const FORM: &str = "a passphrase is one line of 1 to 1024 bytes";
const NOBODY: &str = "no terminal to ask for the passphrase: give --passphrase-file FILE or TIDEGATE_PASSPHRASE";

fn ask(question: &str) -> Result<Passphrase, KeyFileError> {
    let text = read_hidden(question).map_err(|error| io::Error::new(error.kind(), format!("{NOBODY} ({error})")))?;
    Passphrase::new(&text).ok_or(KeyFileError::WrongPassphrase)
}

/// A line from the terminal, which does not show it.
fn read_hidden(question: &str) -> io::Result<String> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    // Hidden before it is asked for: who answers fast is not shown either.
    let hidden = Hidden::begin(&terminal)?;
    (&terminal).write_all(question.as_bytes())?;
    let mut line = String::new();
    BufReader::new((&terminal).take(MAX_PASSPHRASE as u64 + 2)).read_line(&mut line)?;
    drop(hidden);
    (&terminal).write_all(b"\n")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The terminal echoes nothing until this is dropped.
struct Hidden<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Hidden<'t> {
    fn begin(terminal: &'t File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
