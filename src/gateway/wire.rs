//! A connection's bytes, plain or through TLS, on either side; a peer that takes no bytes is not waited for without end.
//!
//! A caller that is still sending when it has been answered is read on for a while after our end (RFC 9112, 9.6): closed
//! at once, the system would answer its next bytes by a reset, and it might never read why it was refused.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsStream;

/// Most that is read and thrown away after our end.
const LINGER_BYTES: usize = 256 << 10;
/// For how long it is.
const LINGER: Duration = Duration::from_secs(2);

/// Pieces of up to this many bytes together are sent as one, which costs the system less than several.
const ONE_PIECE: usize = 2 << 10;

#[derive(Debug)]
pub(super) struct Wire {
    inner: Inner,
    stall: Duration,
    /// Armed only while a write waits, or the rest of what the peer sends.
    timer: Option<Pin<Box<Sleep>>>,
    /// Our end has been sent.
    is_ended: bool,
    rest: Option<Rest>,
}

/// What a caller may still send when it has been answered.
#[derive(Debug)]
struct Rest {
    is_expected: Rc<Cell<bool>>,
    left: usize,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// `stall`: how long a write may make no progress.
    pub(super) fn plain(stream: TcpStream, stall: Duration) -> Self {
        Self { inner: Inner::Plain(stream), stall, timer: None, is_ended: false, rest: None }
    }

    pub(super) fn tls(stream: impl Into<TlsStream<TcpStream>>, stall: Duration) -> Self {
        Self { inner: Inner::Tls(Box::new(stream.into())), stall, timer: None, is_ended: false, rest: None }
    }

    /// The same, read on after our end where something waits already, or where `is_expected` says that more will come.
    pub(super) fn lingering(self, is_expected: Rc<Cell<bool>>) -> Self {
        Self { rest: Some(Rest { is_expected, left: LINGER_BYTES }), ..self }
    }

    /// Reads and throws away what still comes, until the peer ends, or it is too much or takes too long.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(()) };
        // TLS has ended on our side, so its bytes need not be understood.
        let stream = match &mut self.inner {
            Inner::Plain(stream) => stream,
            Inner::Tls(stream) => stream.get_mut().0,
        };
        let mut scrap = [0; 4 << 10];
        while rest.left > 0 {
            let mut scrap = ReadBuf::new(&mut scrap);
            match Pin::new(&mut *stream).poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(())) if !scrap.filled().is_empty() => {
                    rest.left = rest.left.saturating_sub(scrap.filled().len());
                    rest.is_expected.set(true);
                }
                Poll::Pending if rest.is_expected.get() => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
                    return timer.as_mut().poll(cx);
                }
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    /// Passes a write's progress on, and gives up on one that makes none for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.timer = None;
            return poll;
        }
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = match &mut this.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        this.watched(cx, poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        if bufs.iter().map(|buf| buf.len()).sum::<usize>() <= ONE_PIECE {
            let mut piece = [0; ONE_PIECE];
            let mut end = 0;
            for buf in bufs {
                piece[end..end + buf.len()].copy_from_slice(buf);
                end += buf.len();
            }
            return self.poll_write(cx, &piece[..end]);
        }
        let this = self.get_mut();
        let poll = match &mut this.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        this.watched(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = match &mut this.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        this.watched(cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_ended {
            let poll = match &mut this.inner {
                Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
                Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            };
            ready!(this.watched(cx, poll))?;
            this.is_ended = true;
        }
        this.poll_rest(cx).map(Ok)
    }
}
