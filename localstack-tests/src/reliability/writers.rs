//! Writers that keep a book of what was acknowledged to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use spire_core::id::SpiffeId;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, ListEntriesRequest,
};
use spire_core::wire::types::{Entry, Status};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{Counts, Place, count};
use crate::server::{connect, entry, member};

/// Entries that a writer keeps at a time at most; agents are told all of theirs in one answer.
const KEPT: usize = 300;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(30);

/// The pause after a call that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// The version of an entry, which is in its TTL; `None` where there is no entry.
type Version = Option<i32>;

/// Changes entries of its own through one server.
pub(super) struct Writer {
    number: usize,
    place: Place,
    parents: Vec<SpiffeId>,
    counts: Arc<Counts>,
    /// What each entry may be: what was acknowledged last, and what was asked for after that.
    book: HashMap<String, Vec<Version>>,
}

impl Writer {
    pub(super) fn new(
        number: usize,
        place: Place,
        parents: Vec<SpiffeId>,
        counts: Arc<Counts>,
    ) -> Self {
        Self { number, place, parents, counts, book: HashMap::new() }
    }

    /// Writes until `stop` fires, whatever the servers say.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Self {
        // Entries whose state is known for certain.
        let mut certain: Vec<(String, i32)> = Vec::new();
        let mut client = None;
        for step in 0_usize.. {
            if stop.is_cancelled() {
                break;
            }
            let Some(channel) = &client else {
                match connect(&self.place.socket).await {
                    Ok(channel) => client = Some(EntryClient::new(channel)),
                    Err(_) => sleep(PAUSE).await,
                }
                continue;
            };
            let mut channel = channel.clone();
            let (id, version) = match step % 3 {
                0 => (format!("{}-{step}", self.number), Some(1)),
                _ if certain.is_empty() => continue,
                1 => {
                    let (id, version) = certain.swap_remove(step * 7 % certain.len());
                    (id, Some(version + 1))
                }
                _ if certain.len() < KEPT => continue,
                _ => (certain.swap_remove(step * 5 % certain.len()).0, None),
            };
            let before = self.book.get(&id).and_then(|known| known[0]);
            self.book.insert(id.clone(), vec![before, version]);
            match timeout(CALL, self.write(&mut channel, &id, before, version)).await {
                Ok(Ok(())) => {
                    count(&self.counts.acknowledged);
                    self.book.insert(id.clone(), vec![version]);
                    certain.extend(version.map(|version| (id, version)));
                }
                Ok(Err(_)) | Err(_) => {
                    // It is one or the other from here on; nobody touches it any more.
                    count(&self.counts.refused);
                    client = None;
                    sleep(PAUSE).await;
                }
            }
        }
        self
    }

    async fn write(
        &self,
        client: &mut EntryClient<Channel>,
        id: &str,
        before: Version,
        version: Version,
    ) -> Result<()> {
        let entries = version.map(|version| self.entry(id, version)).into_iter().collect();
        let status = match (before, version) {
            (None, _) => {
                let request = BatchCreateEntryRequest { entries, output_mask: None };
                let answer = client.batch_create_entry(request).await?.into_inner();
                answer.results.into_iter().next().and_then(|result| result.status)
            }
            (Some(_), Some(_)) => {
                let request = BatchUpdateEntryRequest { entries, ..Default::default() };
                let answer = client.batch_update_entry(request).await?.into_inner();
                answer.results.into_iter().next().and_then(|result| result.status)
            }
            (Some(_), None) => {
                let request = BatchDeleteEntryRequest { ids: vec![id.to_owned()] };
                let answer = client.batch_delete_entry(request).await?.into_inner();
                answer.results.into_iter().next().and_then(|result| result.status)
            }
        };
        let Status { code, message } = status.unwrap_or_default();
        ensure!(code == 0, "{message}");
        Ok(())
    }

    fn entry(&self, id: &str, version: i32) -> Entry {
        let parent = id.bytes().map(usize::from).sum::<usize>() % self.parents.len();
        Entry {
            id: id.to_owned(),
            x509_svid_ttl: version,
            ..entry(self.parents[parent].path(), &format!("/workload/{id}"), "unix:uid:0")
        }
    }

    /// How many entries it has made.
    pub(super) fn known(&self) -> usize {
        self.book.len()
    }

    /// Holds its book against what is `found`, and takes its entries out of that.
    pub(super) fn settle(&self, found: &mut Entries) -> Result<()> {
        for (id, known) in &self.book {
            let version = found.remove(id).map(|(_, version)| version);
            ensure!(known.contains(&version), "entry {id} is {version:?}, not one of {known:?}");
        }
        Ok(())
    }
}

/// The parent and the version of each entry by its id.
pub(super) type Entries = HashMap<String, (String, i32)>;

/// All entries, as one server lists them.
pub(super) async fn list(place: &Place) -> Result<Entries> {
    let mut client = EntryClient::new(connect(&place.socket).await?);
    let (mut found, mut page_token) = (Entries::new(), String::new());
    loop {
        let request = ListEntriesRequest { page_size: 500, page_token, ..Default::default() };
        let page = client.list_entries(request).await?.into_inner();
        for entry in page.entries {
            let parent = entry.parent_id.unwrap_or_else(|| member("")).path;
            found.insert(entry.id, (parent, entry.x509_svid_ttl));
        }
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}
