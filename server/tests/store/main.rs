//! The store, driven through its public face against real files and real database servers.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod at_rest;
mod bundles;
mod checks;
mod conflicts;
mod copy;
mod entries;
mod exhaustion;
mod failover;
mod journals_and_changes;
mod moving_agents;
mod moving_in;
mod nodes;
mod opening;
mod outages;
mod servers;
mod several;
mod tokens;
mod trouble;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::entry::{Entry, EntryId, Hint};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};
use spire_server::store::{
    Attestation, Bookmark, Change, Changes, KeyFingerprint, Settings, Store,
};
use spire_test_databases::{Database, Engine, Server};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

/// The kinds of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
    MySql,
}

/// Makes of each function a test for each kind of database.
macro_rules! each_database {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name(crate::Kind::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$name(crate::Kind::Postgres).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mysql() {
                super::$name(crate::Kind::MySql).await;
            }
        }
    )*};
}
use each_database;

/// A store with a database of its own.
struct Fresh {
    store: Store,
    settings: Settings,
    database: Location,
}

/// Where a database is that nobody else uses.
enum Location {
    File(TempDir),
    Server(Database),
}

impl Location {
    async fn new(kind: Kind) -> Self {
        let engine = match kind {
            Kind::Sqlite => return Self::File(tempfile::tempdir().unwrap()),
            Kind::Postgres => Engine::Postgres,
            Kind::MySql => Engine::MariaDb,
        };
        Self::Server(Database::new(engine).await.unwrap())
    }

    fn settings(&self) -> Settings {
        match self {
            Self::File(folder) => settings(&folder.path().join(FILE).display().to_string()),
            Self::Server(database) => {
                let text = database.connection_string();
                Settings::new(database.database_type(), &text).unwrap()
            }
        }
    }

    /// Runs statements beside the store.
    async fn execute(&self, statements: &str) {
        match self {
            Self::Server(database) => database.execute(statements).await.unwrap(),
            Self::File(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.path().join(FILE));
                let mut connection = options.create_if_missing(true).connect().await.unwrap();
                let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
                statements.execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// The number that a query yields.
    async fn number(&self, query: &str) -> i64 {
        match self {
            Self::Server(database) => database.number(query).await.unwrap(),
            Self::File(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.path().join(FILE));
                let mut connection = options.connect().await.unwrap();
                let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
                query.fetch_one(&mut connection).await.unwrap()
            }
        }
    }
}

/// The name of the file with the database.
const FILE: &str = "datastore.sqlite3";

impl Fresh {
    async fn new(kind: Kind) -> Self {
        let database = Location::new(kind).await;
        let settings = database.settings();
        let store = Store::open(&settings).await.unwrap();
        Self { store, settings, database }
    }

    /// A store on a file; its connection string ends with `parameters`.
    async fn of_file(parameters: &str) -> Self {
        let database = Location::new(Kind::Sqlite).await;
        let path = database.settings().connection_string.as_str().to_owned();
        let settings = settings(&(path + parameters));
        let store = Store::open(&settings).await.unwrap();
        Self { store, settings, database }
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Store::open(&self.settings).await.unwrap();
    }

    /// The file with the database.
    fn path(&self) -> PathBuf {
        match &self.database {
            Location::File(folder) => folder.path().join(FILE),
            Location::Server(database) => panic!("{} is no file", database.name()),
        }
    }

    /// A second connection to the same file.
    async fn other_connection(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).connect().await.unwrap()
    }

    /// What changed after `bookmark`.
    async fn changes(&self, bookmark: Bookmark) -> Vec<Change> {
        match self.store.changes_since(bookmark, 1000).await.unwrap() {
            Changes::Since { changes, .. } => changes,
            Changes::Pruned => panic!("pruned"),
        }
    }
}

/// A database on a server of our own, whose address and certificates are known.
async fn private(engine: Engine) -> Database {
    let database = Database::new(engine).await.unwrap();
    if database.server().is_named() {
        return Database::on(&Arc::new(Server::start(engine).await.unwrap())).await.unwrap();
    }
    database
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
        key: KeyFingerprint([0; 32]),
        join_token: None,
    }
}

async fn store_bundles(store: &Store, names: &[&str]) {
    for name in names {
        store.create_bundle(Bundle::empty(domain(name))).await.unwrap();
    }
}
