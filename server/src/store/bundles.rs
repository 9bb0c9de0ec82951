//! Bundles: this trust domain's own and those of the domains it federates with.

use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::id::TrustDomain;

use super::{Listed, Page, Store, StoreError};

/// What happens to the entries that federate with a bundle that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteMode {
    /// The bundle is not deleted while there are any.
    Restrict,
    /// They are deleted.
    Delete,
    /// They stay and no longer federate with it.
    Dissociate,
}

/// An edit does not fit the bundle as it is. The text is a sentence for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditRefused(pub String);

impl Store {
    /// The bundle of this trust domain.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>, StoreError> {
        let _ = trust_domain;
        todo!()
    }

    /// A page of the bundles, leaving out the one of `except`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn list_bundles(
        &self,
        except: Option<&TrustDomain>,
        page: Page,
    ) -> Result<Listed<Bundle>, StoreError> {
        let _ = (except, page);
        todo!()
    }

    /// How many bundles there are.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn count_bundles(&self) -> Result<u64, StoreError> {
        todo!()
    }

    /// Stores a bundle where there is none, with the sequence number that it carries.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn create_bundle(&self, bundle: Bundle) -> Result<(), StoreError> {
        let _ = bundle;
        todo!()
    }

    /// Stores a bundle, or puts it in the place of the one that is there, with the sequence number
    /// that it carries: a foreign bundle's is its publisher's.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn set_bundle(&self, bundle: Bundle) -> Result<(), StoreError> {
        let _ = bundle;
        todo!()
    }

    /// Adds authorities to a bundle, which is made if need be. Those that are there already stay
    /// as they are, a taint included. The sequence number grows by one where something was added;
    /// that of a bundle just made is 0.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn append_to_bundle(
        &self,
        trust_domain: TrustDomain,
        x509_authorities: Vec<X509Authority>,
        jwt_authorities: Vec<JwtAuthority>,
    ) -> Result<Bundle, StoreError> {
        let _ = (trust_domain, x509_authorities, jwt_authorities);
        todo!()
    }

    /// Reads a bundle, edits it and stores it in one transaction (prune, taint, revoke, partial
    /// update). `edit` may run more than once, each time from the bundle as it is then. The
    /// sequence number grows by one where the content changed, unless `edit` set it.
    ///
    /// # Errors
    /// `NotFound`; `Refused` with the reason of `edit`; `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn edit_bundle<F>(
        &self,
        trust_domain: TrustDomain,
        edit: F,
    ) -> Result<Bundle, StoreError>
    where
        F: Fn(&mut Bundle) -> Result<(), EditRefused> + Send + Sync + 'static,
    {
        let _ = (trust_domain, edit);
        todo!()
    }

    /// Deletes a bundle.
    ///
    /// # Errors
    /// `NotFound`; `Refused` where entries federate with it and `mode` is `Restrict`;
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn delete_bundle(
        &self,
        trust_domain: TrustDomain,
        mode: DeleteMode,
    ) -> Result<(), StoreError> {
        let _ = (trust_domain, mode);
        todo!()
    }
}
