//! Registration entries.

use futures::Stream;
use jiff::Timestamp;
use spire_core::entry::{Entry, EntryId, EntryUpdate};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::Selector;

use super::{Listed, Page, SetMatch, Store, StoreError};

/// What became of one entry of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreatedEntry {
    /// It was stored; this is how.
    Stored(Entry),
    /// An entry with the same parent, SPIFFE ID and selectors was there before; this is it.
    Similar(Entry),
}

/// Which entries a list holds: those that pass every filter that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Those with this parent.
    pub parent_id: Option<SpiffeId>,
    /// Those with this SPIFFE ID.
    pub spiffe_id: Option<SpiffeId>,
    /// Those whose selectors match.
    pub selectors: Option<SetMatch<Selector>>,
    /// Those whose federated trust domains match.
    pub federates_with: Option<SetMatch<TrustDomain>>,
    /// Those with this hint; the empty hint is a hint like any other.
    pub hint: Option<String>,
    /// Only those of servers below this one.
    pub downstream: bool,
}

impl Store {
    /// Stores `entries` in one transaction and says for each, in order, what became of it. Their
    /// `revision_number` is stored as 0 and their times in whole seconds. One that is refused does
    /// not keep the others out.
    ///
    /// # Errors
    /// Each item: `AlreadyExists` where its id is taken, `Invalid` where it federates with a
    /// domain whose bundle is not stored. The whole: `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn create_entries(
        &self,
        entries: Vec<Entry>,
    ) -> Result<Vec<Result<CreatedEntry, StoreError>>, StoreError> {
        let _ = entries;
        todo!()
    }

    /// Changes entries in one transaction and returns each, in order, as it is then. Their
    /// `revision_number` grows by one.
    ///
    /// # Errors
    /// Each item: `NotFound`, or `Invalid` where the result federates with a domain whose bundle
    /// is not stored, or would store SVIDs by selectors of several types. The whole: as for
    /// [`Store::create_entries`].
    pub async fn update_entries(
        &self,
        updates: Vec<EntryUpdate>,
    ) -> Result<Vec<Result<Entry, StoreError>>, StoreError> {
        let _ = updates;
        todo!()
    }

    /// Deletes entries in one transaction and returns those that were there.
    ///
    /// # Errors
    /// As for [`Store::create_entries`].
    pub async fn delete_entries(&self, ids: Vec<EntryId>) -> Result<Vec<EntryId>, StoreError> {
        let _ = ids;
        todo!()
    }

    /// The entry with this id.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn entry(&self, id: &EntryId) -> Result<Option<Entry>, StoreError> {
        let _ = id;
        todo!()
    }

    /// The entries with these ids, in no particular order; unknown ids are left out.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn entries(&self, ids: &[EntryId]) -> Result<Vec<Entry>, StoreError> {
        let _ = ids;
        todo!()
    }

    /// A page of the entries that pass `filter`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn list_entries(
        &self,
        filter: &EntryFilter,
        page: Page,
    ) -> Result<Listed<Entry>, StoreError> {
        let _ = (filter, page);
        todo!()
    }

    /// How many entries pass `filter`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn count_entries(&self, filter: &EntryFilter) -> Result<u64, StoreError> {
        let _ = filter;
        todo!()
    }

    /// All entries in batches. Not one moment's view: who needs one asks for
    /// [`Store::latest_revision`] before and applies the changes since then after.
    pub fn every_entry(&self) -> impl Stream<Item = Result<Vec<Entry>, StoreError>> + Send + use<> {
        futures::stream::empty()
    }

    /// Deletes entries that expired before `now`, at most `limit` of them, and returns them.
    ///
    /// # Errors
    /// As for [`Store::create_entries`].
    pub async fn prune_expired_entries(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let _ = (now, limit);
        todo!()
    }
}
