//! The roots that certificates of metadata services lead to, and the operator's own beside them.

use std::path::Path;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use spire_core::svid::x509::path::ValidRoots;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::BasicConstraints;

/// Roots of the web PKI below which Microsoft runs the CAs of metadata services. The CAs change
/// without notice, so that none of them is pinned.
///
/// # Source
/// "Azure Certificate Authority details".
const EMBEDDED: [&str; 4] = [
    include_str!("../../roots/digicert-global-root-g2.pem"),
    include_str!("../../roots/digicert-global-root-ca.pem"),
    include_str!("../../roots/microsoft-tls-rsa-root-g2.pem"),
    include_str!("../../roots/microsoft-tls-rsa-root-g2-xsign-digicert-g2.pem"),
];

/// Largest file of roots in bytes that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Roots that are trusted.
#[derive(Debug, Clone, Default)]
pub(super) struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// Those that are a part of the program.
    pub(super) fn embedded() -> Self {
        let certificates = EMBEDDED.iter().map(|pem| {
            CertificateDer::from_pem_slice(pem.as_bytes()).expect("an embedded root is PEM")
        });
        Self(certificates.collect())
    }

    /// Those of an operator.
    ///
    /// # Errors
    /// What is wrong with the file: it must hold CA certificates and nothing but them.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let failed = |why: &dyn std::fmt::Display| {
            format!("unable to load trust bundle {}: {why}", path.display())
        };
        let length = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
        if length > MAX_FILE_BYTES {
            return Err(failed(&format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        let text = std::fs::read(path).map_err(|error| failed(&error))?;
        let certificates = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(&error))?;
        if certificates.is_empty() {
            return Err(failed(&"no PEM blocks"));
        }
        for certificate in &certificates {
            if !is_ca(certificate).map_err(|error| failed(&error))? {
                return Err(failed(&"it holds a certificate that is not of a CA"));
            }
        }
        Ok(Self(certificates))
    }

    /// These and `others`.
    pub(super) fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Makes sure that `issuer` has issued `signer`, and leads to one of the roots `now`.
    ///
    /// # Errors
    /// Why there is no such path.
    pub(super) fn check(
        &self,
        signer: &CertificateDer<'_>,
        issuer: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Result<(), webpki::Error> {
        let chain = [signer.clone(), issuer.clone()];
        ValidRoots::at(now, &self.0).find(&chain, |path| match &path.intermediates[..] {
            [] => path.root == issuer,
            [intermediate] => intermediate == issuer,
            _ => false,
        })
    }
}

fn is_ca(certificate: &CertificateDer<'_>) -> Result<bool, x509_cert::der::Error> {
    let certificate = Certificate::from_der(certificate)?;
    let constraints = certificate.tbs_certificate().get_extension::<BasicConstraints>();
    Ok(constraints.ok().flatten().is_some_and(|(_, constraints)| constraints.ca))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_roots_are_those_of_the_manual() {
        let digests = Roots::embedded()
            .0
            .iter()
            .map(|root| {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, root);
                digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            })
            .collect::<Vec<_>>();
        assert_eq!(
            digests,
            [
                "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f",
                "4348a0e9444c78cb265e058d5e8944b4d84f9662bd26db257f8934a443c70161",
                "6a170583db584151e1c454eeca2a64cc5d8e484a5bd1156e720b4458654ee9e5",
                "ddcd1e8a20638d4aaff7201bb1d56452acd2c759f1686bdc38f73dd15732bdc2",
            ]
        );
        assert!(Roots::embedded().0.iter().all(|root| is_ca(root).unwrap()));
    }
}
