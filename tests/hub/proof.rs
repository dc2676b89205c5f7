//! Who may ask in a device's name: whoever shows its key in the handshake, or signs the hub's challenge with it.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig};
use tidegate::hub::{Config, DeviceEntry, Tls};
use tidegate::ids::{DeviceId, Digest, hex};
use tidegate::keys::{SigningKey, sha256};
use tidegate::spool::protocol::{PROOF_TYPE, proof, proof_message};
use tidegate::units::Span;
use tidegate::upload;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::http::{raw, refusal, status, told};
use crate::scene::{DEADLINE, Premises, Running, Shelf, chain, device, hub_key, key};
use crate::uploader::{Uploader, config};

/// A certificate of the test's own, and the pin of its key.
fn certificate(premises: &Premises) -> (Tls, Digest) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let tls = Tls { certificate: premises.path("hub.pem"), key: premises.path("tls.key") };
    fs::write(&tls.certificate, made.cert.pem()).expect("it can be written");
    fs::write(&tls.key, made.signing_key.serialize_pem()).expect("it can be written");
    (tls, sha256(&rcgen::PublicKeyData::subject_public_key_info(&made.signing_key)))
}

/// A hub of two devices that wants proof.
fn strict(premises: &Premises) -> Config {
    let bundles = premises.path("bundles");
    fs::create_dir_all(&bundles).expect("made");
    let mut config = Config { require_proof: true, bundles: Some(bundles), ..premises.config() };
    config.devices.push(DeviceEntry { name: "other".into(), key: hex(key(2).public().raw()) });
    config
}

fn id(key: &SigningKey) -> DeviceId {
    DeviceId::from(key.public().id())
}

fn policy_of(key: &SigningKey) -> String {
    format!("/v1/bundles/{}/policy", id(key))
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

/// The header of a proof over the challenge of `answer`.
fn proven(answer: &[u8], by: &SigningKey, method: &str, path: &str) -> String {
    let text = String::from_utf8_lossy(answer);
    let (_, rest) = text.split_once("tidegate-challenge: ").expect("a challenge");
    let challenge = tidegate::ids::unhex(&rest[..64]).expect("64 digits");
    let signature = by.sign(PROOF_TYPE, &proof_message(&challenge, method, path));
    format!("Tidegate-Proof: {}\r\n", proof(&challenge, &signature))
}

/// rustls' own client: `shown` is the key that is shown, and the one that signs.
fn connector(tls: &Tls, shown: Option<(&SigningKey, &SigningKey)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&tls.certificate).expect("PEM")).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("sound")
        .with_root_certificates(roots);
    TlsConnector::from(Arc::new(match shown {
        None => builder.with_no_client_auth(),
        Some((shown, signs)) => {
            // RFC 8410, 7: a private key without its public one.
            let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
            let pkcs8 = PrivatePkcs8KeyDer::from([&prefix[..], signs.seed()].concat());
            let signs = rustls::crypto::ring::sign::any_eddsa_type(&pkcs8).expect("a key");
            let spki = CertificateDer::from(shown.public().to_spki().expect("Ed25519"));
            let certified = Arc::new(CertifiedKey::new(vec![spki], signs));
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)))
        }
    }))
}

/// One request over TLS by such a client.
async fn over_tls(
    hub: SocketAddr,
    tls: &Tls,
    shown: Option<(&SigningKey, &SigningKey)>,
    request: &[u8],
) -> std::io::Result<Vec<u8>> {
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let stream = TcpStream::connect(hub).await.expect("the hub listens");
    let mut stream = connector(tls, shown).connect(name, stream).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it closes")?;
    Ok(answer)
}

