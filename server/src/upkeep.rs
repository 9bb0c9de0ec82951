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
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use jiff::Timestamp;
    use spire_core::bundle::Bundle;
    use spire_core::entry::{Entry, Hint};
    use spire_core::selector::RequiredSelectors;

    use super::*;
    use crate::store::{
        Attestation, Bookmark, Changes, EntryFilter, KeyFingerprint, NodeFilter, Page, Redemption,
        Settings, TokenUse,
    };

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

    async fn memory() -> Store {
        Store::open(&Settings::new("sqlite3", ":memory:").unwrap()).await.unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The agents that are left when those have been pruned whose SVID ended an hour ago, two at a
    /// time: of `/1` to `/6`, every second of which may not attest again, all but the last have.
    async fn left_of_agents(include_non_reattestable: bool) -> Vec<String> {
        let store = memory().await;
        for number in 1..=6 {
            let agent_id = format!("spiffe://example.org/spire/agent/{number}").parse().unwrap();
            let attestation = Attestation {
                agent_id,
                attestation_type: "x509pop".to_owned(),
                serial: number.to_string(),
                expires_at: at(if number == 6 { 6401 } else { 6399 }),
                can_reattest: number % 2 == 1,
                selectors: BTreeSet::new(),
                key: KeyFingerprint([0; 32]),
                join_token: None,
            };
            store.record_attestation(attestation, at(0)).await.unwrap();
        }
        let pruning = AgentPruning {
            expired_for: Duration::from_hours(1),
            batch: 2,
            include_non_reattestable,
        };
        expired_agents(store.clone(), Clock::standing_at(at(10_000)), pruning).await.unwrap();
        let left = store.list_nodes(&NodeFilter::default(), Page::default()).await.unwrap();
        let last = |id: &str| id.rsplit('/').next().unwrap_or_default().to_owned();
        left.items.iter().map(|node| last(node.agent_id.as_str())).collect()
    }

    #[tokio::test]
    async fn expired_agents_go_in_batches_and_those_that_cannot_come_back_only_if_told() {
        assert_eq!(left_of_agents(false).await, ["2", "4", "6"]);
        assert_eq!(left_of_agents(true).await, ["6"]);
    }

    #[tokio::test]
    async fn expired_entries_and_tokens_go_in_batches() {
        let store = memory().await;
        let more_than_two_batches = ENTRY_BATCH * 2 + 1;
        let entry = |number: u32, expires_at| Entry {
            id: number.to_string().parse().unwrap(),
            spiffe_id: format!("spiffe://example.org/{number}").parse().unwrap(),
            parent_id: "spiffe://example.org/spire/agent/a".parse().unwrap(),
            selectors: RequiredSelectors::new(["a:1".parse().unwrap()]).unwrap(),
            x509_svid_ttl: 0,
            jwt_svid_ttl: 0,
            federates_with: BTreeSet::new(),
            dns_names: Vec::new(),
            admin: false,
            downstream: false,
            store_svid: false,
            expires_at: Some(expires_at),
            hint: Hint::default(),
            revision_number: 0,
            created_at: at(1),
            attributes: None,
        };
        let expired = (0..more_than_two_batches).map(|number| entry(number, at(99)));
        let kept = entry(more_than_two_batches, at(101));
        store.create_entries(expired.chain([kept.clone()]).collect()).await.unwrap();
        for (token, second) in [("old", 99), ("new", 101)] {
            store.create_join_token(token.to_owned(), at(second), None).await.unwrap();
        }
        expired_entries(store.clone(), Clock::standing_at(at(100))).await.unwrap();
        let left = store.list_entries(&EntryFilter::default(), Page::default()).await.unwrap();
        let left: Vec<_> = left.items.into_iter().map(|entry| entry.id).collect();
        assert_eq!(left, [kept.id]);
        let redeem = async |token: &str| {
            let offered = TokenUse { token: token.to_owned(), key: KeyFingerprint([1; 32]) };
            store.redeem_join_token(offered, at(1)).await.unwrap()
        };
        assert_eq!(redeem("old").await, Redemption::Unknown);
        assert_eq!(redeem("new").await, Redemption::Fresh);
    }

    #[tokio::test]
    async fn changes_go_that_are_older_than_they_are_kept() {
        let store = memory().await;
        store.create_bundle(Bundle::empty("example.org".parse().unwrap())).await.unwrap();
        let kept_for = Duration::from_hours(12);
        let follow = async || store.changes_since(Bookmark::default(), 9).await.unwrap();
        let (now, hour) = (Timestamp::now(), Duration::from_hours(1));
        for (clock, is_pruned) in [(now + 11 * hour, false), (now + 13 * hour, true)] {
            old_changes(store.clone(), Clock::standing_at(clock), kept_for).await.unwrap();
            assert_eq!(follow().await == Changes::Pruned, is_pruned, "at {clock}");
        }
    }

    #[test]
    fn servers_spread_their_turns() {
        let mut pause = spread(AGENTS, AGENTS_JITTER);
        let turns: Vec<_> = (0..100).map(|_| pause()).collect();
        assert!(turns.iter().all(|turn| turn.abs_diff(AGENTS) <= AGENTS_JITTER));
        assert!(turns.iter().any(|turn| turn != &turns[0]));
    }
}
