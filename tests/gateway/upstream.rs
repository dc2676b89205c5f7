//! A scripted upstream on raw sockets: it says exactly the bytes that a test gives it, and shows what it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A request as the upstream saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice: {:?}", self.fields);
        value
    }
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Receiver<Seen>,
}

/// What the upstream does with a request; false ends the connection.
pub(crate) type Script = fn(&Seen, &mut TcpStream) -> bool;

/// Starts an upstream whose connections all follow `script`.
pub(crate) fn start(script: Script) -> Upstream {
    start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
}

pub(crate) fn start_at(address: SocketAddr, script: Script) -> Upstream {
    let listener = TcpListener::bind(address).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.expect("a connection"), sender.clone());
            stream.set_nodelay(true).expect("a socket");
            std::thread::spawn(move || serve(stream, script, &sender));
        }
    });
    Upstream { address, seen }
}

fn serve(stream: TcpStream, script: Script, sender: &Sender<Seen>) {
    let mut out = stream.try_clone().expect("a socket can be shared");
    let mut input = BufReader::new(stream);
    while let Some(seen) = read_request(&mut input) {
        let goes_on = script(&seen, &mut out);
        let _ = sender.send(seen);
        if !goes_on {
            let _ = out.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// Reads a head and its body; `None` at the end of the stream.
pub(crate) fn read_request(input: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    if input.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let mut field = String::new();
        input.read_line(&mut field).ok()?;
        let Some((name, value)) = field.trim_end().split_once(':') else { break };
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut seen = Seen { line: line.trim_end().to_owned(), fields, body: Vec::new() };
    if seen.field("transfer-encoding").is_some() {
        seen.body = read_chunks(input)?;
    } else if let Some(length) = seen.field("content-length") {
        seen.body = vec![0; length.parse().ok()?];
        input.read_exact(&mut seen.body).ok()?;
    }
    Some(seen)
}

pub(crate) fn read_chunks(input: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        if input.read_line(&mut size).ok()? == 0 {
            return None;
        }
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        input.read_exact(&mut chunk).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// Answers every request with its target, and keeps the connection.
pub(crate) fn echo_target(seen: &Seen, out: &mut TcpStream) -> bool {
    let target = seen.line.split(' ').nth(1).unwrap_or_default();
    let head = seen.line.starts_with("HEAD ");
    let body = if head { "" } else { target };
    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Up: 1\r\n\r\n{body}", target.len()).is_ok()
}

/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(10);
