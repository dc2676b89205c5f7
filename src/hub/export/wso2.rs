//! The usage file of WSO2's API Microgateway 3: `api-usage-data.dat` in a ZIP, an event a line. Pure.
//!
//! ```text
//! streamId-KS-{id}-ES-timestamp-KS-{ms}-ES-metadata-KS-{JSON}-ES-correlationData-KS-null-ES-payLoadData-KS-{payload}
//! payload = attributes of the stream in its order, "-OS-" between
//! id      = org.wso2.apimgt.statistics.{request,fault,throttle}:{version}
//! ```
//!
//! Its reader splits at the three separators wherever they stand and there is no way to escape one, so in texts they are
//! replaced. It reads nothing between two separators as null, and drops what is empty at the end of a payload: there a
//! space stands, which it trims to nothing. `docs/hub-reports.md` says of each attribute what it is here.
//!
//! Source: `gateway/analytics` of wso2/product-microgateway, and the source `mgwfile` of its analytics, which reads them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Exported, Record};
use crate::spool::record::Outcome;

/// The entry's name, by which the reader knows it.
pub(super) const FILE_NAME: &str = "api-usage-data.dat";
const ATTRIBUTE: &str = "-OS-";
/// Whom the peer writes where no token was asked for.
const ANONYMOUS: &str = "anonymous";
const TENANT: &str = "carbon.super";
const UNKNOWN: &str = "__unknown__";
const GATEWAY: &str = "MICRO";

/// The version of the event streams: that of the analytics which is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Streams {
    /// API Manager 2.6 and 3.0.
    V3_0_0,
    /// API Manager 3.1.
    V3_1_0,
    /// API Manager 3.2.
    V3_2_0,
}

impl Streams {
    const ALL: [Self; 3] = [Self::V3_0_0, Self::V3_1_0, Self::V3_2_0];

    /// As it stands in a stream's id.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V3_0_0 => "3.0.0",
            Self::V3_1_0 => "3.1.0",
            Self::V3_2_0 => "3.2.0",
        }
    }
}

impl FromStr for Streams {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| format!("not one of these: {}", Self::ALL.map(Self::name).join(" ")))
    }
}

/// Which stream tells of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Request,
    /// With the code that Synapse, the peer's engine, has for it.
    Fault(u32),
    Throttle,
}

/// The container's name, as the peer makes it: when it was closed, and a UUID.
pub(super) fn container_name(closed_ms: i64, id: &str) -> String {
    format!("{FILE_NAME}.{}.{id}.zip", closed_ms.max(0))
}

/// Writes the event of a record, where the form has one, and counts it.
pub(super) fn event(streams: Streams, record: &Record<'_>, to: &mut Vec<u8>, exported: &mut Exported) {
    let Some(stream) = stream(record) else {
        exported.refused += 1;
        return;
    };
    let mut payload = Payload::default();
    let (name, kind) = match stream {
        Stream::Request => {
            request(record, &mut payload);
            exported.requests += 1;
            ("request", "clientType")
        }
        Stream::Fault(code) => {
            fault(streams, record, code, &mut payload);
            exported.faults += 1;
            ("fault", "keyType")
        }
        Stream::Throttle => {
            throttle(streams, record, &mut payload);
            exported.throttled += 1;
            ("throttle", "keyType")
        }
    };
    if streams >= Streams::V3_1_0 {
        payload.text(" ");
    }
    exported.altered += payload.altered;
    let (at_ms, id, version) = (record.at_ms, record.request_id, streams.name());
    let _ = writeln!(
        to,
        "streamId-KS-org.wso2.apimgt.statistics.{name}:{version}-ES-timestamp-KS-{at_ms}-ES-metadata-KS-\
         {{\"{kind}\":\"PRODUCTION\",\"correlationID\":\"{id}\"}}-ES-correlationData-KS-null-ES-payLoadData-KS-{}",
        payload.line
    );
}

fn stream(record: &Record<'_>) -> Option<Stream> {
    Some(match Outcome::from_name(record.outcome)? {
        // Whoever goes away early was served as far as the peer is concerned.
        Outcome::Admitted | Outcome::DownstreamAborted => Stream::Request,
        Outcome::RateLimited | Outcome::QuotaExceeded => Stream::Throttle,
        Outcome::UpstreamConnect => Stream::Fault(101_503),
        Outcome::UpstreamTimeout => Stream::Fault(101_504),
        Outcome::UpstreamClosed => Stream::Fault(101_505),
        Outcome::UpstreamProtocol => Stream::Fault(101_506),
        // Synapse has none for these.
        Outcome::Overloaded | Outcome::Internal => Stream::Fault(u32::try_from(record.status).unwrap_or(0)),
        _ => return None,
    })
}

