//! A connection's bytes, plain or through TLS, on either side; a peer that takes no bytes is not waited for without end.
//!
//! A caller that is still sending when it has been answered is read on for a while after our end (RFC 9112, 9.6): closed
//! at once, the system would answer its next bytes by a reset, and it might never read why it was refused.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsStream;

use super::head::Pace;
use super::turn::Turn;

/// Most that is read and thrown away after our end.
const LINGER_BYTES: usize = 256 << 10;
/// For how long it is.
const LINGER: Duration = Duration::from_secs(2);
/// Pieces of up to this many bytes together wait for the end of the turn; longer ones are not worth the copy.
const SHORT: usize = 4 << 10;

pub(super) struct Wire {
    line: Rc<RefCell<Line>>,
    turn: Rc<Turn>,
    stall: Duration,
    /// Armed only while a write waits, or the rest of what the peer sends.
    timer: Option<Pin<Box<Sleep>>>,
    /// Our end has been sent.
    is_ended: bool,
    /// Of a connection from downstream: how it gets on, and how much may still be read after our end.
    pace: Option<Rc<Pace>>,
    rest: usize,
}

/// The connection itself, and what is on its way to it.
pub(super) struct Line {
    inner: Inner,
    /// Parts in the turn's queue.
    queued: usize,
    /// What the peer did not take at the end of a turn, and what came after it.
    left: Vec<u8>,
    /// Who is woken then: it writes the rest.
    task: Option<Waker>,
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Inner {
    fn stream(&mut self) -> Pin<&mut (dyn Stream + 'static)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

/// What both kinds are.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Line {
    /// Sends a part at the end of a turn; what the peer does not take at once is left to the connection's own task.
    pub(super) fn send(&mut self, mut part: &[u8]) {
        self.queued = self.queued.saturating_sub(1);
        let cx = &mut Context::from_waker(Waker::noop());
        while self.left.is_empty() && !part.is_empty() {
            match self.inner.stream().poll_write(cx, part) {
                Poll::Ready(Ok(taken)) if taken > 0 => part = &part[taken..],
                // An error comes again to the task.
                Poll::Ready(_) | Poll::Pending => self.left.extend_from_slice(std::mem::take(&mut part)),
            }
        }
        self.left.extend_from_slice(part);
        let is_through = self.left.is_empty() && matches!(self.inner.stream().poll_flush(cx), Poll::Ready(Ok(())));
        if !is_through && let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.left.is_empty() {
            match ready!(self.inner.stream().poll_write(cx, &self.left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => drop(self.left.drain(..taken)),
            }
        }
        self.left = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    /// `stall`: how long a write may make no progress.
    pub(super) fn plain(stream: TcpStream, turn: &Rc<Turn>, stall: Duration) -> Self {
        Self::new(Inner::Plain(stream), turn, stall)
    }

    pub(super) fn tls(stream: impl Into<TlsStream<TcpStream>>, turn: &Rc<Turn>, stall: Duration) -> Self {
        Self::new(Inner::Tls(Box::new(stream.into())), turn, stall)
    }

    fn new(inner: Inner, turn: &Rc<Turn>, stall: Duration) -> Self {
        let line = Line { inner, queued: 0, left: Vec::new(), task: None };
        let (line, turn) = (Rc::new(RefCell::new(line)), Rc::clone(turn));
        Self { line, turn, stall, timer: None, is_ended: false, pace: None, rest: LINGER_BYTES }
    }

    /// The same from downstream: read on after our end where something waits already, or more is said to come.
    pub(super) fn downstream(self, pace: &Rc<Pace>) -> Self {
        Self { pace: Some(Rc::clone(pace)), ..self }
    }

    /// Reads and throws away what still comes, until the peer ends, or it is too much or takes too long.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pace) = &self.pace else { return Poll::Ready(()) };
        let mut line = self.line.borrow_mut();
        // TLS has ended on our side, so its bytes need not be understood.
        let stream = match &mut line.inner {
            Inner::Plain(stream) => stream,
            Inner::Tls(stream) => stream.get_mut().0,
        };
        let mut scrap = [0; 4 << 10];
        while self.rest > 0 {
            let mut scrap = ReadBuf::new(&mut scrap);
            match Pin::new(&mut *stream).poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(())) if !scrap.filled().is_empty() => {
                    self.rest = self.rest.saturating_sub(scrap.filled().len());
                    pace.is_sending.set(true);
                }
                Poll::Pending if pace.is_sending.get() => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
                    return timer.as_mut().poll(cx);
                }
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    /// Queues pieces for the end of the turn, if they are short and nothing is left over from the last.
    fn queue<'b>(&self, cx: &Context<'_>, pieces: impl Iterator<Item = &'b [u8]> + Clone) -> Option<usize> {
        let length = pieces.clone().map(<[u8]>::len).sum();
        let mut line = self.line.borrow_mut();
        if length > SHORT || !line.left.is_empty() {
            return None;
        }
        line.queued += 1;
        if !line.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            line.task = Some(cx.waker().clone());
        }
        drop(line);
        self.turn.queue(&self.line, pieces);
        Some(length)
    }

    /// Writes without a detour, after all that waits for the turn's end.
    fn poll_directly<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut (dyn Stream + 'static)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.turn.end();
        let mut line = self.line.borrow_mut();
        let poll = match line.poll_left(cx) {
            Poll::Ready(Ok(())) => write(line.inner.stream(), cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        drop(line);
        self.watched(cx, poll)
    }

    /// Passes a write's progress on, and gives up on one that makes none for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            if self.timer.take().is_some() {
                self.pace.as_ref().inspect(|pace| pace.catch_up(Instant::now()));
            }
            return poll;
        }
        self.pace.as_ref().inspect(|pace| pace.fall_behind());
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.line.borrow_mut().inner.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.queue(cx, std::iter::once(buf)) {
            Some(length) => Poll::Ready(Ok(length)),
            None => self.get_mut().poll_directly(cx, |stream, cx| stream.poll_write(cx, buf)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.queue(cx, bufs.iter().map(|buf| &**buf)) {
            Some(length) => Poll::Ready(Ok(length)),
            None => self.get_mut().poll_directly(cx, |stream, cx| stream.poll_write_vectored(cx, bufs)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What waits for the turn's end will leave by itself.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut line = this.line.borrow_mut();
        let poll = match line.poll_left(cx) {
            Poll::Ready(Ok(())) if line.queued > 0 => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => line.inner.stream().poll_flush(cx),
            other => other,
        };
        drop(line);
        this.watched(cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_ended {
            ready!(this.poll_directly(cx, |stream, cx| stream.poll_shutdown(cx)))?;
            this.is_ended = true;
        }
        this.poll_rest(cx).map(Ok)
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}
