//! What the hub answers with: a few bytes, or a file piece by piece; and the way out of a peer that takes none of it.
//!
//! A file is never in memory as a whole: a peer decides how long an answer lives, so it must not decide how much that
//! costs. A file that turns out shorter than it was breaks the connection off; the device fetches again.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use rustix::net::sockopt::set_tcp_quickack;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::events::Stream;

/// Bytes of a file that are in memory at a time.
const PIECE: usize = 64 << 10;

/// Any answer of the hub.
pub(super) type Answer = Response<AnswerBody>;

/// What it consists of.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Whole(Full<Bytes>),
    File(FileBody),
}

/// What becomes of a request.
pub(super) enum Reply {
    Answer(Answer),
    /// The connection goes over to the events of a device.
    Events(Box<Stream>),
}

/// An answer that is in memory.
pub(super) fn whole(answer: Response<Full<Bytes>>) -> Answer {
    answer.map(AnswerBody::Whole)
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::File(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::File(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::File(body) => body.size_hint(),
        }
    }
}

/// A file on its way out; its reader's place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct FileBody {
    file: Option<File>,
    left: u64,
    reading: Option<JoinHandle<io::Result<(File, Bytes)>>>,
    _reader: OwnedSemaphorePermit,
}

impl FileBody {
    /// The first `length` bytes of `file`.
    pub(super) fn new(file: File, length: u64, reader: OwnedSemaphorePermit) -> Self {
        Self { file: Some(file), left: length, reading: None, _reader: reader }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        if let Some(file) = self.file.take() {
            self.reading = Some(tokio::task::spawn_blocking(move || read(file, piece)));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let (file, bytes) = read.map_err(io::Error::other)??;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.file = Some(file);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn read(mut file: File, length: usize) -> io::Result<(File, Bytes)> {
    let mut piece = vec![0; length];
    file.read_exact(&mut piece)?;
    Ok((file, piece.into()))
}

/// A device's connection: acknowledged at once, and it ends when nothing of what is to be sent has moved for `limit`.
/// What the system has taken and not sent yet cannot be seen from here, so its buffer is to be small.
#[derive(Debug)]
pub(super) struct Moving<S> {
    stream: S,
    limit: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Moving<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, stuck: None }
    }

    /// `sent`, or an error once that has been pending for too long.
    fn watch<T>(&mut self, sent: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stuck = None;
            return sent;
        }
        let limit = self.limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stuck.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for Moving<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            // A device holds few bytes on their way, so that it sees them move: each acknowledgement that the system puts off,
            // by 40 ms, is a pause of its upload. The system forgets this soon.
            let _ = set_tcp_quickack(&self.stream, true);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moving<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(sent, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(sent, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
