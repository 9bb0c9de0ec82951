//! gRPC: what the listeners of server and agent do alike on connections that were accepted, and how
//! a server is called. Who calls, and what a caller may do, is left to them.

mod authority;
mod connection;
mod crowd;
mod dial;
mod gathered;
mod health;
mod message_size;
mod router;
mod unix_socket;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tonic::body::Body;
use tonic::{Code, Status};

pub use authority::AnyAuthority;
pub use connection::{Connection, KNOWN_WINDOW, serve};
pub use crowd::{Crowd, Place};
pub use dial::{ServerAddress, connect};
pub use gathered::Gathered;
pub use health::HealthService;
pub use message_size::{bounded, restate};
pub use router::Router;
pub use unix_socket::{SocketError, UnixSocket, make_folder};

/// How many connections the kernel holds until they are accepted, if `net.core.somaxconn` lets it.
/// Where a burst fills that up, others wait for seconds until TCP tries again, or are refused on a
/// Unix socket.
pub const BACKLOG: u32 = 4096;

/// How long a listener waits where the kernel has run out of something.
const PAUSE: Duration = Duration::from_millis(500);

/// What answers requests: each carries its caller in its extensions.
pub trait GrpcService:
    tower::Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: tower::Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// A connection, or nothing where the kernel had none to give. Where it has run out of something,
/// this waits: to ask at once would only spin.
pub async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(connection) => Some(connection),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            tracing::warn!(
                subsystem_name = "endpoints",
                %error,
                "Cannot accept connections for the moment; if this goes on, raise the limit of open \
                 files (ulimit -n)"
            );
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// A status in the form that runbooks match, `rpc error: code = Unavailable desc = …`, with what it
/// came from.
pub fn describe(status: &Status) -> String {
    let mut text =
        format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message());
    // A connection that failed hides its cause below errors that only name the layers.
    let mut cause = std::error::Error::source(status);
    let mut said = status.message().to_owned();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            text = format!("{text}: {more}");
            said = more;
        }
        cause = error.source();
    }
    text
}

/// A code in the spelling that scripts and logs match, which is Go's.
pub fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}
