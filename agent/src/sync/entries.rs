//! The entries that the server authorises this agent for. Those that the agent has already are
//! asked for by revision alone, as far as the server works that way.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use prost::Message;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::SpiffeId;
use spire_core::limits::{MAX_SYNC_PAGE, REMOTE_CALL};
use spire_core::wire::SyncAuthorizedEntriesResponse;
use spire_core::wire::entry::{
    EntryRevision, GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest,
};
use spire_core::wire::types::{self, EntryMask};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::client::{RpcError, Server, entry_from_wire};

/// From so many entries on an answer is no answer: no node serves that many.
const MAX_ENTRIES: usize = 1_000_000;

/// How the server is asked for entries.
#[derive(Debug)]
pub struct EntrySource {
    /// Whether it is asked for changes; it falls back to all entries where the server cannot.
    by_revision: AtomicBool,
}

type Held = BTreeMap<EntryId, Arc<Entry>>;

impl Default for EntrySource {
    fn default() -> Self {
        Self { by_revision: AtomicBool::new(true) }
    }
}

impl EntrySource {
    /// All entries that `agent` may serve. Those that did not change are the very ones of `held`.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn fetch(
        &self,
        server: &Server,
        agent: &SpiffeId,
        held: &Held,
    ) -> Result<Vec<Arc<Entry>>, RpcError> {
        let mut authorized = AuthorizedEntries { agent, held, entries: BTreeMap::new() };
        if self.by_revision.load(Ordering::Relaxed) {
            match server.within(REMOTE_CALL, authorized.sync(server)).await {
                Err(error) if error.code() == Code::Unimplemented => {
                    self.by_revision.store(false, Ordering::Relaxed);
                }
                outcome => return outcome.map(|()| authorized.finish()),
            }
        }
        server.within(REMOTE_CALL, authorized.read_all(server)).await?;
        Ok(authorized.finish())
    }
}

/// The parts of an entry that an agent needs.
fn mask() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        selectors: true,
        federates_with: true,
        admin: true,
        downstream: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        additional_attributes: true,
        created_at: true,
        ..EntryMask::default()
    }
}

/// An answer while it is being read.
struct AuthorizedEntries<'a> {
    agent: &'a SpiffeId,
    held: &'a Held,
    entries: BTreeMap<EntryId, Arc<Entry>>,
}

