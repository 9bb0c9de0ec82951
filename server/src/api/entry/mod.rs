//! The entry service: operators keep registration entries, agents learn which they may serve.

mod filter;
mod sync;

use std::collections::HashSet;
use std::sync::Arc;

use spire_core::clock::Clock;
use spire_core::entry::EntryId;
use spire_core::id::TrustDomain;
use spire_core::wire::convert::{self, entry as wire_entry};
use spire_core::wire::entry::entry_server::Entry;
use spire_core::wire::entry::*;
use spire_core::wire::types;
use tonic::{Request, Response, Status, Streaming};

use super::call::Call;
use super::listing;
use super::request::Reply;
use super::status::{failed, invalid};
use crate::registry::Registry;
use crate::store::{CreatedEntry, Store, StoreError};
use filter::Filter;

/// The entry service.
#[derive(Clone)]
pub struct EntryService {
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// Where entries are kept.
    pub store: Store,
    /// Which of them an agent may serve.
    pub registry: Arc<Registry>,
    /// The time.
    pub clock: Clock,
}

#[tonic::async_trait]
impl Entry for EntryService {
    async fn count_entries(
        &self,
        request: Request<CountEntriesRequest>,
    ) -> Reply<CountEntriesResponse> {
        let call = Call::of(&request)?;
        let filter = request.into_inner().filter.map(Filter::from).unwrap_or_default();
        call.note(|fields| filter.note(fields));
        let filter = filter.checked(&self.trust_domain)?;
        let count = self.store.count_entries(&filter).await;
        let count = count.map_err(|error| failed("failed to count entries", error))?;
        Ok(Response::new(CountEntriesResponse { count: listing::count(count) }))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Reply<ListEntriesResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let filter = request.filter.map(Filter::from).unwrap_or_default();
        call.note(|fields| filter.note(fields));
        let filter = filter.checked(&self.trust_domain)?;
        let page = listing::page(request.page_size, &request.page_token)?;
        let listed = self.store.list_entries(&filter, page).await;
        let listed = listed.map_err(|error| failed("failed to list entries", error))?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(ListEntriesResponse {
            entries: listed.items.iter().map(|entry| wire_entry::sent(entry, mask)).collect(),
            next_page_token: listing::next_page_token(request.page_size, listed.next)?,
        }))
    }

    async fn get_entry(&self, request: Request<GetEntryRequest>) -> Reply<types::Entry> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| fields.add("entry_id", &request.id));
        if request.id.is_empty() {
            return Err(Status::invalid_argument("missing ID"));
        }
        let not_found = || Status::not_found("entry not found");
        let id: EntryId = request.id.parse().map_err(|_| not_found())?;
        let entry = self.store.entry(&id).await;
        let entry = entry.map_err(|error| failed("failed to fetch entry", error))?;
        let entry = entry.ok_or_else(not_found)?;
        Ok(Response::new(wire_entry::sent(&entry, request.output_mask.as_ref())))
    }

    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Reply<BatchCreateEntryResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let now = self.clock.now();
        let read = |wire| {
            wire_entry::created(&self.trust_domain, wire, now)
                .map_err(|error| invalid("failed to convert entry", error))
        };
        let (valid, refused) = split(request.entries.iter().map(read));
        let stored = self.store.create_entries(valid).await;
        let stored = stored.map_err(|error| failed("failed to create entry", error))?;
        let outcomes = merge(stored, refused, create_failed);

        let mask = request.output_mask.as_ref();
        let mut results = Vec::with_capacity(outcomes.len());
        for (outcome, wire) in outcomes.into_iter().zip(&request.entries) {
            let (status, entry) = match outcome {
                Ok(CreatedEntry::Stored(entry)) => (convert::ok(), Some(entry)),
                Ok(CreatedEntry::Similar(entry)) => {
                    let similar = Status::already_exists("similar entry already exists");
                    ((&similar).into(), Some(entry))
                }
                Err(status) => ((&status).into(), None),
            };
            call.item(&status, |fields| {
                fields.add_wire_entry(wire);
                entry.iter().for_each(|entry| fields.add_stored_entry(entry));
            });
            let entry = entry.map(|entry| wire_entry::sent(&entry, mask));
            results.push(batch_create_entry_response::Result { status: Some(status), entry });
        }
        Ok(Response::new(BatchCreateEntryResponse { results }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<BatchUpdateEntryRequest>,
    ) -> Reply<BatchUpdateEntryResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let now = self.clock.now();
        let read = |wire| {
            let mask = request.input_mask.as_ref();
            wire_entry::update(&self.trust_domain, wire, mask, now).map_err(update_refused)
        };
        let (valid, refused) = split(request.entries.iter().map(read));
        let updated = self.store.update_entries(valid).await;
        let updated = updated.map_err(|error| failed("failed to update entry", error))?;
        let outcomes = merge(updated, refused, |error| failed("failed to update entry", error));

        let mask = request.output_mask.as_ref();
        let mut results = Vec::with_capacity(outcomes.len());
        for (outcome, wire) in outcomes.into_iter().zip(&request.entries) {
            let (status, entry) = match outcome {
                Ok(entry) => (convert::ok(), Some(entry)),
                Err(status) => ((&status).into(), None),
            };
            call.item(&status, |fields| {
                fields.add_wire_entry(wire);
                entry.iter().for_each(|entry| fields.add_stored_entry(entry));
            });
            let entry = entry.map(|entry| wire_entry::sent(&entry, mask));
            results.push(batch_update_entry_response::Result { status: Some(status), entry });
        }
        Ok(Response::new(BatchUpdateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<BatchDeleteEntryRequest>,
    ) -> Reply<BatchDeleteEntryResponse> {
        let call = Call::of(&request)?;
        let ids = request.into_inner().ids;
        // What is no entry id is the id of no entry.
        let wanted = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let deleted = self.store.delete_entries(wanted).await;
        let deleted = deleted.map_err(|error| failed("failed to delete entry", error))?;
        let mut deleted = HashSet::<EntryId>::from_iter(deleted);

        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            let status = if id.is_empty() {
                (&Status::invalid_argument("missing entry ID")).into()
            } else if deleted.remove(id.as_str()) {
                convert::ok()
            } else {
                (&Status::not_found("entry not found")).into()
            };
            call.item(&status, |fields| fields.add("entry_id", &id));
            results.push(batch_delete_entry_response::Result { status: Some(status), id });
        }
        Ok(Response::new(BatchDeleteEntryResponse { results }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<GetAuthorizedEntriesRequest>,
    ) -> Reply<GetAuthorizedEntriesResponse> {
        let agent_id = Call::of(&request)?.own_id()?;
        let mask = request.into_inner().output_mask;
        let snapshot = self.registry.snapshot();
        let entries = snapshot.authorized(&agent_id).into_iter();
        let entries = entries.map(|entry| wire_entry::sent(&entry.to_entry(), mask.as_ref()));
        Ok(Response::new(GetAuthorizedEntriesResponse { entries: entries.collect() }))
    }

    type SyncAuthorizedEntriesStream = sync::Answers;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Reply<Self::SyncAuthorizedEntriesStream> {
        let agent_id = Call::of(&request)?.own_id()?;
        sync::answer(self.registry.snapshot(), agent_id, request.into_inner()).await
    }
}

/// SPIRE answers the update of an entry that it does not know with the sentence alone, and what is
/// no entry id is the id of no entry.
fn update_refused(error: wire_entry::WireEntryError) -> Status {
    match error {
        wire_entry::WireEntryError::Id(_) => failed("failed to update entry", StoreError::NotFound),
        error => invalid("failed to convert entry", error),
    }
}

fn create_failed(error: StoreError) -> Status {
    failed("failed to create entry", error)
}

/// Takes the items apart that can go to the store, and the places of those that cannot.
fn split<T>(items: impl Iterator<Item = Result<T, Status>>) -> (Vec<T>, Vec<Option<Status>>) {
    let mut valid = Vec::new();
    let mut refused = Vec::new();
    for item in items {
        match item {
            Ok(item) => {
                valid.push(item);
                refused.push(None);
            }
            Err(status) => refused.push(Some(status)),
        }
    }
    (valid, refused)
}

/// Puts what the store says into the places that [`split`] left open.
fn merge<T>(
    stored: Vec<Result<T, StoreError>>,
    refused: Vec<Option<Status>>,
    status: impl Fn(StoreError) -> Status,
) -> Vec<Result<T, Status>> {
    let mut stored = stored.into_iter();
    let missing = || Err(Status::internal("the store did not say what became of the entry"));
    let outcome = |refused: Option<Status>| match refused {
        Some(status) => Err(status),
        None => stored.next().map_or_else(missing, |outcome| outcome.map_err(&status)),
    };
    refused.into_iter().map(outcome).collect()
}
