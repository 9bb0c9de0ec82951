//! What goes wrong, one thing after the other.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use spire_test_databases::Server as DatabaseServer;
use tokio::time::sleep;

use super::{Counts, Plan, SERVERS, count};
use crate::Server;

/// How long a server stays away, and how long all is well between two troubles.
const AWAY: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_secs(3);

/// Makes trouble for as long as the plan says; at the end all is well again.
pub(super) async fn make(
    plan: &Plan,
    servers: &mut [Server],
    database: &DatabaseServer,
    counts: &Counts,
) -> Result<()> {
    let begin = Instant::now();
    for round in 0.. {
        if begin.elapsed() >= plan.duration {
            return Ok(());
        }
        sleep(REST).await;
        if round % 2 == 0 {
            let number = round / 2 % SERVERS;
            counts.runs[number].store(false, Ordering::Relaxed);
            servers[number].process().kill()?;
            count(&counts.servers_killed);
            sleep(AWAY).await;
            servers[number].start_again().await?;
            counts.runs[number].store(true, Ordering::Relaxed);
        } else {
            counts.database_runs.store(false, Ordering::Relaxed);
            if round % 4 == 1 {
                database.stop()?
            } else {
                database.kill()?
            }
            count(&counts.databases_ended);
            sleep(plan.outage).await;
            database.start_again().await?;
            counts.database_runs.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}
