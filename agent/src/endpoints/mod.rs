//! What the agent offers on its sockets: the Workload API to every process of the node, and an
//! admin socket to operators.

mod admin;
mod calls;
mod rate_limit;
mod reflection;
mod unix;
pub mod workload_api;

use std::sync::Arc;

use spire_core::grpc::{HealthService, Router};
use spire_core::limits::{MAX_MESSAGE_BYTES, MAX_WORKLOAD_REQUEST_BYTES};
use spire_core::wire::agent_debug::debug_server::DebugServer;
use spire_core::wire::agent_logger::logger_server::LoggerServer;
use spire_core::wire::health::health_server::HealthServer;
use spire_core::wire::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use tokio_util::sync::CancellationToken;

pub use admin::{DebugService, LoggerService};
pub(crate) use unix::SOCKET_FOLDER_MODE;
pub use unix::{Audience, FoundCaller, UnixEndpoint};
use workload_api::WorkloadApi;

/// The services for workloads: the Workload API unless it is `disabled`, health and reflection.
/// `stop` ends those who watch the health.
pub fn workload_services(api: WorkloadApi, disabled: bool, stop: CancellationToken) -> Router {
    let health = HealthService { check: Arc::new(api.clone()), stop };
    let mut router = Router::default().with(HealthServer::new(health));
    let mut names = vec!["grpc.health.v1.Health"];
    let mut files = vec!["grpc/health/v1/health.proto"];
    if !disabled {
        let api =
            SpiffeWorkloadApiServer::new(api).max_decoding_message_size(MAX_WORKLOAD_REQUEST_BYTES);
        router = router.with(api);
        names.insert(0, "SpiffeWorkloadAPI");
        files.push("workloadapi.proto");
    }
    reflection::add_to(router, &names, &files)
}

/// The services for operators.
pub fn admin_services(debug: DebugService, logger: LoggerService) -> Router {
    Router::default()
        .with(DebugServer::new(debug).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .with(LoggerServer::new(logger).max_decoding_message_size(MAX_MESSAGE_BYTES))
}