fn request(record: &Record<'_>, payload: &mut Payload) {
    payload.text("").text(application(record)).text(application(record)).text(or(record.consumer, ANONYMOUS));
    payload.text(&context(record)).text(record.api).text(record.version);
    payload.text(record.route).text(record.route).text(record.method);
    payload.text(UNKNOWN).text(TENANT).text(or(record.plan, "Unauthenticated")).text(record.device);
    payload.text(or(record.principal, ANONYMOUS)).text(TENANT).text(address(record.client)).text("");
    let (upstream_ms, total_ms) = (record.upstream_us / 1_000, record.total_us / 1_000);
    let own_ms = total_ms.saturating_sub(upstream_ms);
    payload.number(record.at_ms).text("false").number(total_ms).number(own_ms).number(upstream_ms);
    payload.text("false").number(record.bytes_out).text("").number(record.status).text(record.upstream);
    payload.number(0).number(0).number(0).number(0).number(upstream_ms).number(own_ms);
    payload.text(GATEWAY).text(GATEWAY);
}

fn fault(streams: Streams, record: &Record<'_>, code: u32, payload: &mut Payload) {
    payload.text("").text(record.api).text(record.version).text(&context(record)).text(record.route);
    if streams == Streams::V3_2_0 {
        payload.text(record.route);
    }
    payload.text(record.method).text(UNKNOWN).text(or(record.principal, ANONYMOUS)).text(TENANT).text(TENANT);
    payload.text(record.device).text(application(record)).text(application(record));
    if streams == Streams::V3_2_0 {
        payload.text(or(record.consumer, ANONYMOUS));
    }
    payload.text("").number(code).text(record.outcome).number(record.at_ms);
}

fn throttle(streams: Streams, record: &Record<'_>, payload: &mut Payload) {
    payload.text(or(record.principal, ANONYMOUS)).text(TENANT).text(record.api).text(record.version);
    payload.text(&context(record)).text(UNKNOWN).text(TENANT);
    if streams == Streams::V3_2_0 {
        payload.text(record.route).text(record.method);
    }
    payload.text(application(record)).text(application(record)).text(or(record.consumer, ANONYMOUS));
    payload.text(record.outcome).text(GATEWAY).number(record.at_ms).text(record.device);
}

fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

fn application<'a>(record: &Record<'a>) -> &'a str {
    or(record.application, ANONYMOUS)
}

/// The peer's analytics sums by it, so it cannot be left empty; the base path is not in a record.
fn context(record: &Record<'_>) -> String {
    format!("/{}/{}", record.api, record.version)
}

/// An address that is whole; of a network or a hash the peer's analytics would make a wrong one.
fn address(client: &str) -> &str {
    if client.parse::<IpAddr>().is_ok() { client } else { "" }
}

/// Attributes, one after the other.
#[derive(Debug, Default)]
struct Payload {
    line: String,
    count: usize,
    altered: u64,
}

impl Payload {
    fn text(&mut self, text: &str) -> &mut Self {
        self.begin();
        match cleaned(text) {
            None => self.line.push_str(text),
            Some(cleaned) => {
                self.altered += 1;
                self.line.push_str(&cleaned);
            }
        }
        self
    }

    fn number(&mut self, number: impl std::fmt::Display) -> &mut Self {
        self.begin();
        let _ = write!(self.line, "{number}");
        self
    }

    fn begin(&mut self) {
        if self.count > 0 {
            self.line.push_str(ATTRIBUTE);
        }
        self.count += 1;
    }
}

