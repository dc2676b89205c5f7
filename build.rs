//! Has the linker fold functions of the same code into one in what ships, on x86-64: some 30 KB of a daemon of 5 MB. That
//! takes LLD, which rustc brings for this target and which a toolchain may be set up to pass over: so it is tried first.

use std::path::PathBuf;
use std::process::{Command, Stdio};

const FOLD: &str = "-Wl,--icf=all";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Profile `dist` alone has this level. Nothing compares functions there.
    if is("OPT_LEVEL", "s") && is("TARGET", "x86_64-unknown-linux-gnu") && can_fold() {
        println!("cargo:rustc-link-arg-bins={FOLD}");
    }
}

/// Whether an empty program can be linked so, by the compiler, flags and linker of this build.
fn can_fold() -> bool {
    let (Some(rustc), Some(folder)) = (std::env::var_os("RUSTC"), std::env::var_os("OUT_DIR")) else { return false };
    let (source, program) = (PathBuf::from(&folder).join("empty.rs"), PathBuf::from(&folder).join("empty"));
    if std::fs::write(&source, "fn main() {}").is_err() {
        return false;
    }
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let linker = std::env::var("RUSTC_LINKER").map(|linker| format!("-Clinker={linker}"));
    let mut rustc = Command::new(rustc);
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty())).args(linker).arg(format!("-Clink-arg={FOLD}"));
    rustc.arg("-o").arg(program).arg(source).stdout(Stdio::null()).stderr(Stdio::null());
    rustc.status().is_ok_and(|status| status.success())
}
