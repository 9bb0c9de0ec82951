//! The public keys by which a trust domain's SVIDs are checked.

mod jwks;
mod pem;

use bytes::Bytes;
use jiff::Timestamp;

use crate::id::TrustDomain;

/// A trust domain with its authorities. Whatever checks an SVID takes the bundle of the domain in
/// the SVID's own ID, never a union of bundles.
///
/// # Source
/// SPIFFE Trust Domain and Bundle, 2 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Whose keys these are.
    pub trust_domain: TrustDomain,
    /// Roots for X.509-SVIDs, never intermediates.
    pub x509_authorities: Vec<X509Authority>,
    /// Keys for JWT-SVIDs.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// How long others may keep this bundle before they fetch it again, in seconds; 0 means that
    /// nothing was said.
    pub refresh_hint: u32,
    /// One more with every change of the content.
    pub sequence_number: u64,
}

impl Bundle {
    /// A bundle with no authority: every SVID of the domain is refused.
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            refresh_hint: 0,
            sequence_number: 0,
        }
    }

    /// Whether `other` trusts the same authorities, whatever their order, hint and number.
    pub fn same_authorities(&self, other: &Self) -> bool {
        let _ = other;
        todo!()
    }
}

/// A root certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Authority {
    /// The certificate, DER.
    pub certificate: Bytes,
    /// Whether what it signed must be replaced at once.
    pub tainted: bool,
}

/// A key that signs JWT-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    /// The `kid` of its tokens.
    pub key_id: String,
    /// The public key, PKIX (SubjectPublicKeyInfo) DER.
    pub public_key: Bytes,
    /// When it ceases to sign; `None` means that nothing was said.
    pub expires_at: Option<Timestamp>,
    /// Whether what it signed must be replaced at once.
    pub tainted: bool,
}

/// Why a bundle document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BundleError(pub String);
