//! Uploader and hub together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::hub::{Config as HubConfig, DeviceEntry, Tls};
use tidegate::ids::{DeviceId, Digest, StreamId, hex};
use tidegate::keys::sha256;
use tidegate::spool::backlog::{Cursor, UsageFile};
use tidegate::spool::receipt::Receipt;
use tidegate::units::Span;
use tidegate::upload::{Config, Failure, Link};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use crate::http::raw;
use crate::scene::{DEADLINE, Premises, Running, Shelf, chain, device, file, file_of, hub_key, key, large_file, path};
use crate::uploader::{Uploader, config};

fn plain(address: SocketAddr) -> Config {
    config(format!("http://{address}"))
}

/// A port on which nobody listens.
async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    listener.local_addr().expect("it listens")
}

#[tokio::test]
async fn usage_waits_for_a_hub_that_is_away_and_gets_there_once_when_it_comes_back() {
    let premises = Premises::new();
    let address = free_address().await;
    let mut uploader = Uploader::start(plain(address), Shelf::of(chain(5)), hub_key().public());
    let status = uploader.until(|status| status.link.failures() >= 3).await;
    assert_eq!((status.failure, uploader.shelf.len()), (Some(Failure::Connect), 5));
    assert_eq!(uploader.shelf.reads(), 0, "reading wears the device's flash: not before there is a hub");

    let hub = Running::start(HubConfig { listen: address, ..premises.config() }).await;
    let status = uploader.until(|status| status.files == 5).await;
    assert_eq!((status.link, uploader.shelf.len()), (Link::Up, 0));
    let before = status.failures;
    assert!(before >= 3, "a success forgets no failure: {status:?}");

    // The hub goes in the middle of things and comes back with what it had.
    hub.stop().await;
    let late = chain(8).split_off(5);
    uploader.shelf.0.lock().expect("no test panics with it").extend(late);
    uploader.wakes.sealed.notify_one();
    let status = uploader.until(|status| status.link.failures() >= 1).await;
    assert!(status.failures > before && status.failures > status.link.failures().into(), "{status:?}");
    let hub = Running::start(HubConfig { listen: address, ..premises.config() }).await;
    uploader.until(|status| status.files == 8).await;
    assert_eq!(uploader.shelf.len(), 0);
    hub.stop().await;
    assert_eq!(premises.number("SELECT contiguous FROM streams"), 8);
    assert_eq!(premises.number("SELECT count(*) FROM records"), 80);
    assert_eq!(premises.number("SELECT count(DISTINCT request_id) FROM records"), 80);
}

#[tokio::test]
async fn a_receipt_by_a_key_that_is_not_the_hubs_frees_no_file() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let mut uploader = Uploader::start(plain(hub.address), Shelf::of(chain(3)), key(8).public());
    uploader.until(|status| status.failure == Some(Failure::ReceiptRefused) && status.link.failures() >= 3).await;
    assert_eq!(uploader.shelf.len(), 3);
    // No key at all: nothing is even read.
    uploader.hubs.send_replace(Arc::from([]));
    uploader.until(|status| status.failure == Some(Failure::NoHubKey)).await;
    let reads = uploader.shelf.reads();
    uploader.wakes.kick.notify_one();
    uploader.until(|status| status.link.failures() >= 5).await;
    assert_eq!((uploader.shelf.len(), uploader.shelf.reads()), (3, reads));
    // The control: the right key frees them, and what came twice counts once.
    uploader.hubs.send_replace(Arc::from([key(8).public(), hub_key().public()]));
    uploader.until(|status| status.files == 3).await;
    assert_eq!(uploader.shelf.len(), 0);
    hub.stop().await;
    assert_eq!(premises.number("SELECT count(*) FROM records"), 30);
}

