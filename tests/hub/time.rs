//! What time it is, from the hub to the device: asked for, signed, believed, bounded.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate::clock::Reading;
use tidegate::hub::{Config as HubConfig, Tls};
use tidegate::ids::DeviceId;
use tidegate::keys::{PublicKey, sha256};
use tidegate::spool::protocol::{TIME_TYPE, time_path};
use tidegate::spool::timestamp::{Error, Question};
use tidegate::upload::{Config, Link};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{DEADLINE, Premises, Running, Shelf, chain, device, hub_key, key};
use crate::uploader::{Uploader, config};

fn asked(device: &PublicKey, nonce: u8) -> Question {
    Question { device: device.id().into(), nonce: [nonce; 16] }
}

/// Status and body of one request to the hub.
async fn request(address: SocketAddr, method: &str, path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("the hub listens");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it ends").expect("it reads");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    (head, answer[end..].to_vec())
}

fn wall() -> i64 {
    Reading::now().wall_ms.div_euclid(1_000)
}

#[tokio::test]
async fn the_hub_tells_a_device_that_it_knows_what_time_it_is_and_nobody_else() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let (mine, hubs) = (asked(&device().public(), 1), [hub_key().public()]);
    let before = wall();
    let (head, answer) = request(hub.address, "GET", &time_path(&mine)).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(TIME_TYPE), "{head}");
    let at = mine.read(&answer, &hubs).expect("it is the hub's");
    assert!((before..=wall()).contains(&at), "{at}");
    // The answer to that question only.
    assert_eq!(asked(&device().public(), 2).read(&answer, &hubs), Err(Error::NotAsked));
    assert_eq!(asked(&key(2).public(), 1).read(&answer, &hubs), Err(Error::NotAsked));

    for (method, path, status) in [
        ("GET", time_path(&asked(&key(2).public(), 1)), "403"),
        ("PUT", time_path(&mine), "405"),
        ("GET", format!("/v1/time/{}", DeviceId::from(device().public().id())), "404"),
    ] {
        let (head, _) = request(hub.address, method, &path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn an_uploader_asks_at_its_start_with_nothing_to_send_and_again_when_it_is_told_to() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let before = wall();
    let mut uploader =
        Uploader::start(config(format!("http://{}", hub.address)), Shelf::of(vec![]), hub_key().public());
    let status = uploader.until(|status| status.hub_time.is_some()).await;
    assert!(status.hub_time >= Some(before) && status.link == Link::Up && status.files == 0, "{status:?}");
    // Wait until the clock shows another second, so that a second answer can be told from the first.
    while Some(wall()) <= status.hub_time {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    uploader.wakes.kick.notify_one();
    uploader.until(|now| now.hub_time > status.hub_time).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_time_that_is_not_the_hubs_is_not_believed_and_usage_goes_on() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let mut stranger = Uploader::start(config(format!("http://{}", hub.address)), Shelf::of(chain(1)), key(8).public());
    let status = stranger.until(|status| status.failure.is_some()).await;
    assert_eq!(status.hub_time, None, "signed by a key that the root does not name: {status:?}");
    hub.stop().await;
}

/// One who sits between device and hub and answers each question for the time with the answer to an earlier one.
async fn replays(old: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1 << 10];
            let got = stream.read(&mut buffer).await.unwrap_or(0);
            let is_time = buffer[..got].starts_with(b"GET /v1/time/");
            let body = if is_time { &old[..] } else { b"" };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        }
    });
    address
}

#[tokio::test]
async fn an_answer_from_the_day_on_which_the_hubs_clock_was_wrong_cannot_be_played_again() {
    let ahead = asked(&device().public(), 7).answer(wall() + 300 * 86_400, &hub_key());
    let between = replays(ahead).await;
    let mut uploader = Uploader::start(config(format!("http://{between}")), Shelf::of(chain(1)), hub_key().public());
    // It goes on to its files, whose receipt the one between cannot make.
    let status = uploader.until(|status| status.failure.is_some()).await;
    assert_eq!(status.hub_time, None, "{status:?}");
}

#[tokio::test]
async fn over_tls_the_time_comes_from_the_pinned_hub() {
    let premises = Premises::new();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (certificate, pem_key) = (premises.path("hub.pem"), premises.path("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("it can be written");
    std::fs::write(&pem_key, made.signing_key.serialize_pem()).expect("it can be written");
    let hub = Running::start(HubConfig { tls: Some(Tls { certificate, key: pem_key }), ..premises.config() }).await;
    let pin = sha256(&rcgen::PublicKeyData::subject_public_key_info(&made.signing_key));
    let config = Config { hub_pins: vec![pin], ..config(format!("https://{}", hub.address)) };
    let mut uploader = Uploader::start(config, Shelf::of(chain(1)), hub_key().public());
    uploader.until(|status| status.hub_time.is_some() && status.files == 1).await;
    hub.stop().await;
}
