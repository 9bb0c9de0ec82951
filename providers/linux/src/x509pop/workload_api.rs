//! An identity taken from another agent's Workload API.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use spire_core::node::EvidenceError;
use spire_core::svid::x509::split_chain;
use spire_core::wire::workload::{self, X509svid, X509svidRequest};
use tonic::transport::Endpoint;

use super::agent::{Identity, failed, pkcs8};

/// How long the other agent may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Fetches the default SVID with its key from the Workload API at `socket` (`unix:///path`).
pub(super) async fn fetch(socket: &str) -> Result<Identity, EvidenceError> {
    let doing = format!("unable to fetch an X509-SVID from {socket}");
    let fetched = tokio::time::timeout(LIMIT, first_svid(socket))
        .await
        .map_err(|_| EvidenceError(format!("{doing}: no answer within 30s")))?
        .map_err(failed(&doing))?;
    let svid = fetched.ok_or_else(|| EvidenceError(format!("{doing}: it holds no identity")))?;
    let chain = split_chain(&svid.x509_svid).map_err(failed(&doing))?;
    let certificates = chain.iter().map(|one| CertificateDer::from(one.to_vec())).collect();
    Ok(Identity { certificates, key: pkcs8(&svid.x509_svid_key) })
}

async fn first_svid(
    socket: &str,
) -> Result<Option<X509svid>, Box<dyn std::error::Error + Send + Sync>> {
    let channel = Endpoint::from_shared(socket.to_owned())?.connect().await?;
    let called = workload::client(channel).fetch_x509svid(X509svidRequest {}).await;
    let mut updates = called?.into_inner();
    let update = updates.message().await?.unwrap_or_default();
    Ok(update.svids.into_iter().next())
}
