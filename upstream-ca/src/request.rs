//! The server's request for an intermediate.

use std::time::Duration;

use spire_core::id::TrustDomain;
use spire_core::svid::x509::CertificateRequest;
use spire_core::upstream::UpstreamError;

/// Lifetime of what is signed for a caller that names none.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// The lifetime that is asked for; zero names none.
pub(crate) fn lifetime(ttl: Duration) -> Duration {
    if ttl.is_zero() { DEFAULT_TTL } else { ttl }
}

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
