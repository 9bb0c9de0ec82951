//! What goes wrong, one thing after the other.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use spire_test_databases::{Proxy, Server as DatabaseServer};
use tokio::time::sleep;

use super::{Counts, Plan, SERVERS, count};
use crate::Server;

/// How long a server stays away, and how long all is well between two troubles.
const AWAY: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_secs(2);

/// How long everything takes, in each direction, on a slow connection.
const DELAY: Duration = Duration::from_millis(100);

/// What there is to be made trouble with.
pub(super) struct Trouble<'t> {
    pub(super) plan: &'t Plan,
    pub(super) servers: &'t mut [Server],
    pub(super) database: &'t DatabaseServer,
    /// What lies between each server and the database.
    pub(super) proxies: &'t [Proxy],
}

impl Trouble<'_> {
    /// Makes trouble for as long as the plan says; at the end all is well again.
    pub(super) async fn make(&mut self, counts: &Counts) -> Result<()> {
        let begin = Instant::now();
        for round in 0.. {
            if begin.elapsed() >= self.plan.duration {
                break;
            }
            sleep(REST).await;
            // None has ended by itself.
            self.servers.iter_mut().try_for_each(|server| server.process().check())?;
            let number = round / 3 % SERVERS;
            match round % 8 {
                1 => self.end_database(DatabaseServer::stop, counts).await?,
                2 => {
                    self.proxies.iter().for_each(Proxy::cut);
                    count(&counts.connections_cut);
                }
                4 => self.end_database(DatabaseServer::kill, counts).await?,
                5 => self.slow_down(counts).await,
                7 => self.hold_up(number, counts).await,
                _ => self.kill_server(number, counts).await?,
            }
        }
        Ok(())
    }

    async fn kill_server(&mut self, number: usize, counts: &Counts) -> Result<()> {
        counts.runs[number].store(false, Ordering::Relaxed);
        self.servers[number].process().kill()?;
        count(&counts.servers_killed);
        sleep(AWAY).await;
        self.servers[number].start_again().await?;
        counts.runs[number].store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn end_database(
        &self,
        end: fn(&DatabaseServer) -> Result<()>,
        counts: &Counts,
    ) -> Result<()> {
        counts.database_runs.store(false, Ordering::Relaxed);
        end(self.database)?;
        count(&counts.databases_ended);
        sleep(self.plan.outage).await;
        self.database.start_again().await?;
        counts.database_runs.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn slow_down(&self, counts: &Counts) {
        self.proxies.iter().for_each(|proxy| proxy.delay(DELAY));
        count(&counts.connections_slow);
        sleep(self.plan.outage).await;
        self.proxies.iter().for_each(|proxy| proxy.delay(Duration::ZERO));
    }

    /// The server learns nothing of it, and may hold what the others wait for.
    async fn hold_up(&self, number: usize, counts: &Counts) {
        self.proxies[number].hold(true);
        count(&counts.connections_dead);
        sleep(self.plan.outage).await;
        self.proxies[number].hold(false);
    }
}
