use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::ids::StreamId;
use crate::keys::SigningKey;
use crate::spool::backlog::{Stock, Unavailable, UsageFile};
use crate::telemetry::{Heartbeats, Standstill};
use crate::upload::client::Client;

const DEVICE: DeviceId = DeviceId([1; 16]);
const DIGEST: Digest = Digest([4; 32]);
const AT: Cursor = Cursor { stream: StreamId(2), seq: 3 };

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
}

fn receipt() -> Receipt {
    Receipt { device: DEVICE, stream: AT.stream, seq: AT.seq, digest: DIGEST, at_ms: 5 }
}

fn verdict(status: u16, body: &[u8]) -> Result<Receipt, Judged> {
    let status = StatusCode::from_u16(status).expect("a status");
    let answer =
        Answer { status, retry_after: None, bundles: None, challenge: None, body: Bytes::copy_from_slice(body) };
    judge(&answer, DEVICE, DEVICE, AT, &DIGEST, &[key(1).public()])
}

#[test]
fn only_a_hub_keys_receipt_for_this_very_file_frees_it() {
    assert_eq!(verdict(200, &receipt().sign(&key(1))), Ok(receipt()));
    let refused = Err(Judged::Stop(Failure::ReceiptRefused));
    assert_eq!(verdict(200, &receipt().sign(&key(2))), refused);
    assert_eq!(verdict(200, b""), refused);
    for other in [
        Receipt { device: DeviceId([2; 16]), ..receipt() },
        Receipt { stream: StreamId(9), ..receipt() },
        Receipt { seq: 4, ..receipt() },
        Receipt { digest: Digest([5; 32]), ..receipt() },
    ] {
        assert_eq!(verdict(200, &other.sign(&key(1))), refused);
    }
}

#[test]
fn no_other_status_frees_a_file_even_with_a_good_receipt() {
    let good = receipt().sign(&key(1));
    for status in (100..200).chain(201..600) {
        assert!(verdict(status, &good).is_err(), "{status}");
    }
}

#[test]
fn a_refusal_of_one_file_does_not_stop_the_others_and_a_refusal_of_the_device_does() {
    for status in [409, 413, 422] {
        assert_eq!(verdict(status, b"{}"), Err(Judged::PassOver), "{status}");
    }
    assert_eq!(verdict(403, b"{}"), Err(Judged::Stop(Failure::UnknownDevice)));
    let answer =
        Answer { status: StatusCode::FORBIDDEN, retry_after: None, bundles: None, challenge: None, body: Bytes::new() };
    let of_another_key = judge(&answer, DEVICE, DeviceId([9; 16]), AT, &DIGEST, &[]);
    assert_eq!(of_another_key, Err(Judged::PassOver));
    assert_eq!(verdict(503, b"{}"), Err(Judged::Stop(Failure::Busy)));
    assert_eq!(verdict(404, b"{}"), Err(Judged::Stop(Failure::UnexpectedStatus)));
}

#[test]
fn an_address_that_would_send_usage_in_clear_needs_to_be_asked_for() {
    let client = |hub: &str, allow_plain_http: bool, pinned: bool| {
        let hub_pins = if pinned { vec![DIGEST] } else { vec![] };
        let config = Config { allow_plain_http, hub_pins, ..Config::default() };
        let uplink = Uplink::new(&config, Box::new(|| None), None).expect("no proxy");
        Client::new(&config, hub, b"", uplink, None)
    };
    for loopback in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost"] {
        assert!(client(loopback, false, false).is_ok(), "{loopback}");
    }
    assert!(matches!(client("http://hub.example", false, true), Err(Error::PlainHttp(_))));
    assert!(client("http://hub.example", true, false).is_ok());
    assert!(matches!(client("https://hub.example", false, false), Err(Error::NoPin)));
    assert!(client("https://hub.example:8470/", false, true).is_ok());
    for wrong in ["", "hub.example", "ftp://hub.example", "https://hub.example/v1", "https://hub.example?x"] {
        assert!(matches!(client(wrong, true, true), Err(Error::BadAddress(_))), "{wrong}");
    }
}

/// A spool that says once that there is nothing, and then nothing more.
#[derive(Debug, Default)]
struct Mute(AtomicU32);

impl Backlog for Mute {
    fn waiting(&self) -> Option<Stock> {
        None
    }

    async fn oldest(&self, _: Option<Cursor>) -> Result<Option<UsageFile>, Unavailable> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(None),
            _ => std::future::pending().await,
        }
    }

    async fn acknowledge(&self, _: Cursor, _: &Digest) -> Result<(), Unavailable> {
        Err(Unavailable)
    }
}

#[tokio::test]
async fn an_uploader_that_waits_between_rounds_or_for_its_spool_is_fresh_and_one_that_has_ended_is_not() {
    let (silence, wakes) = (Duration::from_millis(240), Wakes::default());
    let (_hubs, hubs) = watch::channel(Arc::from([key(1).public()]));
    let hub = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", hub.local_addr().expect("an address"));
    // A hub that knows nothing, not even the time.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = hub.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1 << 10]).await;
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
            });
        }
    });
    let config = Config { hubs: vec![address], ..Config::default() };
    let spool = Arc::new(Mute::default());
    let uplink = Uplink::new(&config, Box::new(|| None), None).expect("a good configuration");
    let worker = Worker::new(config, &uplink, Arc::clone(&spool), &Identity::new(&key(2)), hubs, wakes.clone());
    let worker = worker.expect("a good configuration").expect("it names a hub");
    let hearts = Heartbeats::new(Instant::now(), silence);
    let task = tokio::spawn(worker.run(hearts.register("upload", Instant::now())));
    for (asked, wait) in [(1, "between rounds"), (2, "for the spool")] {
        let fresh = tokio::time::timeout(Duration::from_secs(10), async {
            while spool.0.load(Ordering::Relaxed) < asked {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(3 * silence).await;
            while hearts.all_fresh(Instant::now()).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        fresh.await.unwrap_or_else(|_| panic!("it beats while it waits {wait}"));
        wakes.kick.notify_one();
    }
    task.abort();
    let _ = task.await;
    assert_eq!(hearts.all_fresh(Instant::now()), Err(Standstill::Ended("upload".into())));
}
