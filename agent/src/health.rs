//! How the agent is: asked as a workload asks it, on its own socket.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Map;
use spire_core::telemetry::health::{Health, HealthCheck};
use spire_core::wire::workload::{self, X509BundlesRequest};
use tokio::sync::watch;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::config::AgentConfig;

/// The checks of an agent, which does its work once `serving` is true.
pub fn checks(
    config: &AgentConfig,
    serving: watch::Receiver<bool>,
) -> Vec<(&'static str, Arc<dyn HealthCheck>)> {
    let socket = (!config.disable_workload_api).then(|| config.socket_path.clone());
    vec![("agent", Arc::new(WorkloadApi { socket, serving }))]
}

/// Whether the Workload API answers.
struct WorkloadApi {
    /// `None` where it is not served.
    socket: Option<PathBuf>,
    serving: watch::Receiver<bool>,
}

#[async_trait]
impl HealthCheck for WorkloadApi {
    async fn check(&self) -> Health {
        if !*self.serving.borrow() {
            // An agent that is still attesting would not get further by a restart.
            return Health { live: true, ready: false, details: Map::new() };
        }
        let Some(socket) = &self.socket else { return Health::good() };
        match ask(&socket.display().to_string()).await {
            Ok(()) => Health::good(),
            // This process has no identity, which the API has just told well.
            Err(status) if status.code() == Code::PermissionDenied => Health::good(),
            Err(status) => Health::bad("make_new_x509_err", status.message()),
        }
    }
}

async fn ask(socket: &str) -> Result<(), Status> {
    let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let endpoint = Endpoint::from_shared(format!("unix://{socket}")).map_err(unavailable)?;
    let channel = endpoint.connect().await.map_err(unavailable)?;
    let called = workload::client(channel).fetch_x509_bundles(X509BundlesRequest {}).await;
    called?.into_inner().message().await.map(drop)
}
