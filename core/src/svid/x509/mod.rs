//! X.509-SVIDs: requests for them, their templates, and the check of a chain.

mod issuer;
mod request;
mod subject;
mod verify;

use bytes::Bytes;
use jiff::Timestamp;

use crate::id::SpiffeId;

pub use issuer::{CaTemplate, IssueError, Issuer, LeafTemplate, ca_request, self_sign_ca};
pub use request::{CertificateRequest, CsrError, agent_request, workload_request};
pub use subject::Subject;
pub use verify::{VerifyError, verify};

/// An X.509-SVID without its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Svid {
    /// Whom it names.
    pub id: SpiffeId,
    /// The leaf first, then the intermediates that lead to a root, DER.
    pub chain: Vec<Bytes>,
    /// The leaf's serial number, decimal.
    pub serial: String,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ceases to be valid.
    pub expires_at: Timestamp,
}

/// A certificate could not be read, or says something that it must not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertificateError(pub String);

impl X509Svid {
    /// Reads the leaf of a chain that is trusted already: one that was verified, signed here, or
    /// stored by this process. It must name exactly one SPIFFE ID.
    ///
    /// # Errors
    /// [`CertificateError`] where the leaf cannot be read or names no single SPIFFE ID.
    pub fn from_chain(chain: Vec<Bytes>) -> Result<Self, CertificateError> {
        let _ = chain;
        todo!()
    }

    /// All certificates one after the other, as the Workload API carries them.
    pub fn chain_der(&self) -> Bytes {
        todo!()
    }
}
