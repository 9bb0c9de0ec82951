//! Copies of SPIRE's databases. The names of the tests begin with the cases of a checklist of what
//! such a database may hold.

mod agents;
mod authorities;
mod bounds;
mod entries;
mod federation;
mod refusals;
mod times;
mod whole;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::entry::Entry;
use spire_core::keys::SigningKey;
use spire_core::svid::x509::{Subject, self_sign_ca};
use spire_server::store::copy::{Cause, CopyError, Order, Outcome, Report, copy};
use spire_server::store::{CaJournal, EntryFilter, Node, NodeFilter, Page, Settings, Store};
use spire_test_databases::spire::messages::{self, Certificate};
use spire_test_databases::spire::{Kind as SpireKind, Origin, SpireDatabase};

use crate::{Kind, Location, at, domain};

/// The present.
const NOW: i64 = 1_790_000_000;
const LATER: i64 = NOW + 3600;
const BEFORE: i64 = NOW - 1;

const OWN: &str = "spiffe://example.org";

/// A database of SPIRE's with nothing in it.
async fn spire(kind: Kind, schema: u32) -> SpireDatabase {
    SpireDatabase::new(spire_kind(kind), schema, Origin::Fresh).await.unwrap()
}

/// The schema with which a case meets a kind of database: each meets the three that releases of today
/// write.
fn schema_of(kind: Kind, case: u32) -> u32 {
    23 + (kind as u32 + case) % 3
}

fn spire_kind(kind: Kind) -> SpireKind {
    match kind {
        Kind::Sqlite => SpireKind::Sqlite,
        Kind::Postgres => SpireKind::Postgres,
        Kind::MySql => SpireKind::MySql,
    }
}

fn source(spire: &SpireDatabase) -> Settings {
    Settings::new(spire.database_type(), &spire.connection_string()).unwrap()
}

fn order(from: Settings, to: &Location) -> Order {
    Order { from, to: to.settings(), data_dir: None, rehearsal: false, now: at(NOW) }
}

async fn run(order: &Order) -> Result<Report, CopyError> {
    copy(order, &mut |_| ()).await
}

/// A copy, and what was said about it.
struct Copied {
    store: Store,
    report: Report,
    target: Location,
}

/// Copies into a database of the same kind.
async fn copied(spire: &mut SpireDatabase, kind: Kind) -> Copied {
    copied_into(spire, kind, None).await
}

async fn copied_into(spire: &mut SpireDatabase, kind: Kind, data_dir: Option<PathBuf>) -> Copied {
    spire.write().await.unwrap();
    let target = Location::new(kind).await;
    let order = Order { data_dir, ..order(source(spire), &target) };
    let report = run(&order).await.unwrap();
    assert_eq!(report.outcome, Outcome::Copied);
    Copied { store: Store::open(&target.settings()).await.unwrap(), report, target }
}

/// Why nothing is copied.
async fn refusal(spire: &SpireDatabase) -> String {
    let target = Location::new(Kind::Sqlite).await;
    run(&order(source(spire), &target)).await.unwrap_err().to_string()
}

/// All that the public face of a store tells.
#[derive(Debug, PartialEq)]
struct Dump {
    bundles: Vec<Bundle>,
    entries: Vec<Entry>,
    nodes: Vec<Node>,
    journals: Vec<CaJournal>,
}

impl Copied {
    async fn dump(&self) -> Dump {
        Dump {
            bundles: self.bundles().await,
            entries: self.entries().await,
            nodes: self.nodes().await,
            journals: self.store.ca_journals().await.unwrap(),
        }
    }

    async fn bundles(&self) -> Vec<Bundle> {
        self.store.list_bundles(None, Page::default()).await.unwrap().items
    }

    async fn entries(&self) -> Vec<Entry> {
        self.store.list_entries(&EntryFilter::default(), Page::default()).await.unwrap().items
    }

    async fn entry(&self, id: &str) -> Entry {
        let mut entries = self.entries().await.into_iter();
        entries.find(|entry| entry.id.as_str() == id).unwrap()
    }

    async fn nodes(&self) -> Vec<Node> {
        self.store.list_nodes(&NodeFilter::default(), Page::default()).await.unwrap().items
    }

    /// What is skipped of a table: names with causes.
    fn skipped(&self, table: &str) -> Vec<(&str, Cause)> {
        let of_table = self.report.skipped.items.iter().filter(|skipped| skipped.table == table);
        of_table.map(|skipped| (skipped.name.as_str(), skipped.cause)).collect()
    }

    /// Nothing is skipped, and there is nothing to say.
    fn is_complete(&self) {
        assert_eq!(self.report.skipped.items, []);
        assert_eq!(self.report.remarks.items, []);
    }
}

/// A self-signed CA of `example.org` from an hour ago until tomorrow.
async fn ca(key: &Arc<dyn SigningKey>) -> Bytes {
    ca_from(key, at(NOW - 3600)).await
}

async fn ca_from(key: &Arc<dyn SigningKey>, now: Timestamp) -> Bytes {
    let (subject, ttl) = (Subject::default(), Duration::from_secs(24 * 3600));
    self_sign_ca(&**key, &domain("example.org"), &subject, ttl, now).await.unwrap()
}

fn key() -> Arc<dyn SigningKey> {
    use spire_core::keys::{KeyType, LocalKey};
    Arc::new(LocalKey::generate_blocking(KeyType::EcP256).unwrap())
}

fn root(der: &[u8], tainted_key: bool) -> Certificate {
    Certificate { der_bytes: der.to_vec(), tainted_key }
}

/// A bundle without anything in it.
fn empty(trust_domain: &str) -> messages::Bundle {
    let trust_domain_id = format!("spiffe://{trust_domain}");
    messages::Bundle { trust_domain_id, ..messages::Bundle::default() }
}
