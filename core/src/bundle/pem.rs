//! Bundles as PEM and as concatenated DER: X.509 authorities alone.

use bytes::Bytes;

use super::{Bundle, BundleError};
use crate::id::TrustDomain;

impl Bundle {
    /// Reads PEM blocks of type `CERTIFICATE`; text between the blocks is skipped.
    ///
    /// # Errors
    /// [`BundleError`] where there is no block, or one that holds no certificate.
    pub fn from_pem(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, BundleError> {
        let _ = (trust_domain, text);
        todo!()
    }

    /// Reads certificates in DER that follow each other without padding.
    ///
    /// # Errors
    /// [`BundleError`] where something else is among them.
    pub fn from_der(trust_domain: TrustDomain, der: &[u8]) -> Result<Self, BundleError> {
        let _ = (trust_domain, der);
        todo!()
    }

    /// The X.509 authorities as PEM.
    pub fn to_pem(&self) -> String {
        todo!()
    }

    /// The X.509 authorities as the Workload API carries them: DER, one after the other.
    pub fn x509_der(&self) -> Bytes {
        todo!()
    }
}
