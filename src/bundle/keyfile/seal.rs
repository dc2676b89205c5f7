//! Private keys under a passphrase: PKCS#8's EncryptedPrivateKeyInfo (RFC 5958, 3) by PBES2 with scrypt (RFC 7914, 7)
//! and AES-256-CBC, which OpenSSL reads and writes too.
//!
//! N = 2^14, r = 8, p = 5: OWASP's setting for scrypt that costs 16 MiB, the most that OpenSSL takes unasked. What is
//! read may cost [`MAX_MEMORY`] and [`MAX_ROUNDS`]: whoever gives a file may not fill the workstation's memory. There
//! is no tag over the content, so a wrong passphrase shows by what it gives: no padding, no PKCS#8, or another key
//! than the public half.

#[cfg(feature = "passphrase")]
pub use with::{decrypt_pem, encrypt_pem};
#[cfg(feature = "passphrase")]
pub(super) use with::{seal, unseal};
#[cfg(not(feature = "passphrase"))]
pub use without::{decrypt_pem, encrypt_pem};
#[cfg(not(feature = "passphrase"))]
pub(super) use without::{seal, unseal};

/// Whether this is a PEM file whose key is encrypted.
#[must_use]
pub fn is_encrypted_pem(file: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    file.trim_ascii_start().starts_with(BEGIN)
}

#[cfg(not(feature = "passphrase"))]
mod without {
    use super::super::{KeyFileError, Passphrase};

    pub(in super::super) fn seal(_: &[u8; 32], _: &Passphrase) -> Result<Vec<u8>, KeyFileError> {
        Err(KeyFileError::NoSupport)
    }

    pub(in super::super) fn unseal(_: &[u8], _: &Passphrase) -> Result<[u8; 32], KeyFileError> {
        Err(KeyFileError::NoSupport)
    }

    /// Not in this build.
    pub fn encrypt_pem(_: &str, _: &Passphrase) -> Result<String, KeyFileError> {
        Err(KeyFileError::NoSupport)
    }

    /// Not in this build.
    pub fn decrypt_pem(_: &str, _: &Passphrase) -> Result<String, KeyFileError> {
        Err(KeyFileError::NoSupport)
    }
}

#[cfg(feature = "passphrase")]
mod with {
    use pkcs8::der::pem::PemLabel as _;
    use pkcs8::der::{Decode as _, Encode as _, SecretDocument};
    use pkcs8::pkcs5::EncryptionScheme;
    use pkcs8::pkcs5::pbes2::{self, Kdf, Parameters, Salt, ScryptParams};
    use pkcs8::{EncryptedPrivateKeyInfoOwned, LineEnding, PrivateKeyInfoOwned};

    use super::super::{KeyFileError, Passphrase};
    use crate::keys::random;

    /// Most bytes that deriving a key may take.
    const MAX_MEMORY: u64 = 256 << 20;
    /// Most rounds: scrypt's p, and PBKDF2's iterations.
    const MAX_ROUNDS: (u16, u32) = (16, 10_000_000);

    const COST: u64 = 1 << 14;
    const BLOCK_SIZE: u16 = 8;
    const PARALLELIZATION: u16 = 5;

    /// An Ed25519 PrivateKeyInfo (RFC 8410, 7) up to the seed.
    const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

    /// The DER of the seed's EncryptedPrivateKeyInfo.
    pub(in super::super) fn seal(seed: &[u8; 32], passphrase: &Passphrase) -> Result<Vec<u8>, KeyFileError> {
        encrypt(&[&ED25519[..], seed].concat(), passphrase)
    }

    /// The seed again.
    pub(in super::super) fn unseal(sealed: &[u8], passphrase: &Passphrase) -> Result<[u8; 32], KeyFileError> {
        let der = decrypt(sealed, passphrase)?;
        let seed = der.as_bytes().strip_prefix(&ED25519).and_then(|seed| seed.try_into().ok());
        seed.ok_or_else(|| KeyFileError::Form("what is encrypted is not an Ed25519 key".into()))
    }

    /// A PKCS#8 key in PEM, encrypted.
    pub fn encrypt_pem(pem: &str, passphrase: &Passphrase) -> Result<String, KeyFileError> {
        let not_pem = |_| KeyFileError::Form("not a PKCS#8 key in PEM".into());
        let (label, clear) = SecretDocument::from_pem(pem.trim()).map_err(not_pem)?;
        if label != PrivateKeyInfoOwned::PEM_LABEL {
            return Err(KeyFileError::Form("not a PKCS#8 key in PEM: openssl pkcs8 -topk8 makes one".into()));
        }
        let sealed = encrypt(clear.as_bytes(), passphrase)?;
        let sealed = SecretDocument::try_from(&*sealed).map_err(not_pem)?;
        let pem = sealed.to_pem(EncryptedPrivateKeyInfoOwned::PEM_LABEL, LineEnding::LF).map_err(not_pem)?;
        Ok(pem.to_string())
    }

