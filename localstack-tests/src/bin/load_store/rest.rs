//! What servers cost while nothing changes: alone, and with agents that ask again and again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::{ready, try_join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use spire_localstack_tests::load::{Agent, Nodes, Table};
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::world::{AT_A_TIME, World, told};

/// How often an agent asks what it may serve, as SPIRE's agents do.
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// How long the servers have to settle before anything is counted.
const SETTLE: Duration = Duration::from_secs(30);

/// Leaves the servers alone for as long as `time`.
pub(crate) async fn alone(world: &World, time: Duration, figures: &mut Table) -> Result<()> {
    sleep(SETTLE).await;
    count(world, time, "nothing to do", figures).await
}

/// Lets `agents` ask the second server over a connection each for as long as `time`.
pub(crate) async fn with_agents(
    world: &World,
    agents: &[Agent],
    time: Duration,
    figures: &mut Table,
) -> Result<()> {
    let nodes = Nodes::of(world.second());
    let channels: Vec<Channel> = agents.iter().map(|agent| nodes.connect(agent)).collect();
    // A few at a time: a server turns away a crowd that comes from one address.
    let connected =
        stream::iter(channels.clone()).map(|channel| async move { told(&channel).await });
    connected.buffer_unordered(AT_A_TIME).try_for_each(|_| ready(Ok(()))).await?;

    let (stop, answers) = (CancellationToken::new(), AtomicU64::new(0));
    let first = Instant::now();
    let asking = channels.into_iter().enumerate().map(|(number, channel)| {
        let (stop, answers) = (stop.clone(), &answers);
        let begin = first + ASKED_EVERY.mul_f64(number as f64 / agents.len() as f64);
        async move {
            let mut turns = interval_at(begin, ASKED_EVERY);
            while stop.run_until_cancelled(turns.tick()).await.is_some() {
                told(&channel).await?;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }
    });
    let what = format!("{} agents that ask every 5 s", agents.len());
    let counting = async {
        sleep(SETTLE).await;
        let before = answers.load(Ordering::Relaxed);
        count(world, time, &what, figures).await?;
        stop.cancel();
        let told = answers.load(Ordering::Relaxed) - before;
        let expected = agents.len() as u64 * time.as_secs() / ASKED_EVERY.as_secs();
        ensure!(told >= expected * 9 / 10, "{told} answers where {expected} were asked for");
        Ok(())
    };
    tokio::try_join!(try_join_all(asking), counting)?;
    Ok(())
}

async fn count(world: &World, time: Duration, what: &str, figures: &mut Table) -> Result<()> {
    let (cpu, statements) = (world.second().process.cpu()?, world.statements().await?);
    sleep(time).await;
    let cpu = world.second().process.cpu()? - cpu;
    if let (Some(before), Some(after)) = (statements, world.statements().await?) {
        let minute = (after - before) as f64 * 60.0 / time.as_secs_f64() / world.servers() as f64;
        figures.add(&format!("statements a minute and server, {what}"), format!("{minute:.0}"));
    }
    let share = cpu.as_secs_f64() / time.as_secs_f64() * 100.0;
    figures.add(&format!("share of a core, {what}"), format!("{share:.1} %"));
    figures.add_memory(&format!("resident, {what}"), world.second().process.resident()?);
    Ok(())
}
