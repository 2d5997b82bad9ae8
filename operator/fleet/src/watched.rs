//! Slow readers: whoever takes less than a few KiB a second of what it asked for holds a place that others need.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A peer may keep us waiting for so long before it has taken anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that earn a second of patience back. A GPRS link carries more.
const RATE: u64 = 4 << 10;

/// A stream whose writes must make progress: waiting uses patience up, bytes taken earn it back.
pub(crate) struct Watched<S> {
    stream: S,
    patience: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Watched<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, patience: PATIENCE, waiting: None }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
        taken: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = &poll {
            if let Some((since, _)) = self.waiting.take() {
                self.patience = self.patience.saturating_sub(since.elapsed());
            }
            let taken = done.as_ref().map_or(0, taken);
            let earned = Duration::from_millis(u64::try_from(taken).unwrap_or(u64::MAX).saturating_mul(1000) / RATE);
            self.patience = self.patience.saturating_add(earned).min(PATIENCE);
            return poll;
        }
        let patience = self.patience;
        let (_, sleep) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(patience))));
        sleep.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, poll, |n| *n)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, poll, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, poll, |()| 0)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, poll, |n| *n)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Writes `total` bytes to somebody who takes `piece` of them every second.
    async fn serve(total: usize, piece: usize) -> io::Result<()> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; piece];
            while theirs.read_exact(&mut buffer).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let written = Watched::new(ours).write_all(&vec![0; total]).await;
        reader.abort();
        written
    }

    #[tokio::test(start_paused = true)]
    async fn who_trickles_is_cut_and_who_is_only_slow_is_not() {
        let started = Instant::now();
        serve(1 << 20, 8 << 10).await.unwrap();
        assert!(started.elapsed() > Duration::from_secs(100), "it took its time");

        let started = Instant::now();
        let error = serve(1 << 20, 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());

        let started = Instant::now();
        let (ours, _theirs) = tokio::io::duplex(1 << 10);
        assert!(Watched::new(ours).write_all(&[0; 4096]).await.is_err(), "who reads nothing at all");
        assert_eq!(started.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