    /// The same in clear.
    pub fn decrypt_pem(pem: &str, passphrase: &Passphrase) -> Result<String, KeyFileError> {
        let not_pem = |_| KeyFileError::Form("not an encrypted PKCS#8 key in PEM".into());
        let (label, sealed) = SecretDocument::from_pem(pem.trim()).map_err(not_pem)?;
        if label != EncryptedPrivateKeyInfoOwned::PEM_LABEL {
            return Err(KeyFileError::Form("not an encrypted PKCS#8 key in PEM".into()));
        }
        let clear = decrypt(sealed.as_bytes(), passphrase)?;
        Ok(clear.to_pem(PrivateKeyInfoOwned::PEM_LABEL, LineEnding::LF).map_err(not_pem)?.to_string())
    }

    fn encrypt(clear: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>, KeyFileError> {
        let (salt, iv) = random::<16>().zip(random::<16>()).ok_or(KeyFileError::NoRandom)?;
        let kdf = ScryptParams {
            salt: Salt::new(salt).expect("16 bytes fit"),
            cost_parameter: COST,
            block_size: BLOCK_SIZE,
            parallelization: PARALLELIZATION,
            key_length: None,
        };
        let scheme = Parameters { kdf: Kdf::Scrypt(kdf), encryption: pbes2::EncryptionScheme::Aes256Cbc { iv } };
        let failed = |_| KeyFileError::Form("it cannot be encrypted".into());
        let sealed = scheme.encrypt(&passphrase.0, clear).map_err(failed)?;
        let octets = pkcs8::der::asn1::OctetString::new(sealed).expect("a few hundred bytes");
        let info = EncryptedPrivateKeyInfoOwned { encryption_algorithm: scheme.into(), encrypted_data: octets };
        Ok(info.to_der().expect("it has a form"))
    }

    fn decrypt(sealed: &[u8], passphrase: &Passphrase) -> Result<SecretDocument, KeyFileError> {
        let not_der = |_| KeyFileError::Form("not an EncryptedPrivateKeyInfo".into());
        let info = EncryptedPrivateKeyInfoOwned::from_der(sealed).map_err(not_der)?;
        check(&info.encryption_algorithm)?;
        info.decrypt(&passphrase.0).map_err(|error| match error {
            pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }) => {
                KeyFileError::Settings("an algorithm that this version does not have")
            }
            _ => KeyFileError::WrongPassphrase,
        })
    }

    /// Whether it is of PBES2 and costs no more than is taken.
    fn check(scheme: &EncryptionScheme) -> Result<(), KeyFileError> {
        let scheme = scheme.pbes2().ok_or(KeyFileError::Settings("not PBES2"))?;
        let costs_little = match &scheme.kdf {
            Kdf::Scrypt(scrypt) => {
                let memory = scrypt.cost_parameter.saturating_mul(u64::from(scrypt.block_size)).saturating_mul(128);
                memory <= MAX_MEMORY && scrypt.parallelization <= MAX_ROUNDS.0
            }
            Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= MAX_ROUNDS.1,
            _ => false,
        };
        if costs_little { Ok(()) } else { Err(KeyFileError::Settings("it costs more than 256 MiB or 16 rounds")) }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_file_cannot_ask_for_more_memory_or_time_than_is_taken() {
            let sealed = |kdf| {
                let scheme = Parameters { kdf, encryption: pbes2::EncryptionScheme::Aes256Cbc { iv: [0; 16] } };
                let octets = pkcs8::der::asn1::OctetString::new(vec![0; 48]).unwrap();
                let info = EncryptedPrivateKeyInfoOwned { encryption_algorithm: scheme.into(), encrypted_data: octets };
                info.to_der().unwrap()
            };
            let scrypt = |cost_parameter, parallelization| {
                let salt = Salt::new([0; 16]).unwrap();
                Kdf::Scrypt(ScryptParams { salt, cost_parameter, block_size: 8, parallelization, key_length: None })
            };
            let open = |kdf| unseal(&sealed(kdf), &Passphrase::new("p").unwrap());
            assert!(matches!(open(scrypt(1 << 4, 1)), Err(KeyFileError::WrongPassphrase)), "it is tried");
            for too_much in [scrypt(1 << 19, 1), scrypt(1 << 62, 1), scrypt(1 << 14, 17)] {
                assert!(matches!(open(too_much), Err(KeyFileError::Settings(_))));
            }
        }
    }
}
