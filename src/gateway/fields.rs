//! Header fields on their way through: what ends here, what is told about the caller, and the request's target.

use std::net::IpAddr;
use std::rc::Rc;

use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY, VIA,
};
use hyper::http::uri::{InvalidUri, PathAndQuery};
use hyper::{Uri, Version};

use super::head::Pace;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Names a request towards the upstream and in its answer.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest list of earlier hops that is carried on from a trusted proxy, in bytes.
const FORWARDED_LIMIT: usize = 1_024;

/// Who is at the other end of a connection from downstream, and what upstreams are told of it: made once for each.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) trust_request_id: bool,
    pub(super) pace: Rc<Pace>,
    trust_forwarded: bool,
    certificate: Option<[u8; 32]>,
    address_text: HeaderValue,
    forwarded: HeaderValue,
    proto: HeaderValue,
}

impl Peer {
    pub(super) fn new(address: IpAddr, tls: bool, trust_forwarded: bool, trust_request_id: bool) -> Self {
        let address = address.to_canonical();
        let proto = if tls { "https" } else { "http" };
        let node = match address {
            IpAddr::V4(v4) => format!("for={v4};proto={proto}"),
            IpAddr::V6(v6) => format!("for=\"[{v6}]\";proto={proto}"),
        };
        let value = |text: String| HeaderValue::try_from(text).expect("addresses are visible ASCII");
        Self {
            address,
            trust_request_id,
            pace: Rc::default(),
            trust_forwarded,
            certificate: None,
            address_text: value(address.to_string()),
            forwarded: value(node),
            proto: HeaderValue::from_static(proto),
        }
    }

    /// The peer that showed, in the TLS handshake, a certificate of this SHA-256 and that it has its key.
    pub(super) fn showing(self, certificate: Option<[u8; 32]>) -> Self {
        Self { certificate, ..self }
    }

    /// SHA-256 of the certificate that it showed.
    pub(super) fn certificate(&self) -> Option<&[u8; 32]> {
        self.certificate.as_ref()
    }

    /// Tells the upstream who called: in place of what the caller says, or after it where the caller is trusted.
    pub(super) fn tell(&self, headers: &mut HeaderMap, host: Option<HeaderValue>) {
        let kept = self.trust_forwarded;
        if !kept {
            remove_hearsay(headers);
        }
        let append = |headers: &mut HeaderMap, name: &HeaderName, own: &HeaderValue| {
            let value = if kept { appended(headers, name, own) } else { None };
            headers.insert(name, value.unwrap_or_else(|| own.clone()));
        };
        append(headers, &X_FORWARDED_FOR, &self.address_text);
        append(headers, &FORWARDED, &self.forwarded);
        if !(kept && headers.contains_key(&X_FORWARDED_PROTO)) {
            headers.insert(&X_FORWARDED_PROTO, self.proto.clone());
        }
        if !(kept && headers.contains_key(&X_FORWARDED_HOST)) {
            match host {
                Some(host) => headers.insert(&X_FORWARDED_HOST, host),
                None => headers.remove(&X_FORWARDED_HOST),
            };
        }
    }
}

/// Takes off all that upstreams may believe about a caller and that the caller says of itself.
fn remove_hearsay(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_hearsay(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// CGI and what descends from it cannot tell `_` from `-`.
fn is_hearsay(name: &str) -> bool {
    let [b'x', b'-' | b'_', rest @ ..] = name.as_bytes() else { return false };
    let begins = |with: &[u8]| {
        rest.len() >= with.len() && rest.iter().zip(with).all(|(a, b)| a == b || (*a, *b) == (b'_', b'-'))
    };
    begins(b"forwarded-") || (rest.len() == 7 && begins(b"real-ip")) || (rest.len() == 10 && begins(b"request-id"))
}

/// The list that is there, and `own` after it; `None` where there is none. Of one that is too long the last hops are
/// kept, which those wrote that we trust.
fn appended(headers: &HeaderMap, name: &HeaderName, own: &HeaderValue) -> Option<HeaderValue> {
    let mut list = Vec::new();
    for earlier in headers.get_all(name) {
        list.extend_from_slice(earlier.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        return None;
    }
    list.extend_from_slice(own.as_bytes());
    if let Some(surplus) = list.len().checked_sub(FORWARDED_LIMIT).filter(|surplus| *surplus > 0) {
        let hop = list[surplus - 1..].iter().position(|byte| *byte == b',')?;
        list.drain(..surplus + hop);
    }
    HeaderValue::from_bytes(list.trim_ascii_start()).ok()
}

/// Takes off what is between one hop and the next alone (RFC 9110, 7.6.1); trailers are not passed on, so their names
/// are not, and nobody is asked for them. `Expect` is among it: `100 Continue` is answered by ourselves, when the upstream
/// is about to be sent the body.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // One look over all fields is cheaper than a search for each, and finds `Connection` at most, mostly.
    let mut found: heapless::Vec<HeaderName, HOP_BY_HOP> = heapless::Vec::new();
    let mut named: Vec<HeaderValue> = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_hop_by_hop(name)) {
        if *name == CONNECTION && !is_about_itself(value.as_bytes()) {
            named.push(value.clone());
        }
        if !found.contains(name) {
            let _ = found.push(name.clone()); // there is room for each once
        }
    }
    for name in &found {
        headers.remove(name);
    }
    named.iter().for_each(|connection| remove_named(headers, connection));
}

/// How many names [`is_hop_by_hop`] knows.
const HOP_BY_HOP: usize = 10;

fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name.as_str().len() {
        2 => name == TE,
        6 => name == EXPECT,
        7 => name == UPGRADE || name == TRAILER,
        10 => name == CONNECTION || name == KEEP_ALIVE,
        16 => name == PROXY_CONNECTION,
        17 => name == TRANSFER_ENCODING,
        18 => name == PROXY_AUTHENTICATE,
        19 => name == PROXY_AUTHORIZATION,
        _ => false,
    }
}

