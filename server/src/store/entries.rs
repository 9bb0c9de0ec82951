//! Registration entries: what is created, changed, deleted and found.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::Stream;
use jiff::Timestamp;
use spire_core::entry::{Entry, EntryId, EntryUpdate};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::Selector;

use super::database::{Connection, SHORT_STATEMENT};
use super::entry_filter::{EntryFilter, Starts, select, starts};
use super::entry_rows::{self, COLUMNS, Kept};
use super::packing::{Fingerprint, of_selector};
use super::sql::{Statement, Value, look_up};
use super::transaction::Transaction;
use super::{BATCH, Bookmark, Change, Listed, Page, Store, StoreError};

/// What became of one entry of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreatedEntry {
    /// It was stored; this is how.
    Stored(Entry),
    /// An entry with the same parent, SPIFFE ID and selectors was there before; this is it.
    Similar(Entry),
}

impl Store {
    /// Stores `entries` in one transaction and says for each, in order, what became of it. Their
    /// `revision_number` is stored as 0, their times in whole seconds and each DNS name once. One
    /// that is refused does not keep the others out.
    ///
    /// # Errors
    /// Each item: `AlreadyExists` where its id is taken, `Invalid` where it federates with a
    /// domain whose bundle is not stored. The whole: `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn create_entries(
        &self,
        entries: Vec<Entry>,
    ) -> Result<Vec<Result<CreatedEntry, StoreError>>, StoreError> {
        self.write(entries, |tx, entries| Box::pin(create(tx, entries))).await
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
        self.write(updates, |tx, updates| {
            Box::pin(async move {
                let mut updated = Vec::with_capacity(updates.len());
                for update in updates {
                    match update_one(tx, update).await {
                        Err(error) if !error.is_verdict() => return Err(error),
                        outcome => updated.push(outcome),
                    }
                }
                Ok(updated)
            })
        })
        .await
    }

    /// Deletes entries in one transaction and returns the ids of those that were there.
    ///
    /// # Errors
    /// As for [`Store::create_entries`].
    pub async fn delete_entries(&self, ids: Vec<EntryId>) -> Result<Vec<EntryId>, StoreError> {
        self.write(ids, |tx, ids| {
            Box::pin(async move {
                let kept = by_ids(tx.reader(), ids).await?;
                delete(tx, &kept).await?;
                Ok(kept.into_iter().map(|kept| kept.entry.id).collect())
            })
        })
        .await
    }

    /// The entry with this id.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn entry(&self, id: &EntryId) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries(std::slice::from_ref(id)).await?.pop())
    }

    /// The entries with these ids, in no particular order; unknown ids are left out.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn entries(&self, ids: &[EntryId]) -> Result<Vec<Entry>, StoreError> {
        let kept = self.read(ids.to_vec(), |connection, ids| Box::pin(by_ids(connection, ids)));
        Ok(kept.await?.into_iter().map(|kept| kept.entry).collect())
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
        let kept = self.read((filter.clone(), page), |connection, (filter, page)| {
            Box::pin(list(connection, filter, *page))
        });
        let listed = Listed::of_page(kept.await?, page, |kept| kept.number);
        Ok(listed.map(|kept| kept.entry))
    }

    /// How many entries pass `filter`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn count_entries(&self, filter: &EntryFilter) -> Result<u64, StoreError> {
        self.read(filter.clone(), |connection, filter| Box::pin(count(connection, filter))).await
    }

    /// All entries in batches, as they are at `bookmark` or later. Not one moment's view: who needs
    /// one asks for [`Store::bookmark`] before and applies the changes since then after.
    pub fn every_entry(
        &self,
        bookmark: Bookmark,
    ) -> impl Stream<Item = Result<Vec<Entry>, StoreError>> + Send + use<> {
        let store = self.clone();
        let first = Some(Page { after: None, limit: Some(BATCH) });
        futures::stream::try_unfold(first, move |page| {
            let store = store.clone();
            async move {
                let Some(page) = page else { return Ok(None) };
                let rows = select(&EntryFilter::default(), page, Starts::default()).rows(COLUMNS);
                let kept = store.read_since(bookmark, rows, |connection, rows| {
                    Box::pin(fetch(connection, rows.clone()))
                });
                let listed = Listed::of_page(kept.await?, page, |kept| kept.number);
                let listed = listed.map(|kept| kept.entry);
                Ok(Some((listed.items, listed.next.map(|next| Page { after: Some(next), ..page }))))
            }
        })
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
        self.write((now, limit), |tx, (now, limit)| {
            Box::pin(async move {
                let expired = fetch(tx.reader(), find_expired(*now, *limit)).await?;
                delete(tx, &expired).await?;
                Ok(expired.into_iter().map(|kept| kept.entry).collect())
            })
        })
        .await
    }
}

