//! The store, driven through its public face against real files.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod bundles;
mod entries;
mod journals_and_changes;
mod nodes;
mod opening;
mod tokens;
mod trouble;

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::entry::{Entry, EntryId, Hint};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};
use spire_server::store::{Attestation, Change, Changes, Revision, Settings, Store};
use tempfile::TempDir;

/// A store in a folder of its own.
struct Fresh {
    store: Store,
    path: PathBuf,
    _folder: TempDir,
}

impl Fresh {
    async fn new() -> Self {
        Self::with_parameters("").await
    }

    async fn with_parameters(parameters: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datastore.sqlite3");
        let store = Store::open(&settings(&format!("{}{parameters}", path.display()))).await;
        Self { store: store.unwrap(), path, _folder: folder }
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        let path = self.path.display().to_string();
        self.store = Store::open(&settings(&path)).await.unwrap();
    }

    /// A second connection to the same file.
    async fn other_connection(&self) -> sqlx::SqliteConnection {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&self.path);
        options.connect().await.unwrap()
    }

    /// What changed after `revision`.
    async fn changes(&self, revision: Revision) -> Vec<Change> {
        match self.store.changes_since(revision, 1000).await.unwrap() {
            Changes::Since { changes, .. } => changes,
            Changes::Pruned => panic!("pruned"),
        }
    }
}

fn settings(connection_string: &str) -> Settings {
    Settings::new("sqlite3", connection_string).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

fn selectors(texts: &[&str]) -> BTreeSet<Selector> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn entry(entry_id: &str, path: &str, texts: &[&str]) -> Entry {
    Entry {
        id: entry_id.parse::<EntryId>().unwrap(),
        spiffe_id: id(path),
        parent_id: id("/spire/agent/a"),
        selectors: RequiredSelectors::new(selectors(texts)).unwrap(),
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: BTreeSet::new(),
        dns_names: Vec::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        hint: Hint::default(),
        revision_number: 0,
        created_at: at(1_700_000_000),
        attributes: None,
    }
}

fn attestation(path: &str, serial: &str) -> Attestation {
    Attestation {
        agent_id: id(path),
        attestation_type: "x509pop".into(),
        serial: serial.into(),
        expires_at: at(2_000_000_000),
        can_reattest: true,
        selectors: selectors(&["x509pop:subject:cn:one", "x509pop:ca:two"]),
        join_token: None,
    }
}

async fn store_bundles(store: &Store, names: &[&str]) {
    for name in names {
        store.create_bundle(Bundle::empty(domain(name))).await.unwrap();
    }
}
