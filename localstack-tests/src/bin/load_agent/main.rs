//! What an agent costs: a real `spire-agent` below a real `spire-server`, and workloads that ask it
//! over its socket.
//!
//! ```text
//! cargo build --release --bin spire-server --bin spire-agent --bin load_agent
//! target/release/load_agent
//! ```
//!
//! The workloads are attested by `unix`. All of them are this process, each with a connection of
//! its own.

mod node;

use anyhow::Result;
use clap::Parser;
use spire_core::wire::workload;
use spire_localstack_tests::load::{Process, Server, Table, Times, drive, unix_channel};

use node::{Node, fetch};

/// Puts load on an agent in a temporary folder and prints what it cost.
#[derive(Parser)]
struct Flags {
    /// Starts of each kind; each first start is that of another node.
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Entries of an agent that has many.
    #[arg(long, default_value_t = 1_000)]
    entries: usize,
    /// Streams that stay open.
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// X.509-SVIDs fetched, each by a call of its own.
    #[arg(long, default_value_t = 50_000)]
    fetches: usize,
    /// Fetches at a time, each over another connection.
    #[arg(long, default_value_t = 16)]
    parallel: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let mut figures = Table::of_figures();
    let server = Server::start().await?;

    start(&server, 1, &flags, &mut figures).await?;
    let mut busy = start(&server, flags.entries, &flags, &mut figures).await?;
    let mut streams = Vec::with_capacity(flags.streams);
    for _ in 0..flags.streams {
        streams.push(busy.stream().await?);
    }
    let resident = busy.resident_with(flags.entries).await?;
    let what = format!("resident, {} SVIDs, {} streams", flags.entries, flags.streams);
    figures.add_memory(&what, resident);
    drop(streams);
    busy.stop().await?;

    let mut node = Node::new(&server, 1, "").await?;
    node.start().await?;
    let mut costs = Table::of_calls();
    fetch_all(&node, &flags, &mut costs).await?;
    node.stop().await?;
    start_alone(server, &flags, &mut figures).await?;
    println!("{costs}\n{figures}");
    Ok(())
}

/// Starts agents with so many entries, by token and again. The last one runs on.
async fn start(
    server: &Server,
    entries: usize,
    flags: &Flags,
    figures: &mut Table,
) -> Result<Node> {
    eprintln!("{} starts with {entries} entries", flags.starts);
    let mut joins = Vec::new();
    let mut last = None;
    for _ in 0..flags.starts {
        let mut node = Node::new(server, entries, "").await?;
        joins.push(node.start().await?);
        node.stop().await?;
        last = Some(node);
    }
    let mut node = last.ok_or_else(|| anyhow::anyhow!("--starts must not be 0"))?;
    let mut restarts = Vec::new();
    for number in 0..flags.starts {
        restarts.push(node.start().await?);
        if number + 1 < flags.starts {
            node.stop().await?;
        }
    }
    let what = format!("{entries} entries: token to first SVID");
    figures.add_times(&what, &Times::new(joins));
    let what = format!("{entries} entries: restart to first SVID");
    figures.add_times(&what, &Times::new(restarts));
    let what = format!("resident, {entries} SVIDs");
    figures.add_memory(&what, node.resident_with(entries).await?);
    Ok(node)
}

/// Starts an agent that keeps its cache, after its server has stopped.
async fn start_alone(server: Server, flags: &Flags, figures: &mut Table) -> Result<()> {
    eprintln!("{} starts without a server", flags.starts);
    let mut node = Node::new(&server, 1, "persist_cache = true").await?;
    node.start().await?;
    node.stop().await?;
    server.process.stop().await?;
    let mut restarts = Vec::new();
    for _ in 0..flags.starts {
        restarts.push(node.start().await?);
        node.stop().await?;
    }
    figures.add_times("persist_cache, no server: restart to first SVID", &Times::new(restarts));
    Ok(())
}

/// Fetches X.509-SVIDs, some at a time.
async fn fetch_all(node: &Node, flags: &Flags, costs: &mut Table) -> Result<()> {
    let socket = node.socket();
    let clients: Vec<_> =
        (0..flags.parallel).map(|_| workload::client(unix_channel(socket.clone()))).collect();
    let call = async |number: usize| {
        let mut client = clients[number % clients.len()].clone();
        fetch(&mut client).await.map(drop)
    };
    drive(flags.parallel * 10, flags.parallel, call).await?;
    let process = node.process.as_ref();
    let cpu = || process.map_or(Ok(Default::default()), Process::cpu);
    eprintln!("{} fetches", flags.fetches);
    let before = cpu()?;
    let times = drive(flags.fetches, flags.parallel, call).await?;
    costs.add_calls("X.509-SVID fetched, attested", &times, 1, cpu()? - before);
    Ok(())
}
