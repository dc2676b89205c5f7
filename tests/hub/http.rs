//! The hub alone, spoken to in raw bytes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate::hub::{Config, DeviceEntry, Enrol};
use tidegate::ids::hex;
use tidegate::keys::SigningKey;
use tidegate::spool::backlog::UsageFile;
use tidegate::spool::receipt::{self, Receipt};
use tidegate::units::Span;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::scene::{DEADLINE, Premises, Running, chain, device, file, hub_key, key, large_file, path};

/// Sends bytes and reads until the hub closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the hub listens");
    // It may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset ends the answer as well as a close does.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the hub closes");
    answer
}

pub(crate) fn put(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn put_file(device: &SigningKey, file: &UsageFile) -> Vec<u8> {
    put(&path(device, file.at.seq), "", &file.bytes)
}

pub(crate) fn status(answer: &[u8]) -> &str {
    std::str::from_utf8(answer.get(9..12).unwrap_or_default()).unwrap_or_default()
}

/// Status and the problem's name.
pub(crate) fn refusal(answer: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
    assert!(head.contains("application/problem+json"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).expect("a problem document");
    (status(answer).into(), problem["title"].as_str().expect("a title").into())
}

pub(crate) fn told(status: &str, name: &str) -> (String, String) {
    (status.into(), name.into())
}

fn receipt_of(answer: &[u8]) -> Receipt {
    assert_eq!(status(answer), "200", "{}", String::from_utf8_lossy(answer));
    Receipt::verify(&answer[answer.len() - receipt::LEN..], &[hub_key().public()]).expect("it is the hub's")
}

#[tokio::test]
async fn every_wrong_request_is_refused_by_name_and_a_right_one_still_gets_through() {
    let premises = Premises::new();
    let config = Config { head_timeout: Span::millis(300), body_timeout: Span::millis(300), ..premises.config() };
    let hub = Running::start(config).await;
    let at = hub.address;
    let [one, two] = [file(&device(), 1, None, 1), file(&key(2), 1, None, 2)];
    let mine = path(&device(), 1);

    assert_eq!(refusal(&raw(at, &put("/v1/usage/x/y/z", "", b"")).await), told("404", "NotFound"));
    assert_eq!(refusal(&raw(at, &put("/../etc/passwd", "", b"")).await), told("404", "NotFound"));
    let post = format!("POST {mine} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let answer = raw(at, post.as_bytes()).await;
    assert_eq!(refusal(&answer), told("405", "MethodNotAllowed"));
    assert!(String::from_utf8_lossy(&answer).to_lowercase().contains("allow: put"));
    // A stranger; the stranger's file under an enrolled device's name; a good file under another number.
    assert_eq!(refusal(&raw(at, &put_file(&key(2), &two)).await), told("403", "UnknownDevice"));
    assert_eq!(refusal(&raw(at, &put(&mine, "", &two.bytes)).await), told("422", "KeyMismatch"));
    assert_eq!(refusal(&raw(at, &put(&path(&device(), 2), "", &one.bytes)).await), told("422", "PathMismatch"));
    assert_eq!(refusal(&raw(at, &put(&mine, "", b"")).await), told("422", "Truncated"));
    assert_eq!(refusal(&raw(at, &put(&mine, "", &[0x55; 4000])).await), told("422", "BadMagic"));
    assert_eq!(refusal(&raw(at, &put(&mine, "", &one.bytes[..300])).await), told("422", "Truncated"));
    let mut altered = one.bytes.clone();
    *altered.last_mut().expect("it has bytes") ^= 1;
    assert_eq!(refusal(&raw(at, &put(&mine, "", &altered)).await), told("422", "SignatureInvalid"));
    // Lengths that are absent, lie, or are too much.
    let chunked =
        format!("PUT {mine} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(refusal(&raw(at, chunked.as_bytes()).await), told("411", "LengthRequired"));
    let huge = format!("PUT {mine} HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n");
    assert_eq!(refusal(&raw(at, huge.as_bytes()).await), told("413", "FileTooLarge"));
    let slow = format!("PUT {mine} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc");
    assert_eq!(refusal(&raw(at, slow.as_bytes()).await), told("408", "BodyTimeout"));
    let twice = format!("PUT {mine} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(status(&raw(at, twice.as_bytes()).await), "400");
    // Not HTTP, a head without an end, a head that never comes.
    assert_eq!(status(&raw(at, &[0xff; 64]).await), "400");
    let long = format!("PUT {mine} HTTP/1.1\r\nX: {}", "x".repeat(64 << 10));
    assert_ne!(status(&raw(at, long.as_bytes()).await), "200");
    assert_ne!(status(&raw(at, b"PUT /v1").await), "200");
    assert_ne!(status(&raw(at, b"").await), "200");
    let mut gone = TcpStream::connect(at).await.expect("the hub listens");
    gone.write_all(&put_file(&device(), &one)[..400]).await.expect("it is sent");
    drop(gone);

    assert_eq!(premises.number("SELECT count(*) FROM files"), 0);
    assert_eq!(receipt_of(&raw(at, &put_file(&device(), &one)).await).digest, one.digest);
    assert_eq!(premises.number("SELECT count(*) FROM records"), 10);
    let alive = raw(at, b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status(&alive), alive.ends_with(b"ok\n")), ("200", true));
    hub.stop().await;
}

#[tokio::test]
async fn an_uploader_that_goes_away_before_the_answer_counts_once_and_gets_the_receipt_later() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let one = file(&device(), 1, None, 1);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(hub.address).await.expect("the hub listens");
        stream.write_all(&put_file(&device(), &one)).await.expect("it is sent");
        drop(stream);
    }
    let first = receipt_of(&raw(hub.address, &put_file(&device(), &one)).await);
    assert_eq!(receipt_of(&raw(hub.address, &put_file(&device(), &one)).await), first);
    hub.stop().await;
    // The same receipt, also from a hub that was started again.
    let hub = Running::start(premises.config()).await;
    assert_eq!(receipt_of(&raw(hub.address, &put_file(&device(), &one)).await), first);
    hub.stop().await;
    assert_eq!(premises.number("SELECT count(*) FROM records"), 10);
}

#[tokio::test]
async fn one_device_holds_no_more_than_two_places_with_bodies_that_do_not_come() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let whole = put_file(&device(), &file(&device(), 1, None, 1));
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(hub.address).await.expect("the hub listens");
        stream.write_all(&whole[..whole.len() - 1]).await.expect("it is sent");
        stalled.push(stream);
    }
    let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while refusal(&raw(hub.address, &whole).await) != told("503", "Overloaded") {
        assert!(tokio::time::Instant::now() < patience, "a third body is taken");
    }
    // A place that is given up is free again.
    drop(stalled.pop());
    while status(&raw(hub.address, &whole).await) != "200" {
        assert!(tokio::time::Instant::now() < patience, "the place stays taken");
    }
    hub.stop().await;
}