#[tokio::test]
async fn a_forked_file_stays_and_does_not_hold_up_the_files_behind_it() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let mut files = chain(3);
    let mut before = Uploader::start(plain(hub.address), Shelf::of(files[..2].to_vec()), hub_key().public());
    before.until(|status| status.files == 2).await;
    files[1] = file(&device(), 2, Some(files[0].digest), 99);
    let last = files[2].digest;
    let mut uploader = Uploader::start(plain(hub.address), Shelf::of(files), hub_key().public());
    uploader.until(|status| status.files == 2 && status.passed_over == 1).await;
    assert_eq!(uploader.shelf.len(), 1);
    // Another file comes: only that one is sent, each byte may cost money.
    uploader.shelf.0.lock().expect("no test panics with it").push(file(&device(), 4, Some(last), 4));
    uploader.wakes.sealed.notify_one();
    uploader.until(|status| status.files == 3 && status.passed_over == 1).await;
    assert_eq!(premises.number("SELECT times FROM forks"), 1);
    // Somebody asks: it is tried again.
    uploader.wakes.kick.notify_one();
    let again = async {
        while premises.number("SELECT times FROM forks") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("it is sent again");
    hub.stop().await;
    assert_eq!(premises.number("SELECT contiguous FROM streams"), 4);
    assert_eq!(premises.number("SELECT count(*) FROM records"), 40);
    assert_eq!(premises.number("SELECT count(*) FROM forks"), 1);
}

#[tokio::test]
async fn files_of_a_key_that_the_device_had_before_do_not_hold_up_those_of_the_new_one() {
    let old = key(3);
    let first = file_of(StreamId(1), &old, 1, None, 51);
    let second = file_of(StreamId(1), &old, 2, Some(first.digest), 52);
    let files = [vec![first, second], chain(3)].concat();

    // A hub that knows only the new key.
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let mut uploader = Uploader::start(plain(hub.address), Shelf::of(files.clone()), hub_key().public());
    let status = uploader.until(|status| status.files == 3).await;
    assert_eq!((status.passed_over, status.by_another_key, uploader.shelf.len()), (2, 2, 2));
    hub.stop().await;

    // One that knows both takes all.
    let premises = Premises::new();
    let mut config = premises.config();
    config.devices.push(DeviceEntry { name: "till before".into(), key: hex(old.public().raw()) });
    let hub = Running::start(config).await;
    let mut uploader = Uploader::start(plain(hub.address), Shelf::of(files), hub_key().public());
    uploader.until(|status| status.files == 5 && status.passed_over == 0).await;
    hub.stop().await;
    assert_eq!(premises.number("SELECT count(*) FROM streams"), 2);
    assert_eq!(premises.number("SELECT count(*) FROM records"), 50);
}

/// A hub that cannot tell the time, and takes one upload as slowly as it likes, a part every 60 ms, and `parts` of them
/// at most.
async fn slow_hub(file: UsageFile, part: usize, parts: usize) -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("it is set");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    let listener = socket.listen(8).expect("it listens");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        let (mut asks, _) = listener.accept().await.expect("somebody comes");
        assert_ne!(asks.read(&mut [0; 1 << 10]).await.expect("it asks"), 0);
        asks.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.expect("it writes");
        let (mut stream, _) = listener.accept().await.expect("it comes again");
        let (mut buffer, mut got) = (vec![0; part], 0);
        for _ in 0..parts {
            got += stream.read(&mut buffer).await.expect("it reads");
            tokio::time::sleep(Duration::from_millis(60)).await;
            if got > file.bytes.len() {
                let Cursor { stream: of, seq } = file.at;
                let maker = device().public().id().into();
                let receipt =
                    Receipt { device: maker, stream: of, seq, digest: file.digest, at_ms: 1 }.sign(&hub_key());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", receipt.len());
                tokio::time::sleep(Duration::from_millis(100)).await; // the rest of the head and the body
                stream.write_all(&[head.as_bytes(), &receipt].concat()).await.expect("it writes");
                break;
            }
        }
        tokio::time::sleep(DEADLINE).await;
    });
    address
}

#[tokio::test]
async fn an_upload_may_take_long_as_long_as_it_moves_and_one_that_stands_still_is_given_up() {
    let large = large_file(&device());
    let config = |hub| Config { request_timeout: Span::millis(1500), ..plain(hub) };
    let hub = slow_hub(large.clone(), 8 << 10, usize::MAX).await;
    let begun = Instant::now();
    let mut slow = Uploader::start(config(hub), Shelf::of(vec![large.clone()]), hub_key().public());
    let status = slow.until(|status| status.files == 1 || status.failure.is_some()).await;
    assert_eq!((status.files, status.failure), (1, None), "{:?}", begun.elapsed());
    assert!(begun.elapsed() > Duration::from_millis(1600), "longer than its time-out: {:?}", begun.elapsed());

    let hub = slow_hub(large.clone(), 8 << 10, 3).await;
    let mut stuck = Uploader::start(config(hub), Shelf::of(vec![large]), hub_key().public());
    let status = stuck.until(|status| status.failure.is_some()).await;
    assert_eq!((status.failure, stuck.shelf.len()), (Some(Failure::RequestTimeout), 1));
}

