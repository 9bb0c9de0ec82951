//! Several servers on one database, all of which go away and come back while they are used.
//!
//! Writers change entries, agents ask what they may serve now here and now there, nodes race for
//! join tokens and for the one use of an instance's document; meanwhile servers are killed, the
//! database is stopped and killed, and the connections between them are cut, slow, or dead without
//! anybody being told. At the end the database must hold what was acknowledged, and every agent be
//! told exactly that by every server.

mod agents;
mod instances;
mod trouble;
mod writers;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use spire_test_databases::{Database, Engine, Proxy, Server as DatabaseServer};
use tokio_util::sync::CancellationToken;

use crate::load::Table;
use crate::{Folder, Server, ServerFile};

use agents::Agents;
use instances::Instances;
use trouble::Trouble;
use writers::Writer;

/// How many servers there are.
const SERVERS: usize = 3;

/// How long after all is well again every agent must be told what is so.
const SETTLED: Duration = Duration::from_secs(15);

/// What is to be gone through.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The database.
    pub engine: Engine,
    /// Agents.
    pub agents: usize,
    /// How long there is trouble.
    pub duration: Duration,
    /// How long the database is away, and connections to it are slow or dead, each time.
    pub outage: Duration,
}

/// Where a server is. It stays there when it is started again.
#[derive(Debug, Clone)]
struct Place {
    socket: PathBuf,
    address: SocketAddr,
}

/// What is counted on the way.
#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    told: AtomicU64,
    told_without_database: AtomicU64,
    not_told: AtomicU64,
    tokens: AtomicU64,
    tokens_admitted: AtomicU64,
    documents: AtomicU64,
    documents_admitted: AtomicU64,
    servers_killed: AtomicU64,
    databases_ended: AtomicU64,
    connections_cut: AtomicU64,
    connections_slow: AtomicU64,
    connections_dead: AtomicU64,
    /// Whether each server is expected to answer, and whether the database is.
    runs: [AtomicBool; SERVERS],
    database_runs: AtomicBool,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Goes through `plan` and returns the figures.
///
/// # Errors
/// What did not hold.
pub async fn run(plan: &Plan) -> Result<Table> {
    let database = Arc::new(DatabaseServer::start(plan.engine).await?);
    let tables = Database::on(&database).await?;
    let folder = Folder::new()?;
    let proxies = proxies(&database).await?;
    let instances = Arc::new(Instances::new(&folder).await?);
    let mut servers = start(&folder, &tables, &proxies, &instances.node_attestor()).await?;
    let places: Vec<Place> = servers.iter().map(place).collect();
    let counts = Arc::new(Counts::default());
    counts
        .runs
        .iter()
        .chain([&counts.database_runs])
        .for_each(|runs| runs.store(true, Ordering::Relaxed));

    let agents = Arc::new(Agents::attest(&places, plan.agents).await?);
    let stop = CancellationToken::new();
    let writers = places.iter().enumerate().map(|(number, place)| {
        let writer = Writer::new(number, place.clone(), agents.ids(), counts.clone());
        tokio::spawn(writer.run(stop.clone()))
    });
    let writers: Vec<_> = writers.collect();
    let asking: Vec<_> = (0..plan.agents)
        .map(|number| tokio::spawn(agents.clone().ask(number, counts.clone(), stop.clone())))
        .collect();
    let racing = agents::race(places.clone(), instances, counts.clone(), stop.clone());
    let racing = tokio::spawn(racing);
    let mut trouble =
        Trouble { plan, servers: &mut servers, database: &database, proxies: &proxies };
    trouble.make(&counts).await?;
    stop.cancel();
    let writers = try_join_all(writers).await?;
    for ended in join_all(asking).await {
        ended?;
    }
    racing.await??;
    for (what, counter) in
        [("token", &counts.tokens_admitted), ("document", &counts.documents_admitted)]
    {
        ensure!(counter.load(Ordering::Relaxed) > 0, "not one {what} admitted anybody");
    }
    let not_told = counts.not_told.load(Ordering::Relaxed);
    ensure!(not_told == 0, "running servers left {not_told} questions of agents unanswered");

    // Each server says the same as the database.
    let entries = writers::list(&places[0]).await?;
    let known = writers.iter().map(Writer::known).sum::<usize>();
    let mut expected = entries.clone();
    for writer in &writers {
        writer.settle(&mut expected)?;
    }
    ensure!(expected.is_empty(), "nobody made {:?}", expected.keys().take(5).collect::<Vec<_>>());
    tokio::time::timeout(SETTLED, agents.settle(&entries))
        .await
        .context("agents were not told what the database says")??;
    for server in &mut servers {
        server.process().stop().await?;
    }
    Ok(table(plan, &counts, known))
}

/// What lies between each server and the database.
async fn proxies(database: &DatabaseServer) -> Result<Vec<Proxy>> {
    let address = database.address()?;
    Ok(try_join_all((0..SERVERS).map(|_| Proxy::to(address))).await?)
}

async fn start(
    folder: &Folder,
    database: &Database,
    proxies: &[Proxy],
    node_attestor: &str,
) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for (number, proxy) in proxies.iter().enumerate() {
        let file = ServerFile {
            server: "ratelimit { attestation = false signing = false }".to_owned(),
            plugins: node_attestor.to_owned(),
            data_store: Some(format!(
                "database_type = \"{}\"\nconnection_string = \"{}\"",
                database.database_type(),
                database.through(proxy)?
            )),
            ..ServerFile::default()
        };
        let own = folder.join(number.to_string());
        fs::create_dir_all(&own)?;
        servers.push(Server::start_in(&own, &file).await?);
    }
    Ok(servers)
}

fn place(server: &Server) -> Place {
    Place { socket: server.socket().to_owned(), address: server.address() }
}

fn table(plan: &Plan, counts: &Counts, entries: usize) -> Table {
    let mut table = Table::of_figures();
    let figure = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
    table.add("database", format!("{:?}", plan.engine));
    table.add("seconds of trouble", plan.duration.as_secs().to_string());
    table.add("servers killed and started again", figure(&counts.servers_killed));
    table.add("times the database was stopped or killed", figure(&counts.databases_ended));
    table.add("times all connections to it were cut", figure(&counts.connections_cut));
    table.add("times they were slow", figure(&counts.connections_slow));
    table.add("times those of one server were dead", figure(&counts.connections_dead));
    table.add("writes that were acknowledged", figure(&counts.acknowledged));
    table.add("writes that were refused", figure(&counts.refused));
    table.add("entries that were made; none lost, none too many", entries.to_string());
    table.add("join tokens raced for by three", figure(&counts.tokens));
    table.add("of these used by one; by more than one: none", figure(&counts.tokens_admitted));
    table.add("documents of instances raced for by three", figure(&counts.documents));
    let admitted = figure(&counts.documents_admitted);
    table.add("of these used by one; by more than one: none", admitted);
    table.add(&format!("answers to {} agents", plan.agents), figure(&counts.told));
    table.add("of these while the database was away", figure(&counts.told_without_database));
    table.add("questions that a running server did not answer", figure(&counts.not_told));
    table
}