#[tokio::test]
async fn the_key_of_the_handshake_opens_what_is_its_devices_and_nothing_else() {
    let premises = Premises::new();
    let (tls, _) = certificate(&premises);
    let hub = Running::start(Config { tls: Some(tls.clone()), ..strict(&premises) }).await;
    let (mine, other, stranger) = (device(), key(2), key(3));
    let ask = async |shown: Option<(&SigningKey, &SigningKey)>, of: &SigningKey| {
        over_tls(hub.address, &tls, shown, &get(&policy_of(of), "")).await
    };
    let said = async |shown, of| refusal(&ask(shown, of).await.expect("it answers"));
    // There is no policy; whoever hears that was let in.
    assert_eq!(said(Some((&mine, &mine)), &mine).await, told("404", "NotFound"));
    assert_eq!(said(Some((&other, &other)), &other).await, told("404", "NotFound"));
    assert_eq!(said(Some((&other, &other)), &mine).await, told("401", "ProofRequired"), "another device's key");
    assert_eq!(said(None, &mine).await, told("401", "ProofRequired"));
    assert_eq!(said(Some((&stranger, &stranger)), &stranger).await, told("403", "UnknownDevice"));
    assert!(ask(Some((&mine, &other)), &mine).await.is_err(), "a key that the client only knows of");
    // Over TLS without a key a signed challenge is as good.
    let answer = ask(None, &mine).await.expect("it answers");
    let header = proven(&answer, &mine, "GET", &policy_of(&mine));
    let answer = over_tls(hub.address, &tls, None, &get(&policy_of(&mine), &header)).await.expect("it answers");
    assert_eq!(refusal(&answer), told("404", "NotFound"));
    hub.stop().await;
}

#[tokio::test]
async fn who_shows_no_devices_key_and_says_nothing_keeps_no_device_waiting() {
    let premises = Premises::new();
    let (tls, _) = certificate(&premises);
    let hub =
        Running::start(Config { tls: Some(tls.clone()), head_timeout: Span::secs(60), ..strict(&premises) }).await;
    // As many as may speak at a time, by a stranger's key and by none, and one more: their turns are all taken.
    let (mine, stranger) = (device(), key(3));
    let connector = [connector(&tls, None), connector(&tls, Some((&stranger, &stranger)))];
    let mut held = Vec::new();
    for number in 0..513 {
        let stream = TcpStream::connect(hub.address).await.expect("the hub listens");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        held.push(connector[number % 2].connect(name, stream).await.expect("it shakes hands"));
    }
    let request = get(&policy_of(&mine), "");
    let ask = |shown| over_tls(hub.address, &tls, shown, &request);
    let soon = tokio::time::timeout(DEADLINE, ask(Some((&mine, &mine)))).await;
    assert_eq!(refusal(&soon.expect("it has its turn").expect("it answers")), told("404", "NotFound"));
    // The control: one of their like has none, until one of them goes.
    let mut waits = Box::pin(ask(None));
    tokio::time::timeout(Duration::from_secs(2), &mut waits).await.expect_err("all turns are taken");
    drop(held);
    assert_eq!(refusal(&waits.await.expect("it answers")), told("401", "ProofRequired"));
    hub.stop().await;
}

