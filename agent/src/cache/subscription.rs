//! One caller that follows its identities.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;

use spire_core::selector::Selector;
use tokio::sync::watch;

use super::Cache;
use super::update::Update;

/// A caller's view of the cache. While it lives, the SVIDs that it shows are kept and renewed.
#[derive(Debug)]
pub struct Subscription {
    cache: Arc<Cache>,
    found: Arc<BTreeSet<Selector>>,
    updates: watch::Receiver<Option<Arc<Update>>>,
    began: bool,
}

impl Subscription {
    pub(super) fn new(
        cache: Arc<Cache>,
        found: Arc<BTreeSet<Selector>>,
        updates: watch::Receiver<Option<Arc<Update>>>,
    ) -> Self {
        Self { cache, found, updates, began: false }
    }

    /// What was found in the caller.
    pub fn found(&self) -> &BTreeSet<Selector> {
        &self.found
    }

    /// The complete present state at the first call; at later calls it waits for the next one that
    /// differs. States that nobody looked at in time are skipped. It never ends.
    ///
    /// It waits while an SVID of the caller is still being signed; dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Arc<Update> {
        loop {
            if self.began && self.updates.changed().await.is_err() {
                pending::<()>().await;
            }
            self.began = true;
            if let Some(update) = self.updates.borrow_and_update().clone() {
                return update;
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cache.unsubscribe(&self.found);
    }
}
