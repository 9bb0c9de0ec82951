//! CA journals: one row for each server, opaque here.

use bytes::Bytes;
use jiff::Timestamp;

use super::{Store, StoreError};

/// Names the row of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaJournalId(pub(super) i64);

/// A server's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaJournal {
    /// Its row; `None` before it was first stored.
    pub id: Option<CaJournalId>,
    /// The authority id (hexadecimal Subject Key Identifier) of the active X.509 CA; a server
    /// finds its journal by the keys that it holds.
    pub active_x509_authority_id: String,
    /// The journal, as `authority` lays it out.
    pub data: Bytes,
    /// When the last authority in it ends.
    pub expires_at: Timestamp,
}

impl Store {
    /// The newest journal whose active X.509 authority is one of these.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn find_ca_journal(
        &self,
        x509_authority_ids: &[String],
    ) -> Result<Option<CaJournal>, StoreError> {
        let _ = x509_authority_ids;
        todo!()
    }

    /// All journals, oldest row first.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn ca_journals(&self) -> Result<Vec<CaJournal>, StoreError> {
        todo!()
    }

    /// Stores a journal in its row, or in a new one where it has none or the row is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn set_ca_journal(&self, journal: CaJournal) -> Result<CaJournalId, StoreError> {
        let _ = journal;
        todo!()
    }

    /// Deletes journals whose last authority ended before `expired_before`; returns how many.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn prune_ca_journals(&self, expired_before: Timestamp) -> Result<u64, StoreError> {
        let _ = expired_before;
        todo!()
    }
}
