//! Connections to a socket, each with the process that made it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use crate::workload::caller::{Caller, CallerError};

/// Connections open at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16_384;
/// How long to wait where the kernel has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// One connection, or why its maker is not known.
pub(super) type FoundCaller = Arc<Result<Caller, CallerError>>;

/// The connections that arrive at a socket.
pub struct Connections;

impl Connections {
    /// Accepts connections until the stream is dropped.
    pub fn of(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        unfold((listener, places), |(listener, places)| async move {
            loop {
                let place = places.clone().acquire_owned().await.ok()?;
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let caller = Arc::new(Caller::of(&stream));
                        let connection = Connection { stream, caller, _place: place };
                        return Some((Ok(connection), (listener, places)));
                    }
                    Err(error) => {
                        tracing::warn!(
                            subsystem_name = "endpoints",
                            error = %error,
                            "Connection could not be accepted"
                        );
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        })
    }
}

/// A connection with the process at its other end.
pub struct Connection {
    stream: UnixStream,
    caller: FoundCaller,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = FoundCaller;

    fn connect_info(&self) -> FoundCaller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