/// See [`Store::create_entries`].
pub(super) async fn create(
    tx: &mut Transaction,
    entries: &[Entry],
) -> Result<Vec<Result<CreatedEntry, StoreError>>, StoreError> {
    let identities: Vec<_> = entries.iter().map(entry_rows::identity).collect();
    let mut similar = similar(tx.reader(), &identities).await?;
    let ids = entries.iter().map(|entry| entry.id.as_str().into()).collect();
    let mut taken = HashSet::new();
    for statement in look_up("SELECT entry_id FROM entries WHERE entry_id IN", ids, "") {
        for row in tx.reader().fetch(statement).await? {
            taken.insert(row.text(0)?.to_owned());
        }
    }
    let domains = entries.iter().flat_map(|entry| &entry.federates_with);
    let unknown = unknown_domains(tx.reader(), domains).await?;

    let mut created = Vec::with_capacity(entries.len());
    let mut rows = Vec::with_capacity(entries.len());
    for (entry, identity) in entries.iter().zip(identities) {
        created.push(if let Some(similar) = similar.get(&identity) {
            Ok(CreatedEntry::Similar(similar.clone()))
        } else if !taken.insert(entry.id.as_str().to_owned()) {
            Err(id_is_taken(&entry.id))
        } else if let Some(domain) = entry.federates_with.intersection(&unknown).next() {
            Err(StoreError::NoFederatedBundle(domain.clone()))
        } else {
            let entry = entry_rows::as_created(entry);
            rows.push(entry_rows::values(&entry, identity));
            similar.insert(identity, entry.clone());
            Ok(CreatedEntry::Stored(entry))
        });
    }
    let numbers = tx.insert_numbered("entries", &entry_rows::WRITTEN, rows).await?;
    let stored = created.iter().filter_map(|created| match created {
        Ok(CreatedEntry::Stored(entry)) => Some(entry),
        _ => None,
    });
    let stored: Vec<(i64, &Entry)> = numbers.into_iter().zip(stored).collect();
    entry_rows::link(tx, &stored).await?;
    for (_, entry) in stored {
        tx.note(Change::Entry(entry.id.clone()));
    }
    Ok(created)
}

/// The oldest entry for each of the `identities` that exist.
async fn similar(
    connection: &mut Connection,
    identities: &[Fingerprint],
) -> Result<HashMap<Fingerprint, Entry>, StoreError> {
    let wanted = identities.iter().map(|&identity| identity.into()).collect();
    let mut found = HashMap::new();
    for statement in find_similar(wanted) {
        for kept in fetch(connection, statement).await? {
            found.entry(entry_rows::identity(&kept.entry)).or_insert(kept.entry);
        }
    }
    Ok(found)
}

/// Those of `domains` whose bundle is not stored.
async fn unknown_domains<'d>(
    connection: &mut Connection,
    domains: impl Iterator<Item = &'d TrustDomain>,
) -> Result<BTreeSet<TrustDomain>, StoreError> {
    let mut unknown: BTreeSet<TrustDomain> = domains.cloned().collect();
    let names = unknown.iter().map(|domain| domain.as_str().into()).collect();
    for statement in look_up("SELECT trust_domain FROM bundles WHERE trust_domain IN", names, "") {
        for row in connection.fetch(statement).await? {
            let name = row.text(0)?;
            unknown.retain(|domain| domain.as_str() != name);
        }
    }
    Ok(unknown)
}

fn id_is_taken(id: &EntryId) -> StoreError {
    StoreError::AlreadyExists(format!("an entry with ID {id} already exists"))
}

async fn update_one(tx: &mut Transaction, update: &EntryUpdate) -> Result<Entry, StoreError> {
    let found = by_ids(tx.reader(), std::slice::from_ref(&update.id)).await?;
    let Some(Kept { number, entry: before }) = found.into_iter().next() else {
        return Err(StoreError::NotFound);
    };
    let after = entry_rows::as_updated(&before, update);
    after.check_store_svid().map_err(|error| StoreError::Invalid(error.to_string()))?;
    let unknown = unknown_domains(tx.reader(), after.federates_with.iter()).await?;
    if let Some(domain) = unknown.first() {
        return Err(StoreError::NoFederatedBundle(domain.clone()));
    }
    store_update(tx, number, &before, &after).await?;
    Ok(after)
}

