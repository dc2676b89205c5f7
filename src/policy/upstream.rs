//! Upstreams: the services that stand behind the gateway.

use std::time::Duration;

/// A named service and its endpoints.
#[derive(Debug)]
pub struct Upstream {
    /// Its name, as usage records give it.
    pub name: Box<str>,
    /// Its addresses; never empty. Requests go round them.
    pub endpoints: Box<[Endpoint]>,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How long the answer's head may take, from the end of the request.
    pub response_timeout: Duration,
    /// Whether the caller's `Host` is forwarded, in place of the endpoint's authority.
    pub keep_host: bool,
    /// DER certificates that an `https` endpoint must chain to; empty for `http`.
    pub ca: Box<[Box<[u8]>]>,
}

/// One address of an upstream, from a URL `http[s]://host[:port][/prefix]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, an IPv6 address without its brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// `host[:port]` as the `Host` header gives it, the scheme's own port left out.
    pub authority: Box<str>,
    /// What is put before every path: `/v2`, or empty; never ends in `/`.
    pub prefix: Box<str>,
}

/// An endpoint's URL that cannot be used; says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// Write `http://` or `https://` before the host.
    #[error("does not begin with http:// or https://")]
    Scheme,
    /// Name a host, and a port from 1 to 65535 or none.
    #[error("has no usable host and port")]
    Authority,
    /// Leave out user names, query and fragment; write the path in plain ASCII.
    #[error("holds something else than host, port and path")]
    Extra,
}

impl Endpoint {
    /// Reads a URL; takes nothing that it would not forward to.
    pub fn parse(url: &str) -> Result<Self, BadEndpoint> {
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(BadEndpoint::Scheme),
        };
        // RFC 3986: what a path may hold, and no user, query or fragment.
        let plain = |c: char| c.is_ascii_graphic() && !"@?#\\\"<>`^{|}".contains(c);
        if !rest.chars().all(plain) {
            return Err(BadEndpoint::Extra);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or(BadEndpoint::Authority)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| BadEndpoint::Authority)?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(BadEndpoint::Authority)?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !(host.chars().all(named) || authority.starts_with('[')) {
            return Err(BadEndpoint::Authority);
        }
        let own_port = if tls { 443 } else { 80 };
        let port = match port {
            None => own_port,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(BadEndpoint::Authority)?
            }
            Some(_) => return Err(BadEndpoint::Authority),
        };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let authority = if port == own_port { bracketed } else { format!("{bracketed}:{port}") };
        Ok(Self {
            tls,
            host: host.into(),
            port,
            authority: authority.into(),
            prefix: path.trim_end_matches('/').into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_gives_host_port_and_prefix() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8080/v2/").expect("a plain URL");
        assert_eq!((&*endpoint.host, endpoint.port, &*endpoint.prefix), ("127.0.0.1", 8080, "/v2"));
        assert_eq!(&*endpoint.authority, "127.0.0.1:8080");
        let six = Endpoint::parse("https://[::1]").expect("an IPv6 URL");
        assert_eq!((six.tls, &*six.host, six.port, &*six.authority), (true, "::1", 443, "[::1]"));
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused_by_name() {
        for (url, why) in [
            ("ftp://h", BadEndpoint::Scheme),
            ("h:80", BadEndpoint::Scheme),
            ("http://", BadEndpoint::Authority),
            ("http://h:0", BadEndpoint::Authority),
            ("http://h:+80", BadEndpoint::Authority),
            ("http://h:65536", BadEndpoint::Authority),
            ("http://[::1", BadEndpoint::Authority),
            ("http://[x]:1", BadEndpoint::Authority),
            ("http://a b", BadEndpoint::Extra),
            ("http://user@h", BadEndpoint::Extra),
            ("http://h/?q", BadEndpoint::Extra),
            ("http://h/`", BadEndpoint::Extra),
            ("http://h/{a}", BadEndpoint::Extra),
            ("http://h/\r\nX: y", BadEndpoint::Extra),
        ] {
            assert_eq!(Endpoint::parse(url), Err(why), "{url}");
        }
    }
}
