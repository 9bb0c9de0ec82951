//! Bundles as JWK sets: the SPIFFE bundle document, and the plain set of the Workload API.

use super::{Bundle, BundleError};
use crate::id::TrustDomain;

impl Bundle {
    /// Reads a SPIFFE bundle document. Keys of an unknown kind or use are skipped.
    ///
    /// # Errors
    /// [`BundleError`] where the text is no such document.
    ///
    /// # Source
    /// SPIFFE Trust Domain and Bundle, 4.
    pub fn from_spiffe_json(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, BundleError> {
        let _ = (trust_domain, text);
        todo!()
    }

    /// The SPIFFE bundle document, indented by four spaces, without a final newline.
    pub fn to_spiffe_json(&self) -> String {
        todo!()
    }

    /// The JWK set of the keys for JWT-SVIDs that the Workload API serves: with `kid`, without
    /// `use`.
    pub fn to_jwks(&self) -> String {
        todo!()
    }
}
