//! Peers that are slow but not gone, on either side.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use tidegate::gateway::{ConnectionEnd, ListenerConfig};
use tidegate::spool::record::Outcome;
use tidegate::units::Span;

use crate::rig::Terms;
use crate::scene::{RIG, free_port, quick, scene, scene_on, with_token};
use crate::upstream::{SOON, start};

const LENGTH: usize = 300_000;
/// Between two things that a slow peer does: less than any time-out of [`quick`].
const PAUSE: Duration = Duration::from_millis(60);

#[test]
fn a_caller_that_reads_slowly_gets_the_whole_answer_though_its_record_was_closed_long_before() {
    let upstream = start(|_, out| {
        let _ = write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        out.write_all(&[b'x'; LENGTH]).is_ok()
    });
    // What the kernel does not take waits in the gateway.
    let socket = free_port();
    set_socket_send_buffer_size(&socket, 4 << 10).expect("a socket");
    let snapshot = RIG.snapshot(&Terms::to(upstream.address));
    let mut config = quick();
    config.timeouts.body = Span::secs(20);
    let scene = scene_on(socket, snapshot, config, ListenerConfig::default(), None);
    let mut client = scene.connect();
    set_socket_recv_buffer_size(&client.stream, 4 << 10).expect("a socket");
    client.say(&with_token("GET /petstore/1.0/pet/1", ""));
    assert_eq!(client.head().status, 200);
    let (mut got, mut part, mut recorded) = (0, [0; 12 << 10], None);
    while got < LENGTH {
        let read = client.input.read(&mut part).expect("the rest");
        assert_ne!(read, 0, "cut off after {got} of {LENGTH} bytes");
        got += read;
        if recorded.is_none() && scene.records.try_recv().is_ok() {
            recorded = Some(Instant::now());
        }
        std::thread::sleep(PAUSE);
    }
    let since = recorded.expect("it was recorded before its end").elapsed();
    assert!(since > quick().timeouts.head.0, "{since:?}: as long as a head may take, or this proves nothing");
    // The next head is awaited as long as ever, and no longer.
    client.say(&with_token("HEAD /petstore/1.0/pet/1", ""));
    assert_eq!(client.head().status, 200);
    assert!(client.is_closed());
    scene.ended(ConnectionEnd::HeadTimeout, 1);
    assert_eq!(scene.record().outcome, Outcome::Admitted);
    scene.end();
}

#[test]
fn an_upload_goes_on_for_as_long_as_it_takes_though_its_answer_came_early() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (sender, arrived) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut bytes = vec![0; 4_096];
        let mut all = Vec::new();
        let mut is_answered = false;
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            all.extend_from_slice(&bytes[..read]);
            if !std::mem::replace(&mut is_answered, true) {
                stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok").expect("it reads");
            }
            if all.ends_with(b"end") {
                let _ = sender.send(());
            }
        }
    });
    let scene = scene(&Terms::to(address));
    let mut client = scene.connect();
    let parts = 20;
    let length = format!("Content-Length: {}\r\n", parts * 4 + 3);
    client.say(&with_token("POST /petstore/1.0/open/x", &length));
    assert_eq!(client.reply().status, 202);
    assert_eq!(scene.record().outcome, Outcome::Admitted);
    let begun = Instant::now();
    for _ in 0..parts {
        std::thread::sleep(PAUSE);
        client.say("part");
    }
    client.say("end");
    arrived.recv_timeout(SOON).expect("the whole body");
    assert!(begun.elapsed() > quick().timeouts.head.0, "or this proves nothing");
    assert!(client.is_closed(), "then a head is awaited");
    scene.ended(ConnectionEnd::HeadTimeout, 1);
    scene.end();
}

#[test]
fn an_upstream_that_stops_reading_is_told_as_one_that_took_too_long() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let scene = scene(&Terms { max_body: 64 << 20, ..Terms::to(listener.local_addr().expect("bound")) });
    let mut client = scene.connect();
    let length = 32 << 20;
    client.say(&with_token("POST /petstore/1.0/open/x", &format!("Content-Length: {length}\r\n")));
    let mut out: TcpStream = client.stream.try_clone().expect("a socket can be shared");
    let caller = std::thread::spawn(move || while out.write_all(&[b'x'; 64 << 10]).is_ok() {});
    let (_stopped, _) = listener.accept().expect("a connection");
    assert_eq!(client.head().status, 504);
    let record = scene.record();
    assert_eq!((record.outcome, record.status), (Outcome::UpstreamTimeout, 504));
    drop(client);
    caller.join().expect("it is told");
    scene.end();
}
