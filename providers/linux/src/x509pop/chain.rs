//! Which chains lead from a node's certificate to the roots.

use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha1::{Digest, Sha1};
use webpki::{
    ALL_VERIFICATION_ALGS, EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    VerifiedPath, anchor_from_trusted_cert,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Roots by which nodes are verified.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// The roots in `certificates`.
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let anchors = certificates
            .iter()
            .map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()?;
        Ok(Self { certificates, anchors })
    }

    /// Verifies `chain` (the leaf first) for any use and returns the SHA-1 fingerprints, in
    /// hexadecimal digits, of every certificate after the leaf in every chain that holds.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<BTreeSet<String>, Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(Error::BadDer)?;
        let leaf = EndEntityCert::try_from(leaf)?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let found = RefCell::new(BTreeSet::new());
        // To see every chain and not the first alone, each one found is noted and turned down.
        let note = |path: &VerifiedPath<'_>| {
            let Some(root) = self.valid_root(path.anchor(), now) else {
                return Err(Error::CertExpired {
                    time,
                    not_after: UnixTime::since_unix_epoch(std::time::Duration::ZERO),
                });
            };
            let mut found = found.borrow_mut();
            found.insert(fingerprint(root));
            found.extend(path.intermediate_certificates().map(|cert| fingerprint(&cert.der())));
            Err(Error::UnknownIssuer)
        };
        let outcome = leaf.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &self.anchors,
            intermediates,
            time,
            AnyUsage,
            None,
            Some(&note),
        );
        let found = found.into_inner();
        match outcome {
            Err(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// The root behind an anchor, unless its own time is over, which path building leaves out.
    fn valid_root(&self, anchor: &TrustAnchor<'_>, now: Timestamp) -> Option<&CertificateDer<'_>> {
        let at = self.anchors.iter().position(|candidate| candidate == anchor)?;
        let root = self.certificates.get(at)?;
        let validity = *Certificate::from_der(root).ok()?.tbs_certificate().validity();
        let now = u64::try_from(now.as_second()).ok()?;
        let begins = validity.not_before.to_unix_duration().as_secs();
        let ends = validity.not_after.to_unix_duration().as_secs();
        (begins <= now && now <= ends).then_some(root)
    }
}

/// SHA-1 of a certificate, which names it in IDs and selectors and protects nothing.
pub(super) fn fingerprint(certificate: &[u8]) -> String {
    hex::encode(Sha1::digest(certificate))
}

/// Certificates of machines are made for all sorts of uses; the scheme asks for none.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _usages: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}
