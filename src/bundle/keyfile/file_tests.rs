use super::*;
use std::fs;

fn rights(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_reads_back_from_a_file_that_only_its_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ada.key");
    let made = AuthorKey::generate("ada").unwrap();
    made.create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = AuthorKey::open(&path).unwrap();
    assert_eq!((read.name.as_str(), read.key.public()), ("ada", made.key.public()));
    assert!(matches!(made.create(&path), Err(KeyFileError::Io(_))), "never written over");
    rights(&path, 0o640);
    assert!(matches!(AuthorKey::open(&path), Err(KeyFileError::TooOpen)));
}

#[test]
fn a_damaged_key_file_is_refused_and_its_seed_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ada.key");
    AuthorKey::generate("ada").unwrap().create(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let seed = text.split("\"seed\":\"").nth(1).unwrap().get(..64).unwrap().to_owned();
    for length in 0..whole.len() - 2 {
        fs::write(&path, &whole[..length]).unwrap();
        let error = AuthorKey::open(&path).unwrap_err();
        assert!(!error.to_string().contains(&seed), "{length}: {error}");
    }
    let other = seed.replacen(|_: char| true, if seed.starts_with('0') { "1" } else { "0" }, 1);
    fs::write(&path, text.replace(&seed, &other)).unwrap();
    assert!(matches!(AuthorKey::open(&path), Err(KeyFileError::Form(_))), "another seed than its public key");
}

#[test]
fn the_public_half_is_read_from_either_file_and_never_signs() {
    let folder = tempfile::tempdir().unwrap();
    let [private, public] = ["ada.key", "ada.pub"].map(|name| folder.path().join(name));
    let made = AuthorKey::generate("ada").unwrap();
    made.create(&private).unwrap();
    made.public().create(&public).unwrap();
    assert_eq!(PublicHalf::open(&private).unwrap(), (made.public(), Secret::Clear));
    assert_eq!(PublicHalf::open(&public).unwrap(), (made.public(), Secret::Absent));
    assert!(matches!(AuthorKey::open(&public), Err(KeyFileError::PublicOnly)));
    let other = fs::read_to_string(&public).unwrap().replacen("\"key_id\":\"", "\"key_id\":\"0", 1);
    fs::write(&public, other).unwrap();
    assert!(matches!(PublicHalf::open(&public), Err(KeyFileError::Form(_))));
}

#[cfg(feature = "passphrase")]
mod encrypted {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).unwrap()
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_and_with_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ada.key");
        let made = AuthorKey::generate("ada").unwrap();
        made.create_with(&path, Some(&passphrase("a stone in the tide"))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&hex(made.key.seed())) && !text.contains("seed"), "{text}");
        assert_eq!(PublicHalf::open(&path).unwrap(), (made.public(), Secret::Encrypted));
        let open = |text: &str| AuthorKey::open_with(&path, |_| Ok(passphrase(text)));
        assert_eq!(open("a stone in the tide").unwrap().key.seed(), made.key.seed());
        for wrong in ["a stone in the tid", "a stone in the tide ", "A stone in the tide"] {
            assert!(matches!(open(wrong), Err(KeyFileError::WrongPassphrase)), "{wrong}");
        }
        assert!(matches!(AuthorKey::open(&path), Err(KeyFileError::Encrypted)));
        // To clear and back: the file is always this key.
        made.replace(&path, None).unwrap();
        assert_eq!(AuthorKey::open(&path).unwrap().key.public(), made.key.public());
        let other = AuthorKey::generate("ada").unwrap();
        assert!(matches!(other.replace(&path, None), Err(KeyFileError::Form(_))), "never written over");
    }

    #[test]
    fn a_damaged_encrypted_key_is_told_from_a_wrong_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ada.key");
        AuthorKey::generate("ada").unwrap().create_with(&path, Some(&passphrase("p"))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let at = text.find("\"encrypted\":\"").unwrap() + 13;
        for offset in [1, 40, 100, 150] {
            let mut bytes = text.clone().into_bytes();
            bytes[at + offset] = if bytes[at + offset] == b'A' { b'B' } else { b'A' };
            fs::write(&path, &bytes).unwrap();
            let asked = AuthorKey::open_with(&path, |_| panic!("a damaged file asks for nothing"));
            assert!(matches!(asked, Err(KeyFileError::Damaged)), "{offset}: {asked:?}");
        }
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(AuthorKey::open(&path), Err(KeyFileError::Form(_))));
    }
}
