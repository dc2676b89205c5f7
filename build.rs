//! Asked by `TIDEGATE_ICF=1`, the linker folds functions with the same code into one: some 100 KB of a daemon of 5 MB.
//! Not for everybody: it takes LLD, which rustc brings for this target but which a toolchain may be set up to pass over.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TIDEGATE_ICF");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Only in what ships: nothing compares functions there.
    if is("TIDEGATE_ICF", "1") && is("TARGET", "x86_64-unknown-linux-gnu") && is("PROFILE", "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
