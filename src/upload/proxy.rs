//! The way through an HTTP proxy: a tunnel by CONNECT (RFC 9110 section 9.3.6), for http hubs too. What the proxy sees is
//! where to; the hub still proves itself by its pinned key. Never from the environment (`http_proxy`): the settings alone say.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Error, Failure};
use crate::disk;

/// Longest head of the proxy's answer, in bytes.
const HEAD_LIMIT: usize = 16 << 10;
/// Largest password file, in bytes.
const PASSWORD_LIMIT: u64 = 1 << 10;

/// `http://[user[:password]@]host[:port]`, as the settings have it. Not shown by `Debug`: there may be a password in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Nothing is checked: [`Config::check`](super::Config::check) does.
    #[must_use]
    pub fn new(address: String) -> Self {
        Self(address)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a proxy)")
    }
}

/// A proxy that can be asked.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// `Basic …`, as the header has it.
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Reads the address, and the password from `password_file` where that is given.
    pub(super) fn new(address: &Address, password_file: Option<&Path>) -> Result<Self, Error> {
        let uri: Uri = address.0.parse().map_err(|_| Error::BadProxy)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or(Error::BadProxy)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.host().is_empty() {
            return Err(Error::BadProxy);
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(3128);
        let given = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        let (user, password) = match given.map(|given| given.split_once(':').unwrap_or((given, ""))) {
            None if password_file.is_some() => return Err(Error::ProxyUser),
            None => return Ok(Self { host, port, authorization: None }),
            Some((user, password)) => (decoded(user)?, decoded(password)?),
        };
        let password = match password_file {
            None => password,
            Some(path) => {
                let of_file = |source| Error::ProxyPassword { path: path.into(), source };
                let bytes = disk::read_limited(path, PASSWORD_LIMIT).map_err(of_file)?;
                bytes.trim_ascii_end().to_vec()
            }
        };
        // RFC 7617 section 2: a colon in the user's name could not be told from the one behind it.
        if user.contains(&b':') {
            return Err(Error::BadProxy);
        }
        let authorization = Some(format!("Basic {}", STANDARD.encode([&user[..], b":", &password].concat())));
        Ok(Self { host, port, authorization })
    }

    /// Has the proxy connect `stream` to `authority`, `host:port`.
    pub(super) async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        authority: &str,
    ) -> Result<(), Failure> {
        let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(authorization) = &self.authorization {
            head = head + "Proxy-Authorization: " + authorization + "\r\n";
        }
        stream.write_all((head + "\r\n").as_bytes()).await.map_err(|_| Failure::Proxy)?;
        stream.flush().await.map_err(|_| Failure::Proxy)?;
        let mut answer = Vec::with_capacity(512);
        let end = loop {
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if answer.len() >= HEAD_LIMIT {
                return Err(Failure::ProxyAnswer);
            }
            if stream.read_buf(&mut answer).await.map_err(|_| Failure::Proxy)? == 0 {
                return Err(if answer.is_empty() { Failure::Proxy } else { Failure::ProxyAnswer });
            }
        };
        // RFC 9110 section 9.3.6: any 2xx is the tunnel, and what follows its head comes from the hub; which waits for us.
        match status(&answer).ok_or(Failure::ProxyAnswer)? {
            200..=299 if answer.len() == end => Ok(()),
            200..=299 => Err(Failure::ProxyAnswer),
            407 => Err(Failure::ProxyCredentials),
            status @ 502..=504 => Err(Failure::ProxyNoWay(status)),
            status => Err(Failure::ProxyRefused(status)),
        }
    }
}

/// The status of an answer: `HTTP/1.x NNN`.
fn status(answer: &[u8]) -> Option<u16> {
    let (version, rest) = answer.split_first_chunk::<9>()?;
    let (status, rest) = rest.split_first_chunk::<3>()?;
    let is_http =
        version.starts_with(b"HTTP/1.") && version.ends_with(b" ") && matches!(rest.first(), Some(b' ' | b'\r'));
    std::str::from_utf8(status).ok()?.parse().ok().filter(|status| is_http && *status >= 200)
}

