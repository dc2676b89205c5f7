//! Has the linker make what ships smaller, on x86-64: functions of the same code become one (some 30 KB of a daemon of
//! 5 MB), and relocations are packed (`DT_RELR`, which glibc reads from 2.36 on and older ones refuse by name). That takes
//! LLD, which rustc brings for this target and which a toolchain may be set up to pass over: so each is tried first.

use std::path::PathBuf;
use std::process::{Command, Stdio};

const SMALLER: [&str; 2] = ["-Wl,--icf=all", "-Wl,-z,pack-relative-relocs"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Profile `dist` alone has this level. Nothing compares functions there.
    if is("OPT_LEVEL", "s") && is("TARGET", "x86_64-unknown-linux-gnu") {
        for flag in SMALLER.into_iter().filter(|flag| can_link(flag)) {
            println!("cargo:rustc-link-arg-bins={flag}");
        }
    }
}

/// Whether an empty program can be linked so, by the compiler, flags and linker of this build, and runs.
fn can_link(flag: &str) -> bool {
    let (Some(rustc), Some(folder)) = (std::env::var_os("RUSTC"), std::env::var_os("OUT_DIR")) else { return false };
    let (source, program) = (PathBuf::from(&folder).join("empty.rs"), PathBuf::from(&folder).join("empty"));
    if std::fs::write(&source, "fn main() {}").is_err() {
        return false;
    }
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let linker = std::env::var("RUSTC_LINKER").map(|linker| format!("-Clinker={linker}"));
    let mut rustc = Command::new(rustc);
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty())).args(linker).arg(format!("-Clink-arg={flag}"));
    rustc.arg("-o").arg(&program).arg(source).stdout(Stdio::null()).stderr(Stdio::null());
    rustc.status().is_ok_and(|status| status.success())
        && Command::new(&program).status().is_ok_and(|status| status.success())
}
