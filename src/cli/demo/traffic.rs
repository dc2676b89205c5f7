//! The callers: requests good and bad over a few connections, and a log of what came of each.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ids::RequestId;
use crate::keys;

/// One kind of request, and what the gateway should say to it.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    /// For the table.
    pub(super) name: &'static str,
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) token: Option<String>,
    pub(super) body: &'static str,
    /// The outcomes that are right for it.
    pub(super) outcomes: &'static [&'static str],
    /// How many of each hundred requests are of this kind.
    pub(super) weight: u32,
}

/// What the site goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    LinkUp,
    LinkCut,
    Kill,
    Restored,
}

impl Phase {
    pub(super) const ALL: [Self; 4] = [Self::LinkUp, Self::LinkCut, Self::Kill, Self::Restored];

    /// What happens in it, for people.
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::LinkUp => "the link stands",
            Self::LinkCut => "the link is cut",
            Self::Kill => "the gateway is killed (SIGKILL) in mid-traffic",
            Self::Restored => "it is started again; the link is restored",
        }
    }
}

/// What came of a request, as the client saw it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Seen {
    pub(super) request_id: RequestId,
    pub(super) kind: &'static str,
    pub(super) phase: Phase,
    /// The status; absent where no answer's head came.
    pub(super) status: Option<u16>,
    /// Whether the whole answer came, or the connection broke first.
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Whole,
    Broken,
}

/// The callers.
#[derive(Debug)]
pub(super) struct Traffic {
    gateway: SocketAddr,
    kinds: Vec<Kind>,
    /// Kinds by weight, in a fixed shuffled order.
    order: Vec<usize>,
    next: Cell<usize>,
    in_flight: Cell<usize>,
    seen: RefCell<Vec<Seen>>,
}

/// Connections that are used at once.
const CONNECTIONS: usize = 8;
/// A broken gateway is tried again after this long.
const RETRY: Duration = Duration::from_millis(10);
/// How long a connection and an answer may take, and the gateway may take no connections, its start included.
const PATIENCE: Duration = Duration::from_secs(30);

impl Traffic {
    pub(super) fn new(gateway: SocketAddr, kinds: Vec<Kind>) -> Rc<Self> {
        let weighted: Vec<usize> =
            kinds.iter().enumerate().flat_map(|(at, kind)| std::iter::repeat_n(at, kind.weight as usize)).collect();
        // A stride that shares no factor with the length visits every place once, far apart.
        let stride = (weighted.len() / 2..).find(|stride| gcd(*stride, weighted.len()) == 1).unwrap_or(1);
        let order = (0..weighted.len()).map(|at| weighted[at * stride % weighted.len()]).collect();
        Rc::new(Self { gateway, kinds, order, next: Cell::new(0), in_flight: Cell::new(0), seen: RefCell::default() })
    }

    /// Sends `count` requests and waits for all of them; the bar moves with each. An error where the gateway takes none.
    pub(super) async fn send(self: &Rc<Self>, phase: Phase, count: usize, bar: &ProgressBar) -> anyhow::Result<()> {
        let left = Rc::new(Cell::new(count));
        let callers = (0..CONNECTIONS).map(|_| {
            let (traffic, left, bar) = (Rc::clone(self), Rc::clone(&left), bar.clone());
            tokio::task::spawn_local(async move {
                let mut connection = None;
                let mut heard = Instant::now();
                while left.get() > 0 {
                    let Some(sender) = connected(&mut connection, traffic.gateway).await else {
                        if heard.elapsed() > PATIENCE {
                            bail!("the gateway took no connection for {PATIENCE:?}");
                        }
                        continue;
                    };
                    heard = Instant::now();
                    left.set(left.get().saturating_sub(1));
                    let at = traffic.next.replace(traffic.next.get() + 1);
                    let kind = &traffic.kinds[traffic.order[at % traffic.order.len()]];
                    traffic.in_flight.set(traffic.in_flight.get() + 1);
                    let seen = call(sender, kind, phase).await;
                    traffic.in_flight.set(traffic.in_flight.get() - 1);
                    if seen.state == State::Broken {
                        connection = None;
                    }
                    traffic.seen.borrow_mut().push(seen);
                    bar.inc(1);
                }
                Ok(())
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.context("a caller broke off")??;
        }
        Ok(())
    }

    /// How many requests wait for their answers at this moment.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// What came of all requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Writes the log as JSON lines.
    pub(super) fn write_log(&self, path: &Path) -> anyhow::Result<()> {
        let mut out = std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        );
        for seen in &*self.seen.borrow() {
            serde_json::to_writer(&mut out, seen)?;
            out.write_all(b"\n")?;
        }
        out.flush().with_context(|| format!("cannot write {}", path.display()))
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// The standing connection, or a new one; `None` after a short wait where the gateway takes none.
async fn connected(connection: &mut Option<Sender>, gateway: SocketAddr) -> Option<&mut Sender> {
    let stands = match connection {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !stands {
        *connection = timeout(PATIENCE, connect(gateway)).await.ok().flatten();
        if connection.is_none() {
            tokio::time::sleep(RETRY).await;
        }
    }
    connection.as_mut()
}

async fn connect(gateway: SocketAddr) -> Option<Sender> {
    let stream = TcpStream::connect(gateway).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::task::spawn_local(driver);
    Some(sender)
}

async fn call(sender: &mut Sender, kind: &Kind, phase: Phase) -> Seen {
    let request_id = RequestId(keys::random().expect("the system gives random numbers"));
    let mut request = Request::new(Full::new(Bytes::from_static(kind.body.as_bytes())));
    *request.method_mut() = kind.method.clone();
    *request.uri_mut() = hyper::Uri::from_static(kind.path);
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("demo"));
    let id = HeaderValue::from_str(&request_id.to_string()).expect("hex digits are a header value");
    headers.insert(HeaderName::from_static("x-request-id"), id);
    if let Some(token) = &kind.token {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).expect("a token is plain ASCII");
        headers.insert(AUTHORIZATION, bearer);
    }
    let mut seen = Seen { request_id, kind: kind.name, phase, status: None, state: State::Broken };
    let answer = async {
        let Ok(response) = sender.send_request(request).await else { return };
        seen.status = Some(response.status().as_u16());
        if response.into_body().collect().await.is_ok() {
            seen.state = State::Whole;
        }
    };
    // One that never ends is as good as broken.
    let _ = timeout(PATIENCE, answer).await;
    seen
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
