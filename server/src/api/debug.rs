//! The debug service: how long the server runs, how much it holds, and what proves it.

use std::sync::Arc;
use std::time::Instant;

use spire_core::svid::x509::{Described, describe_to_root};
use spire_core::wire::debug::debug_server::Debug;
use spire_core::wire::debug::get_info_response::Cert;
use spire_core::wire::debug::{GetInfoRequest, GetInfoResponse};
use tonic::{Request, Response, Status};

use super::listing;
use super::status::failed;
use crate::authority::Authority;
use crate::registry::Registry;
use crate::store::Store;

/// The debug service.
#[derive(Clone)]
pub struct DebugService {
    /// Counts entries and nodes.
    pub registry: Arc<Registry>,
    /// Counts bundles.
    pub store: Store,
    /// Has the server's own SVID.
    pub authority: Arc<Authority>,
    /// When the server started.
    pub started: Instant,
}

#[tonic::async_trait]
impl Debug for DebugService {
    async fn get_info(
        &self,
        _: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        let snapshot = self.registry.snapshot();
        let bundles = self.store.count_bundles().await;
        let bundles = bundles.map_err(|error| failed("failed to count bundles", error))?;
        Ok(Response::new(GetInfoResponse {
            svid_chain: self.svid_chain()?,
            uptime: listing::count(self.started.elapsed().as_secs()),
            agents_count: listing::count(snapshot.node_count() as u64),
            federated_bundles_count: listing::count(bundles),
            entries_count: listing::count(snapshot.entry_count() as u64),
        }))
    }
}

impl DebugService {
    /// The server's SVID, what signed it, and so on up to the root in the bundle.
    fn svid_chain(&self) -> Result<Vec<Cert>, Status> {
        let identity = self.authority.server_svid().borrow().clone();
        let Some(identity) = identity else { return Ok(Vec::new()) };
        let bundle = self.authority.bundle().borrow().clone();
        let chain = describe_to_root(&identity.svid().chain, &bundle).map_err(|error| {
            failed("failed to read the server's SVID", Status::internal(error.to_string()))
        })?;
        let shown = |certificate: Described| Cert {
            id: certificate.id.as_ref().map(Into::into),
            expires_at: certificate.expires_at.as_second(),
            subject: certificate.subject,
        };
        Ok(chain.into_iter().map(shown).collect())
    }
}
