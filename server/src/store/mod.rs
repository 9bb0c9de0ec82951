//! What must survive: entries, nodes, join tokens, bundles, CA journals and the log of changes.
//!
//! All SQL of the server is below this folder, one file for each kind of record. Callers see one
//! [`Store`] with asynchronous methods and the vocabulary of `spire_core`; which database answers
//! is known to `dialect.rs` alone. Each call that changes something is one transaction: it is
//! acknowledged once it is on the disk, and until then nobody sees any of it. Writes that wait at
//! the same time share a commit.

mod bundles;
mod ca_journals;
mod changes;
mod entries;
mod error;
mod join_tokens;
mod nodes;
mod page;
mod settings;

use std::sync::Arc;

use tokio::sync::watch;

pub use bundles::{DeleteMode, EditRefused};
pub use ca_journals::{CaJournal, CaJournalId};
pub use changes::{Change, Changes, Revision};
pub use entries::{CreatedEntry, EntryFilter};
pub use error::{OpenError, StoreError};
pub use join_tokens::{KeyFingerprint, Redemption};
pub use nodes::{Attestation, Node, NodeFilter, Recorded, TokenUse};
pub use page::{BadPageToken, Listed, Page, PageToken, SetMatch, SetRule};
pub use settings::{DatabaseKind, Settings, SettingsError};

/// The datastore. Cheap to clone; [`Store::close`] ends it for all clones.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    changed: watch::Sender<Revision>,
}

impl Store {
    /// Opens the database, creating or migrating its tables as needed.
    ///
    /// # Errors
    /// [`OpenError`] names what is wrong and what to do; a database that holds SPIRE's tables is
    /// left as it is.
    pub async fn open(settings: &Settings) -> Result<Self, OpenError> {
        let _ = settings;
        todo!()
    }

    /// Finishes the writes that wait and closes all connections.
    pub async fn close(&self) {
        todo!()
    }

    /// The newest revision of the change log, poked after each commit that changed it. When a
    /// call of this store that changed something returns, its revision is already here.
    pub fn changed(&self) -> watch::Receiver<Revision> {
        self.inner.changed.subscribe()
    }
}
