//! When and how the uploader calls: several hubs, windows, the day's limit, proxies, and a link that is cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate::hub::Config as HubConfig;
use tidegate::units::{Bytes, Span};
use tidegate::upload::{Clock, Config, Failure, Link, ProxyAddress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{DEADLINE, Premises, Running, Shelf, chain, device, file, hub_key, large_file};
use crate::uploader::{Uploader, config};

/// 3 March 2026, midnight UTC.
const MIDNIGHT: i64 = 1_772_496_000;
const HOUR: i64 = 3600;

fn to(hubs: &[SocketAddr]) -> Config {
    Config { hubs: hubs.iter().map(|hub| format!("http://{hub}")).collect(), ..config(String::new()) }
}

/// A clock that goes on from `begin`.
fn clock(begin: i64) -> Clock {
    let since = Instant::now();
    Box::new(move || Some(begin + since.elapsed().as_secs().cast_signed()))
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what} does not come about"));
}

/// A server that answers every connection's first request with `answer`, and how often it was called.
async fn says(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let (address, calls) = (listener.local_addr().expect("it listens"), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 4 << 10]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, calls)
}

fn calls(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port is free").local_addr().expect("it listens")
}

#[tokio::test]
async fn where_the_first_hub_is_not_there_the_next_is_tried_at_once_and_each_round_begins_at_the_first() {
    let (first, last) = (Premises::new(), Premises::new());
    let away = closed_port().await;
    let (rubbish, rubbish_calls) = says("SSH-2.0-OpenSSH_9.2\r\n").await;
    let second = Running::start(last.config()).await;
    let (third, third_calls) = says("").await;
    let settings =
        Config { retry_base: Span::hours(1), retry_cap: Span::hours(1), ..to(&[away, rubbish, second.address, third]) };
    let mut uploader = Uploader::start(settings, Shelf::of(chain(3)), hub_key().public());
    let status = uploader.until(|status| status.files == 3).await;
    assert_eq!((status.hub, status.failures, status.link), (Some(2), 0, Link::Up), "no wait of up to an hour");
    assert!(calls(&rubbish_calls) > 0 && calls(&third_calls) == 0);

    let back = Running::start(HubConfig { listen: away, ..first.config() }).await;
    uploader.shelf.0.lock().expect("no test panics with it").extend(chain(4).split_off(3));
    uploader.wakes.sealed.notify_one();
    let status = uploader.until(|status| status.files == 4).await;
    assert_eq!(status.hub, Some(0));
    back.stop().await;
    second.stop().await;
    assert_eq!(last.number("SELECT count(*) FROM records"), 30);
    assert_eq!(first.number("SELECT count(*) FROM records"), 10);
}

#[tokio::test]
async fn a_refusal_is_every_hubs_and_the_next_is_not_called() {
    let premises = Premises::new();
    let stranger = Running::start(HubConfig { devices: Vec::new(), ..premises.config() }).await;
    let (next, next_calls) = says("").await;
    let mut uploader = Uploader::start(to(&[stranger.address, next]), Shelf::of(chain(1)), hub_key().public());
    let status = uploader.until(|status| status.failures >= 3).await;
    assert_eq!((status.failure, status.hub, calls(&next_calls)), (Some(Failure::UnknownDevice), Some(0), 0));
    stranger.stop().await;
}

#[tokio::test]
async fn a_hub_that_asks_to_come_later_is_called_then_or_when_somebody_asks_and_the_next_takes_its_place() {
    let premises = Premises::new();
    let (busy, busy_calls) =
        says("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3000\r\nContent-Length: 0\r\n\r\n").await;
    let hub = Running::start(premises.config()).await;
    let settings = Config { retry_cap: Span::hours(1), ..to(&[busy, hub.address]) };
    let mut uploader = Uploader::start(settings, Shelf::of(chain(1)), hub_key().public());
    let status = uploader.until(|status| status.files == 1).await;
    assert_eq!(status.hub, Some(1));
    let asked = calls(&busy_calls);
    for (number, file) in chain(4).into_iter().enumerate().skip(1) {
        uploader.shelf.0.lock().expect("no test panics with it").push(file);
        uploader.wakes.sealed.notify_one();
        uploader.until(|status| status.files == number as u64 + 1).await;
    }
    assert_eq!(calls(&busy_calls), asked, "not before its time");
    uploader.wakes.kick.notify_one();
    until("a call by hand", || calls(&busy_calls) > asked).await;
    hub.stop().await;
}

