//! What people are shown of certificates: the chain behind an SVID, up to its root.

use bytes::Bytes;
use jiff::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{SubjectAltName, SubjectKeyIdentifier};

use super::CertificateError;
use crate::bundle::Bundle;
use crate::id::SpiffeId;

/// One certificate, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Whom it names, where that is a SPIFFE ID.
    pub id: Option<SpiffeId>,
    /// Its id as an authority: the subject key identifier in lower-case hexadecimal digits; empty
    /// where it has none.
    pub authority_id: String,
    /// When it ceases to be valid.
    pub expires_at: Timestamp,
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
}

/// Describes a chain, and after it the root in `bundle` whose name its last certificate gives as
/// its issuer. Signatures are not checked: a chain of this process is trusted already.
///
/// # Errors
/// [`CertificateError`] where a certificate of the chain cannot be read.
pub fn describe_to_root(
    chain: &[Bytes],
    bundle: &Bundle,
) -> Result<Vec<Described>, CertificateError> {
    let read = |der: &Bytes| Certificate::from_der(der);
    let mut chain: Vec<_> = chain.iter().map(read).collect::<Result<_, _>>()?;
    let issuer = chain.last().map(|last| last.tbs_certificate().issuer().clone());
    let roots = bundle.x509_authorities.iter().filter_map(|root| read(&root.certificate).ok());
    let mut roots = roots.filter(|root| Some(root.tbs_certificate().subject()) == issuer.as_ref());
    chain.extend(roots.next());
    Ok(chain.iter().map(described).collect())
}

/// Describes one certificate, DER.
///
/// # Errors
/// [`CertificateError`] where it cannot be read.
pub fn describe(certificate: &[u8]) -> Result<Described, CertificateError> {
    Ok(described(&Certificate::from_der(certificate)?))
}

fn described(certificate: &Certificate) -> Described {
    let body = certificate.tbs_certificate();
    let names = body.get_extension::<SubjectAltName>().ok().flatten();
    let id = names.and_then(|(_, names)| {
        names.0.into_iter().find_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => SpiffeId::parse(uri.as_str()).ok(),
            _ => None,
        })
    });
    let expires_at = body.validity().not_after.to_unix_duration().as_secs();
    let expires_at = i64::try_from(expires_at).ok().and_then(|at| Timestamp::from_second(at).ok());
    let key_id = body.get_extension::<SubjectKeyIdentifier>().ok().flatten();
    Described {
        id,
        authority_id: key_id.map(|(_, id)| hex::encode(id.0.as_bytes())).unwrap_or_default(),
        expires_at: expires_at.unwrap_or(Timestamp::MAX),
        subject: body.subject().to_string(),
    }
}
