//! Whether a connection moves. A link may be as slow as it likes, as long as it carries something.
//!
//! Every byte that the system takes or gives counts. What the system has taken and not yet sent cannot be
//! seen from here, so its buffer is kept small ([`SEND_BUFFER`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

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

/// A stream that tells when it moves.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    progress: Progress,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, progress: Progress) -> Self {
        Self { stream, progress }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.progress.moved();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(polled, Poll::Ready(Ok(taken)) if taken > 0) {
            self.progress.moved();
        }
        polled
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

    #[tokio::test(start_paused = true)]
    async fn a_slow_stream_has_all_the_time_it_needs_and_one_that_stands_still_has_its_limit() {
        let limit = Duration::from_secs(60);
        let progress = Progress::new();
        let (ours, mut theirs) = tokio::io::duplex(10);
        let mut ours = Watched::new(ours, progress.clone());
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