#[tokio::test]
async fn outside_of_the_windows_no_connection_is_made_until_one_opens_or_somebody_asks() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let (listens, listens_calls) = says("").await;
    let windows = vec!["22:00-06:00".parse().expect("a window")];
    let at_noon = |hubs: &[SocketAddr]| Config { windows: windows.clone(), interval: Span::millis(100), ..to(hubs) };

    let key = || hub_key().public();
    let mut shut =
        Uploader::by_clock(at_noon(&[listens]), clock(MIDNIGHT + 12 * HOUR), None, Shelf::of(chain(1)), key());
    let status = shut.until(|status| status.held.is_some()).await;
    assert_eq!((status.held, status.link, status.failures), (Some(Failure::OutsideWindows), Link::Held, 0));
    for _ in 0..20 {
        shut.wakes.sealed.notify_one();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((calls(&listens_calls), shut.shelf.reads()), (0, 0));
    // The control: the same connection, by hand.
    shut.wakes.kick.notify_one();
    until("a call by hand", || calls(&listens_calls) > 0).await;

    // It opens by itself.
    let opens = clock(MIDNIGHT + 22 * HOUR - 2);
    let mut early = Uploader::by_clock(at_noon(&[hub.address]), opens, None, Shelf::of(chain(2)), key());
    early.until(|status| status.held.is_some()).await;
    let status = early.until(|status| status.files == 2).await;
    assert_eq!((status.held, status.link), (None, Link::Up));

    // By a clock that is lost they count as open.
    let mut lost = Uploader::by_clock(at_noon(&[hub.address]), Box::new(|| None), None, Shelf::of(chain(3)), key());
    lost.until(|status| status.files == 3).await;
    hub.stop().await;
}

#[tokio::test]
async fn once_the_days_limit_is_used_up_nothing_more_goes_until_tomorrow_over_restarts_too() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let large = large_file(&device());
    let size = large.bytes.len() as u64;
    assert!(size > 100_000, "{size}");
    let next = file(&device(), large.at.seq + 1, Some(large.digest), 7);
    let (kept, settings) = (premises.path("traffic"), Config { daily_limit: Bytes(1 << 20), ..to(&[hub.address]) });
    let start = |at: i64, kept: &std::path::Path, shelf: &Shelf| {
        Uploader::by_clock(settings.clone(), clock(at), Some(kept.into()), shelf.clone(), hub_key().public())
    };
    // Most of it went before.
    let before = (1 << 20) - 100_000;
    std::fs::write(&kept, format!("tidegate-day 1 {} {before} 3600\n", MIDNIGHT / (24 * HOUR))).expect("written");
    let shelf = Shelf::of(vec![large, next]);
    let mut today = start(MIDNIGHT + HOUR, &kept, &shelf);
    let status = today.until(|status| status.held.is_some()).await;
    assert_eq!((status.held, status.files, shelf.len()), (Some(Failure::DailyLimit), 1, 1));
    let bytes = today.uplink.day_bytes();
    assert!((before + size..before + size + (16 << 10)).contains(&bytes), "{bytes} with a file of {size}");
    today.uplink.save();
    drop(today);

    let mut later = start(MIDNIGHT + 23 * HOUR, &kept, &shelf);
    later.until(|status| status.held.is_some()).await;
    later.wakes.kick.notify_one(); // somebody who asks does not pay for it either
    later.wakes.sealed.notify_one();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((shelf.len(), later.uplink.day_bytes()), (1, bytes), "nothing has gone");
    drop(later);

    // The control: who forgets the day begins it anew.
    let forgetful = Shelf::of(shelf.0.lock().expect("no test panics with it").clone());
    let mut control = start(MIDNIGHT + 23 * HOUR, &premises.path("nowhere"), &forgetful);
    control.until(|status| status.files == 1).await;

    let mut tomorrow = start(MIDNIGHT + 24 * HOUR, &kept, &shelf);
    tomorrow.until(|status| status.files == 1).await;
    assert_eq!(shelf.len(), 0);
    hub.stop().await;
}

