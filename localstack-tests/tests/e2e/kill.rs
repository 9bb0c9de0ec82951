//! A server that is killed while it writes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, ListEntriesRequest,
};
use spire_core::wire::types::{Entry, Selector, Status};
use spire_localstack_tests::server::entry;
use spire_localstack_tests::{Folder, Server, ServerFile};
use tokio::sync::watch;
use tonic::transport::Channel;

const ROUNDS: usize = 6;
const WRITERS: usize = 4;
const BATCH: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_amid_batches_keeps_what_it_acknowledged_and_nothing_by_halves() {
    let folder = Folder::new().unwrap();
    let mut server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let mut ledger = Ledger::default();
    for round in 0..ROUNDS {
        let (acknowledged, mut progress) = watch::channel(0_usize);
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let client = EntryClient::new(server.connect().await.unwrap());
            let name = format!("{round}-{writer}");
            writers.push(tokio::spawn(write(client, name, acknowledged.clone())));
        }
        let answers = 1 + random(40);
        progress.wait_for(|count| *count >= answers).await.unwrap();
        tokio::time::sleep(Duration::from_micros(random(5000) as u64)).await;
        server.process().kill().unwrap();
        for writer in writers {
            ledger.0.extend(writer.await.unwrap().0);
        }

        server.start_again().await.unwrap();
        ledger.settle(list(&server).await, &format!("killed after {answers} answers"));
    }
    server.process().stop().await.unwrap();
}

fn random(below: usize) -> usize {
    RandomState::new().hash_one(0) as usize % below
}

/// What is known of each entry by its id.
#[derive(Default)]
struct Ledger(HashMap<String, Known>);

/// An entry, or none, as the server acknowledged it last, and as it was last asked to make it.
struct Known {
    acknowledged: Option<Entry>,
    asked: Option<Entry>,
}

impl Ledger {
    fn ask(&mut self, id: &str, wanted: Option<Entry>) {
        let known = self.0.entry(id.to_owned());
        known.or_insert(Known { acknowledged: None, asked: None }).asked = wanted;
    }

    fn acknowledge(&mut self, ids: &[String]) {
        for id in ids {
            let known = self.0.get_mut(id).unwrap();
            known.acknowledged = known.asked.clone();
        }
    }

    /// Holds what the server has against what is known: each entry is what was acknowledged last,
    /// or wholly what was asked for after that.
    fn settle(&mut self, mut found: HashMap<String, Entry>, when: &str) {
        for (id, known) in &mut self.0 {
            let found = found.remove(id);
            assert!(
                found == known.acknowledged || found == known.asked,
                "{when}, entry {id} is {found:#?}; acknowledged: {:#?}; asked for: {:#?}",
                known.acknowledged,
                known.asked
            );
            known.acknowledged = found.clone();
            known.asked = found;
        }
        assert!(found.is_empty(), "{when}, nobody made {:?}", found.keys());
    }
}

/// Creates, updates and deletes entries until the server is gone.
async fn write(
    mut client: EntryClient<Channel>,
    name: String,
    acknowledged: watch::Sender<usize>,
) -> Ledger {
    let mut ledger = Ledger::default();
    for batch in 0.. {
        let ids: Vec<_> = (0..BATCH).map(|number| format!("{name}-{batch}-{number}")).collect();
        let entries = |version| ids.iter().map(|id| version_of(id, version)).collect::<Vec<_>>();
        let done = |ledger: &mut Ledger, ids: &[String], statuses: Vec<Option<Status>>| {
            assert!(statuses.iter().all(|status| status.as_ref().unwrap().code == 0));
            ledger.acknowledge(ids);
            acknowledged.send_modify(|count| *count += 1);
        };

        ids.iter().for_each(|id| ledger.ask(id, Some(version_of(id, 1))));
        let create = BatchCreateEntryRequest { entries: entries(1), output_mask: None };
        let Ok(created) = client.batch_create_entry(create).await else { break };
        let statuses = created.into_inner().results.into_iter().map(|result| result.status);
        done(&mut ledger, &ids, statuses.collect());

        ids.iter().for_each(|id| ledger.ask(id, Some(version_of(id, 2))));
        let update = BatchUpdateEntryRequest { entries: entries(2), ..Default::default() };
        let Ok(updated) = client.batch_update_entry(update).await else { break };
        let statuses = updated.into_inner().results.into_iter().map(|result| result.status);
        done(&mut ledger, &ids, statuses.collect());

        let some: Vec<_> = ids.into_iter().step_by(2).collect();
        some.iter().for_each(|id| ledger.ask(id, None));
        let delete = BatchDeleteEntryRequest { ids: some.clone() };
        let Ok(deleted) = client.batch_delete_entry(delete).await else { break };
        let statuses = deleted.into_inner().results.into_iter().map(|result| result.status);
        done(&mut ledger, &some, statuses.collect());
    }
    ledger
}

/// An entry with something in each of the tables that hold entries, all of it of one version.
fn version_of(id: &str, version: i32) -> Entry {
    let selector = |value| Selector { r#type: "unix".to_owned(), value };
    Entry {
        id: id.to_owned(),
        selectors: vec![
            selector(format!("path:/{id}/{version}")),
            selector("uid:0".to_owned()),
            selector(format!("user:{version}")),
        ],
        dns_names: vec![format!("a{version}.example.org"), format!("b{version}.example.org")],
        x509_svid_ttl: 600 + version,
        hint: format!("version {version}"),
        ..entry("/spire/server", &format!("/workload/{id}"), "")
    }
}

async fn list(server: &Server) -> HashMap<String, Entry> {
    let mut client = EntryClient::new(server.connect().await.unwrap());
    let mut found = HashMap::new();
    let mut page_token = String::new();
    loop {
        let request = ListEntriesRequest { page_size: 500, page_token, ..Default::default() };
        let page = client.list_entries(request).await.unwrap().into_inner();
        for mut entry in page.entries {
            // What the server alone decides.
            (entry.revision_number, entry.created_at) = (0, 0);
            entry.selectors.sort_by(|a, b| a.value.cmp(&b.value));
            found.insert(entry.id.clone(), entry);
        }
        if page.next_page_token.is_empty() {
            return found;
        }
        page_token = page.next_page_token;
    }
}