/// Puts `after` in the place of `before`, which has this number.
async fn store_update(
    tx: &mut Transaction,
    number: i64,
    before: &Entry,
    after: &Entry,
) -> Result<(), StoreError> {
    replace(tx, number, after).await?;
    if before.selectors != after.selectors || before.federates_with != after.federates_with {
        entry_rows::unlink(tx, &[(number, before)]).await?;
        entry_rows::link(tx, &[(number, after)]).await?;
    }
    Ok(())
}

/// Writes the row with this number anew, but not its links.
pub(super) async fn replace(
    tx: &mut Transaction,
    number: i64,
    after: &Entry,
) -> Result<(), StoreError> {
    let identity = entry_rows::identity(after);
    let values = entry_rows::values(after, identity);
    tx.execute(Statement::built(entry_rows::update(), values).bind(number)).await?;
    tx.note(Change::Entry(after.id.clone()));
    Ok(())
}

/// What `token generate -spiffeID` made for these agents: children that ask for their parent's ID,
/// which no other entry does.
pub(super) async fn aliases(
    connection: &mut Connection,
    agents: &[&SpiffeId],
) -> Result<Vec<Kept>, StoreError> {
    let own = Selector::of_agent;
    let wanted = agents.iter().map(|agent| of_selector(&own(agent)).into());
    let head = format!(
        "SELECT {COLUMNS} FROM entry_selectors l, entries r WHERE r.number = l.owner \
         AND l.selector IN"
    );
    let mut found = Vec::new();
    for statement in look_up(&head, wanted.collect(), "") {
        found.extend(fetch(connection, statement).await?);
    }
    found.retain(|Kept { entry, .. }| entry.selectors.iter().eq([&own(&entry.parent_id)]));
    Ok(found)
}

/// Deletes entries with all that belongs to them.
pub(super) async fn delete(tx: &mut Transaction, entries: &[Kept]) -> Result<(), StoreError> {
    let numbers = entries.iter().map(|kept| kept.number.into()).collect();
    tx.execute_all(look_up("DELETE FROM entries WHERE number IN", numbers, "")).await?;
    let linked: Vec<_> = entries.iter().map(|kept| (kept.number, &kept.entry)).collect();
    entry_rows::unlink(tx, &linked).await?;
    for kept in entries {
        tx.note(Change::Entry(kept.entry.id.clone()));
    }
    Ok(())
}

async fn by_ids(connection: &mut Connection, ids: &[EntryId]) -> Result<Vec<Kept>, StoreError> {
    connection.allow(SHORT_STATEMENT);
    let ids = ids.iter().map(|id| id.as_str().into()).collect();
    let mut found = Vec::new();
    for statement in find_by_ids(ids) {
        found.extend(fetch(connection, statement).await?);
    }
    Ok(found)
}

/// The statements that find entries by their ids.
pub(super) fn find_by_ids(ids: Vec<Value>) -> Vec<Statement> {
    look_up(&format!("SELECT {COLUMNS} FROM entries r WHERE r.entry_id IN"), ids, "")
}

/// The statements that find entries by their identities, oldest first.
pub(super) fn find_similar(identities: Vec<Value>) -> Vec<Statement> {
    let head = format!("SELECT {COLUMNS} FROM entries r WHERE r.identity IN");
    look_up(&head, identities, "ORDER BY r.number")
}

/// The statement that finds what expired before `now`.
pub(super) fn find_expired(now: Timestamp, limit: u32) -> Statement {
    let text = format!(
        "SELECT {COLUMNS} FROM entries r WHERE r.expires_at <> 0 AND r.expires_at < ? \
         ORDER BY r.expires_at LIMIT ?"
    );
    Statement::built(text, Vec::new()).bind(now.as_second()).bind(limit)
}

/// A page of entries, and one more where another page follows.
pub(super) async fn list(
    connection: &mut Connection,
    filter: &EntryFilter,
    page: Page,
) -> Result<Vec<Kept>, StoreError> {
    let starts = starts(connection, filter).await?;
    fetch(connection, select(filter, page, starts).rows(COLUMNS)).await
}

/// See [`Store::count_entries`].
pub(super) async fn count(
    connection: &mut Connection,
    filter: &EntryFilter,
) -> Result<u64, StoreError> {
    let starts = starts(connection, filter).await?;
    let count = select(filter, Page::default(), starts).count();
    Ok(connection.fetch_number(count).await?.unsigned_abs())
}

async fn fetch(connection: &mut Connection, statement: Statement) -> Result<Vec<Kept>, StoreError> {
    connection.fetch(statement).await?.iter().map(Kept::read).collect()
}
