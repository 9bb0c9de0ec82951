//! What several services say or read alike.

use spire_core::svid::x509::CertificateRequest;
use tonic::{Response, Status};

use super::status::invalid;

/// What a method answers.
pub(super) type Reply<T> = Result<Response<T>, Status>;

/// A certificate request of at most [`MAX_CERTIFICATE_BYTES`]; `malformed` begins the sentence that
/// refuses one.
///
/// [`MAX_CERTIFICATE_BYTES`]: spire_core::limits::MAX_CERTIFICATE_BYTES
pub(super) fn certificate_request(
    malformed: &str,
    csr: &[u8],
) -> Result<CertificateRequest, Status> {
    if csr.is_empty() {
        return Err(Status::invalid_argument("missing CSR"));
    }
    CertificateRequest::parse(csr).map_err(|error| invalid(malformed, error))
}

/// The answer of methods that concern WIT-SVIDs.
pub(super) fn no_wit_svids() -> Status {
    Status::unimplemented("WIT-SVID functionality is disabled")
}
