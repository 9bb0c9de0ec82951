//! What is written between two flushes leaves as one.
//!
//! HTTP/2 hands an answer over in pieces: headers, data, trailers. Written one by one, each would
//! be a TLS record, a system call and a packet, and the peer would wake up for each.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};

/// How much gathers before it is written unasked: two TLS records.
const ROOM: usize = 32 << 10;

/// A stream of bytes whose writes gather until it is flushed. At rest it keeps no memory.
#[derive(Debug)]
pub struct Gathered<I> {
    io: I,
    unsent: BytesMut,
}

impl<I> Gathered<I> {
    /// Gathers what is written to `io`.
    pub fn new(io: I) -> Self {
        Self { io, unsent: BytesMut::new() }
    }
}

impl<I: Write + Unpin> Gathered<I> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent.has_remaining() {
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent.advance(sent),
            }
        }
        self.unsent = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<I: Read + Unpin> Read for Gathered<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: Write + Unpin> Write for Gathered<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= ROOM {
            ready!(self.poll_send(context))?;
        }
        self.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn pieces_leave_together_and_a_full_peer_is_waited_for() {
        let (near, mut far) = tokio::io::duplex(100);
        let mut gathered = TokioIo::new(Gathered::new(TokioIo::new(near)));
        gathered.write_all(b"head").await.unwrap();
        gathered.write_all(b"body").await.unwrap();
        let mut first = [0; 100];
        assert!(futures::poll!(Box::pin(far.read(&mut first))).is_pending());
        gathered.flush().await.unwrap();
        assert_eq!(far.read(&mut first).await.unwrap(), 8);

        let long = vec![7; 2 * ROOM];
        let sent = async {
            gathered.write_all(&long).await.unwrap();
            gathered.write_all(b"end").await.unwrap();
            gathered.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), count) = tokio::join!(sent, async { far.read_to_end(&mut read).await.unwrap() });
        assert_eq!(count, 2 * ROOM + 3);
        assert!(read.ends_with(b"\x07end"));
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_more_fails() {
        let (near, far) = tokio::io::duplex(8);
        drop(far);
        let mut gathered = Gathered::new(TokioIo::new(near));
        poll_fn(|context| Pin::new(&mut gathered).poll_write(context, b"x")).await.unwrap();
        assert!(poll_fn(|context| Pin::new(&mut gathered).poll_flush(context)).await.is_err());
    }
}
