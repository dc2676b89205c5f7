//! Who may be the hub: a certificate with a pinned key, or one that a pinned authority issued.
//!
//! A device may stand at 1970, so certificate dates are advisory: they keep usage from the hub only where there is no
//! moment at which all of a chain's certificates were valid. Everything else of the TLS handshake is checked, and
//! whoever it is, only a receipt by the root's `hub` role frees a usage file. Never accepts a certificate without a
//! pin.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::Error;
use crate::ids::Digest;
use crate::keys::sha256;

/// How often another date is tried: a chain of three certificates has six dates.
const DATES_TRIED: usize = 6;

/// Accepts the pinned hub.
#[derive(Debug)]
pub(super) struct PinnedHub {
    keys: Vec<Digest>,
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl PinnedHub {
    /// `keys` are SHA-256 of SubjectPublicKeyInfo; `authorities` is PEM. One of the two must pin something.
    pub(super) fn new(keys: &[Digest], authorities: &[u8], provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            roots.add(certificate.map_err(|_| Error::BadAuthority)?).map_err(|_| Error::BadAuthority)?;
        }
        if keys.is_empty() && roots.is_empty() {
            return Err(Error::NoPin);
        }
        let authority = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
                    .build()
                    .map_err(|_| Error::BadAuthority)?,
            ),
        };
        Ok(Self { keys: keys.to_vec(), authority, provider })
    }
}

impl ServerCertVerifier for PinnedHub {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // A pinned key needs no issuer, name or date: the handshake's signature proves that it is there.
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        if self.keys.contains(&sha256(&key)) {
            return Ok(ServerCertVerified::assertion());
        }
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = self.authority.as_ref().ok_or(unknown)?;
        // Where only a date stands in the way, ask again as of that date: what remains is checked all the same.
        let mut as_of = now;
        let mut outcome = Err(rustls::Error::General("no date tried".into()));
        for _ in 0..=DATES_TRIED {
            outcome = authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, as_of);
            as_of = match &outcome {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                    *not_before
                }
                Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                    *not_after
                }
                _ => return outcome,
            };
        }
        outcome
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

    use super::*;

    struct Made {
        authority: String,
        leaf: CertificateDer<'static>,
        leaf_key: Digest,
    }

    /// An authority and a leaf that were valid through 2030 only.
    fn made() -> Made {
        let (from, to) = (date_time_ymd(2030, 1, 1), date_time_ymd(2030, 12, 31));
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (from, to);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let mut params = CertificateParams::new(vec!["hub.example".into()]).expect("parameters");
        (params.not_before, params.not_after) = (from, to);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &issuer).expect("a certificate").der().clone();
        let leaf_key = sha256(&ParsedCertificate::try_from(&leaf).expect("it parses").subject_public_key_info());
        Made { authority: issuer.pem(), leaf, leaf_key }
    }

    fn judge(keys: &[Digest], authority: &str, leaf: &CertificateDer<'_>, name: &str, at: u64) -> bool {
        let provider = Arc::new(crypto::ring::default_provider());
        let pinned = PinnedHub::new(keys, authority.as_bytes(), provider).expect("something is pinned");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        pinned.verify_server_cert(leaf, &[], &name, &[], UnixTime::since_unix_epoch(Duration::from_secs(at))).is_ok()
    }

    #[test]
    fn dates_are_advisory_and_everything_else_is_not() {
        let Made { authority, leaf, leaf_key } = made();
        for at in [0, 1_900_000_000, 4_000_000_000] {
            assert!(judge(&[], &authority, &leaf, "hub.example", at), "authority, {at}");
            assert!(judge(&[leaf_key], "", &leaf, "any.example", at), "key, {at}");
            assert!(!judge(&[], &authority, &leaf, "other.example", at), "another name, {at}");
            assert!(!judge(&[], &made().authority, &leaf, "hub.example", at), "another authority, {at}");
            assert!(!judge(&[Digest([1; 32])], "", &leaf, "hub.example", at), "another key, {at}");
        }
    }

    #[test]
    fn nothing_pinned_is_an_error() {
        let provider = || Arc::new(crypto::ring::default_provider());
        assert!(matches!(PinnedHub::new(&[], b"", provider()), Err(Error::NoPin)));
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(PinnedHub::new(&[], broken, provider()), Err(Error::BadAuthority)));
    }
}
