//! Keeps the registry up to the store: everything once, then what the log of changes names.
//!
//! One task per server reads the log. It is poked by commits of this server and looks by itself for
//! those of others. While the store cannot be read, the last snapshot stays.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use super::{Draft, Registry};
use crate::store::{Bookmark, Change, Changes, Store, StoreError};

/// Changes read at once; a snapshot is published after each such batch.
const BATCH: u32 = 1000;

/// First pause after the store could not be read; it doubles up to the reload interval.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Registry {
    /// Reads everything from `store`, and keeps following it in one of `tasks`. Changes of other
    /// servers are looked for every `reload_interval`.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt` while everything is read; later errors are logged and survived.
    pub async fn follow(
        store: Store,
        trust_domain: TrustDomain,
        clock: Clock,
        reload_interval: Duration,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StoreError> {
        let (mut draft, bookmark) = read(&store, &trust_domain).await?;
        let registry = Arc::new(Self::showing(draft.snapshot()));
        let follower = Follower {
            store,
            trust_domain,
            clock,
            reload_interval,
            draft,
            bookmark,
            registry: registry.clone(),
        };
        tasks.spawn(follower.run(tasks.stop_token()));
        Ok(registry)
    }
}

/// Everything in the store. Where something changes meanwhile, the log names it after the bookmark
/// that was its end before.
async fn read(store: &Store, trust_domain: &TrustDomain) -> Result<(Draft, Bookmark), StoreError> {
    let mut draft = Draft::new(trust_domain.clone());
    let bookmark = store.bookmark().await?;
    let revision = bookmark.revision;
    let entries = store.every_entry(revision);
    pin_mut!(entries);
    while let Some(batch) = entries.next().await {
        batch?.iter().for_each(|entry| draft.put_entry(entry));
    }
    let nodes = store.every_node(revision);
    pin_mut!(nodes);
    while let Some(batch) = nodes.next().await {
        batch?.iter().for_each(|node| draft.put_node(node));
    }
    draft.set_revision(revision);
    Ok((draft, bookmark))
}

struct Follower {
    store: Store,
    trust_domain: TrustDomain,
    clock: Clock,
    reload_interval: Duration,
    draft: Draft,
    /// Up to where the draft has what the log names.
    bookmark: Bookmark,
    registry: Arc<Registry>,
}

impl Follower {
    async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.store.changed();
        let mut pause = FIRST_PAUSE;
        loop {
            let caught_up = tokio::select! {
                () = stop.cancelled() => return,
                caught_up = self.catch_up() => caught_up,
            };
            let wait = match caught_up {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.until_next_look()
                }
                Err(error) => {
                    let wait = pause.min(self.reload_interval);
                    pause = wait * 2;
                    tracing::error!(
                        subsystem_name = "registry",
                        %error,
                        retry_interval = ?wait,
                        "Failed to read changes of entries and agents; serving the last known ones"
                    );
                    changed.mark_unchanged();
                    wait
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                // The store holds the sender, and this task the store: it does not close.
                _ = changed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Publishes all that the log has after the present revision, and what time has ended.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            match self.store.changes_since(self.bookmark, BATCH).await? {
                Changes::Since { changes, .. } if changes.is_empty() => break,
                Changes::Since { changes, last } => {
                    self.apply(&changes, last).await?;
                    if changes.len() < BATCH as usize {
                        break; // what was committed meanwhile has poked
                    }
                }
                Changes::Pruned => {
                    tracing::info!(
                        subsystem_name = "registry",
                        "Changes were missed; reading all entries and agents"
                    );
                    (self.draft, self.bookmark) = read(&self.store, &self.trust_domain).await?;
                    self.publish();
                }
            }
        }
        if self.draft.expire(self.clock.now()) > 0 {
            self.publish();
        }
        Ok(())
    }

    /// Brings in what `changes` name, as it is in the store at present: that may be newer than
    /// `last`, never older.
    async fn apply(&mut self, changes: &[Change], last: Bookmark) -> Result<(), StoreError> {
        let (mut entry_ids, mut agent_ids) = (HashSet::new(), HashSet::new());
        for change in changes {
            match change {
                Change::Entry(id) => drop(entry_ids.insert(id.clone())),
                Change::Node(id) => drop(agent_ids.insert(id.clone())),
                Change::Bundle(_) => {}
            }
        }
        let wanted: Vec<_> = entry_ids.iter().cloned().collect();
        let entries = self.store.entries(&wanted).await?;
        let wanted: Vec<_> = agent_ids.iter().cloned().collect();
        let nodes = self.store.nodes(&wanted).await?;

        for entry in &entries {
            self.draft.put_entry(entry);
            entry_ids.remove(&entry.id);
        }
        for node in &nodes {
            self.draft.put_node(node);
            agent_ids.remove(&node.agent_id);
        }
        // What is left was named and is not there.
        entry_ids.iter().for_each(|id| self.draft.remove_entry(id));
        agent_ids.iter().for_each(|id| self.draft.remove_node(id));
        self.draft.expire(self.clock.now());
        self.draft.set_revision(last.revision);
        self.bookmark = last;
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        self.registry.publish(self.draft.snapshot());
    }

    fn until_next_look(&self) -> Duration {
        let Some(expiry) = self.draft.next_expiry() else { return self.reload_interval };
        let left = Duration::try_from(expiry.duration_since(self.clock.now())).unwrap_or_default();
        left.min(self.reload_interval)
    }
}
