//! Whether a connection moves. A link may be as slow as it likes, as long as it carries something.
//! Here too its bytes are counted, and held back to what the caps allow ([`Uplink`]): that is no standing still.
//!
//! Every byte that the system takes or gives counts. What the system has taken and not yet sent cannot be
//! seen from here, so its buffer is kept small ([`SEND_BUFFER`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Uplink;

/// Bytes that may wait in the system for a slow link; Linux doubles it. At a time-out of a minute everything above a
/// kilobyte a second gets through, and a link with half a second of delay still carries 128 kB a second.
pub(super) const SEND_BUFFER: usize = 32 << 10;

/// When something moved last.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    origin: Instant,
    moved_ms: Arc<AtomicU64>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), moved_ms: Arc::default() }
    }

    fn moved(&self) {
        let ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.origin + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }

    /// Waits for `work` as long as something moves; `None` once nothing has for `limit`.
    pub(super) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        self.moved();
        loop {
            let deadline = self.last() + limit;
            tokio::select! {
                done = &mut work => return Some(done),
                () = tokio::time::sleep_until(deadline) => if self.last() + limit <= deadline { return None },
            }
        }
    }
}

/// A stream that tells when it moves, and moves no faster than it may. One task reads and writes it.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    progress: Progress,
    uplink: Arc<Uplink>,
    /// Until the next piece may pass.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, progress: Progress, uplink: Arc<Uplink>) -> Self {
        Self { stream, progress, uplink, pause: None }
    }

    /// Most bytes that may pass now; an error where none may any more today.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.uplink.piece()? {
                Ok(piece) => return Poll::Ready(Ok(piece)),
                Err(wait) => {
                    self.progress.moved();
                    self.pause = Some(Box::pin(tokio::time::sleep(wait)));
                }
            }
        }
    }

    fn moved(&self, bytes: usize) {
        if bytes > 0 {
            self.progress.moved();
            self.uplink.charge(bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let piece = ready!(self.poll_piece(cx))?;
        if piece >= buffer.remaining() {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
            self.moved(buffer.filled().len() - before);
            return polled;
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(piece));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.moved(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let piece = ready!(self.poll_piece(cx))?.min(bytes.len());
        let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes.get(..piece).unwrap_or(bytes)))?;
        self.moved(taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::units::Bytes;
    use crate::upload::Config;

    #[tokio::test(start_paused = true)]
    async fn a_cap_is_kept_both_ways_and_is_no_standing_still() {
        let config = Config { bandwidth: Bytes(1 << 10), ..Config::default() };
        let uplink = Uplink::new(&config, Box::new(|| None), None).expect("a good setting");
        let progress = Progress::new();
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut ours = Watched::new(ours, progress.clone(), Arc::clone(&uplink));
        let (all, begun) = (vec![1; 100 << 10], Instant::now());
        let limit = Duration::from_millis(600); // a piece takes 500
        let sent = progress.within(limit, ours.write_all(&all)).await;
        assert!(sent.is_some_and(|sent| sent.is_ok()));
        let took = begun.elapsed().as_secs();
        assert!((98..=101).contains(&took), "{took} s for 100 KiB at 1 KiB a second");
        theirs.write_all(&all).await.expect("it writes");
        let begun = Instant::now();
        let mut got = vec![0; all.len()];
        let read = progress.within(limit, ours.read_exact(&mut got)).await;
        assert!(read.is_some_and(|read| read.is_ok()) && got == all);
        let took = begun.elapsed().as_secs();
        assert!((98..=101).contains(&took), "{took} s the other way");
        assert_eq!(uplink.day_bytes(), 200 << 10);
    }

    #[tokio::test]
    async fn beyond_the_days_limit_and_what_is_under_way_nothing_passes() {
        let config = Config { daily_limit: Bytes(1 << 20), ..Config::default() };
        let uplink = Uplink::new(&config, Box::new(|| None), None).expect("a good setting");
        let (ours, theirs) = tokio::io::duplex(16 << 20);
        let mut ours = Watched::new(ours, Progress::new(), Arc::clone(&uplink));
        assert!(uplink.held().is_none());
        ours.write_all(&vec![1; 1 << 20]).await.expect("it passes");
        assert_eq!(uplink.held().map(|(failure, _)| failure), Some(crate::upload::Failure::DailyLimit));
        ours.write_all(&vec![1; 4 << 20]).await.expect("what is under way may end");
        ours.write_all(&[1]).await.expect("to the last byte");
        let error = ours.write_all(&[1]).await.expect_err("it is over");
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert!(ours.read_exact(&mut [0]).await.is_err());
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_stream_has_all_the_time_it_needs_and_one_that_stands_still_has_its_limit() {
        let limit = Duration::from_secs(60);
        let progress = Progress::new();
        let (ours, mut theirs) = tokio::io::duplex(10);
        let uplink = Uplink::new(&Config::default(), Box::new(|| None), None).expect("the defaults are good");
        let mut ours = Watched::new(ours, progress.clone(), uplink);
        let slow = async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                theirs.read_exact(&mut [0; 10]).await.expect("it reads");
            }
        };
        let all = [1; 1000];
        let (sent, ()) = tokio::join!(progress.within(limit, ours.write_all(&all)), slow);
        assert!(sent.is_some_and(|sent| sent.is_ok()), "5000 seconds, never more than 50 without a byte");

        let begun = Instant::now();
        let stuck = progress.within(limit, ours.write_all(&all)).await;
        assert!(stuck.is_none());
        assert!((limit..limit * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}