impl AuthorizedEntries<'_> {
    /// The server answers with all entries where they fit on one page, else with their revisions;
    /// then those that are missing or outdated here are asked for.
    async fn sync(&mut self, server: &Server) -> Result<(), RpcError> {
        let (requests, outgoing) = mpsc::channel(1);
        let ask = async |request| {
            // A stream that ended is noticed where its answer is read.
            let _ = requests.send(request).await;
        };
        ask(SyncAuthorizedEntriesRequest { output_mask: Some(mask()), ids: Vec::new() }).await;
        let answers = server.entries().sync_authorized_entries(ReceiverStream::new(outgoing)).await;
        let mut answers = answers?.into_inner();

        let mut page = next(&mut answers).await?;
        if page.entry_revisions.is_empty() {
            self.take_encoded(page.entries)?;
            while page.more {
                page = next(&mut answers).await?;
                self.take_encoded(page.entries)?;
            }
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        loop {
            for revision in page.entry_revisions {
                self.compare(revision, &mut wanted)?;
            }
            if !page.more {
                break;
            }
            page = next(&mut answers).await?;
        }
        let wanted = Vec::from_iter(wanted);
        for ids in wanted.chunks(MAX_SYNC_PAGE) {
            let ids = ids.iter().map(ToString::to_string).collect();
            ask(SyncAuthorizedEntriesRequest { output_mask: None, ids }).await;
            loop {
                let page = next(&mut answers).await?;
                self.take_encoded(page.entries)?;
                if !page.more {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Asks a server that has no pages.
    async fn read_all(&mut self, server: &Server) -> Result<(), RpcError> {
        let request = GetAuthorizedEntriesRequest { output_mask: Some(mask()) };
        let answer = server.entries().get_authorized_entries(request).await?;
        self.take(answer.into_inner().entries)
    }

    /// Keeps what is held in this revision, and wants what is not. A revision that is older than
    /// the one held comes from a server that has not heard of the change yet, and is not accepted.
    fn compare(
        &mut self,
        revision: EntryRevision,
        wanted: &mut BTreeSet<EntryId>,
    ) -> Result<(), RpcError> {
        let id = EntryId::from_str(&revision.id)
            .map_err(|error| RpcError::nonsense(error.to_string()))?;
        let told = (revision.created_at, revision.revision_number);
        match self.held.get(&id) {
            Some(held) if told <= version(held) => {
                self.entries.insert(id, held.clone());
            }
            _ => {
                wanted.insert(id);
            }
        }
        self.check_size(wanted.len())
    }

    fn take_encoded(&mut self, entries: Vec<Bytes>) -> Result<(), RpcError> {
        let decoded = entries.into_iter().map(types::Entry::decode).collect::<Result<_, _>>();
        self.take(decoded.map_err(|error| {
            RpcError::nonsense(format!("the server sent a malformed entry: {error}"))
        })?)
    }

    fn take(&mut self, entries: Vec<types::Entry>) -> Result<(), RpcError> {
        for message in entries {
            let told = (message.created_at, message.revision_number);
            let held = self.held.get(message.id.as_str());
            if let Some(held) = held.filter(|held| told <= version(held)) {
                self.entries.insert(held.id.clone(), held.clone());
                continue;
            }
            let id = message.id.clone();
            match entry_from_wire(message, self.agent) {
                Ok(entry) => {
                    self.entries.insert(entry.id.clone(), Arc::new(entry));
                }
                Err(error) => tracing::error!(
                    %error,
                    entry_id = id,
                    subsystem_name = "manager",
                    "Ignoring malformed entry"
                ),
            }
        }
        self.check_size(0)
    }

    fn check_size(&self, more: usize) -> Result<(), RpcError> {
        if self.entries.len() + more > MAX_ENTRIES {
            let text = format!("the server authorised more than {MAX_ENTRIES} entries");
            return Err(RpcError::nonsense(text));
        }
        Ok(())
    }

    fn finish(self) -> Vec<Arc<Entry>> {
        self.entries.into_values().collect()
    }
}

/// What orders the states of one entry: an entry that was deleted and made again is newer than any
/// revision of the old one.
fn version(entry: &Entry) -> (i64, i64) {
    (entry.created_at.as_second(), entry.revision_number)
}

async fn next(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Result<SyncAuthorizedEntriesResponse, RpcError> {
    answers.message().await?.ok_or_else(|| RpcError::nonsense("the server ended the sync early"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::samples::entry;

    fn held(revision_number: i64) -> Held {
        let mut entry = entry("e", &["unix:uid:1"]);
        entry.revision_number = revision_number;
        Held::from([(entry.id.clone(), Arc::new(entry))])
    }

    /// Compares a revision with what is held in revision 5; says whether it is wanted.
    fn is_wanted(created_later: i64, revision_number: i64) -> bool {
        let held = held(5);
        let agent = SpiffeId::parse("spiffe://example.org/spire/agent/x").unwrap();
        let mut authorized = AuthorizedEntries { agent: &agent, held: &held, entries: Held::new() };
        let created_at = held["e"].created_at.as_second() + created_later;
        let mut wanted = BTreeSet::new();
        let revision = EntryRevision { id: "e".to_owned(), revision_number, created_at };
        authorized.compare(revision, &mut wanted).unwrap();
        assert_eq!(authorized.entries.len() + wanted.len(), 1);
        wanted.len() == 1
    }

    #[test]
    fn an_older_revision_is_not_accepted() {
        assert!(is_wanted(0, 6));
        assert!(!is_wanted(0, 5) && !is_wanted(0, 4));
        assert!(is_wanted(1, 0), "the entry was made again");
        assert!(!is_wanted(-1, 9), "this is the entry before it was made again");
    }

    #[test]
    fn an_entry_that_cannot_be_read_does_not_hold_up_the_others() {
        let held = Held::new();
        let agent = SpiffeId::parse("spiffe://example.org/spire/agent/x").unwrap();
        let mut authorized = AuthorizedEntries { agent: &agent, held: &held, entries: Held::new() };
        let message = |id: &str, path: &str| types::Entry {
            id: id.to_owned(),
            spiffe_id: Some(types::Spiffeid {
                trust_domain: "example.org".to_owned(),
                path: path.to_owned(),
            }),
            selectors: vec![types::Selector {
                r#type: "unix".to_owned(),
                value: "uid:1".to_owned(),
            }],
            ..types::Entry::default()
        };
        authorized.take(vec![message("bad", "no-slash"), message("good", "/x")]).unwrap();
        assert_eq!(authorized.finish().len(), 1);
    }
}
