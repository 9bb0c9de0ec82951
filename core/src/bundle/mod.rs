//! The public keys by which a trust domain's SVIDs are checked.

pub(crate) mod jwk;
mod jwks;
mod pem;

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;

use crate::id::TrustDomain;
use crate::limits::MAX_BUNDLE_BYTES;
use crate::svid::x509::read::Certificate;

pub use pem::certificate_pem;

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

    /// A bundle of the tainted roots alone; `None` where there are none.
    pub fn tainted(&self) -> Option<Self> {
        let tainted = self.x509_authorities.iter().filter(|root| root.tainted);
        let x509_authorities: Vec<_> = tainted.cloned().collect();
        let empty = || Self::empty(self.trust_domain.clone());
        (!x509_authorities.is_empty()).then(|| Self { x509_authorities, ..empty() })
    }

    /// Whether `other` trusts the same authorities, whatever their order, hint and number.
    pub fn same_authorities(&self, other: &Self) -> bool {
        let x509 = |bundle: &Self| BTreeSet::from_iter(bundle.x509_authorities.iter().cloned());
        let jwt = |bundle: &Self| BTreeSet::from_iter(bundle.jwt_authorities.iter().cloned());
        self.trust_domain == other.trust_domain
            && x509(self) == x509(other)
            && jwt(self) == jwt(other)
    }
}

/// A root certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct X509Authority {
    /// The certificate, DER.
    pub certificate: Bytes,
    /// Whether what it signed must be replaced at once.
    pub tainted: bool,
}

impl X509Authority {
    /// A root that is trusted without reserve.
    ///
    /// # Errors
    /// [`BundleError`] where this is no certificate.
    pub fn trusted(certificate: Bytes) -> Result<Self, BundleError> {
        match Certificate::read(&certificate) {
            Ok(_) => Ok(Self { certificate, tainted: false }),
            Err(error) => Err(BundleError(format!("certificate is malformed: {error}"))),
        }
    }

    /// Its id as an authority: the subject key identifier in lower-case hexadecimal digits.
    ///
    /// # Errors
    /// [`BundleError`] where this is no certificate.
    pub fn authority_id(&self) -> Result<String, BundleError> {
        Certificate::read(&self.certificate)
            .and_then(|certificate| certificate.subject_key_id())
            .map(hex::encode)
            .map_err(|error| BundleError(format!("certificate is malformed: {error}")))
    }

    /// Whether `id` is its id as an authority; a certificate that cannot be read has none.
    pub fn has_id(&self, id: &str) -> bool {
        self.authority_id().is_ok_and(|own| own == id)
    }

    /// When its certificate begins and ceases to be valid.
    ///
    /// # Errors
    /// [`BundleError`] where this is no certificate.
    pub fn validity(&self) -> Result<(Timestamp, Timestamp), BundleError> {
        Certificate::read(&self.certificate)
            .map(|certificate| (certificate.not_before, certificate.not_after))
            .map_err(|error| BundleError(format!("certificate is malformed: {error}")))
    }
}

/// A key that signs JWT-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

impl BundleError {
    fn too_large() -> Self {
        Self(format!("bundle is larger than {MAX_BUNDLE_BYTES} bytes"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::{KeyType, LocalKey};
    use crate::svid::x509::{Subject, self_sign_ca};

    /// A bundle of `example.org` with fresh roots.
    pub(crate) async fn bundle_with_roots(count: usize) -> Bundle {
        let mut bundle = Bundle::empty(TrustDomain::parse("example.org").unwrap());
        let now = Timestamp::now();
        for _ in 0..count {
            let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
            let subject = Subject::of_svids();
            let ttl = Duration::from_secs(3600);
            let root = self_sign_ca(&key, &bundle.trust_domain, &subject, ttl, now).await.unwrap();
            bundle.x509_authorities.push(X509Authority::trusted(root).unwrap());
        }
        bundle
    }

    #[tokio::test]
    async fn order_and_number_do_not_make_another_set_of_authorities() {
        let bundle = bundle_with_roots(2).await;
        let mut other = Bundle { sequence_number: 9, refresh_hint: 3, ..bundle.clone() };
        other.x509_authorities.reverse();
        assert!(bundle.same_authorities(&other));
        other.x509_authorities[0].tainted = true;
        assert!(!bundle.same_authorities(&other));
        assert!(!bundle.same_authorities(&bundle_with_roots(2).await));
    }
}
