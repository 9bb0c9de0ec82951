//! An identity taken from another agent's Workload API.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use spire_core::node::EvidenceError;
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
    let certificates = split_certificates(&svid.x509_svid)
        .ok_or_else(|| EvidenceError(format!("{doing}: bad chain")))?;
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

/// Takes certificates apart that stand one after the other: each begins with a DER SEQUENCE that
/// tells its length.
fn split_certificates(mut chain: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    while !chain.is_empty() {
        let length = der_length(chain)?;
        let (certificate, rest) = chain.split_at_checked(length)?;
        certificates.push(CertificateDer::from(certificate.to_vec()));
        chain = rest;
    }
    Some(certificates)
}

fn der_length(der: &[u8]) -> Option<usize> {
    use der::{Decode, Header, Reader, SliceReader};
    let mut reader = SliceReader::new(der).ok()?;
    let header = Header::decode(&mut reader).ok()?;
    let body = usize::try_from(u32::from(header.length())).ok()?;
    usize::try_from(u32::from(reader.position())).ok()?.checked_add(body)
}
