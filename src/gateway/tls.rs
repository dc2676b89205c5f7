//! TLS on both sides: rustls with the ring provider, HTTP/1.1 only.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsConnector;

use super::{Error, TimeState};

/// The server side of a listener, from the PEM texts of its certificate chain and private key.
///
/// Errors: [`Error::Tls`].
pub fn server_config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| Error::Tls(format!("the certificate is not PEM: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Error::Tls(format!("the key is not PEM: {error}")))?;
    let unusable = |error: rustls::Error| Error::Tls(error.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The client side towards an upstream that is trusted through `ca` alone. Certificate dates are judged by the time
/// that the device can prove, not by its wall clock.
pub(super) fn connector(ca: &[Box<[u8]>], time: &Arc<ArcSwap<TimeState>>) -> Result<TlsConnector, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(CertificateDer::from(certificate.to_vec()))?;
    }
    let clock = Arc::new(ProvenTime(Arc::clone(time)));
    let mut config = ClientConfig::builder_with_details(Arc::new(rustls::crypto::ring::default_provider()), clock)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct ProvenTime(Arc<ArcSwap<TimeState>>);

impl TimeProvider for ProvenTime {
    fn current_time(&self) -> Option<UnixTime> {
        let moment = self.0.load().moment(std::time::Instant::now());
        let seconds = u64::try_from(moment.bounds.lower).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}
