//! Which entries an agent may serve, and whether it is still an agent, answered from memory.
//!
//! [`Snapshot`] is everything at one moment: immutable, shared, read without locks. [`Draft`] is
//! its only writer: it changes what a change names, shares the rest with the snapshots before, and
//! publishes the next one. The store stays the truth; nothing here is written back.

mod draft;
mod entry;
mod group;
mod index;
mod node;
mod numbers;
mod packing;
mod page;
mod refresh;
mod selectors;
mod snapshot;
#[cfg(test)]
mod tests;
mod vector;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::store::Revision;

pub use draft::Draft;
pub use entry::{EntryRef, IdBuffer};
pub use node::NodeRef;
pub use packing::Texts;
pub use snapshot::{Snapshot, Version};

/// The present snapshot, and word of each that replaces it.
#[derive(Debug)]
pub struct Registry {
    present: ArcSwap<Snapshot>,
    revision: watch::Sender<Revision>,
}

impl Registry {
    /// A registry that shows `snapshot` until another is published.
    pub fn showing(snapshot: Arc<Snapshot>) -> Self {
        let (revision, _) = watch::channel(snapshot.revision());
        Self { present: ArcSwap::new(snapshot), revision }
    }

    /// Everything as of the present revision. Take it once per call, so that the call sees one
    /// moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.present.load_full()
    }

    /// The revision of the present snapshot, as it changes.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Waits until `revision` of the store is visible, so that a writer reads its own write. It
    /// waits for ever where the store is not followed: callers set a time limit.
    pub async fn wait_for(&self, revision: Revision) -> Arc<Snapshot> {
        let mut revisions = self.revision.subscribe();
        // The sender is a field of `self`, so that the wait can only end by the revision's arrival.
        let _ = revisions.wait_for(|present| *present >= revision).await;
        self.snapshot()
    }

    /// Replaces the present snapshot.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        let revision = snapshot.revision();
        self.present.store(snapshot);
        self.revision.send_replace(revision);
    }
}
