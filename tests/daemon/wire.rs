//! Both ends of the gateway on raw sockets: an upstream that always says the same, and a caller.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::site::SOON;

/// An upstream that answers every request with `body`.
pub(crate) fn upstream(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, body));
        }
    });
    address
}

fn serve(stream: TcpStream, body: &str) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    loop {
        head(&mut input).ok()?;
        write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
    }
}

/// A head's first line and its fields.
fn head(input: &mut impl BufRead) -> io::Result<(String, Vec<(String, String)>)> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fields = Vec::new();
    loop {
        let mut field = String::new();
        input.read_line(&mut field)?;
        let Some((name, value)) = field.trim_end().split_once(':') else { return Ok((line, fields)) };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// A connection to the gateway.
pub(crate) struct Caller {
    out: TcpStream,
    input: BufReader<TcpStream>,
}

impl Caller {
    pub(crate) fn connect(gateway: SocketAddr) -> io::Result<Self> {
        let out = TcpStream::connect(gateway)?;
        out.set_read_timeout(Some(SOON))?;
        Ok(Self { input: BufReader::new(out.try_clone()?), out })
    }

    /// One request, and its whole answer; the connection stays.
    pub(crate) fn get(&mut self, path: &str, token: Option<&str>) -> io::Result<Reply> {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        self.out.write_all(format!("GET {path} HTTP/1.1\r\nHost: quay.example\r\n{token}\r\n").as_bytes())?;
        let (line, fields) = head(&mut self.input)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut reply = Reply { status, fields, body: String::new() };
        let length = reply.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.input.read_exact(&mut body)?;
        reply.body = String::from_utf8(body).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(reply)
    }
}

/// One request on a connection of its own.
pub(crate) fn get(gateway: SocketAddr, path: &str, token: Option<&str>) -> Reply {
    Caller::connect(gateway).and_then(|mut caller| caller.get(path, token)).expect("the gateway answers")
}
