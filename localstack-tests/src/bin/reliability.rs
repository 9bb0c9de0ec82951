//! Three real servers on one real database, all of which are killed, stopped and started again, and
//! the connections between which are cut, slow or dead, while agents ask and operators write.
//!
//! ```text
//! cargo build --release --bin spire-server --bin spire-agent --bin reliability
//! target/release/reliability --seconds 600 --agents 200
//! ```
//!
//! It fails where something that was acknowledged is missing, where something is there that nobody
//! asked for, where a join token or an instance's document admitted two, where a server that runs
//! did not answer an agent, or where a server has ended by itself.

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use spire_localstack_tests::reliability::{Plan, run};
use spire_test_databases::Engine;

/// Makes trouble and prints what came of it.
#[derive(Parser)]
struct Flags {
    /// The database; both where none is named.
    #[arg(long)]
    database: Option<Kind>,
    /// How long there is trouble, in seconds for each database.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Agents.
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// How long the database is away, and connections to it slow or dead, each time, in seconds.
    #[arg(long, default_value_t = 20)]
    outage: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Postgres,
    Mariadb,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let engines = match flags.database {
        None => vec![Engine::Postgres, Engine::MariaDb],
        Some(Kind::Postgres) => vec![Engine::Postgres],
        Some(Kind::Mariadb) => vec![Engine::MariaDb],
    };
    for engine in engines {
        let plan = Plan {
            engine,
            agents: flags.agents,
            duration: Duration::from_secs(flags.seconds),
            outage: Duration::from_secs(flags.outage),
        };
        println!("{}", run(&plan).await?);
    }
    Ok(())
}
