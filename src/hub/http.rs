//! HTTP/1.1 on one connection of the hub: the limits that all have, and their end when the hub drains.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Largest request head, in bytes.
const HEAD_LIMIT: usize = 16 << 10;
/// Most header lines of a request.
const HEADERS_LIMIT: usize = 32;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Requests and answers, until either side has enough or the service fails; the stream as it is then, not shut down.
pub(super) async fn speak<S, F, B>(
    stream: S,
    service: F,
    head_timeout: Duration,
    draining: &mut watch::Receiver<bool>,
) -> (S, hyper::Result<()>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Unpin> + Unpin,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_LIMIT)
        .max_headers(HEADERS_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        result = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(result),
        _ = draining.wait_for(|draining| *draining) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    (connection.into_parts().io.into_inner(), result)
}
