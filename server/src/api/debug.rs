//! The debug service: how long the server runs, how much it holds, and what proves it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use spire_core::id::SpiffeId;
use spire_core::wire::debug::debug_server::Debug;
use spire_core::wire::debug::get_info_response::Cert;
use spire_core::wire::debug::{GetInfoRequest, GetInfoResponse};
use tonic::{Request, Response, Status};
use x509_cert::Certificate;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

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
        let unreadable = |error: der::Error| {
            failed("failed to read the server's SVID", Status::internal(error.to_string()))
        };
        let identity = self.authority.server_svid().borrow().clone();
        let chain = identity.map(|identity| identity.svid().chain.clone()).unwrap_or_default();
        let read = |der: &Bytes| Certificate::from_der(der);
        let mut chain: Vec<_> =
            chain.iter().map(read).collect::<Result<_, _>>().map_err(unreadable)?;
        let bundle = self.authority.bundle().borrow().clone();
        let issuer = chain.last().map(|last| last.tbs_certificate().issuer().clone());
        let roots = bundle.x509_authorities.iter().filter_map(|root| read(&root.certificate).ok());
        let mut roots =
            roots.filter(|root| Some(root.tbs_certificate().subject()) == issuer.as_ref());
        chain.extend(roots.next());
        chain.iter().map(described).collect::<Result<_, _>>().map_err(unreadable)
    }
}

fn described(certificate: &Certificate) -> Result<Cert, der::Error> {
    let body = certificate.tbs_certificate();
    let names = body.get_extension::<SubjectAltName>().ok().flatten();
    let id = names.and_then(|(_, names)| {
        names.0.into_iter().find_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => SpiffeId::parse(uri.as_str()).ok(),
            _ => None,
        })
    });
    let expires_at = body.validity().not_after.to_unix_duration().as_secs();
    Ok(Cert {
        id: id.as_ref().map(Into::into),
        expires_at: i64::try_from(expires_at).unwrap_or(i64::MAX),
        subject: body.subject().to_string(),
    })
}
