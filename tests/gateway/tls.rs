//! TLS towards an upstream: who it is taken for, and until when.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tidegate::gateway::{TimeState, server_config};
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{scene, with_token};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// The years that a certificate is valid from and to, at their first day.
type Years = (i32, i32);

/// In 2027.
const NOW: i64 = 1_800_000_000;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// An upstream with a certificate of `authority` for `name`; it answers all that it is sent over TLS.
fn upstream(authority: &Authority, name: &str, years: Years) -> SocketAddr {
    let mut params = CertificateParams::new(vec![name.into()]).expect("parameters");
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let key = KeyPair::generate().expect("a key");
    let chain = params.signed_by(&key, authority).expect("a certificate").pem();
    let config = server_config(chain.as_bytes(), key.serialize_pem().as_bytes()).expect("usable");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = rustls::StreamOwned::new(session, socket.expect("a connection"));
            std::thread::spawn(move || {
                while stream.read(&mut [0; 4_096]).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
                }
            });
        }
    });
    address
}

/// What becomes of a request to `https://host` at `upstream` by the time `time`.
fn outcome(upstream: SocketAddr, host: &str, trusted: &Authority, time: TimeState) -> Outcome {
    let endpoints = vec![format!("https://{host}:{}", upstream.port())];
    let scene = scene(&Terms { endpoints, ca: vec![(&**trusted.der()).into()], ..Terms::to(upstream) });
    scene.shared.time.store(Arc::new(time));
    let reply = scene.ask(&with_token("GET /petstore/1.0/pet/1", ""));
    let record = scene.record();
    match record.outcome {
        Outcome::Admitted => assert_eq!((reply.status, reply.text()), (200, "secret")),
        _ => assert_eq!((reply.status, &*record.upstream), (503, "")),
    }
    scene.end();
    record.outcome
}

#[test]
fn an_upstream_behind_tls_is_known_by_its_authority_and_its_name() {
    let (ours, other) = (authority(), authority());
    let now = TimeState::exact(NOW * 1_000);
    let named = upstream(&ours, "localhost", (2020, 2040));
    assert_eq!(outcome(named, "localhost", &ours, now), Outcome::Admitted);
    assert_eq!(outcome(named, "localhost", &other, now), Outcome::UpstreamConnect, "another authority");
    assert_eq!(outcome(named, "127.0.0.1", &ours, now), Outcome::UpstreamConnect, "another name");
    let numbered = upstream(&ours, "127.0.0.1", (2020, 2040));
    assert_eq!(outcome(numbered, "127.0.0.1", &ours, now), Outcome::Admitted, "an address is a name, too");
    // Plain HTTP behind an https endpoint is nobody.
    let plain = crate::upstream::start(crate::upstream::echo_target);
    assert_eq!(outcome(plain.address, "127.0.0.1", &ours, now), Outcome::UpstreamConnect);
    assert_eq!(plain.seen.try_iter().count(), 0);
}

#[test]
fn a_certificates_dates_are_judged_as_far_as_the_time_is_known() {
    let (exact, floor) = (TimeState::exact(NOW * 1_000), TimeState::floor(NOW));
    let authority = authority();
    for (years, by_exact, by_floor) in [
        ((2020, 2040), true, true),
        ((2020, 2025), false, false), // however late it is
        ((2030, 2040), false, true),  // it may be 2030
    ] {
        let upstream = upstream(&authority, "127.0.0.1", years);
        let is_served = |time| outcome(upstream, "127.0.0.1", &authority, time) == Outcome::Admitted;
        assert_eq!((is_served(exact), is_served(floor)), (by_exact, by_floor), "{years:?}");
    }
    let (upstream, other) = (upstream(&authority, "127.0.0.1", (2030, 2040)), self::authority());
    assert_eq!(outcome(upstream, "localhost", &authority, floor), Outcome::UpstreamConnect, "still by its name");
    assert_eq!(outcome(upstream, "127.0.0.1", &other, floor), Outcome::UpstreamConnect, "still by its authority");
}
