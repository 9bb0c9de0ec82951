//! Takes up after a restart what the journal remembers and the key manager still holds.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use spire_core::bundle::Bundle;
use spire_core::keys::{KeyManager, SigningKey};
use spire_core::svid::x509::{X509Svid, authority_id};

use super::journal::{Journal, JournalEntry, Status, X509CaEntry, newest_per_slot};
use super::jwt_key::JwtKey;
use super::slots::{SlotId, Slots, Slotted};
use super::x509_ca::X509Ca;
use super::{Settings, StartError};
use crate::store::{CaJournal, CaJournalId, Store, StoreError};

/// What a server starts with.
pub(super) struct Restored {
    pub(super) x509: Slots<X509Ca>,
    pub(super) jwt: Slots<JwtKey>,
    pub(super) journal: Journal,
    pub(super) journal_id: Option<CaJournalId>,
}

/// Finds this server's journal by its keys and takes up what is still of use.
///
/// # Errors
/// [`StartError`] where keys or store cannot be read, or where the CA in the journal belongs to
/// another trust domain.
pub(super) async fn restore(
    settings: &Settings,
    store: &Store,
    keys: &dyn KeyManager,
    bundle: &Bundle,
    now: Timestamp,
) -> Result<Restored, StartError> {
    let (mut ids, mut public_keys) = (Vec::new(), Vec::new());
    for slot in SlotId::BOTH {
        if let Some(key) = keys.key(&X509Ca::key_id(slot)).await? {
            ids.extend(authority_id(&key.public_key().spki).ok());
            public_keys.push(key.public_key().spki.clone());
        }
    }
    let nothing = Restored {
        x509: Slots::empty(),
        jwt: Slots::empty(),
        journal: Journal::default(),
        journal_id: None,
    };
    if ids.is_empty() {
        return Ok(nothing);
    }
    let stored = match store.find_ca_journal(&ids).await? {
        None => by_certificates(store, &public_keys).await?,
        found => found,
    };
    let Some(stored) = stored else { return Ok(nothing) };
    let journal = match Journal::decode(stored.data) {
        Ok(journal) => journal,
        Err(error) => {
            tracing::error!(
                subsystem_name = "ca_manager",
                %error,
                "The CA journal cannot be read; other authorities are prepared"
            );
            return Ok(nothing);
        }
    };

    for entry in &journal.x509_cas {
        check_trust_domain(entry, settings)?;
    }
    let mut cas = Vec::new();
    for entry in newest_per_slot(&journal.x509_cas) {
        let key = entry.slot().map(X509Ca::key_id);
        if let Some(key) = held(keys, key).await? {
            cas.push((entry.status(), X509Ca::restore(entry, key, bundle, now)));
        }
    }
    let mut jwt_keys = Vec::new();
    for entry in newest_per_slot(&journal.jwt_keys) {
        let key = entry.slot().map(JwtKey::key_id);
        if let Some(key) = held(keys, key).await? {
            jwt_keys.push((entry.status(), JwtKey::restore(entry, key, bundle, now)));
        }
    }
    Ok(Restored { x509: lay_out(cas), jwt: lay_out(jwt_keys), journal, journal_id: stored.id })
}

/// The newest journal with an authority whose key is held here. Its id need not follow from a key:
/// an upstream authority may give its own to what it signs.
async fn by_certificates(
    store: &Store,
    public_keys: &[Bytes],
) -> Result<Option<CaJournal>, StoreError> {
    let is_held = |entry: &X509CaEntry| {
        entry.public_key().is_some_and(|key| public_keys.iter().any(|held| *held == key))
    };
    let is_own = |stored: &CaJournal| {
        let journal = Journal::decode(stored.data.clone());
        journal.is_ok_and(|journal| newest_per_slot(&journal.x509_cas).any(is_held))
    };
    Ok(store.ca_journals().await?.into_iter().rev().find(is_own))
}

async fn held(
    keys: &dyn KeyManager,
    id: Option<String>,
) -> Result<Option<Arc<dyn SigningKey>>, StartError> {
    let Some(id) = id else { return Ok(None) };
    Ok(keys.key(&id).await?)
}

/// The journal was found by the keys that are held here: whatever became of its authorities, they
/// were those of this server.
fn check_trust_domain(entry: &X509CaEntry, settings: &Settings) -> Result<(), StartError> {
    let certificate = Bytes::copy_from_slice(&entry.certificate);
    let Ok(svid) = X509Svid::from_chain(vec![certificate]) else { return Ok(()) };
    let (stored, configured) = (svid.id.trust_domain(), &settings.trust_domain);
    if stored == *configured {
        return Ok(());
    }
    Err(StartError::OtherTrustDomain { stored, configured: configured.clone() })
}

/// Puts what could be taken up into its slots, and says why the rest could not.
fn lay_out<T: Slotted>(found: Vec<(Status, Result<T, String>)>) -> Slots<T> {
    let (mut active, mut prepared, mut old) = (None, None, None);
    for (status, restored) in found {
        let authority = match restored {
            Ok(authority) => Arc::new(authority),
            Err(reason) => {
                tracing::info!(
                    subsystem_name = "ca_manager",
                    reason,
                    "An authority of the CA journal is not used again"
                );
                continue;
            }
        };
        match status {
            Status::Active => active = Some(authority),
            Status::Prepared => prepared = Some(authority),
            Status::Old => old = Some(authority),
            Status::Unknown => {}
        }
    }
    Slots::restore(active, prepared, old)
}
