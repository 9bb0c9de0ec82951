//! `api`: what a workload may ask of the agent, asked and shown to a person.

mod fetch;
mod jwt;
mod watch;
mod x509;

use std::future::Future;

use spire_core::command::{Failure, Manner};
use spire_core::config::duration;
use spire_core::flags::{Flag, Values};
use spire_core::wire::workload;
use tonic::{Status, Streaming};

use super::{PUBLIC_CONNECTION, PUBLIC_SOCKET};

pub(super) use fetch::COMMANDS as FETCH;
pub(super) use jwt::COMMANDS as JWT;
pub(super) use watch::COMMANDS as WATCH;

/// How these commands word failures.
const MANNER: Manner = Manner { failure: "", mistake_again: Some(""), help_end: "" };

/// How long an answer is waited for.
const TIMEOUT: Flag =
    Flag::checked("timeout", check_timeout, "How long to wait for an answer; 0 for no limit")
        .default("5s");

fn check_timeout(_: Option<&str>, value: &str) -> Result<(), String> {
    duration::parse(value).map(drop).map_err(|error| error.to_string())
}

fn client(values: &Values) -> Result<workload::Client, Failure> {
    Ok(workload::client(PUBLIC_SOCKET.channel(values)?))
}

/// What `call` answers within `-timeout`.
async fn in_time<T>(
    values: &Values,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let limit = values.duration(TIMEOUT.name);
    if limit.is_zero() {
        return call.await;
    }
    let late = |_| Status::deadline_exceeded("context deadline exceeded");
    tokio::time::timeout(limit, call).await.map_err(late)?
}

/// The first message of a stream.
async fn first<M>(mut stream: Streaming<M>) -> Result<M, Status> {
    stream.message().await?.ok_or_else(end_of_stream)
}

/// An agent ends a stream only when it ends itself.
fn end_of_stream() -> Status {
    Status::unavailable("agent ended the stream")
}
