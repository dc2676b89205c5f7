//! Tokens that are bound to their sender's certificate (RFC 8705), under clocks that are months behind and ahead: the
//! second pattern of docs/time.md, as it runs.

use std::io::{Read, Write};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use serde_json::json;
use tidegate::gateway::{ListenerConfig, TimeState, asking_server_config, server_config};
use tidegate::keys::sha256;
use tidegate::policy::revocations::{Builder, Kind, RevokedId};
use tidegate::policy::{Snapshot, Uncertain};
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{RIG, Scene, quick, scene_with};
use crate::upstream::{echo_target, start};

const DAY: i64 = 86_400;
/// When the rig's tokens are issued.
const ISSUED: i64 = 1_700_000_000;

fn certificate(name: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec![name.into()]).expect("a certificate")
}

fn gateway(asks: bool, snapshot: Snapshot) -> (Scene, CertificateDer<'static>) {
    let made = certificate("gate.example");
    let make = if asks { asking_server_config } else { server_config };
    let tls = make(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).expect("usable");
    (scene_with(snapshot, quick(), ListenerConfig::default(), Some(tls)), made.cert.der().clone())
}

/// A caller that shows `shown`, and remembers its sessions.
fn caller(
    gate: &CertificateDer<'static>,
    shown: Option<&CertifiedKey<KeyPair>>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(gate.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("it is known")
        .with_root_certificates(roots);
    Arc::new(match shown {
        None => config.with_no_client_auth(),
        Some(made) => {
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
            config.with_client_auth_cert(vec![made.cert.der().clone()], key).expect("usable")
        }
    })
}

fn ask(scene: &Scene, caller: &Arc<ClientConfig>, token: &str) -> Outcome {
    let name = ServerName::try_from("gate.example").expect("a name");
    let session = ClientConnection::new(Arc::clone(caller), name).expect("a session");
    let mut stream = StreamOwned::new(session, scene.connect().stream);
    let head = "GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer";
    stream.write_all(format!("{head} {token}\r\n\r\n").as_bytes()).expect("TLS");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let outcome = scene.record().outcome;
    assert_eq!(answer.starts_with("HTTP/1.1 200 "), outcome == Outcome::Admitted, "{answer}");
    outcome
}

#[test]
fn a_bound_token_is_good_with_its_senders_certificate_only_at_any_clock_until_its_cut_off() {
    let (till, thief) = (certificate("till-1"), certificate("thief"));
    let x5t = URL_SAFE_NO_PAD.encode(sha256(till.cert.der()).0);
    let end = ISSUED + 365 * DAY;
    let bound = RIG.token_claiming(&json!({"cnf": {"x5t#S256": x5t}, "exp": end}));
    let bearer = RIG.token_claiming(&json!({"exp": end}));
    let terms = Terms { uncertain: Uncertain::Bound, ..Terms::to(start(echo_target).address) };
    let (scene, gate) = gateway(true, RIG.snapshot(&terms));
    for version in [&version::TLS12, &version::TLS13] {
        let of = |shown| caller(&gate, shown, version);
        let (right, wrong, nobody) = (of(Some(&till)), of(Some(&thief)), of(None));
        for floor in [0, ISSUED - 300 * DAY, ISSUED + 300 * DAY] {
            scene.shared.time.store(Arc::new(TimeState::floor(floor)));
            // Twice: the second handshake resumes the session of the first.
            assert_eq!([ask(&scene, &right, &bound), ask(&scene, &right, &bound)], [Outcome::Admitted; 2], "{floor}");
            assert_eq!(ask(&scene, &wrong, &bound), Outcome::PopMismatch, "{floor}");
            assert_eq!(ask(&scene, &nobody, &bound), Outcome::PopMissing, "{floor}");
            // A token that anybody can use wants a certain time on this route.
            assert_eq!(ask(&scene, &right, &bearer), Outcome::TimeUncertain, "{floor}");
        }
        scene.shared.time.store(Arc::new(TimeState::exact((ISSUED + DAY) * 1_000)));
        assert_eq!(ask(&scene, &nobody, &bearer), Outcome::Admitted);
        scene.shared.time.store(Arc::new(TimeState::floor(end + 60)));
        assert_eq!(ask(&scene, &right, &bound), Outcome::TokenExpired);
    }

    // A cut-off ends it, at a clock at which its issue is in the future.
    scene.shared.time.store(Arc::new(TimeState::floor(0)));
    let mut builder = Builder::default();
    builder.cut_off(RevokedId::of(Kind::Sub, "https://site.example", "user-1"), ISSUED + 1);
    let cut = Snapshot { revoked: Arc::new(builder.build()), ..RIG.snapshot(&terms) };
    scene.shared.policy.store(Arc::new(cut));
    let right = caller(&gate, Some(&till), &version::TLS13);
    assert_eq!(ask(&scene, &right, &bound), Outcome::RevokedBefore);
    scene.end();
}

#[test]
fn a_listener_that_does_not_ask_takes_no_bound_token() {
    let till = certificate("till-1");
    let x5t = URL_SAFE_NO_PAD.encode(sha256(till.cert.der()).0);
    let bound = RIG.token_claiming(&json!({"cnf": {"x5t#S256": x5t}}));
    let (scene, gate) = gateway(false, RIG.snapshot(&Terms::to(start(echo_target).address)));
    let right = caller(&gate, Some(&till), &version::TLS13);
    assert_eq!(ask(&scene, &right, &bound), Outcome::PopMissing);
    scene.end();
}
