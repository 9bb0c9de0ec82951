//! The check of an X.509-SVID against the bundle of its trust domain.

use bytes::Bytes;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::path::ValidRoots;
use super::read::Certificate;
use super::{CertificateError, X509Svid};
use crate::bundle::Bundle;
use crate::id::SpiffeId;
use crate::limits::{MAX_CERTIFICATE_BYTES, MAX_CHAIN_CERTIFICATES};

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It leads to no root of the bundle.
    #[error("certificate signed by unknown authority")]
    UnknownAuthority,
    /// It is not valid yet, or no longer.
    #[error("certificate has expired or is not yet valid")]
    Expired,
    /// It breaks a rule of X.509 or SPIFFE.
    #[error("{0}")]
    Invalid(String),
}

impl From<CertificateError> for VerifyError {
    fn from(error: CertificateError) -> Self {
        Self::Invalid(error.0)
    }
}

impl From<der::Error> for VerifyError {
    fn from(error: der::Error) -> Self {
        CertificateError::from(error).into()
    }
}

/// Checks a chain, leaf first, against the bundle of the trust domain in the leaf's ID. Roots
/// that expired are not trusted; tainted ones still are.
///
/// # Errors
/// [`VerifyError`].
///
/// # Source
/// X509-SVID, 5.
pub fn verify(chain: &[Bytes], bundle: &Bundle, now: Timestamp) -> Result<X509Svid, VerifyError> {
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
    verify_for(&chain, now, |_| Some(bundle))
}

/// As [`verify`], with the bundle that `bundle_of` finds for the ID in the leaf.
///
/// # Errors
/// [`VerifyError`].
pub fn verify_for<B: std::ops::Deref<Target = Bundle>>(
    chain: &[CertificateDer<'_>],
    now: Timestamp,
    bundle_of: impl FnOnce(&SpiffeId) -> Option<B>,
) -> Result<X509Svid, VerifyError> {
    let invalid = |reason: &str| VerifyError::Invalid(reason.to_owned());
    let [leaf_der, ..] = chain else {
        return Err(invalid("no certificate was presented"));
    };
    if chain.len() > MAX_CHAIN_CERTIFICATES
        || chain.iter().any(|certificate| certificate.len() > MAX_CERTIFICATE_BYTES)
    {
        return Err(invalid("chain is longer than any chain of SVIDs needs to be"));
    }
    let leaf = Certificate::read(leaf_der)?;
    // The ID only chooses the bundle; nothing else follows from it before the path holds.
    let id = single_id(&leaf)?;
    let bundle = bundle_of(&id).ok_or(VerifyError::UnknownAuthority)?;
    if !id.is_member_of(&bundle.trust_domain) {
        return Err(VerifyError::UnknownAuthority);
    }
    let roots = bundle.x509_authorities.iter().map(|root| CertificateDer::from(&*root.certificate));
    let roots: Vec<_> = roots.collect();
    ValidRoots::at(now, &roots).find(chain, |_| true).map_err(refusal)?;
    check_leaf(&leaf, &id)?;
    Ok(X509Svid {
        serial: leaf.serial_text(),
        not_before: leaf.not_before,
        expires_at: leaf.not_after,
        chain: chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        id,
    })
}

/// Whether a chain, leaf first, leads to a root of `bundle`, whether its time is over or not.
pub fn leads_to(chain: &[Bytes], bundle: &Bundle, now: Timestamp) -> bool {
    matches!(verify(chain, bundle, now), Ok(_) | Err(VerifyError::Expired))
}

/// The SPIFFE ID of a certificate that has exactly one URI SAN.
pub(super) fn single_id(certificate: &Certificate<'_>) -> Result<SpiffeId, CertificateError> {
    match certificate.extensions.uris[..] {
        [] => Err(CertificateError("certificate contains no URI SAN".into())),
        [uri] => SpiffeId::parse(uri).map_err(|error| {
            CertificateError(format!("certificate contains no SPIFFE ID as URI SAN: {error}"))
        }),
        _ => Err(CertificateError("certificate contains more than one URI SAN".into())),
    }
}

fn check_leaf(leaf: &Certificate<'_>, id: &SpiffeId) -> Result<(), VerifyError> {
    let extensions = &leaf.extensions;
    let reason = if id.path().is_empty() {
        "leaf certificate names a trust domain, not a workload"
    } else if extensions.basic_constraints.as_ref().is_some_and(|constraints| constraints.ca) {
        "leaf certificate must not have CA flag set to true"
    } else if extensions.key_usage.is_some_and(|usage| usage.key_cert_sign()) {
        "leaf certificate must not have 'keyCertSign' set as key usage"
    } else if extensions.key_usage.is_some_and(|usage| usage.crl_sign()) {
        "leaf certificate must not have 'cRLSign' set as key usage"
    } else {
        return Ok(());
    };
    Err(VerifyError::Invalid(reason.into()))
}

fn refusal(error: webpki::Error) -> VerifyError {
    match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            VerifyError::UnknownAuthority
        }
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            VerifyError::Expired
        }
        webpki::Error::CaUsedAsEndEntity => {
            VerifyError::Invalid("leaf certificate must not have CA flag set to true".into())
        }
        other => VerifyError::Invalid(format!("certificate path is invalid: {other}")),
    }
}
