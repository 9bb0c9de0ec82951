//! Where roots in the bundle come from, as far as the journals of all servers that share it tell.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::svid::x509;

use super::journal::{Journal, X509CaEntry};
use crate::store::{Store, StoreError};

/// What the journals tell of roots. One that none of them names may have come from anywhere.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// Certificates (DER) of authorities that signed themselves.
    own: BTreeSet<Bytes>,
    /// Ids of roots of a SPIRE above, below which one of these servers signed.
    above: BTreeSet<String>,
    /// Ids of roots of other upstreams, below which one of these servers signed.
    elsewhere: BTreeSet<String>,
    /// Whether a journal could not be read: any root may be its server's.
    is_incomplete: bool,
}

impl Origins {
    /// Reads all journals.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    pub(super) async fn read(store: &Store) -> Result<Self, StoreError> {
        let mut origins = Self::default();
        for stored in store.ca_journals().await? {
            // Its server complains of one that cannot be read.
            let Ok(journal) = Journal::decode(stored.data) else {
                origins.is_incomplete = true;
                continue;
            };
            for entry in journal.x509_cas {
                if entry.upstream_chain.is_empty() {
                    origins.own.insert(entry.certificate.into());
                } else if is_below_spire(&entry) {
                    origins.above.insert(entry.upstream_authority_id);
                } else {
                    origins.elsewhere.insert(entry.upstream_authority_id);
                }
            }
        }
        Ok(origins)
    }

    /// Whether it is the root of a server that shares the bundle, or of another upstream that one of
    /// them had: no SPIRE above knows it. Also where that cannot be ruled out.
    pub(super) fn is_foreign(&self, root: &X509Authority) -> bool {
        let is_elsewhere = |id| self.elsewhere.contains(&id) && !self.above.contains(&id);
        self.is_incomplete
            || self.own.contains(&root.certificate)
            || root.authority_id().is_ok_and(is_elsewhere)
    }

    /// The roots in `bundle` that a SPIRE above must have named once.
    pub(super) fn named_above(&self, bundle: &Bundle) -> Vec<X509Authority> {
        let was_named =
            |root: &&X509Authority| root.authority_id().is_ok_and(|id| self.above.contains(&id));
        bundle.x509_authorities.iter().filter(was_named).cloned().collect()
    }
}

/// Servers of SPIRE sign those below them under a name of their own with the unit `DOWNSTREAM-<n>`.
fn is_below_spire(entry: &X509CaEntry) -> bool {
    let certificate = Bytes::copy_from_slice(&entry.certificate);
    x509::describe(&certificate).is_ok_and(|told| told.subject.contains("OU=DOWNSTREAM-"))
}
