//! Keeps the registry up to the store: everything once, then what the log of changes names.
//!
//! One task per server reads the log. It is poked by commits of this server and looks by itself for
//! those of others. While the store cannot be read, the last snapshot stays.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt, pin_mut};
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
    let bookmark = store.bookmark().await?;
    let draft = Draft::new(trust_domain.clone());
    let draft = fill(draft, store.every_entry(bookmark), Draft::put_entry).await?;
    let mut draft = fill(draft, store.every_node(bookmark), Draft::put_node).await?;
    draft.set_revision(bookmark.revision);
    Ok((draft, bookmark))
}

/// Puts all records of `batches` into `draft`. While one batch is put, on a thread for such work, the
/// next one is read: more than these two are never in memory.
async fn fill<T: Send + 'static>(
    mut draft: Draft,
    batches: impl Stream<Item = Result<Vec<T>, StoreError>>,
    put: fn(&mut Draft, &T),
) -> Result<Draft, StoreError> {
    pin_mut!(batches);
    let mut read = batches.try_next().await?;
    while let Some(batch) = read {
        let putting = tokio::task::spawn_blocking(move || {
            batch.iter().for_each(|record| put(&mut draft, record));
            draft
        });
        let (next, filled) = tokio::join!(batches.try_next(), putting);
        draft = filled.map_err(|error| match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => StoreError::Unavailable("the process is stopping".into()),
        })?;
        read = next?;
    }
    Ok(draft)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use futures::stream;

    use super::super::tests::{entry, node};
    use super::*;
    use crate::store::Settings;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn empty() -> Draft {
        Draft::new("example.org".parse().unwrap())
    }

    /// A record that is put when it has been told so.
    type Told = Receiver<()>;

    fn put(_: &mut Draft, told: &Told) {
        told.recv_timeout(PATIENCE).expect("nobody reads while a batch is put");
    }

    #[tokio::test]
    async fn the_next_batch_is_read_while_one_is_put_and_no_more() {
        // The number of a batch that is asked for tells the batch before that it may be put.
        let (tell, told): (Vec<Sender<()>>, Vec<Told>) = (0..4).map(|_| channel()).unzip();
        let batches = told.into_iter().enumerate().map(|(number, told)| {
            if number > 0 {
                tell[number - 1].send(()).expect("the batch before is still there");
            }
            if number > 1 {
                assert!(tell[number - 2].send(()).is_err(), "three batches are in memory");
            }
            if number == 3 {
                tell[3].send(()).expect("this batch is there");
            }
            Ok(vec![told])
        });
        fill(empty(), stream::iter(batches), put).await.unwrap();
    }

    #[tokio::test]
    async fn a_batch_that_cannot_be_read_ends_it() {
        let (tell, told) = channel();
        tell.send(()).unwrap();
        let batches = [Ok(vec![told]), Err(StoreError::Conflict), Ok(Vec::new())];
        let failed = fill(empty(), stream::iter(batches), put).await;
        assert_eq!(failed.err(), Some(StoreError::Conflict));
    }

    #[tokio::test]
    async fn all_batches_of_a_store_are_there_at_the_start() {
        const COUNT: usize = 2500;
        let store = Store::open(&Settings::new("sqlite3", ":memory:").unwrap()).await.unwrap();
        let agent = |number| format!("/spire/agent/{}", number % 3);
        let one =
            |number| entry(&format!("e{number}"), &agent(number), &format!("/{number}"), &[1]);
        store.create_entries((0..COUNT).map(one).collect()).await.unwrap();
        let (draft, bookmark) = read(&store, &"example.org".parse().unwrap()).await.unwrap();
        let snapshot = { draft }.snapshot();
        assert_eq!((snapshot.entry_count(), snapshot.node_count()), (COUNT, 0));
        assert_eq!(snapshot.revision(), bookmark.revision);
        for number in 0..COUNT {
            let agent_id = node(&agent(number), &[]).agent_id;
            let id = format!("e{number}").parse().unwrap();
            assert!(snapshot.authorized_entry(&agent_id, &id).is_some(), "{number}");
        }
        store.close().await;
    }
}
