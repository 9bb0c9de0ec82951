//! Bundles as PEM and as concatenated DER: X.509 authorities alone.

use bytes::Bytes;
use der::pem::LineEnding;
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::{Bundle, BundleError, X509Authority};
use crate::id::TrustDomain;
use crate::limits::MAX_BUNDLE_BYTES;
use crate::svid::x509;

impl Bundle {
    /// Reads PEM blocks of type `CERTIFICATE`; text between the blocks is skipped.
    ///
    /// # Errors
    /// [`BundleError`] where there is no block, or one that holds no certificate.
    pub fn from_pem(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, BundleError> {
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::too_large());
        }
        let mut bundle = Self::empty(trust_domain);
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = block.map_err(|error| BundleError(format!("bad PEM: {error}")))?;
            if kind != SectionKind::Certificate {
                return Err(BundleError(format!(
                    "expected block type \"CERTIFICATE\"; got a block of type {kind:?}"
                )));
            }
            bundle.x509_authorities.push(X509Authority::trusted(der.into())?);
        }
        if bundle.x509_authorities.is_empty() {
            return Err(BundleError("no PEM blocks".into()));
        }
        Ok(bundle)
    }

    /// Reads certificates in DER that follow each other without padding. None is legal too.
    ///
    /// # Errors
    /// [`BundleError`] where something else is among them.
    pub fn from_der(trust_domain: TrustDomain, der: &[u8]) -> Result<Self, BundleError> {
        if der.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::too_large());
        }
        let certificates =
            x509::split_chain(der).map_err(|error| BundleError(error.to_string()))?;
        let x509_authorities = certificates
            .into_iter()
            .map(|certificate| X509Authority { certificate, tainted: false })
            .collect();
        Ok(Self { x509_authorities, ..Self::empty(trust_domain) })
    }

    /// The X.509 authorities as PEM.
    pub fn to_pem(&self) -> String {
        self.x509_authorities.iter().map(|root| certificate_pem(&root.certificate)).collect()
    }

    /// The X.509 authorities as the Workload API carries them: DER, one after the other.
    pub fn x509_der(&self) -> Bytes {
        let roots: Vec<&[u8]> =
            self.x509_authorities.iter().map(|root| root.certificate.as_ref()).collect();
        roots.concat().into()
    }
}

/// A certificate as a PEM block with its final newline.
pub fn certificate_pem(der: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE", LineEnding::LF, der)
        .expect("a slice in memory is shorter than what PEM can hold")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::bundle_with_roots;

    #[tokio::test]
    async fn a_bundle_survives_pem_and_der() {
        let bundle = bundle_with_roots(2).await;
        let domain = bundle.trust_domain.clone();
        let text = format!("a comment\n{}", bundle.to_pem());
        assert_eq!(Bundle::from_pem(domain.clone(), text.as_bytes()).unwrap(), bundle);
        assert_eq!(Bundle::from_der(domain, &bundle.x509_der()).unwrap(), bundle);
        assert!(bundle.to_pem().ends_with("-----END CERTIFICATE-----\n"));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let read = |text: &str| {
            let domain = TrustDomain::parse("example.org").unwrap();
            Bundle::from_pem(domain, text.as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(read(""), "no PEM blocks");
        assert_eq!(read("text"), "no PEM blocks");
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        assert!(read(&block("CERTIFICATE")).starts_with("certificate is malformed"));
        assert!(read(&block("PRIVATE KEY")).starts_with("expected block type \"CERTIFICATE\""));
        assert!(Bundle::from_der(TrustDomain::parse("a").unwrap(), b"\x30\x00").is_err());
    }
}
