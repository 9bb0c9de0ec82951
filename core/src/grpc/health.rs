//! The gRPC health service: one check stands for the whole process.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::telemetry::health::HealthCheck;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_server::Health;
use crate::wire::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

/// How often a watcher's process looks whether something has changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The health service. Cheap to clone.
#[derive(Clone)]
pub struct HealthService {
    /// What is asked; whatever is ready counts as serving.
    pub check: Arc<dyn HealthCheck>,
    /// Ends those who watch when the process stops.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        for_the_whole(&request)?;
        Ok(Response::new(answer(self.status().await)))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let status = answer(self.status().await);
        Ok(Response::new(HealthListResponse { statuses: [(String::new(), status)].into() }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        for_the_whole(&request)?;
        let changes = stream::unfold((self.clone(), None), |(service, told)| async move {
            let status = service.other_than(told).await;
            Some((Ok(answer(status)), (service, Some(status))))
        });
        Ok(Response::new(changes.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }
}

impl HealthService {
    async fn status(&self) -> ServingStatus {
        let health = self.check.check().await;
        if health.ready {
            return ServingStatus::Serving;
        }
        let reason = Value::Object(health.details).to_string();
        tracing::warn!(subsystem_name = "api", service = "Health", reason, "Health check failed");
        ServingStatus::NotServing
    }

    /// Waits until the status is another than the one told.
    async fn other_than(&self, told: Option<ServingStatus>) -> ServingStatus {
        loop {
            if told.is_some() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let status = self.status().await;
            if told != Some(status) {
                return status;
            }
        }
    }
}

fn for_the_whole(request: &Request<HealthCheckRequest>) -> Result<(), Status> {
    if request.get_ref().service.is_empty() {
        return Ok(());
    }
    Err(Status::invalid_argument("per-service health is not supported"))
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
