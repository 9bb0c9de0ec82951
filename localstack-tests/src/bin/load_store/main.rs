//! What a large datastore costs: real servers on a real database with very many entries.
//!
//! ```text
//! cargo build --release --bin spire-server --bin load_store
//! target/release/load_store --database postgres
//! ```
//!
//! One server attests the nodes and takes the entries in through its API. A second one is started
//! when all are there; an agent that asks the second waits for entries that the first creates. With
//! SQLite, which has room for one server, the first is started again instead.

mod lists;
mod rest;
mod world;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use spire_localstack_tests::load::{Table, Times, drive};

use world::World;

/// Entries in a call that creates them.
const BATCH: usize = 500;

/// Fills a database and prints what it cost.
#[derive(Parser)]
struct Flags {
    /// The kind of database.
    #[arg(long, value_enum, default_value_t = Kind::Postgres)]
    database: Kind,
    /// Entries.
    #[arg(long, default_value_t = 1_000_000)]
    entries: usize,
    /// Nodes, whose agents share the entries evenly.
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// Agents of these that stay connected and ask every five seconds.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Calls at a time that create entries.
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Entries whose way to the other server is timed. MySQL does not tell of them, so that each
    /// takes up to five seconds there.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// How long it is counted what servers cost while nothing changes, in seconds: once alone, once
    /// with agents.
    #[arg(long, default_value_t = 60)]
    idle: u64,
}

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Sqlite,
    Postgres,
    Mariadb,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut costs, mut figures) = (Table::of_calls(), Table::of_figures());
    let measured = measure(&Flags::parse(), &mut costs, &mut figures).await;
    // What was measured before something failed is told as well.
    println!("{costs}\n{figures}");
    measured
}

async fn measure(flags: &Flags, costs: &mut Table, figures: &mut Table) -> Result<()> {
    let mut world = World::start(flags.database).await?;

    let begin = Instant::now();
    let agents = world.agents(flags.nodes).await?;
    figures.add(&format!("{} nodes attested", flags.nodes), seconds(begin));

    world.know_partner().await?;
    let before = world.first.process.cpu()?;
    let create = async |call: usize| {
        let numbers = call * BATCH..((call + 1) * BATCH).min(flags.entries);
        world.create(numbers, &agents).await
    };
    let times = drive(flags.entries.div_ceil(BATCH), flags.parallel, create).await?;
    let what = format!("entry created, {BATCH} in a call");
    costs.add_calls(&what, &times, BATCH, world.first.process.cpu()? - before);

    let begin = Instant::now();
    world.start_second().await?;
    figures.add(&format!("start until ready, {} entries", flags.entries), seconds(begin));
    figures.add_memory("resident then", world.second().process.resident()?);

    let mut delays = Vec::new();
    let agent = world.agent().await?;
    for number in 0..flags.changes {
        delays.push(world.seen_after(&agent, flags.entries + number).await?);
    }
    let delays = Times::new(delays);
    figures.add_times("entry created at one server, until the other tells an agent", &delays);
    figures.add("p99 of that", format!("{:.1} ms", delays.quantile(0.99).as_secs_f64() * 1e3));

    lists::measure(&world, flags.entries, &agents, costs).await?;
    lists::of_agents(&world, &agents, costs).await?;

    let time = Duration::from_secs(flags.idle);
    rest::alone(&world, time, figures).await?;
    let asking = agents.get(..flags.agents).unwrap_or(&agents);
    rest::with_agents(&world, asking, time, figures).await
}

fn seconds(begin: Instant) -> String {
    format!("{:.1} s", begin.elapsed().as_secs_f64())
}
