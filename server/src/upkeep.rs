//! Background jobs that keep the store small, where what has expired is deleted, and the server.
//!
//! Every server of a trust domain runs them; each deletion is conditional, so that two of them at
//! once do no harm. The authority's own upkeep (rotation, bundle, journal) is in `authority/`.

use std::future::Future;
use std::time::Duration;

use spire_core::clock::Clock;
use spire_core::tasks::Tasks;

use crate::store::{Store, StoreError};

/// How often expired entries and join tokens are looked for.
const ENTRIES: Duration = Duration::from_mins(5);

/// How often agents whose SVID has expired are looked for, and by how much servers spread it.
const AGENTS: Duration = Duration::from_hours(1);
const AGENTS_JITTER: Duration = Duration::from_mins(15);

/// How often memory is given back.
const MEMORY: Duration = Duration::from_secs(5);

/// A piece of memory that no thread keeps for later, in bytes.
const LARGE: usize = 8 << 20;

/// Entries that one transaction deletes.
const ENTRY_BATCH: u32 = 500;

/// Which agents are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentPruning {
    /// How long their SVID has been expired.
    pub expired_for: Duration,
    /// Agents that one transaction deletes.
    pub batch: u32,
    /// Whether it takes those that cannot attest again, which an operator must then let in anew.
    pub include_non_reattestable: bool,
}

/// What is to be kept up.
pub struct Upkeep {
    /// What is kept small.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// `None` keeps expired agents.
    pub agents: Option<AgentPruning>,
    /// How long the log of changes reaches back.
    pub changes_kept_for: Duration,
}

impl Upkeep {
    /// Starts the jobs.
    pub fn start(self, tasks: &Tasks) {
        let Self { store, clock, agents, changes_kept_for } = self;
        let of = (store.clone(), clock.clone());
        repeat(tasks, "registration entries and join tokens", spread(ENTRIES, Duration::ZERO), {
            move || expired_entries(of.0.clone(), of.1.clone())
        });
        let of = (store.clone(), clock.clone());
        repeat(tasks, "change log", spread(changes_kept_for / 2, Duration::ZERO), {
            move || old_changes(of.0.clone(), of.1.clone(), changes_kept_for)
        });
        let stop = tasks.stop_token();
        tasks.spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(MEMORY)).await.is_some() {
                give_back();
            }
        });
        if let Some(agents) = agents {
            repeat(tasks, "attested nodes", spread(AGENTS, AGENTS_JITTER), {
                move || expired_agents(store.clone(), clock.clone(), agents)
            });
        }
    }
}

/// Runs `job` after each `pause` until the tasks stop. A job that fails is tried at its next turn.
fn repeat<J, F>(
    tasks: &Tasks,
    what: &'static str,
    mut pause: impl FnMut() -> Duration + Send + 'static,
    job: J,
) where
    J: Fn() -> F + Send + 'static,
    F: Future<Output = Result<(), StoreError>> + Send,
{
    let stop = tasks.stop_token();
    tasks.spawn(async move {
        while stop.run_until_cancelled(tokio::time::sleep(pause())).await.is_some() {
            match stop.run_until_cancelled(job()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(
                    subsystem_name = "upkeep",
                    %error,
                    "Failed to prune {what}; the next turn tries again"
                ),
            }
        }
    });
}

/// `period`, longer or shorter by `jitter` at most.
fn spread(period: Duration, jitter: Duration) -> impl FnMut() -> Duration + Send + 'static {
    move || {
        let mut random = [0; 4];
        if jitter.is_zero() || aws_lc_rs::rand::fill(&mut random).is_err() {
            return period;
        }
        let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
        period - jitter + jitter.mul_f64(2.0 * share)
    }
}

/// Has the allocator give back to the system what has been free for a second. It looks for that when
/// somebody is through with a large piece, which after a storm might not be for hours.
fn give_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

async fn expired_entries(store: Store, clock: Clock) -> Result<(), StoreError> {
    let now = clock.now();
    loop {
        let gone = store.prune_expired_entries(now, ENTRY_BATCH).await?;
        for entry in &gone {
            tracing::info!(
                subsystem_name = "upkeep",
                entry_id = %entry.id,
                spiffe_id = %entry.spiffe_id,
                parent_id = %entry.parent_id,
                "Pruned an expired registration"
            );
        }
        if gone.len() < ENTRY_BATCH as usize {
            break;
        }
    }
    store.prune_join_tokens(now).await?;
    Ok(())
}

async fn old_changes(store: Store, clock: Clock, kept_for: Duration) -> Result<(), StoreError> {
    store.prune_changes(clock.now() - kept_for).await?;
    Ok(())
}

async fn expired_agents(
    store: Store,
    clock: Clock,
    pruning: AgentPruning,
) -> Result<(), StoreError> {
    let before = clock.now() - pruning.expired_for;
    loop {
        let gone =
            store.prune_expired_nodes(before, pruning.include_non_reattestable, pruning.batch);
        let gone = gone.await?;
        for agent_id in &gone {
            tracing::info!(
                subsystem_name = "upkeep",
                agent_id = %agent_id,
                "Pruned an expired agent"
            );
        }
        if gone.len() < pruning.batch as usize {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_that_fails_is_tried_again_and_a_stop_ends_it() {
        let tasks = Tasks::new();
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        repeat(&tasks, "nothing", spread(Duration::from_mins(5), Duration::ZERO), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Err(StoreError::Conflict) }
        });
        tokio::time::sleep(Duration::from_mins(16)).await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        assert!(tasks.drain(Duration::from_secs(1)).await);
    }

    #[test]
    fn servers_spread_their_turns() {
        let mut pause = spread(AGENTS, AGENTS_JITTER);
        let turns: Vec<_> = (0..100).map(|_| pause()).collect();
        assert!(turns.iter().all(|turn| turn.abs_diff(AGENTS) <= AGENTS_JITTER));
        assert!(turns.iter().any(|turn| turn != &turns[0]));
    }
}
