//! The log of changes, by which every server learns what any server changed.
//!
//! Each change has a revision. Revisions are given in the order of commits: whoever has seen one
//! has seen all before it.

use jiff::Timestamp;
use spire_core::entry::EntryId;
use spire_core::id::{SpiffeId, TrustDomain};

use super::{Store, StoreError};

/// A place in the log; 0 is before the first change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What was created, updated or deleted; the record itself tells which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// An entry.
    Entry(EntryId),
    /// A node, its selectors included.
    Node(SpiffeId),
    /// A bundle.
    Bundle(TrustDomain),
}

/// What happened since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// The changes in order, and the revision of the last one. None means that there is nothing
    /// newer.
    Since {
        /// The changes.
        changes: Vec<Change>,
        /// Where to go on.
        last: Revision,
    },
    /// The log no longer reaches back so far: read everything anew.
    Pruned,
}

impl Store {
    /// At most `limit` changes after `revision`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn changes_since(
        &self,
        revision: Revision,
        limit: u32,
    ) -> Result<Changes, StoreError> {
        let _ = (revision, limit);
        todo!()
    }

    /// The revision of the last change in the database.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn latest_revision(&self) -> Result<Revision, StoreError> {
        todo!()
    }

    /// Forgets changes made before `before`; returns how many.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`.
    pub async fn prune_changes(&self, before: Timestamp) -> Result<u64, StoreError> {
        let _ = before;
        todo!()
    }
}