/// A part of an address without its percent-encoding (RFC 3986 section 2.1).
fn decoded(text: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let pair = [bytes.next().ok_or(Error::BadProxy)?, bytes.next().ok_or(Error::BadProxy)?];
                let pair = std::str::from_utf8(&pair).ok().filter(|pair| pair.bytes().all(|c| c.is_ascii_hexdigit()));
                pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(Error::BadProxy)?
            }
            byte => byte,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(address: &str, file: Option<&Path>) -> Result<Proxy, Error> {
        Proxy::new(&Address::new(address.into()), file)
    }

    #[test]
    fn an_address_gives_host_port_and_credentials_and_shows_no_password() {
        let plain = proxy("http://proxy.example", None).expect("an address");
        assert_eq!((&*plain.host, plain.port, plain.authorization), ("proxy.example", 3128, None));
        let own = proxy("http://till:p%40ss%3A@[2001:db8::1]:8080/", None).expect("an address");
        let basic = format!("Basic {}", STANDARD.encode("till:p@ss:"));
        assert_eq!((&*own.host, own.port, own.authorization.as_deref()), ("2001:db8::1", 8080, Some(&*basic)));
        assert!(!format!("{own:?} {:?}", Address::new("http://u:secret@h".into())).contains("secret"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "of a file\n").expect("written");
        let by_file = proxy("http://till@proxy", Some(&file)).expect("an address");
        assert_eq!(by_file.authorization, Some(format!("Basic {}", STANDARD.encode("till:of a file"))));
        assert!(matches!(proxy("http://proxy", Some(&file)), Err(Error::ProxyUser)));
        std::fs::write(&file, [b'x'; 1025]).expect("written");
        assert!(matches!(proxy("http://till@proxy", Some(&file)), Err(Error::ProxyPassword { .. })));
        for wrong in [
            "",
            "proxy:3128",
            "https://proxy",
            "http://proxy/x",
            "http://u:%4@proxy",
            "http://u:%+1@proxy",
            "http://a%3Ab:c@proxy",
        ] {
            assert!(matches!(proxy(wrong, None), Err(Error::BadProxy)), "{wrong}");
        }
    }

    async fn told(answer: &'static [u8]) -> (Result<(), Failure>, String) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
        let peer = async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                theirs.read_buf(&mut asked).await.expect("it asks");
            }
            theirs.write_all(answer).await.expect("it writes");
            String::from_utf8(asked).expect("text")
        };
        let proxy = proxy("http://till:secret@proxy", None).expect("an address");
        tokio::join!(proxy.tunnel(&mut ours, "hub.example:443"), peer)
    }

    #[tokio::test]
    async fn what_the_proxy_answers_is_told_by_name_and_a_tunnel_begins_with_nothing() {
        let (tunnel, asked) = told(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        assert_eq!(tunnel, Ok(()));
        assert!(asked.starts_with("CONNECT hub.example:443 HTTP/1.1\r\nHost: hub.example:443\r\n"), "{asked}");
        assert!(asked.contains("\r\nProxy-Authorization: Basic dGlsbDpzZWNyZXQ=\r\n"), "{asked}");
        for (answer, failure) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], Failure::ProxyCredentials),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", Failure::ProxyRefused(403)),
            (b"HTTP/1.0 503\r\n\r\n", Failure::ProxyNoWay(503)),
            (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n", Failure::ProxyAnswer),
            (b"HTTP/1.1 100 Continue\r\n\r\n", Failure::ProxyAnswer),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Failure::ProxyAnswer),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Failure::ProxyAnswer),
            (b"HTTP/1.1 20", Failure::ProxyAnswer),
            (b"", Failure::Proxy),
            (&[b'x'; 40_000], Failure::ProxyAnswer),
        ] {
            assert_eq!(
                told(answer).await.0,
                Err(failure),
                "{:?}",
                String::from_utf8_lossy(&answer[..answer.len().min(40)])
            );
        }
    }
}
