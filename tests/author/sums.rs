//! The checksums of a release: signed by who made it, checked by who installs it.

use std::fs;

use tidegate::exit;

use crate::program::{done, refused};

#[test]
fn what_the_release_key_signed_is_good_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p", "--no-passphrase"]);
    fs::write(at.join("a.deb"), "a\n").expect("a file");
    let a = "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7";
    let b = "0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f";
    fs::write(at.join("SHA256SUMS"), format!("{a}  a.deb\n{b}  b.tar.gz\n")).expect("a file");

    let verify = ["sums", "verify", "SHA256SUMS", "--root", "p/root.json"];
    let told = refused(at, exit::DATA, &verify);
    assert!(told.contains("ThresholdNotMet") && !told.contains("a.deb"), "{told}");
    let sign = |key| ["sums", "sign", "SHA256SUMS", "--root", "p/root.json", "--yes", "--key", key];
    let told = refused(at, exit::DATA, &sign("p/keys/policy.key"));
    assert!(told.contains("does not have the role release"), "{told}");
    let told = refused(at, exit::USAGE, &sign("p/keys/release.key")[..5]);
    assert!(told.contains("--key"), "{told}");
    let told = done(at, &sign("p/keys/release.key"));
    assert!(told.contains("It has 1 of 1 signatures"), "{told}");

    let told = done(at, &verify);
    assert!(told.contains("good      a.deb") && told.contains("not here  b.tar.gz"), "{told}");
    fs::write(at.join("b.tar.gz"), "b\n").expect("a file");
    assert_eq!(done(at, &verify).matches("good").count(), 2);
    fs::write(at.join("b.tar.gz"), "c\n").expect("a file");
    let told = refused(at, exit::DATA, &verify);
    assert!(told.contains("WRONG     b.tar.gz") && told.contains("good      a.deb"), "{told}");
    for file in ["a.deb", "b.tar.gz"] {
        fs::remove_file(at.join(file)).expect("it was there");
    }
    let told = refused(at, exit::DATA, &verify);
    assert!(told.contains("none of the files is here"), "{told}");

    fs::write(at.join("SHA256SUMS"), format!("{b}  a.deb\n")).expect("a file");
    assert!(refused(at, exit::DATA, &verify).contains("SignatureInvalid"));
}
