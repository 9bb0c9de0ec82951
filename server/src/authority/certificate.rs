//! The few things that the authority reads in certificates and keys.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use jiff::Timestamp;
use x509_cert::der::Decode;
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// When a certificate ceases to be valid.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    Timestamp::from_second(i64::try_from(end.as_secs()).ok()?).ok()
}

/// The id of the X.509 authority with this key (SubjectPublicKeyInfo, DER): the SHA-1 hash of its
/// bits in lower-case hexadecimal digits, as it stands in certificates.
///
/// # Source
/// RFC 5280, 4.2.1.2, method 1.
pub(super) fn authority_id(public_key: &[u8]) -> Option<String> {
    let key = SubjectPublicKeyInfoRef::from_der(public_key).ok()?;
    Some(hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.subject_public_key.raw_bytes())))
}
