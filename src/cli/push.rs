//! `tidegate push`: a bundle into a device's inbox by the system's ssh and scp, and the receipt back.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::carry::{inbox_name, is_of, unverified};
use super::{Refusal, receipt};
use crate::bundle::container::MAX_FILE;
use crate::bundle::document::MAX_DOCUMENT;
use crate::bundle::receipt::ENDING;
use crate::bundle::{Receipt, is_taken};
use crate::disk;
use crate::ids::Digest;
use crate::keys::sha256;

/// What the remote side ends with where no receipt came in time: EX_TEMPFAIL of sysexits.
const NO_RECEIPT: i32 = 75;

/// How a receipt begins to name the file that it is of; no text in it can hold these quotes.
const MEMBER: &str = r#""file_sha256":""#;

/// Copy a bundle to a device over ssh, wait until it is judged, and print the receipt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate push ops@pump-3 policy-7.tgb")]
pub(super) struct Push {
    /// The device, as ssh names it: user@host, or a host of ssh's own settings. The user is in the group tidegate.
    to: String,
    /// The bundle, or the enrolment.
    file: PathBuf,
    /// The daemon's inbox on the device.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tidegate/inbox")]
    inbox: String,
    /// How long the device may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u32,
    /// Where the receipt is kept.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    #[command(flatten)]
    believe: receipt::Believe,
}

pub(super) fn run(arguments: &Push) -> anyhow::Result<()> {
    let Push { to, file, inbox, wait, .. } = arguments;
    if to.is_empty() || to.starts_with('-') || to.contains(|c: char| c.is_whitespace() || c.is_control()) {
        bail!("{to:?} is no destination of ssh");
    }
    // scp may hand a path to a shell over there, depending on its age: only what no shell sees anything in.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !inbox.starts_with('/') || !inbox.chars().all(plain) {
        bail!("the inbox {inbox:?}: an absolute path of letters, digits, dot, dash and underscore is needed");
    }
    let key = arguments.believe.key()?;
    // Absolute, so that no name is taken for an option or for a host.
    let named = || format!("bundle {}", file.display());
    let source = file.canonicalize().with_context(named)?;
    let sent = sha256(&disk::read_limited(&source, MAX_FILE).with_context(named)?);
    let name = inbox_name("scp", &peer(), source.file_name().unwrap_or_default());

    let status = Command::new("scp")
        .args(["-q", "--"])
        .arg(&source)
        .arg(format!("{to}:{inbox}/.{name}.part"))
        .status()
        .context("scp cannot be run: is it installed?")?;
    if !status.success() {
        bail!("scp could not copy to {inbox} of {to}: {status}");
    }
    let mut child = Command::new("ssh")
        .arg("--")
        .arg(to)
        .arg(script(inbox, &name, sent, *wait))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("ssh cannot be run: is it installed?")?;
    let mut bytes = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).context("reading the receipt")?;
    }
    let status = child.wait().context("waiting for ssh")?;
    match status.code() {
        Some(0) => {}
        Some(NO_RECEIPT) => {
            bail!("no receipt of this file within {wait} s: is tidegated running on {to}? The bundle is in {inbox}")
        }
        _ => bail!("ssh to {to} failed: {status}"),
    }
    let receipt = match key {
        Some(key) => Receipt::verify(&bytes, &key)?,
        None => unverified(&bytes).context("the device's answer")?,
    };
    if !is_of(&receipt, sent) {
        bail!("the receipt that came is of another file, or {} changed while it was sent: push again", file.display());
    }
    keep(arguments.receipt.as_deref(), &bytes)?;
    print!("{}", receipt::told(&receipt));
    if arguments.believe.is_blind() {
        println!("not verified: name the device's key with --device-key, or its enrolment");
    }
    if is_taken(&receipt.result) { Ok(()) } else { Err(Refusal.into()) }
}

fn keep(path: Option<&Path>, bytes: &[u8]) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    disk::replace(path, bytes, 0o644).with_context(|| format!("writing {}", path.display()))
}

/// For the device's own shell: moves the copy in, waits for its receipt, prints it. One of another file that had the same
/// name is passed over; one that names no file may be this one's, and is judged here.
fn script(inbox: &str, name: &str, sent: Digest, wait: u32) -> String {
    let (dir, part) = (quoted(inbox), quoted(&format!(".{name}.part")));
    let (name, result) = (quoted(name), quoted(&format!("{name}{ENDING}")));
    format!(
        "cd {dir} && rm -f -- {result} && chmod 640 -- {part} && mv -f -- {part} {name} && n=0 && \
         until [ -f {result} ] && {{ grep -q '{MEMBER}{sent}\"' {result} || ! grep -q '{MEMBER}' {result}; }}; do \
         [ $n -lt {wait} ] || exit {NO_RECEIPT}; n=$((n+1)); sleep 1; done && \
         exec cat -- {result}"
    )
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Who pushes, as far as this machine knows.
fn peer() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word_of_a_shell() {
        for text in ["a", "it's", "$(reboot) `id` \"x\" \\ *", "-rf", "a\nb", "'"] {
            let printed = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(text))).output();
            assert_eq!(printed.expect("a shell").stdout, text.as_bytes());
        }
    }
}