/// Without what the reader would split at; `None` where there is nothing of the kind. A separator's beginning at the end of
/// a text would make one with what follows.
fn cleaned(text: &str) -> Option<String> {
    let mut clean = text.replace(|one: char| one.is_control(), " ");
    for letter in ["O", "E", "K"] {
        clean = clean.replace(&format!("-{letter}S-"), &format!("_{letter}S_"));
        if let Some(before) = clean.strip_suffix(&format!("-{letter}S")) {
            clean = format!("{before}_{letter}S");
        }
    }
    (clean != text).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record<'static> = Record {
        at_ms: 1_764_000_000_123,
        device: "d1",
        request_id: "0909",
        api: "petstore",
        version: "1.0",
        route: "/pets/{id}",
        method: "GET",
        status: 200,
        outcome: "Admitted",
        application: "till",
        plan: "gold",
        principal: "ada",
        bytes_out: 512,
        total_us: 9_999,
        upstream_us: 8_000,
        upstream: "127.0.0.1:9000",
        client: "192.0.2.7",
        consumer: "shop",
    };

    /// Stream, time, meta and attributes, split as the peer's reader does: `String.split` of Java, which drops what is
    /// empty at the end, and then trims each.
    fn read(line: &str) -> (String, String, String, Vec<String>) {
        fn split<'a>(text: &'a str, at: &str) -> Vec<&'a str> {
            let mut parts: Vec<&str> = text.split(at).collect();
            while parts.last().is_some_and(|last| last.is_empty()) {
                parts.pop();
            }
            parts
        }
        let elements: Vec<&str> = split(line, "-ES-").into_iter().map(|element| split(element, "-KS-")[1]).collect();
        let [stream, time, meta, correlation, payload] = elements[..] else { panic!("{line}") };
        assert_eq!(correlation, "null");
        let attributes = split(payload, "-OS-").into_iter().map(|attribute| attribute.trim().to_owned()).collect();
        (stream.into(), time.into(), meta.into(), attributes)
    }

    fn events(streams: Streams, record: &Record<'_>) -> (Vec<u8>, Exported) {
        let (mut bytes, mut exported) = (Vec::new(), Exported::default());
        event(streams, record, &mut bytes, &mut exported);
        (bytes, exported)
    }

    fn one(streams: Streams, record: &Record<'_>) -> (String, Vec<String>) {
        let (bytes, _) = events(streams, record);
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (stream, _, _, attributes) = read(text.strip_suffix('\n').expect("a line"));
        (stream, attributes)
    }

    #[test]
    fn a_request_is_told_in_the_order_of_its_stream() {
        let (bytes, exported) = events(Streams::V3_0_0, &RECORD);
        assert_eq!(exported, Exported { requests: 1, ..Exported::default() });
        assert_eq!(
            String::from_utf8(bytes).expect("UTF-8"),
            "streamId-KS-org.wso2.apimgt.statistics.request:3.0.0-ES-timestamp-KS-1764000000123-ES-metadata-KS-\
             {\"clientType\":\"PRODUCTION\",\"correlationID\":\"0909\"}-ES-correlationData-KS-null-ES-payLoadData-KS-\
             -OS-till-OS-till-OS-shop-OS-/petstore/1.0-OS-petstore-OS-1.0-OS-/pets/{id}-OS-/pets/{id}-OS-GET-OS-\
             __unknown__-OS-carbon.super-OS-gold-OS-d1-OS-ada-OS-carbon.super-OS-192.0.2.7-OS--OS-1764000000123-OS-\
             false-OS-9-OS-1-OS-8-OS-false-OS-512-OS--OS-200-OS-127.0.0.1:9000-OS-0-OS-0-OS-0-OS-0-OS-8-OS-1-OS-\
             MICRO-OS-MICRO\n"
        );
    }

    #[test]
    fn each_stream_has_as_many_attributes_as_its_version_defines() {
        let with = |outcome| Record { outcome, status: 503, ..RECORD };
        let expected =
            [(Streams::V3_0_0, [36, 17, 14]), (Streams::V3_1_0, [37, 18, 15]), (Streams::V3_2_0, [37, 20, 17])];
        for (streams, counts) in expected {
            let outcomes = [("Admitted", "request"), ("UpstreamTimeout", "fault"), ("RateLimited", "throttle")];
            for ((outcome, name), count) in outcomes.into_iter().zip(counts) {
                let (stream, attributes) = one(streams, &with(outcome));
                assert_eq!(stream, format!("org.wso2.apimgt.statistics.{name}:{}", streams.name()));
                assert_eq!(attributes.len(), count, "{stream}");
            }
        }
        let (_, fault) = one(Streams::V3_2_0, &with("UpstreamTimeout"));
        assert_eq!(fault[15..19], ["", "101504", "UpstreamTimeout", "1764000000123"].map(String::from));
        let (bytes, exported) = events(Streams::V3_2_0, &with("TokenExpired"));
        assert_eq!((bytes.len(), exported.refused), (0, 1));
    }

    #[test]
    fn a_text_that_holds_a_separator_moves_no_attribute_and_is_counted() {
        let nasty = Record { api: "a-OS-b-ES-c-KS-d\ne", principal: "x-OS", route: "-KS", method: "-", ..RECORD };
        let (plain, attributes) = (one(Streams::V3_0_0, &RECORD).1, one(Streams::V3_0_0, &nasty).1);
        assert_eq!(attributes.len(), plain.len());
        assert_eq!(attributes[5], "a_OS_b_ES_c_KS_d e");
        assert_eq!((attributes[14].as_str(), attributes[9].as_str()), ("x_OS", "-"));
        // API, its context, the route twice, and the principal.
        assert_eq!(events(Streams::V3_0_0, &nasty).1.altered, 5);
        for hidden in ["", "192.0.2.0/24", "h1234"] {
            assert_eq!(one(Streams::V3_0_0, &Record { client: hidden, ..RECORD }).1[16], "", "{hidden}");
        }
    }
}
