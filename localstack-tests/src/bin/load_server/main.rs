//! What a server costs under load: a real `spire-server` with SQLite, real mutual TLS, and agents
//! that call it with the agent's own client.
//!
//! ```text
//! cargo build --release --bin spire-server --bin load_server
//! target/release/load_server
//! ```
//!
//! Rate limits are off. Making join tokens, keys and certificate requests is not counted.

mod calls;
mod world;

use anyhow::Result;
use clap::Parser;
use spire_localstack_tests::load::{Process, Table, Times, drive};

use calls::{BATCH, Calls};
use world::World;

/// Puts load on a server in a temporary folder and prints what it cost.
#[derive(Parser)]
struct Flags {
    /// Agents that are counted as they attest, to a server of their own.
    #[arg(long, default_value_t = 2_000)]
    attestations: usize,
    /// Agents of the other measurements.
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// Entries; each agent in turn gets 100, until they are spent.
    #[arg(long, default_value_t = 10_000)]
    entries: usize,
    /// Calls of each kind.
    #[arg(long, default_value_t = 20_000)]
    calls: usize,
    /// Calls at a time, each of another agent.
    #[arg(long, default_value_t = 16)]
    parallel: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let mut costs = Table::of_calls();
    let mut figures = Table::of_figures();
    attest(&flags, &mut costs).await?;

    let world = World::start().await?;
    figures.add_memory("resident, empty", world.resident_at_rest().await?);
    let mut agents = Vec::with_capacity(flags.agents);
    for _ in 0..flags.agents {
        agents.push(world.nodes.attest(&world.candidate().await?).await?);
    }
    let calls = Calls::new(world.server.operator.clone(), agents).await?;
    call(&flags, &world, &calls, &mut costs).await?;

    let mut delays = Vec::new();
    for number in 0..100 {
        delays.push(calls.seen_after(flags.entries + number).await?);
    }
    figures.add_times("entry created, until a sync shows it", &Times::new(delays));
    let what = format!("resident, {} agents and {} entries", flags.agents, flags.entries);
    figures.add_memory(&what, world.resident_at_rest().await?);
    world.server.process.stop().await?;
    println!("{costs}\n{figures}");
    Ok(())
}

/// Agents attest, each over a new connection.
async fn attest(flags: &Flags, costs: &mut Table) -> Result<()> {
    let world = World::start().await?;
    let mut candidates = Vec::with_capacity(flags.attestations);
    for _ in 0..flags.attestations {
        candidates.push(world.candidate().await?);
    }
    let mut meter = Meter { process: &world.server.process, costs, parallel: flags.parallel };
    let what = "attestation by join token, new connection";
    let attest = async |number: usize| world.nodes.attest(&candidates[number]).await.map(drop);
    meter.measure(what, flags.attestations, attest).await?;
    world.server.process.stop().await
}

/// Entries are made; agents ask for them and have SVIDs signed, over open connections.
async fn call(flags: &Flags, world: &World, calls: &Calls, costs: &mut Table) -> Result<()> {
    let count = flags.calls;
    let holders = (flags.entries / BATCH).min(flags.agents);
    let mut meter = Meter { process: &world.server.process, costs, parallel: 1 };
    let create = async |_| calls.create().await;
    meter.measure_batches("entry created, 100 in a call", holders, BATCH, create).await?;

    meter.parallel = flags.parallel;
    // Every agent's connection is made before anything is counted on it.
    drive(flags.agents, flags.parallel, async |number| calls.sync(number).await).await?;
    let sync = async |number: usize| calls.sync(number % holders).await;
    meter.measure("sync of 100 unchanged entries", count, sync).await?;
    let sign = async |number| calls.sign_x509(number).await;
    meter.measure("X.509-SVID, one in a call", count, sign).await?;
    let sign = async |number| calls.sign_jwt(number).await;
    meter.measure("JWT-SVID", count, sign).await
}

/// Drives calls and takes down what they cost the server.
struct Meter<'m> {
    process: &'m Process,
    costs: &'m mut Table,
    parallel: usize,
}

impl Meter<'_> {
    async fn measure(
        &mut self,
        what: &str,
        count: usize,
        call: impl AsyncFn(usize) -> Result<()>,
    ) -> Result<()> {
        self.measure_batches(what, count, 1, call).await
    }

    /// The same for calls that do `each` things apiece.
    async fn measure_batches(
        &mut self,
        what: &str,
        count: usize,
        each: usize,
        call: impl AsyncFn(usize) -> Result<()>,
    ) -> Result<()> {
        eprintln!("{what}: {count} calls");
        let before = self.process.cpu()?;
        let times = drive(count, self.parallel, call).await?;
        self.costs.add_calls(what, &times, each, self.process.cpu()? - before);
        Ok(())
    }
}
