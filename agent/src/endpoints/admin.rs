//! What the admin socket offers to operators: how the agent is, and how much it logs.

use std::sync::Arc;
use std::time::Instant;

use spire_core::bundle::Bundle;
use spire_core::svid::x509::{Described, describe_to_root};
use spire_core::telemetry::log::Logger as Log;
use spire_core::tls::IdentityState;
use spire_core::wire::agent_debug::debug_server::Debug;
use spire_core::wire::agent_debug::get_info_response::Cert;
use spire_core::wire::agent_debug::{GetInfoRequest, GetInfoResponse};
use spire_core::wire::agent_logger::logger_server::Logger;
use spire_core::wire::agent_logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use spire_core::wire::types;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::cache::{Cache, JwtSvids};

/// The debug service.
#[derive(Clone)]
pub struct DebugService {
    /// The agent's own SVID.
    pub identity: IdentityState,
    /// The bundle of its trust domain.
    pub bundle: watch::Receiver<Arc<Bundle>>,
    /// The identities of this node.
    pub cache: Arc<Cache>,
    /// Its JWT-SVIDs.
    pub jwt_svids: JwtSvids,
    /// When the agent started.
    pub started: Instant,
}

#[tonic::async_trait]
impl Debug for DebugService {
    async fn get_info(
        &self,
        _: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        let held = self.cache.counts();
        let x509_svids = count(held.x509_svids);
        #[expect(deprecated, reason = "older clients show this field")]
        Ok(Response::new(GetInfoResponse {
            svid_chain: self.svid_chain()?,
            uptime: i32::try_from(self.started.elapsed().as_secs()).unwrap_or(i32::MAX),
            svids_count: x509_svids,
            last_sync_success: self.cache.synced_at().map_or(0, |at| at.as_second()),
            cached_x509_svids_count: x509_svids,
            cached_jwt_svids_count: count(self.jwt_svids.count()),
            cached_svidstore_x509_svids_count: count(held.stored_x509_svids),
        }))
    }
}

impl DebugService {
    /// The agent's SVID, what signed it, and so on up to the root in the bundle.
    fn svid_chain(&self) -> Result<Vec<Cert>, Status> {
        let Some(identity) = self.identity.borrow().clone() else { return Ok(Vec::new()) };
        let bundle = self.bundle.borrow().clone();
        let chain = describe_to_root(&identity.svid().chain, &bundle).map_err(|error| {
            Status::internal(format!("failed to read the agent's SVID: {error}"))
        })?;
        let shown = |certificate: Described| Cert {
            id: certificate.id.as_ref().map(Into::into),
            expires_at: certificate.expires_at.as_second(),
            subject: certificate.subject,
        };
        Ok(chain.into_iter().map(shown).collect())
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The logger service: how much is logged, changed while the agent runs.
#[derive(Debug, Clone)]
pub struct LoggerService {
    /// The log of this process.
    pub log: Log,
}

type LoggerReply = Result<Response<types::Logger>, Status>;

#[tonic::async_trait]
impl Logger for LoggerService {
    async fn get_logger(&self, _: Request<GetLoggerRequest>) -> LoggerReply {
        Ok(self.state())
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> LoggerReply {
        let wanted = types::LogLevel::try_from(request.into_inner().new_level).unwrap_or_default();
        self.log.set_level(wanted.try_into()?);
        tracing::info!(subsystem_name = "api", new_level = wanted.as_str_name(), "Log level set");
        Ok(self.state())
    }

    async fn reset_log_level(&self, _: Request<ResetLogLevelRequest>) -> LoggerReply {
        self.log.reset_level();
        Ok(self.state())
    }
}

impl LoggerService {
    fn state(&self) -> Response<types::Logger> {
        Response::new((&self.log).into())
    }
}
