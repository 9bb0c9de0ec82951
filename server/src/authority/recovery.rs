//! A database can fall back: a failover loses the last commits, a backup those of a day. What it lost
//! of this server's own authorities nobody else makes again, and whatever they sign would be refused
//! everywhere. So this server puts them back.

use std::sync::Arc;

use jiff::Timestamp;
use spire_core::bundle::{Bundle, X509Authority};

use super::RotationError;
use super::rotation::Rotation;
use super::slots::{Slots, Slotted};

impl Rotation {
    /// Puts back what the database has lost, if it has. Where that fails the next look tries again.
    pub(super) async fn recover(&mut self) {
        let bundle = &self.authority.bundle;
        let own = self.own_authorities(&bundle.current());
        if !has_all(&bundle.current(), &own) {
            bundle.set_fell_back(true);
        }
        if !*bundle.fell_back().borrow() {
            return;
        }
        match self.put_back(own).await {
            Ok(()) => {
                self.authority.bundle.set_fell_back(false);
                tracing::warn!(
                    subsystem_name = "ca_manager",
                    "Datastore has lost changes, as after a failover; the authorities of this \
                     server are in the bundle and in its journal again"
                );
            }
            Err(error) => tracing::error!(
                subsystem_name = "ca_manager",
                %error,
                "Datastore has lost changes, as after a failover; unable to put the authorities of \
                 this server back"
            ),
        }
    }

    async fn put_back(&mut self, own: Bundle) -> Result<(), RotationError> {
        self.authority.bundle.put_back(own).await?;
        // The row of the journal may be gone, and its number another server's.
        let cas = self.journal.x509_cas.iter();
        let ids: Vec<_> = cas.map(|entry| entry.authority_id.clone()).collect();
        let stored = self.authority.store.find_ca_journal(&ids).await?;
        self.journal_id = stored.and_then(|stored| stored.id);
        self.save(self.journal.clone(), self.active_x509_id()).await
    }

    /// What has to be in the bundle as long as this server has it in its slots, unless it was tainted:
    /// then it was revoked, and stays so. Of roots above it,
    /// that is what is in the `known` bundle: such a one may be revoked elsewhere.
    fn own_authorities(&self, known: &Bundle) -> Bundle {
        let now = self.now();
        let was_tainted = |id: &str| self.authority.bundle.was_tainted(id);
        let mut own = Bundle::empty(known.trust_domain.clone());
        for ca in held(&self.x509, now) {
            let (root, id) = (ca.root_certificate().cloned(), ca.root_id());
            let root = root.map(|certificate| X509Authority { certificate, tainted: false });
            let above = known.x509_authorities.iter().filter(|root| root.has_id(id)).cloned();
            match root {
                Some(root) if !was_tainted(id) => own.x509_authorities.push(root),
                Some(_) => {}
                None => own.x509_authorities.extend(above),
            }
        }
        let keys = held(&self.jwt, now).filter(|key| !was_tainted(&key.id));
        own.jwt_authorities = keys.map(|key| key.authority()).collect();
        own
    }
}

/// What lies in the slots and has not ended.
fn held<T: Slotted>(slots: &Slots<T>, now: Timestamp) -> impl Iterator<Item = &Arc<T>> {
    let all = [slots.active(), slots.prepared(), slots.old()].into_iter().flatten();
    all.filter(move |authority| !authority.lifetime().has_ended(now))
}

/// Whether `bundle` has the authorities of `own`, tainted or not.
fn has_all(bundle: &Bundle, own: &Bundle) -> bool {
    let has_root = |root: &X509Authority| {
        bundle.x509_authorities.iter().any(|known| known.certificate == root.certificate)
    };
    own.x509_authorities.iter().all(has_root)
        && own
            .jwt_authorities
            .iter()
            .all(|key| bundle.jwt_authorities.iter().any(|known| known.key_id == key.key_id))
}
