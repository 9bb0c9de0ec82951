//! Which chains lead from a node's certificate to the roots.

use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use sha1::{Digest, Sha1};
use spire_core::svid::x509::path::ValidRoots;
use webpki::{Error, anchor_from_trusted_cert};

/// Roots by which nodes are verified.
#[derive(Debug, Clone)]
pub(super) struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// The roots in `certificates`, each of which must be readable.
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        for root in &certificates {
            anchor_from_trusted_cert(root)?;
        }
        Ok(Self(certificates))
    }

    /// Verifies `chain` (the leaf first) for any use and returns the SHA-1 fingerprints, in
    /// hexadecimal digits, of every certificate after the leaf in every chain that holds.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<BTreeSet<String>, Error> {
        let found = RefCell::new(BTreeSet::new());
        // To see every path and not the first alone, each one is noted and turned down.
        let outcome = ValidRoots::at(now, &self.0).find(chain, |path| {
            let mut found = found.borrow_mut();
            found.insert(fingerprint(path.root));
            found.extend(path.intermediates.iter().map(|signer| fingerprint(signer)));
            false
        });
        let found = found.into_inner();
        match outcome {
            Err(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }
}

/// SHA-1 of a certificate, which names it in IDs and selectors and protects nothing.
pub(super) fn fingerprint(certificate: &[u8]) -> String {
    hex::encode(Sha1::digest(certificate))
}