#[tokio::test]
async fn whoever_only_names_devices_leaves_places_for_those_that_show_their_signature() {
    let premises = Premises::new();
    let mut config = Config { uploads: 4, ..premises.config() };
    config
        .devices
        .extend((2..8).map(|seed| DeviceEntry { name: format!("till {seed}"), key: hex(key(seed).public().raw()) }));
    let hub = Running::start(config).await;
    let one = file(&device(), 1, None, 1);
    let shown = |signature: &[u8]| format!("Tidegate-Signature: {}\r\n", hex(signature));
    let signature = &one.bytes[one.bytes.len() - 64..];
    // Bodies that never come, in the name of every device.
    let mut stalled = Vec::new();
    for seed in (2..8).chain(2..8) {
        let mut stream = TcpStream::connect(hub.address).await.expect("the hub listens");
        let head = put(&path(&key(seed), 1), "", &one.bytes);
        stream.write_all(&head[..head.len() - one.bytes.len()]).await.expect("it is sent");
        stalled.push(stream);
        // With a signature that is none of theirs they get no place at all.
        let mut stream = TcpStream::connect(hub.address).await.expect("the hub listens");
        let head = put(&path(&key(seed), 1), &shown(signature), &one.bytes);
        stream.write_all(&head[..head.len() - 64]).await.expect("it is sent");
        assert_eq!(refusal(&read(&mut stream).await), told("422", "SignatureInvalid"));
    }
    // The control: who shows nothing finds no place.
    let patience = tokio::time::Instant::now() + DEADLINE;
    while refusal(&raw(hub.address, &put(&path(&device(), 1), "", b"x")).await) != told("503", "Overloaded") {
        assert!(tokio::time::Instant::now() < patience, "the places are free");
    }
    let answer = raw(hub.address, &put(&path(&device(), 1), &shown(signature), &one.bytes)).await;
    assert_eq!(receipt_of(&answer).digest, one.digest);
    hub.stop().await;
}

#[tokio::test]
async fn of_uploads_of_one_number_at_once_one_file_counts_and_the_others_are_kept_apart() {
    let premises = Premises::new();
    let hub = Running::start(Config { uploads: 16, ..premises.config() }).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (address, file) = (hub.address, file(&device(), 1, None, n % 2));
        tasks.spawn(async move {
            // A device has two places; who finds none comes again.
            loop {
                match status(&raw(address, &put_file(&device(), &file)).await) {
                    "503" => tokio::task::yield_now().await,
                    status => return status.to_owned(),
                }
            }
        });
    }
    let mut answers = tasks.join_all().await;
    answers.sort();
    assert_eq!(answers, [["200"; 8], ["409"; 8]].concat());
    hub.stop().await;
    assert_eq!(premises.number("SELECT count(*) FROM records"), 10);
    assert_eq!(premises.number("SELECT count(*) FROM forks"), 1);
    assert_eq!(premises.number("SELECT times FROM forks"), 8);
}

