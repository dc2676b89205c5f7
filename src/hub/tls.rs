//! The hub's side of TLS. Who offers a raw public key (RFC 7250) is asked for it; who does not is asked for nothing.
//!
//! A key that is shown says who is there, and gives no right: that is the ledger's. It is Ed25519 and not weak.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, CertificateType, NoClientAuth};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::config::{Error, Tls, read_file};
use crate::clock::WallClock;
use crate::keys::PublicKey;

/// Largest PEM file, in bytes.
const PEM_LIMIT: u64 = 1 << 20;

/// Both ways in.
#[derive(Debug, Clone)]
pub(super) struct Handshakes {
    keyed: Arc<ServerConfig>,
    plain: Arc<ServerConfig>,
}

impl Handshakes {
    /// Reads certificate and key, which must fit.
    pub(super) fn open(tls: &Tls) -> Result<Self, Error> {
        let malformed = |path: &Path, reason: String| Error::Malformed { path: path.into(), reason };
        let pem = read_file(&tls.certificate, PEM_LIMIT)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| malformed(&tls.certificate, error.to_string()))?;
        if chain.is_empty() {
            return Err(malformed(&tls.certificate, "it has no certificate in PEM".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(&read_file(&tls.key, PEM_LIMIT)?)
            .map_err(|error| malformed(&tls.key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unfit = |error: rustls::Error| malformed(&tls.key, format!("{error} (with {})", tls.certificate.display()));
        let certified = Arc::new(CertifiedKey::from_der(chain, key, &provider).map_err(unfit)?);
        let config = |verifier: Arc<dyn ClientCertVerifier>| {
            let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(WallClock));
            let builder = builder.with_safe_default_protocol_versions().map_err(unfit)?;
            let resolver = Arc::new(Always(Arc::clone(&certified)));
            Ok(Arc::new(builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver)))
        };
        Ok(Self { keyed: config(Arc::new(RawKeys(Arc::clone(&provider))))?, plain: config(Arc::new(NoClientAuth))? })
    }

    /// Shakes hands; the key that was shown. In a box, for it is large and each step that it is handed through would keep a
    /// place for it.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<(Box<TlsStream<S>>, Option<PublicKey>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let offered = begun.client_hello().client_cert_types().unwrap_or_default();
        let config = if offered.contains(&CertificateType::RawPublicKey) { &self.keyed } else { &self.plain };
        let stream = Box::new(begun.into_stream(Arc::clone(config)).await?);
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let key = shown.and_then(|spki| PublicKey::from_spki(spki).ok());
        Ok((stream, key))
    }
}

/// One certificate for whoever comes.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Takes any sound Ed25519 key whose owner signs the handshake, and none at all too.
#[derive(Debug)]
struct RawKeys(Arc<CryptoProvider>);

impl ClientCertVerifier for RawKeys {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let sound = PublicKey::from_spki(spki).map(|_| ClientCertVerified::assertion());
        sound.map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into()) // RFC 7250 keys come with TLS 1.3 only here
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(spki.as_ref()), signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
