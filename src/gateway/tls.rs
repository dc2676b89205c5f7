//! TLS on both sides: rustls with the ring provider, HTTP/1.1 only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoClientAuth;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme, crypto,
};
use tokio_rustls::TlsConnector;

use super::{Error, TimeState};
use crate::clock::WallClock;

/// How often a later date is tried: once for each certificate of a chain, and chains are short.
const DATES_TRIED: usize = 4;

/// The server side of a listener, from the PEM texts of its certificate chain and private key.
///
/// Errors: [`Error::Tls`].
pub fn server_config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, Error> {
    server(chain, key, Arc::new(NoClientAuth))
}

/// The same, which asks callers for a certificate: a token may be bound to one (RFC 8705, 3).
///
/// Errors: [`Error::Tls`].
pub fn asking_server_config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, Error> {
    server(chain, key, Arc::new(AnyCertificate(crypto::ring::default_provider().signature_verification_algorithms)))
}

fn server(chain: &[u8], key: &[u8], callers: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| Error::Tls(format!("the certificate is not PEM: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Error::Tls(format!("the key is not PEM: {error}")))?;
    let unusable = |error: rustls::Error| Error::Tls(error.to_string());
    let mut config =
        ServerConfig::builder_with_details(Arc::new(crypto::ring::default_provider()), Arc::new(WallClock))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(callers)
            .with_single_cert(chain, key)
            .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate, or none: whose it must be is said by the token that is bound to it, so neither its issuer nor its
/// dates count (RFC 8705, 2.2). That the caller has its key is proven by the handshake.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The client side towards an upstream that is trusted through `ca` alone. Certificate dates are judged by the time
/// that the device can prove, not by its wall clock.
///
/// Errors: a certificate of `ca` is none, or there is none.
pub(super) fn connector(ca: &[Box<[u8]>], time: &Arc<ArcSwap<TimeState>>) -> Result<TlsConnector, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(CertificateDer::from(certificate.to_vec()))?;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    let clock = Arc::new(ProvenTime(Arc::clone(time)));
    let mut config = ClientConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Datable { verifier, time: Arc::clone(time) }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The least that the time can be.
#[derive(Debug)]
struct ProvenTime(Arc<ArcSwap<TimeState>>);

impl TimeProvider for ProvenTime {
    fn current_time(&self) -> Option<UnixTime> {
        let moment = self.0.load().moment(Instant::now());
        Some(unix(moment.bounds.lower))
    }
}

fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Judges a certificate as rustls does, save that one which is not valid yet by the least that the time can be is
/// taken where the time can be later: a device that lost its clock still reaches its upstreams. One that has expired
/// by the least has expired for certain.
#[derive(Debug)]
struct Datable {
    verifier: Arc<WebPkiServerVerifier>,
    time: Arc<ArcSwap<TimeState>>,
}

impl ServerCertVerifier for Datable {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let latest = self.time.load().moment(Instant::now()).bounds.upper.map(unix);
        let judge = |at| self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at);
        let mut outcome = judge(now);
        for _ in 0..DATES_TRIED {
            let begins = match &outcome {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                    *not_before
                }
                _ => break,
            };
            if latest.is_some_and(|latest| begins > latest) {
                break;
            }
            // Everything else is judged as of then.
            outcome = judge(begins);
        }
        outcome
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