#[tokio::test]
async fn a_hub_that_is_full_says_when_to_come_again() {
    let premises = Premises::new();
    let hub = Running::start(Config { uploads: 1, ..premises.config() }).await;
    let one = file(&device(), 1, None, 1);
    let whole = put_file(&device(), &one);
    let mut slow = TcpStream::connect(hub.address).await.expect("the hub listens");
    slow.write_all(&whole[..whole.len() - 1]).await.expect("it is sent");
    // The slow one has its place once another is turned away.
    let busy = tokio::time::timeout(DEADLINE, async {
        loop {
            let answer = raw(hub.address, &put(&path(&device(), 1), "", b"x")).await;
            if status(&answer) == "503" {
                break answer;
            }
        }
    });
    let answer = busy.await.expect("the slow upload takes the only place");
    assert_eq!(refusal(&answer), told("503", "Overloaded"));
    assert!(String::from_utf8_lossy(&answer).to_lowercase().contains("retry-after: 1"));
    slow.write_all(&whole[whole.len() - 1..]).await.expect("it is sent");
    assert_eq!(receipt_of(&read(&mut slow).await).digest, one.digest);
    hub.stop().await;
}

#[tokio::test]
async fn a_slow_upload_gets_through_as_long_as_it_moves_and_a_trickle_does_not() {
    let premises = Premises::new();
    let hub = Running::start(Config { body_timeout: Span::millis(400), ..premises.config() }).await;
    let large = large_file(&device());
    let send = async |every: usize, pause: Duration| {
        let mut stream = TcpStream::connect(hub.address).await.expect("the hub listens");
        for part in put_file(&device(), &large).chunks(every) {
            if stream.write_all(part).await.is_err() {
                break; // it has answered and closed
            }
            tokio::time::sleep(pause).await;
        }
        read(&mut stream).await
    };
    let begun = Instant::now();
    assert_eq!(receipt_of(&send(large.bytes.len() / 12, Duration::from_millis(100)).await).digest, large.digest);
    assert!(begun.elapsed() > Duration::from_millis(1000), "longer than its time-out");
    let trickle = send(400, Duration::from_millis(250)).await;
    assert_eq!(refusal(&trickle), told("408", "BodyTimeout"));
    hub.stop().await;
}

#[tokio::test]
async fn a_guest_comes_in_only_where_that_is_allowed_and_only_with_its_own_key() {
    let premises = Premises::new();
    let stranger = key(2);
    let files = [file(&stranger, 1, None, 1)];
    let shown = |key: &SigningKey| format!("Tidegate-Device-Key: {}\r\n", hex(key.public().raw()));
    let request = |headers: &str| put(&path(&stranger, 1), headers, &files[0].bytes);

    let hub = Running::start(premises.config()).await;
    assert_eq!(refusal(&raw(hub.address, &request(&shown(&stranger))).await), told("403", "UnknownDevice"));
    hub.stop().await;

    let open = || Config { enrol: Enrol::Any, ..premises.config() };
    let hub = Running::start(open()).await;
    assert_eq!(refusal(&raw(hub.address, &request("")).await), told("403", "UnknownDevice"));
    assert_eq!(refusal(&raw(hub.address, &request(&shown(&key(3)))).await), told("403", "UnknownDevice"));
    assert_eq!(premises.number("SELECT count(*) FROM devices WHERE enrolled_by = 'any'"), 0);
    receipt_of(&raw(hub.address, &request(&shown(&stranger))).await);
    hub.stop().await;

    // It is remembered by a hub for guests, and by no other.
    let hub = Running::start(open()).await;
    receipt_of(&raw(hub.address, &request("")).await);
    hub.stop().await;
    let hub = Running::start(premises.config()).await;
    assert_eq!(refusal(&raw(hub.address, &request("")).await), told("403", "UnknownDevice"));
    hub.stop().await;
    assert_eq!(premises.number("SELECT count(*) FROM records"), 10);
}

#[tokio::test]
async fn one_connection_carries_many_files() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let files = chain(20);
    let mut stream = TcpStream::connect(hub.address).await.expect("the hub listens");
    let requests: Vec<u8> = files
        .iter()
        .flat_map(|file| {
            let head = format!(
                "PUT {} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
                path(&device(), file.at.seq),
                file.bytes.len()
            );
            [head.into_bytes(), file.bytes.clone()].concat()
        })
        .collect();
    stream.write_all(&requests).await.expect("it is sent");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.expect("it is sent");
    read(&mut stream).await;
    hub.stop().await;
    assert_eq!(premises.number("SELECT contiguous FROM streams"), 20);
    assert_eq!(premises.number("SELECT count(DISTINCT request_id) FROM records"), 200);
}
