//! The linker folds functions with the same code into one where it can: some 100 KB of a daemon of 5 MB.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Only where rustc brings its own linker (LLD), and only in what ships: nothing compares functions there.
    if is("TARGET", "x86_64-unknown-linux-gnu") && is("PROFILE", "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
