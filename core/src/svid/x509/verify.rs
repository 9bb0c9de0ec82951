//! The check of an X.509-SVID against the bundle of its trust domain.

use bytes::Bytes;
use jiff::Timestamp;

use super::X509Svid;
use crate::bundle::Bundle;

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It chains to no root of the bundle.
    #[error("certificate signed by unknown authority")]
    UnknownAuthority,
    /// It is not valid yet, or no longer.
    #[error("certificate has expired or is not yet valid")]
    Expired,
    /// It breaks a rule of X.509 or SPIFFE.
    #[error("{0}")]
    Invalid(String),
}

/// Checks a chain, leaf first, against the bundle of the trust domain in the leaf's ID.
///
/// # Errors
/// [`VerifyError`].
///
/// # Source
/// X509-SVID, 5.
pub fn verify(chain: &[Bytes], bundle: &Bundle, now: Timestamp) -> Result<X509Svid, VerifyError> {
    let _ = (chain, bundle, now);
    todo!()
}
