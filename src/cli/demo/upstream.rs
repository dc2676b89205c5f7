//! The sample service behind the gateway: it says which pet was asked for, and stores none.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Largest body that it reads.
const BODY_LIMIT: usize = 1 << 20;

/// Serves on `address` until the process ends.
pub(super) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let received = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes().len(),
        Err(_) => return Ok(respond(StatusCode::PAYLOAD_TOO_LARGE, &serde_json::json!({ "error": "too large" }))),
    };
    let status = if head.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
    let id = head.uri.path().rsplit('/').next().unwrap_or_default();
    let pet =
        serde_json::json!({ "pet": id, "method": head.method.as_str(), "path": head.uri.path(), "received": received });
    Ok(respond(status, &pet))
}

fn respond(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}
