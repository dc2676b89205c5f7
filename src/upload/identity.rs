//! Who this device is to the hub: its key, shown in the TLS handshake, or a signature where TLS ends before the hub.
//!
//! The key is shown as a raw public key (RFC 7250): there is no certificate that could expire at a device without a
//! clock. Something in front of the hub that knows no such keys breaks that handshake off; then the device comes without
//! one, and the hub asks for a proof over a challenge of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::HeaderMap;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer};
use rustls::{ClientConfig, PeerIncompatible, SignatureAlgorithm, SignatureScheme};

use crate::ids::unhex;
use crate::keys::{PublicKey, SigningKey};
use crate::spool::protocol::{CHALLENGE, PROOF_TYPE, proof, proof_message};

/// The device's key, for proofs only. Clones share it.
#[derive(Debug, Clone)]
pub struct Identity(Arc<SigningKey>);

impl Identity {
    /// Of this key.
    #[must_use]
    pub fn new(key: &SigningKey) -> Self {
        Self(Arc::new(key.again()))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }

    /// The header that proves it for one request.
    pub(super) fn proof(&self, challenge: &[u8; 32], method: &str, path: &str) -> String {
        proof(challenge, &self.0.sign(PROOF_TYPE, &proof_message(challenge, method, path)))
    }

    /// What it shows in a handshake.
    fn certified(&self) -> CertifiedKey {
        let spki = self.public().to_spki().expect("a device's key is Ed25519");
        CertifiedKey::new(vec![CertificateDer::from(spki)], Arc::new(self.clone()))
    }
}

impl rustls::sign::SigningKey for Identity {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<_>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Identity {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0.sign_handshake(message).ok_or_else(|| rustls::Error::General("no handshake of TLS 1.3".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// What the hub wants signed.
pub(super) fn challenge(headers: &HeaderMap) -> Option<[u8; 32]> {
    unhex(headers.get(CHALLENGE)?.to_str().ok()?).ok()
}

/// The two ways to begin TLS. Which one goes is found out, and kept as long as it goes.
#[derive(Debug, Clone)]
pub(super) struct Handshakes {
    keyed: Option<Arc<ClientConfig>>,
    plain: Arc<ClientConfig>,
    is_plain: Arc<AtomicBool>,
}

impl Handshakes {
    /// `plain` shows no key; `identity` is what is shown else.
    pub(super) fn new(plain: ClientConfig, identity: Option<&Identity>) -> Self {
        let keyed = identity.map(|identity| {
            let shown = AlwaysResolvesClientRawPublicKeys::new(Arc::new(identity.certified()));
            let mut keyed = plain.clone();
            keyed.client_auth_cert_resolver = Arc::new(shown);
            Arc::new(keyed)
        });
        Self { keyed, plain: Arc::new(plain), is_plain: Arc::default() }
    }

    /// The way that is to be tried.
    pub(super) fn next(&self) -> Arc<ClientConfig> {
        let keyed = self.keyed.as_ref().filter(|_| !self.is_plain.load(Ordering::Relaxed));
        Arc::clone(keyed.unwrap_or(&self.plain))
    }

    /// It failed; whether the other way is worth a try now.
    pub(super) fn failed(&self, error: &io::Error) -> bool {
        let was_keyed = self.keyed.is_some() && !self.is_plain.load(Ordering::Relaxed);
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let is_about_the_key = matches!(
            error,
            Some(
                rustls::Error::PeerIncompatible(PeerIncompatible::IncorrectCertificateTypeExtension)
                    | rustls::Error::AlertReceived(_)
            )
        );
        self.is_plain.store(was_keyed && is_about_the_key, Ordering::Relaxed);
        was_keyed && is_about_the_key
    }
}