#[tokio::test]
async fn a_signed_challenge_is_good_for_its_request_and_its_device_alone() {
    let premises = Premises::new();
    let hub = Running::start(strict(&premises)).await;
    let (mine, other) = (device(), key(2));
    let (path, nonce) = (policy_of(&mine), "0".repeat(32));
    let paths = [path.clone(), format!("/v1/events/{}", id(&mine)), format!("/v1/time/{}/{nonce}", id(&mine))];
    for path in &paths {
        let answer = raw(hub.address, &get(path, "")).await;
        assert_eq!(refusal(&answer), told("401", "ProofRequired"), "{path}");
        assert!(String::from_utf8_lossy(&answer).contains("www-authenticate: Tidegate-Proof"));
    }
    let answer = raw(hub.address, &get(&path, "")).await;
    let challenge_of_other = raw(hub.address, &get(&policy_of(&other), "")).await;
    for (header, expected) in [
        (proven(&answer, &mine, "GET", &path), told("404", "NotFound")),
        (proven(&answer, &other, "GET", &path), told("401", "ProofInvalid")),
        (proven(&answer, &mine, "GET", &paths[1]), told("401", "ProofInvalid")),
        (proven(&answer, &mine, "PUT", &path), told("401", "ProofInvalid")),
        (proven(&challenge_of_other, &mine, "GET", &path), told("401", "ProofRequired")),
        ("Tidegate-Proof: x\r\n".to_owned(), told("401", "ProofInvalid")),
    ] {
        assert_eq!(refusal(&raw(hub.address, &get(&path, &header)).await), expected, "{header}");
    }
    // It is good again for the same request, and at the same hub after a start; not for another path.
    let header = proven(&answer, &mine, "GET", &path);
    assert_eq!(status(&raw(hub.address, &get(&path, &header)).await), "404");
    assert_eq!(refusal(&raw(hub.address, &get(&paths[2], &header)).await), told("401", "ProofInvalid"));
    hub.stop().await;
    let hub = Running::start(strict(&premises)).await;
    assert_eq!(status(&raw(hub.address, &get(&path, &header)).await), "404");
    hub.stop().await;
    // The control: a hub that wants no proof.
    let hub = Running::start(Config { require_proof: false, ..strict(&premises) }).await;
    assert_eq!(status(&raw(hub.address, &get(&path, "")).await), "404");
    hub.stop().await;
}

/// Something in front of the hub that ends TLS and asks nobody for a key.
async fn terminator(tls: &Tls, hub: SocketAddr) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_file(&tls.certificate).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(&tls.key).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(hub).await.expect("the hub listens");
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_device_gets_what_is_its_own_by_tls_to_the_hub_through_what_ends_tls_and_in_clear() {
    let premises = Premises::new();
    let (tls, pin) = certificate(&premises);
    let plain = Running::start(strict(&premises)).await;
    let second = Premises::new();
    let direct = Running::start(Config { tls: Some(tls.clone()), ..strict(&second) }).await;
    let front = terminator(&tls, plain.address).await;
    for hub in [format!("https://{}", direct.address), format!("https://{front}"), format!("http://{}", plain.address)]
    {
        let pinned = upload::Config { hub_pins: vec![pin], ..config(hub.clone()) };
        let mut device = Uploader::start(pinned, Shelf::of(chain(2)), hub_key().public());
        // The time wants proof, and comes before the files.
        let status = device.until(|status| status.files == 2).await;
        assert!(status.hub_time.is_some(), "{hub}");
    }
    direct.stop().await;
    plain.stop().await;
}

/// Asks for a raw public key, takes any, and gives the first that it is shown.
#[derive(Debug)]
struct AnyRawKey(Arc<rustls::crypto::CryptoProvider>);

impl ClientCertVerifier for AnyRawKey {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let (spki, algorithms) =
            (SubjectPublicKeyInfoDer::from(spki.as_ref()), self.0.signature_verification_algorithms);
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &spki, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_device_shows_its_own_key_in_the_handshake_and_signs_it() {
    let premises = Premises::new();
    let (tls, pin) = certificate(&premises);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_file(&tls.certificate).expect("PEM")];
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("sound")
        .with_client_cert_verifier(Arc::new(AnyRawKey(provider)))
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&tls.key).expect("PEM"))
        .expect("they fit");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let hub = format!("https://{}", listener.local_addr().expect("it listens"));
    let pinned = upload::Config { hub_pins: vec![pin], ..config(hub) };
    let _device = Uploader::start(pinned, Shelf::of(Vec::new()), hub_key().public());
    let accepted = async {
        let (stream, _) = listener.accept().await.expect("it comes");
        TlsAcceptor::from(Arc::new(server)).accept(stream).await.expect("it shakes hands")
    };
    let stream = tokio::time::timeout(DEADLINE, accepted).await.expect("soon");
    let shown = stream.get_ref().1.peer_certificates().expect("a key");
    assert_eq!(shown[0].as_ref(), device().public().to_spki().expect("Ed25519"));
}
