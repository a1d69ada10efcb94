//! A TCP socket as connections write to it.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Up to here a copy costs less than what the kernel does for each slice.
const SMALL: usize = 1024;

/// TLS reads in pieces of this size; one that is filled is part of something larger.
const PIECE: usize = 4096;
/// What is read ahead then.
const AHEAD: usize = 64 * 1024;

/// Sends what is small as one piece: `writev` is for what is worth it. Reads
/// ahead for TLS while much comes, and keeps no buffer else.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Bytes that were read ahead: a buffer, and what of it is not passed on.
    ahead: Option<(Box<[u8]>, Range<usize>)>,
    much_comes: bool,
}

impl Socket {
    /// Around a connected socket.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        // Failing it costs latency, not the connection.
        let _ = stream.set_nodelay(true);
        Self { stream, ahead: None, much_comes: false }
    }

    /// The socket.
    #[must_use]
    pub fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket alone. What was read ahead would be lost: ask before reading.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Fills the buffer ahead. Ready without one at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = match self.ahead.take() {
            Some((bytes, _)) => bytes,
            None => vec![0; AHEAD].into(),
        };
        let mut into = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut into);
        let count = into.filled().len();
        self.much_comes = count >= PIECE;
        if count > 0 {
            self.ahead = Some((bytes, 0..count));
        }
        polled
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let wanted = buffer.remaining();
        let empty = this.ahead.as_ref().is_none_or(|(_, left)| left.is_empty());
        if empty && !(this.much_comes && wanted <= PIECE) {
            this.ahead = None;
            let before = buffer.filled().len();
            let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
            this.much_comes = wanted == PIECE && buffer.filled().len() - before == PIECE;
            return polled;
        }
        if empty {
            ready!(this.poll_fill(cx))?;
        }
        if let Some((bytes, left)) = &mut this.ahead {
            let count = left.len().min(wanted);
            buffer.put_slice(&bytes[left.start..left.start + count]);
            left.start += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if let [one] = slices {
            return stream.poll_write(cx, one);
        }
        let mut all = [0; SMALL];
        let mut length = 0;
        for slice in slices {
            match all.get_mut(length..length + slice.len()) {
                Some(place) => place.copy_from_slice(slice),
                None => return stream.poll_write_vectored(cx, slices),
            }
            length += slice.len();
        }
        stream.poll_write(cx, &all[..length])
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Socket::new(connected.unwrap()), accepted.unwrap().0)
    }

    /// As rustls reads: in pieces, of which some are short.
    #[tokio::test]
    async fn what_is_read_ahead_is_all_that_was_sent() {
        let (mut socket, mut peer) = pair().await;
        let sent: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
        let to_send = sent.clone();
        let sending = tokio::spawn(async move {
            for part in to_send.chunks(77_777) {
                peer.write_all(part).await.unwrap();
            }
        });
        let (mut got, mut piece, mut ahead) = (Vec::new(), [0; PIECE], 0);
        loop {
            let size = if got.len() % 3 == 0 { PIECE } else { 100 };
            let count = socket.read(&mut piece[..size]).await.unwrap();
            if count == 0 {
                break;
            }
            ahead = ahead.max(socket.ahead.as_ref().map_or(0, |(_, left)| left.len()));
            got.extend_from_slice(&piece[..count]);
        }
        sending.await.unwrap();
        assert!(got == sent, "{} of {} bytes, or others", got.len(), sent.len());
        assert!(ahead > PIECE, "nothing was read ahead");
        assert!(socket.ahead.is_none(), "a buffer is kept for nothing");
    }

    #[tokio::test]
    async fn slices_arrive_in_order_whether_small_or_large() {
        let (mut socket, mut peer) = pair().await;
        for sizes in [&[3, 0, 5][..], &[SMALL], &[SMALL, 1], &[1, SMALL - 1], &[7, 5000, 9], &[]] {
            let parts: Vec<Vec<u8>> =
                (b'a'..).zip(sizes).map(|(letter, size)| vec![letter; *size]).collect();
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let whole = parts.concat();
            let wrote = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &slices));
            // A loopback socket with nothing in it takes all of that at once.
            assert_eq!(wrote.await.unwrap(), whole.len());
            let mut got = vec![0; whole.len()];
            peer.read_exact(&mut got).await.unwrap();
            assert_eq!(got, whole, "{sizes:?}");
        }
    }
}
