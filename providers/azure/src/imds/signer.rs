//! The certificate that has signed a document. It is found once, and all checks are made of it.

use rustls_pki_types::CertificateDer;
use spire_core::pkcs7::{Attributes, Pkcs7Error, SignedData};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, ExtendedKeyUsage, SubjectAltName};

const CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

/// The signer of a document.
pub(super) struct Signer {
    pub(super) der: CertificateDer<'static>,
    certificate: Certificate,
}

/// Why there is no signer to look at.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignerError {
    /// No certificate came along that the message names.
    #[error("the signer's certificate is not in the document")]
    Missing,
    /// Several came along that all bear the name and number of the signer's.
    #[error("the document holds several certificates with the issuer and serial of its signer")]
    Ambiguous,
    /// A certificate cannot be read.
    #[error("unable to parse a certificate of the document: {0}")]
    Certificate(#[from] x509_cert::der::Error),
}

impl Signer {
    /// The one certificate in `message` that has the issuer and serial number of its signer.
    pub(super) fn of(message: &SignedData<'_>) -> Result<Self, SignerError> {
        let named = message.signer();
        let mut found = None;
        for der in message.certificates() {
            let certificate = Certificate::from_der(der)?;
            let body = certificate.tbs_certificate();
            let is_it = body.issuer().to_der()? == named.issuer
                && body.serial_number().as_bytes() == named.serial;
            if is_it && found.is_some() {
                return Err(SignerError::Ambiguous);
            }
            if is_it {
                let der = CertificateDer::from(der.to_vec());
                found = Some(Self { der, certificate });
            }
        }
        found.ok_or(SignerError::Missing)
    }

    /// What it has signed. Azure signs the content itself and no attributes.
    pub(super) fn signed<'m>(&self, message: &'m SignedData<'_>) -> Result<&'m [u8], Pkcs7Error> {
        let key = self.certificate.tbs_certificate().subject_public_key_info().to_der();
        let key = key.map_err(|_| Pkcs7Error::Shape("the signer's key cannot be read"))?;
        message.verified_content(&key, Attributes::Forbidden)
    }

    /// Whether one of its DNS names is one of `domains`, or below one.
    pub(super) fn is_named_in(&self, domains: &[String]) -> bool {
        self.dns_names().iter().any(|name| {
            domains.iter().any(|domain| {
                let below = name.strip_suffix(domain.as_str());
                below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            })
        })
    }

    /// Its DNS names, in lower case.
    pub(super) fn dns_names(&self) -> Vec<String> {
        let names = self.extension::<SubjectAltName>().map(|names| names.0).unwrap_or_default();
        let names = names.into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
            _ => None,
        });
        names.collect()
    }

    /// Whether it is the certificate of a server.
    pub(super) fn is_of_server(&self) -> bool {
        let usage = self.extension::<ExtendedKeyUsage>();
        usage.is_some_and(|usage| usage.0.contains(&SERVER_AUTH))
    }

    /// Where it says that its issuer's certificate is.
    pub(super) fn issuer_address(&self) -> Option<String> {
        let access = self.extension::<AuthorityInfoAccessSyntax>()?;
        access.0.into_iter().filter(|access| access.access_method == CA_ISSUERS).find_map(
            |access| match access.access_location {
                GeneralName::UniformResourceIdentifier(address) => {
                    Some(address.as_str().to_owned()).filter(|address| !address.is_empty())
                }
                _ => None,
            },
        )
    }

    /// An extension; `None` where it is absent, there twice or not to be read.
    fn extension<T>(&self) -> Option<T>
    where
        T: for<'d> Decode<'d, Error = x509_cert::der::Error> + x509_cert::der::oid::AssociatedOid,
    {
        let found = self.certificate.tbs_certificate().get_extension::<T>();
        found.ok().flatten().map(|(_, extension)| extension)
    }
}
