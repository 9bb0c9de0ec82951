//! HTTP/2 on one connection: the settings that keep one peer from stopping others, and how a
//! connection ends.
//!
//! A proven connection lives as long as its client certificate. SPIRE ends each after three
//! minutes, so that agents spread over servers; that makes handshakes, the dearest thing that a
//! server does, for ever. Load balancers spread agents when they connect, and agents connect anew
//! with each SVID of their own. Without a certificate there is only an attestation or a bundle to
//! ask for, and the three minutes stay.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use spire_core::tasks::Tasks;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt;

use super::{GrpcService, message_size};
use crate::caller::Caller;

/// How long a connection without a client certificate is open before it is asked to end, and how
/// long one with a certificate outlives it, so that its agent is told why it is refused.
pub(super) const UNPROVEN_AGE: Duration = Duration::from_secs(180);

/// How long calls may go on after a connection was asked to end.
const LAST_CALLS: Duration = Duration::from_secs(60);

/// Calls at a time, by whom the peer is: an agent that attests needs one.
const STREAMS: u32 = 128;
const UNPROVEN_STREAMS: u32 = 8;

/// What a peer may send of one call, and of all, before a handler has read it.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// What is kept of an answer that the peer does not read.
const SEND_BUFFER: usize = 128 << 10;

/// All headers of a request together.
const HEADERS: u32 = 16 << 10;

/// How often a silent peer is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Serves a connection until its peer leaves, `age` is over, or the tasks stop.
pub(super) async fn serve<I, S>(io: I, caller: Caller, service: S, age: Duration, tasks: &Tasks)
where
    I: Read + Write + Unpin + Send + 'static,
    S: GrpcService,
{
    let proven = caller.is_local() || caller.svid().is_some();
    let service = service
        .map_request(move |request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller.clone());
            request
        })
        .map_response(message_size::restate_response);
    let connection = http2::Builder::new(InTasks(tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(if proven { STREAMS } else { UNPROVEN_STREAMS })
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .serve_connection(io, TowerToHyperService::new(service));
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