#[tokio::test]
async fn over_tls_usage_goes_to_the_pinned_hub_and_to_no_other() {
    let premises = Premises::new();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (certificate, pem_key) = (premises.path("hub.pem"), premises.path("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("it can be written");
    std::fs::write(&pem_key, made.signing_key.serialize_pem()).expect("it can be written");
    let tls = Some(Tls { certificate: certificate.clone(), key: pem_key });
    let hub = Running::start(HubConfig { tls, ..premises.config() }).await;
    let https = || config(format!("https://{}", hub.address));
    let pin = sha256(&rcgen::PublicKeyData::subject_public_key_info(&made.signing_key));

    let wrong = Config { hub_pins: vec![Digest([1; 32])], ..https() };
    let mut refused = Uploader::start(wrong, Shelf::of(chain(1)), hub_key().public());
    refused.until(|status| status.failure == Some(Failure::Tls)).await;
    assert_eq!(refused.shelf.len(), 1);

    let by_key = Config { hub_pins: vec![Digest([1; 32]), pin], ..https() };
    let mut pinned = Uploader::start(by_key, Shelf::of(chain(2)), hub_key().public());
    pinned.until(|status| status.files == 2).await;

    let by_authority = Config { authority_file: Some(certificate), ..https() };
    let mut issued = Uploader::start(by_authority, Shelf::of(chain(3)), hub_key().public());
    issued.until(|status| status.files == 3).await;
    hub.stop().await;
    assert_eq!(premises.number("SELECT count(*) FROM records"), 30);
}

#[tokio::test]
async fn the_hub_hears_what_waits_on_a_device_and_is_not_misled_by_what_cannot_be_read_or_is_refused() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let (waiting, id) = ("SELECT files * 1000000 + bytes FROM waiting", DeviceId::from(device().public().id()));
    let files = chain(4);
    let put = async |seq: usize, key: &str, told: &str| {
        let headers = format!("Tidegate-Device-Key: {key}\r\nTidegate-Backlog: {told}\r\n");
        let path = path(&device(), seq as u64);
        let answer = raw(hub.address, &crate::http::put(&path, &headers, &files[seq - 1].bytes)).await;
        crate::http::status(&answer).to_owned()
    };
    let own = hex(device().public().raw());
    assert_eq!(put(1, &own, "files=7, bytes=900, oldest=5").await, "200");
    assert_eq!(put(2, &own, "files=6").await, "200", "a hint is no reason to refuse usage");
    assert_eq!(
        put(2, &hex(key(2).public().raw()), "files=5, bytes=1").await,
        "200",
        "another key's: not this device's"
    );
    // What is refused tells nothing.
    let forged = crate::http::put(&path(&device(), 3), "Tidegate-Backlog: files=99, bytes=1\r\n", b"no usage file");
    assert_eq!(crate::http::status(&raw(hub.address, &forged).await), "422");
    hub.stop().await;
    assert_eq!(premises.number(waiting), 7_000_900);
    assert_eq!(premises.number(&format!("SELECT oldest_s FROM waiting WHERE device = '{id}'")), 5);
    // The uploader's own word: after its last file nothing waits, and one that is passed over still does.
    let hub = Running::start(premises.config()).await;
    let fork = file(&device(), 1, None, 77);
    let left = i64::try_from(fork.bytes.len()).expect("a file is small");
    let shelf = Shelf::of(vec![fork, files[2].clone(), files[3].clone()]);
    let mut uploader = Uploader::start(plain(hub.address), shelf, hub_key().public());
    uploader.until(|status| status.files == 2 && status.passed_over == 1).await;
    hub.stop().await;
    assert_eq!(premises.number(waiting), 1_000_000 + left);
}