/// Whether an option of `Connection` says something of the connection, and names no field.
fn is_about_itself(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close")
}

fn remove_named(headers: &mut HeaderMap, connection: &HeaderValue) {
    for name in connection.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if is_about_itself(name) {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(name)
            && name != HOST
            && name != CONTENT_LENGTH
        {
            headers.remove(name);
        }
    }
}

/// Whether a body has no coding that we would have to take off: none, or `chunked` alone.
pub(super) fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Makes a request's fields those of our own request to the upstream; `host` and the caller are told by others.
/// `received` is the version that it came in, and `sized` says whether the body's length is known.
pub(super) fn outbound(headers: &mut HeaderMap, received: Version, has_body: bool, sized: bool) {
    remove_hop_by_hop(headers);
    if has_body && !sized {
        // hyper frames a body of unknown length by itself, but not on a method that seldom has one.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.remove(CONTENT_LENGTH);
    }
    // RFC 9110, 7.6.3
    let via = if received == Version::HTTP_10 { "1.0 tidegate" } else { "1.1 tidegate" };
    headers.append(VIA, HeaderValue::from_static(via));
}

/// Makes an answer's fields those of our own answer downstream. `length` is its body's, where it is known.
pub(super) fn inbound(headers: &mut HeaderMap, length: Option<u64>) {
    remove_hop_by_hop(headers);
    // hyper takes a length that is said several times over; said once it is passed on, that of an answer to HEAD too.
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    let is_plain = |said: &HeaderValue| said.as_bytes().iter().all(u8::is_ascii_digit);
    let is_once = said.next().is_none_or(is_plain) && said.next().is_none();
    match length {
        Some(_) if is_once => {}
        Some(length) if length > 0 => {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        _ => {
            headers.remove(CONTENT_LENGTH);
        }
    }
}

/// Keeps an answer to one token from the holders of others in a cache between them and us: caches know of themselves to
/// do so for `Authorization` alone (RFC 9111, 3.5).
pub(super) fn keep_apart(headers: &mut HeaderMap, token_header: &HeaderName) {
    if *token_header != AUTHORIZATION {
        headers.append(VARY, HeaderValue::from(token_header.clone()));
    }
}

/// The target for the upstream, in origin form: `strip` bytes are taken off the path, and `prefix` is put before it.
/// `None` where it can stay as it is.
///
/// Errors: with the prefix it is longer than a target can be.
pub(super) fn target(uri: &Uri, strip: usize, prefix: &str) -> Result<Option<Uri>, InvalidUri> {
    if strip == 0 && prefix.is_empty() && uri.authority().is_none() {
        return Ok(None);
    }
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = whole.get(strip..).unwrap_or(whole);
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let target = if prefix.is_empty() && slash.is_empty() {
        PathAndQuery::try_from(rest)
    } else {
        PathAndQuery::try_from([prefix, slash, rest].concat())
    };
    Ok(Some(Uri::from(target?)))
}

/// Our own requests and answers are HTTP/1.1, whatever version the peers speak.
pub(super) const OUR_VERSION: Version = Version::HTTP_11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_cannot_be_built_is_no_other_target() {
        let long: Uri = format!("/petstore/{}", "x".repeat(65_000)).parse().expect("as long as one may be");
        assert!(target(&long, 0, &"/prefix".repeat(100)).is_err());
        let stripped = target(&long, "/petstore".len(), "/v2").expect("it fits").expect("it changes");
        assert!(stripped.path().starts_with("/v2/xxx"));
        let bare = target(&"/petstore?x=1".parse().expect("a target"), "/petstore".len(), "/v2").expect("it fits");
        assert_eq!(bare.expect("it changes"), "/v2/?x=1");
    }
}
