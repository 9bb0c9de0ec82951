//! Which paths lead from a leaf to the roots that are trusted, whatever the leaf is for.
//!
//! The library's path builder takes from a root its name, its key and its name constraints alone,
//! and of signers it looks at the CA flag; what else RFC 5280 asks for is checked here.

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use super::read::Certificate;

/// Roots that are valid at some moment. Those that cannot be read, or whose time is over, are left
/// out.
#[derive(Debug)]
pub struct ValidRoots<'r> {
    certificates: Vec<(&'r CertificateDer<'r>, Option<u8>)>,
    anchors: Vec<TrustAnchor<'r>>,
    now: Timestamp,
}

/// A path that holds.
#[derive(Debug)]
pub struct Path<'p> {
    /// The root at its end; of several with one name and key, each has a path of its own.
    pub root: &'p CertificateDer<'p>,
    /// What stands between leaf and root.
    pub intermediates: Vec<CertificateDer<'p>>,
}

impl<'r> ValidRoots<'r> {
    /// Those of `roots` that are valid `now`.
    pub fn at(now: Timestamp, roots: &'r [CertificateDer<'r>]) -> Self {
        let (certificates, anchors) = roots
            .iter()
            .filter_map(|der| {
                let root = Certificate::read(der).ok()?;
                let is_valid = root.not_before <= now && now <= root.not_after;
                let anchor = webpki::anchor_from_trusted_cert(der).ok().filter(|_| is_valid)?;
                let constraints = root.extensions.basic_constraints;
                let limit = constraints.and_then(|constraints| constraints.path_len_constraint);
                Some(((der, limit), anchor))
            })
            .unzip();
        Self { certificates, anchors, now }
    }

    /// Looks for paths from the first certificate of `chain` through the others, and shows each to
    /// `accept` until it accepts one.
    ///
    /// # Errors
    /// Why there is no path, or none that was accepted.
    ///
    /// # Source
    /// RFC 5280, 6.1.
    pub fn find(
        &self,
        chain: &[CertificateDer<'_>],
        accept: impl Fn(&Path<'_>) -> bool,
    ) -> Result<(), Error> {
        let [leaf, intermediates @ ..] = chain else { return Err(Error::BadDer) };
        let seconds = u64::try_from(self.now.as_second()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let check = |path: &VerifiedPath<'_>| self.check(path, &accept);
        let (algorithms, leaf) = (webpki::ALL_VERIFICATION_ALGS, EndEntityCert::try_from(leaf)?);
        leaf.verify_for_usage(
            algorithms,
            &self.anchors,
            intermediates,
            time,
            AnyUsage,
            None,
            Some(&check),
        )
        .map(|_| ())
    }

    fn check(
        &self,
        path: &VerifiedPath<'_>,
        accept: &impl Fn(&Path<'_>) -> bool,
    ) -> Result<(), Error> {
        let signers: Vec<_> = path.intermediate_certificates().map(|signer| signer.der()).collect();
        for der in &signers {
            let signer = Certificate::read(der).map_err(|_| Error::BadDer)?;
            if signer.extensions.key_usage.is_some_and(|usage| !usage.key_cert_sign()) {
                return Err(Error::EndEntityUsedAsCa);
            }
        }
        let mut refusal = Error::UnknownIssuer;
        for ((root, limit), anchor) in self.certificates.iter().zip(&self.anchors) {
            if anchor != path.anchor() {
                continue;
            }
            if limit.is_some_and(|limit| signers.len() > usize::from(limit)) {
                refusal = Error::PathLenConstraintViolated;
            } else if accept(&Path { root, intermediates: signers.clone() }) {
                return Ok(());
            }
        }
        Err(refusal)
    }
}

/// Extended key usage binds issuers, not those who check.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}
