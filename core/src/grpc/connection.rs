//! HTTP/2 on one connection: the settings that keep one peer from stopping others, and how a
//! connection ends.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt;

use super::{AnyAuthority, Gathered, GrpcService, message_size};
use crate::tasks::Tasks;

/// How long calls may go on after a connection was asked to end.
const LAST_CALLS: Duration = Duration::from_secs(60);

/// What a peer may send of one call at most before a handler has read it.
const STREAM_WINDOW: u32 = 128 << 10;

/// What is kept of an answer that the peer does not read.
const SEND_BUFFER: usize = 128 << 10;

/// All headers of a request together.
const HEADERS: u32 = 16 << 10;

/// How often a silent peer is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// The window of a peer that is known, in bytes.
pub const KNOWN_WINDOW: u32 = 512 << 10;

/// A connection that was accepted, and what is granted to its peer.
pub struct Connection<I, C> {
    /// Its bytes.
    pub io: I,
    /// Who is at the other end: stands in the extensions of each request.
    pub caller: C,
    /// How many calls it may carry at a time.
    pub streams: u32,
    /// How many bytes of all calls may lie there before a handler has read them; HTTP/2 grants
    /// 65,535 to everyone.
    pub window: u32,
    /// How long it is open before it is asked to end.
    pub age: Duration,
}

impl<C> Connection<TokioIo<AnyAuthority<UnixStream>>, C> {
    /// One of a process on this machine.
    pub fn local(stream: UnixStream, caller: C, streams: u32) -> Self {
        let io = TokioIo::new(AnyAuthority::new(stream));
        Self { io, caller, streams, window: KNOWN_WINDOW, age: Duration::MAX }
    }
}

/// Serves a connection until its peer leaves, its age is over, or the tasks stop.
pub async fn serve<I, C, S>(connection: Connection<I, C>, service: S, tasks: &Tasks)
where
    I: Read + Write + Unpin + Send + 'static,
    C: Clone + Send + Sync + 'static,
    S: GrpcService,
{
    let Connection { io, caller, streams, window, age } = connection;
    let service = service
        .map_request(move |request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller.clone());
            request
        })
        .map_response(message_size::restate_response);
    let connection = http2::Builder::new(InTasks(tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW.min(window))
        .initial_connection_window_size(window)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .serve_connection(Gathered::new(io), TowerToHyperService::new(service));
    let mut connection = pin!(connection);

    let stop = tasks.stop_token();
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = over(age, stop) => connection.as_mut().graceful_shutdown(),
    }
    match tokio::time::timeout(LAST_CALLS, connection).await {
        Ok(ended) => log_end(ended),
        Err(_) => {
            tracing::debug!(subsystem_name = "endpoints", "Connection cut: its calls did not end")
        }
    }
}

async fn over(age: Duration, stop: CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(age) => {}
        () = stop.cancelled() => {}
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(subsystem_name = "endpoints", %error, "Connection failed");
    }
}

/// Runs the calls of a connection as tasks of the process, so that a stop waits for them.
#[derive(Clone)]
struct InTasks(Tasks);

impl<F> hyper::rt::Executor<F> for InTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.spawn(call);
    }
}
