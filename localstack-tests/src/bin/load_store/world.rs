//! Two servers on one database, their operator and their agents.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream;
use futures::stream::{StreamExt, TryStreamExt};
use spire_core::wire::bundle::BatchCreateFederatedBundleRequest;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{BatchCreateEntryRequest, SyncAuthorizedEntriesRequest};
use spire_core::wire::types::{Bundle, Entry, Selector};
use spire_localstack_tests::load::{Agent, Node, Nodes, Server};
use spire_localstack_tests::server::member;
use spire_test_databases::{Database, Engine, Server as DatabaseServer};
use tonic::transport::Channel;

use crate::Kind;

/// How often an agent asks that waits for an entry.
const ASKED_EVERY: Duration = Duration::from_millis(5);

/// How many agents attest, or connect, at a time.
pub(crate) const AT_A_TIME: usize = 8;

/// The servers.
pub(crate) struct World {
    pub(crate) first: Server,
    second: Option<Server>,
    database: Option<Database>,
}

impl World {
    /// One server with an empty database.
    pub(crate) async fn start(kind: Kind) -> Result<Self> {
        let engine = match kind {
            Kind::Sqlite => {
                return Ok(Self { first: Server::start().await?, second: None, database: None });
            }
            Kind::Postgres => Engine::Postgres,
            Kind::Mariadb => Engine::MariaDb,
        };
        let server = Arc::new(DatabaseServer::start(engine).await?);
        let database = Database::on(&server).await?;
        let first = Server::start_on(&settings(&database)).await?;
        Ok(Self { first, second: None, database: Some(database) })
    }

    /// Starts the second server, or the only one again.
    pub(crate) async fn start_second(&mut self) -> Result<()> {
        match &self.database {
            Some(database) => self.second = Some(Server::start_on(&settings(database)).await?),
            None => self.first.start_again().await?,
        }
        Ok(())
    }

    /// The server that was started last.
    pub(crate) fn second(&self) -> &Server {
        self.second.as_ref().unwrap_or(&self.first)
    }

    /// How many servers there are.
    pub(crate) fn servers(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }

    /// So many agents of the first server.
    pub(crate) async fn agents(&self, count: usize) -> Result<Vec<Agent>> {
        let nodes = Nodes::of(&self.first);
        let attest = async |_| {
            let token = self.first.join_token().await?;
            nodes.attest(&Node::new("join_token", token).await?).await
        };
        stream::iter(0..count).map(attest).buffered(AT_A_TIME).try_collect().await
    }

    /// Makes the bundle of [`PARTNER`] known, without any authority.
    pub(crate) async fn know_partner(&self) -> Result<()> {
        let partner = Bundle { trust_domain: PARTNER.to_owned(), ..Bundle::default() };
        let request =
            BatchCreateFederatedBundleRequest { bundle: vec![partner], output_mask: None };
        let mut client = BundleClient::new(self.first.operator.clone());
        let answer = client.batch_create_federated_bundle(request).await?.into_inner();
        let status = answer.results.into_iter().next().and_then(|result| result.status);
        let status = status.context("no status")?;
        ensure!(status.code == 0, "the bundle was refused: {}", status.message);
        Ok(())
    }

    /// Creates entries, shared evenly by `agents`.
    pub(crate) async fn create(&self, numbers: Range<usize>, agents: &[Agent]) -> Result<()> {
        let parent = |number: usize| agents[number % agents.len()].id.path();
        let entries = numbers.map(|number| entry(parent(number), number)).collect();
        self.create_all(entries).await
    }

    /// An agent of the second server.
    pub(crate) async fn agent(&self) -> Result<Agent> {
        let node = Node::new("join_token", self.second().join_token().await?).await?;
        Nodes::of(self.second()).attest(&node).await
    }

    /// How long it takes from the begin of the call that creates an entry at the first server until
    /// the second tells `agent` of it, which asks again and again.
    pub(crate) async fn seen_after(&self, agent: &Agent, number: usize) -> Result<Duration> {
        let before = told(&agent.channel).await?;
        let begin = Instant::now();
        self.create_all(vec![entry(agent.id.path(), number)]).await?;
        while told(&agent.channel).await? == before {
            tokio::time::sleep(ASKED_EVERY).await;
        }
        Ok(begin.elapsed())
    }

    /// How many statements the database has counted; `None` for SQLite. PostgreSQL counts
    /// transactions, which are as many while nobody writes.
    pub(crate) async fn statements(&self) -> Result<Option<i64>> {
        let Some(database) = &self.database else { return Ok(None) };
        let query = match database.server().engine() {
            Engine::Postgres => {
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            }
            Engine::MariaDb => {
                "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS \
                 WHERE VARIABLE_NAME = 'QUESTIONS'"
            }
        };
        database.number(query).await.map(Some)
    }

    async fn create_all(&self, entries: Vec<Entry>) -> Result<()> {
        let request = BatchCreateEntryRequest { entries, output_mask: None };
        let mut client = EntryClient::new(self.first.operator.clone());
        let answer = client.batch_create_entry(request).await?.into_inner();
        for result in answer.results {
            let status = result.status.context("no status")?;
            ensure!(status.code == 0, "an entry was refused: {}", status.message);
        }
        Ok(())
    }
}

/// How many entries an agent is told.
pub(crate) async fn told(agent: &Channel) -> Result<usize> {
    let mut client = EntryClient::new(agent.clone());
    let question = stream::iter([SyncAuthorizedEntriesRequest::default()]);
    let mut answers = client.sync_authorized_entries(question).await?.into_inner();
    let mut count = 0;
    while let Some(answer) = answers.message().await? {
        count += answer.entries.len();
    }
    Ok(count)
}

fn settings(database: &Database) -> String {
    format!(
        "database_type = \"{}\"\nconnection_string = \"{}\"",
        database.database_type(),
        database.connection_string()
    )
}

/// The trust domain with which some entries federate.
pub(crate) const PARTNER: &str = "partner.example.org";

/// An entry with three selectors, the last of them shared by a thousand. One of a thousand federates,
/// and another one is of a server below this one.
pub(crate) fn entry(parent: &str, number: usize) -> Entry {
    let selectors = [
        format!("uid:{number}"),
        format!("path:/usr/bin/service-{number}"),
        format!("group:{}", number / 1000),
    ];
    Entry {
        spiffe_id: Some(member(&format!("/ns/production/sa/service-{number}"))),
        parent_id: Some(member(parent)),
        selectors: selectors.map(|value| Selector { r#type: "unix".to_owned(), value }).into(),
        x509_svid_ttl: 3600,
        hint: format!("hint-{}", number / 1000),
        federates_with: number
            .is_multiple_of(1000)
            .then(|| PARTNER.to_owned())
            .into_iter()
            .collect(),
        downstream: number % 1000 == 1,
        ..Entry::default()
    }
}
