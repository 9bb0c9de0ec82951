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
use spire_localstack_tests::load::{Table, Times, drive};

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
        agents.push(world.candidate().await?.attest(&world).await?);
    }
    let calls = Calls::new(world.operator.clone(), agents).await?;
    call(&flags, &world, &calls, &mut costs).await?;

    let mut delays = Vec::new();
    for number in 0..100 {
        delays.push(calls.seen_after(flags.entries + number).await?);
    }
    figures.add_times("entry created, until a sync shows it", &Times::new(delays));
    let what = format!("resident, {} agents and {} entries", flags.agents, flags.entries);
    figures.add_memory(&what, world.resident_at_rest().await?);
    world.process.stop()?;
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
    let before = world.process.cpu()?;
    let attested = drive(flags.attestations, flags.parallel, async |number| {
        candidates[number].attest(&world).await.map(drop)
    });
    let times = attested.await?;
    let cpu = world.process.cpu()? - before;
    costs.add_calls("attestation by join token, new connection", &times, 1, cpu);
    world.process.stop()
}

/// Entries are made; agents ask for them and have SVIDs signed, over open connections.
async fn call(flags: &Flags, world: &World, calls: &Calls, costs: &mut Table) -> Result<()> {
    let Flags { calls: count, parallel, .. } = *flags;
    let holders = (flags.entries / BATCH).min(flags.agents);

    let before = world.process.cpu()?;
    let times = drive(holders, 1, async |_| calls.create().await).await?;
    let cpu = world.process.cpu()? - before;
    costs.add_calls("entry created, 100 in a call", &times, BATCH, cpu);

    // Every agent's connection is made before anything is counted on it.
    drive(flags.agents, parallel, async |number| calls.sync(number).await).await?;

    let before = world.process.cpu()?;
    let times = drive(count, parallel, async |number| calls.sync(number % holders).await).await?;
    let cpu = world.process.cpu()? - before;
    costs.add_calls("sync of 100 unchanged entries", &times, 1, cpu);

    let before = world.process.cpu()?;
    let times = drive(count, parallel, async |number| calls.sign_x509(number).await).await?;
    let cpu = world.process.cpu()? - before;
    costs.add_calls("X.509-SVID, one in a call", &times, 1, cpu);

    let before = world.process.cpu()?;
    let times = drive(count, parallel, async |number| calls.sign_jwt(number).await).await?;
    let cpu = world.process.cpu()? - before;
    costs.add_calls("JWT-SVID", &times, 1, cpu);
    Ok(())
}
