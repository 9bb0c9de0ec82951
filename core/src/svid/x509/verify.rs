//! The check of an X.509-SVID against the bundle of its trust domain.

use bytes::Bytes;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

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
    let [leaf_der, intermediates @ ..] = chain else {
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
    build_path(leaf_der, intermediates, &bundle, now)?;
    check_leaf(&leaf, &id)?;
    Ok(X509Svid {
        serial: leaf.serial_text(),
        not_before: leaf.not_before,
        expires_at: leaf.not_after,
        chain: chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        id,
    })
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

fn build_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: Timestamp,
) -> Result<(), VerifyError> {
    let roots = bundle.x509_authorities.iter().map(|root| CertificateDer::from(&*root.certificate));
    let roots: Vec<_> = roots.collect();
    let (anchors, path_lengths): (Vec<_>, Vec<_>) = roots
        .iter()
        .filter_map(|der| {
            let root = Certificate::read(der).ok()?;
            let is_valid = root.not_before <= now && now <= root.not_after;
            let anchor = webpki::anchor_from_trusted_cert(der).ok().filter(|_| is_valid)?;
            let constraints = root.extensions.basic_constraints;
            Some((anchor, constraints.and_then(|constraints| constraints.path_len_constraint)))
        })
        .unzip();
    // The path builder takes no constraint from a root but those on names.
    let accept = |path: &VerifiedPath<'_>| {
        let root = anchors.iter().position(|anchor| anchor == path.anchor());
        let limit = root.and_then(|root| path_lengths[root]).map_or(usize::MAX, usize::from);
        if path.intermediate_certificates().count() > limit {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        signers_may_sign(path)
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let leaf = EndEntityCert::try_from(leaf).map_err(refusal)?;
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        intermediates,
        time,
        AnyUsage,
        None,
        Some(&accept),
    )
    .map(|_| ())
    .map_err(refusal)
}

/// Extended key usage binds issuers, not those who check.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// The path builder looks at the CA flag of signers; this looks at their key usage.
fn signers_may_sign(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    for signer in path.intermediate_certificates() {
        let der = signer.der();
        let signer = Certificate::read(&der).map_err(|_| webpki::Error::BadDer)?;
        if signer.extensions.key_usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
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
