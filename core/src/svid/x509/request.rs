//! Certificate requests (PKCS#10): read from outside, and made for servers and upstreams.

use bytes::Bytes;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::ID_EXTENSION_REQ;
use der::asn1::AnyRef;
use der::{Decode, Reader, SliceReader, Tag};

use super::der::{Writer, tag};
use super::read::{self, Extensions};
use super::signed::{Refusal, Signed, random_serial, seal};
use super::{Subject, template};
use crate::entry::DnsName;
use crate::id::{SpiffeId, TrustDomain};
use crate::keys::{KeyError, SigningKey};
use crate::limits::MAX_CERTIFICATE_BYTES;

/// A request whose signature by the key in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The public key, SubjectPublicKeyInfo DER.
    pub public_key: Bytes,
    /// The subject; empty where the request names none.
    pub subject: Subject,
    /// URI SANs as written, unchecked.
    pub uris: Vec<String>,
    /// DNS SANs as written, unchecked.
    pub dns_names: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is larger than any request needs to be.
    #[error("CSR is larger than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLarge,
    /// It is no PKCS#10.
    #[error("CSR is no PKCS#10 request: {0}")]
    Malformed(String),
    /// Its key or the algorithm of its signature is not taken.
    #[error(
        "CSR key must be RSA of 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519, and sign with \
         SHA-256 or stronger"
    )]
    Unsupported,
    /// It was not signed by the key in it.
    #[error("CSR signature check failed")]
    Signature,
}

impl From<der::Error> for CsrError {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<Refusal> for CsrError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(error) => error.into(),
            Refusal::Unsupported => Self::Unsupported,
            Refusal::Signature => Self::Signature,
        }
    }
}

impl CertificateRequest {
    /// Reads a request and checks its signature. The key must be RSA of 2048 to 8192 bits, P-256,
    /// P-384, P-521 or Ed25519.
    ///
    /// # Errors
    /// [`CsrError`] says what is wrong with it.
    ///
    /// # Source
    /// RFC 2986, 4.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CsrError::TooLarge);
        }
        let signed = Signed::read(der)?;
        let mut fields = read::sequence(signed.body)?;
        fields.tlv_bytes()?; // version
        let subject = fields.tlv_bytes()?;
        let public_key = fields.tlv_bytes()?;
        signed.verify(public_key)?;
        let extensions = requested_extensions(&mut fields)?;
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Ok(Self {
            public_key: Bytes::copy_from_slice(public_key),
            subject: Subject::read(subject)?,
            uris: owned(extensions.uris),
            dns_names: owned(extensions.dns_names),
        })
    }
}

/// Finds the `extensionRequest` among the attributes.
fn requested_extensions<'r>(fields: &mut SliceReader<'r>) -> der::Result<Extensions<'r>> {
    let mut extensions = Extensions::default();
    if fields.is_finished() {
        return Ok(extensions);
    }
    let mut attributes = SliceReader::new(AnyRef::decode(fields)?.value())?;
    while !attributes.is_finished() {
        let (oid, values) = attributes.sequence(|attribute| -> der::Result<_> {
            Ok((ObjectIdentifier::decode(attribute)?, AnyRef::decode(attribute)?))
        })?;
        if oid == ID_EXTENSION_REQ {
            let mut values = read::content(values, Tag::Set)?;
            extensions = Extensions::read(values.tlv_bytes()?)?;
        }
    }
    Ok(extensions)
}

/// A request for the SVID of a workload or a server: subject `C=US, O=SPIRE`, the ID as URI SAN.
///
/// # Errors
/// [`KeyError`] where the key could not sign.
pub async fn workload_request(key: &dyn SigningKey, id: &SpiffeId) -> Result<Bytes, KeyError> {
    request(key, &Subject::of_svids(), &[], Some(id)).await
}

/// A request for an SVID with DNS names, as `MintX509SVID` takes it. An empty subject leaves the
/// choice to the server.
///
/// # Errors
/// [`KeyError`] where the key could not sign.
pub async fn mint_request(
    key: &dyn SigningKey,
    subject: &Subject,
    dns_names: &[DnsName],
    id: &SpiffeId,
) -> Result<Bytes, KeyError> {
    request(key, subject, dns_names, Some(id)).await
}

/// A request for an agent's SVID, which names neither subject nor ID: the server decides both.
///
/// # Errors
/// [`KeyError`] where the key could not sign.
pub async fn agent_request(key: &dyn SigningKey) -> Result<Bytes, KeyError> {
    request(key, &Subject::default(), &[], None).await
}

/// A request that asks an upstream authority for an intermediate. Its subject gets a random
/// `serialNumber`, so that no two intermediates have one name.
///
/// # Errors
/// [`KeyError`] where the key could not sign.
pub async fn ca_request(
    key: &dyn SigningKey,
    trust_domain: &TrustDomain,
    subject: &Subject,
) -> Result<Bytes, KeyError> {
    let serial_number = Some(u128::from_be_bytes(random_serial()?).to_string());
    let subject = Subject { serial_number, ..subject.clone() };
    request(key, &subject, &[], Some(&trust_domain.id())).await
}

async fn request(
    key: &dyn SigningKey,
    subject: &Subject,
    dns_names: &[DnsName],
    id: Option<&SpiffeId>,
) -> Result<Bytes, KeyError> {
    let mut writer = Writer::with_capacity(512);
    writer.nested(tag::SEQUENCE, |fields| {
        fields.value(tag::INTEGER, &[0]);
        subject.write(fields);
        fields.raw(&key.public_key().spki);
        fields.nested(tag::context_constructed(0), |attributes| {
            if dns_names.is_empty() && id.is_none() {
                return;
            }
            attributes.nested(tag::SEQUENCE, |attribute| {
                attribute.value(tag::OBJECT_IDENTIFIER, ID_EXTENSION_REQ.as_bytes());
                attribute.nested(tag::SET, |values| {
                    values.nested(tag::SEQUENCE, |extensions| {
                        template::write_names(extensions, dns_names, id, false);
                    });
                });
            });
        });
    });
    seal(key, writer.finish()).await
}