/// A proxy that wants `till` and `secret`, and what it was asked for.
async fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let (address, asked) = (listener.local_addr().expect("it listens"), Arc::<Mutex<Vec<String>>>::default());
    let lines = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let head = String::from_utf8(head).expect("text");
            let line = head.lines().next().unwrap_or_default().to_owned();
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            lines.lock().expect("no test panics with it").push(line);
            if !head.contains("\r\nProxy-Authorization: Basic dGlsbDpzZWNyZXQ=\r\n") {
                let _ = stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
                continue;
            }
            let Ok(mut hub) = TcpStream::connect(target).await else {
                let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
                continue;
            };
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("it writes");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut hub).await });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn usage_goes_through_the_proxy_and_no_other_way_and_what_the_proxy_refuses_is_told_by_name() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let (address, asked) = proxy().await;
    let through = |credentials: &str, hubs: &[SocketAddr]| Config {
        proxy: Some(ProxyAddress::new(format!("http://{credentials}{address}"))),
        ..to(hubs)
    };
    for credentials in ["", "till:wrong@"] {
        let wrong = through(credentials, &[hub.address]);
        let mut refused = Uploader::start(wrong, Shelf::of(chain(1)), hub_key().public());
        let status = refused.until(|status| status.failures > 0).await;
        assert_eq!((status.failure, status.files), (Some(Failure::ProxyCredentials), 0));
        assert!(Failure::ProxyCredentials.to_string().contains("ProxyRefused 407"));
    }
    let away = closed_port().await;
    let mut unreached = Uploader::start(through("till:secret@", &[away]), Shelf::of(chain(1)), hub_key().public());
    unreached.until(|status| status.failure == Some(Failure::ProxyNoWay(502))).await;
    asked.lock().expect("no test panics with it").clear();
    let right = through("till:secret@", &[away, hub.address]);
    let mut uploader = Uploader::start(right, Shelf::of(chain(3)), hub_key().public());
    let status = uploader.until(|status| status.files == 3).await;
    assert_eq!(status.hub, Some(1), "the proxy cannot reach the first");
    let line = format!("CONNECT {} HTTP/1.1", hub.address);
    assert!(asked.lock().expect("no test panics with it").contains(&line), "http hubs too");
    let nobody = Config { proxy: Some(ProxyAddress::new(format!("http://{away}"))), ..to(&[hub.address]) };
    let mut alone = Uploader::start(nobody, Shelf::of(chain(1)), hub_key().public());
    alone.until(|status| status.failure == Some(Failure::Proxy)).await;
    hub.stop().await;
}

/// A link to `hub` that is cut in the middle of the first upload of `seq`, and all that went over it.
async fn cut_link(hub: SocketAddr, seq: u64) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let (address, seen) = (listener.local_addr().expect("it listens"), Arc::<Mutex<Vec<u8>>>::default());
    let (all, mark) = (Arc::clone(&seen), format!("/{seq} HTTP/1.1"));
    tokio::spawn(async move {
        let mut is_cut = false;
        while let Ok((device, _)) = listener.accept().await {
            let hub = TcpStream::connect(hub).await.expect("it listens");
            let ((mut from_device, mut to_device), (mut from_hub, mut to_hub)) =
                (device.into_split(), hub.into_split());
            let answers = tokio::spawn(async move { tokio::io::copy(&mut from_hub, &mut to_device).await });
            let mut sent = Vec::new();
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = from_device.read(&mut buffer).await {
                sent.extend_from_slice(&buffer[..count]);
                if to_hub.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
                let at = sent.windows(mark.len()).position(|part| part == mark.as_bytes());
                let body =
                    at.and_then(|at| sent[at..].windows(4).position(|four| four == b"\r\n\r\n").map(|end| at + end));
                if !is_cut && body.is_some_and(|body| sent.len() > body + 10) {
                    is_cut = true;
                    break;
                }
            }
            all.lock().expect("no test panics with it").extend(sent);
            answers.abort();
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_link_that_is_cut_in_the_middle_of_a_file_costs_that_file_alone_and_nothing_is_acknowledged_twice() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let files = chain(5);
    assert!(files[2].bytes.len() > 200, "what is read at once is less");
    let (link, seen) = cut_link(hub.address, 3).await;
    let mut uploader = Uploader::start(to(&[link]), Shelf::of(files), hub_key().public());
    let status = uploader.until(|status| status.files == 5).await;
    assert_eq!((status.files, uploader.shelf.len()), (5, 0));
    assert!(status.failures > 0, "it was cut");
    drop(uploader);
    hub.stop().await;
    let text = |seen: &[u8]| String::from_utf8_lossy(seen).into_owned();
    until("all is seen", || text(&seen.lock().expect("no test panics with it")).contains("/5 HTTP/1.1")).await;
    let seen = text(&seen.lock().expect("no test panics with it"));
    let sent = [1, 2, 3, 4, 5].map(|seq| seen.matches(&format!("/{seq} HTTP/1.1")).count());
    assert_eq!(sent, [1, 1, 2, 1, 1], "how often each file was sent");
    assert_eq!(premises.number("SELECT count(*) FROM records"), 50);
    assert_eq!(premises.number("SELECT contiguous FROM streams"), 5);
}
