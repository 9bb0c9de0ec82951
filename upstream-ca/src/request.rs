//! The server's request for an intermediate.

use spire_core::id::TrustDomain;
use spire_core::svid::x509::CertificateRequest;
use spire_core::upstream::UpstreamError;

/// Reads a request, which must be for the trust domain itself and for nothing else.
pub(crate) fn read(
    csr: &[u8],
    trust_domain: &TrustDomain,
) -> Result<CertificateRequest, UpstreamError> {
    let request = CertificateRequest::parse(csr)
        .map_err(|err| UpstreamError::Invalid(format!("unable to parse CSR: {err}")))?;
    let expected = trust_domain.id();
    if request.uris != [expected.as_str()] {
        return Err(UpstreamError::Invalid(format!(
            "the CSR must have the URI SAN {expected} alone, not {:?}",
            request.uris
        )));
    }
    Ok(request)
}
