//! What the server authorised against what is held → what changed.

mod entries;
mod taint;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::entry::Entry;
use spire_core::id::{SpiffeId, TrustDomain};
use tokio::sync::watch;

use crate::cache::{Authorized, Cache, Changes, JwtSvids};
use crate::client::{RpcError, Server};
pub use entries::EntrySource;

/// How many bundles are asked for at a time.
const PARALLEL_BUNDLES: usize = 10;

/// Brings the cache to what the server says.
pub struct Synchronizer {
    server: Arc<Server>,
    cache: Arc<Cache>,
    jwt_svids: JwtSvids,
    entries: EntrySource,
    bundle: watch::Sender<Arc<Bundle>>,
    /// Whether the last sync brought an older bundle than the one that is held.
    brought_older: AtomicBool,
    clock: Clock,
}

/// What a sync found out, apart from what went into the cache.
#[derive(Debug, Default)]
pub struct Synced {
    /// Authorities of this trust domain that are tainted since this sync.
    pub tainted: Option<Bundle>,
}

/// A sync that failed. The cache is as it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncError {
    /// The entries could not be had.
    #[error("failed to fetch authorized entries: {0}")]
    Entries(#[source] RpcError),
    /// This trust domain's bundle could not be had.
    #[error("failed to fetch bundle: {0}")]
    Bundle(#[source] RpcError),
}

impl SyncError {
    /// The call that failed.
    pub fn cause(&self) -> &RpcError {
        match self {
            Self::Entries(error) | Self::Bundle(error) => error,
        }
    }
}

impl Synchronizer {
    /// `bundle` is what the connection to the server trusts; it follows the server's answers.
    pub fn new(
        server: Arc<Server>,
        cache: Arc<Cache>,
        jwt_svids: JwtSvids,
        entries: EntrySource,
        bundle: watch::Sender<Arc<Bundle>>,
        clock: Clock,
    ) -> Self {
        let brought_older = AtomicBool::new(false);
        Self { server, cache, jwt_svids, entries, bundle, brought_older, clock }
    }

    /// This trust domain's bundle as the server last gave it.
    pub fn bundle(&self) -> Arc<Bundle> {
        self.bundle.borrow().clone()
    }

    /// Asks the server once, on behalf of `agent`.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn sync(&self, agent: &SpiffeId) -> Result<Synced, SyncError> {
        let held = self.cache.entries();
        let entries = self.entries.fetch(&self.server, agent, &held);
        let (entries, own) = tokio::join!(entries, self.server.bundle());
        let (entries, own) =
            (entries.map_err(SyncError::Entries)?, own.map_err(SyncError::Bundle)?);
        let federated = self.federated_bundles(&entries).await;

        let before = self.bundle.borrow().clone();
        let is_held = is_stale(&self.brought_older, &before, &own) || *before == own;
        let own = if is_held { before.clone() } else { Arc::new(own) };
        let synced_at = Some(self.clock.now());
        let authorized = Authorized { entries, own: own.clone(), federated, synced_at };
        log_changes(&self.cache.authorize(authorized));
        if Arc::ptr_eq(&before, &own) {
            return Ok(Synced::default());
        }
        tracing::debug!(sequence_number = own.sequence_number, "Bundle updated");
        self.bundle.send_replace(own.clone());
        let now = self.clock.now();
        taint::drop_jwt_svids(&self.jwt_svids, &before, &own);
        Ok(Synced { tainted: taint::replace_x509_svids(&self.cache, &before, &own, now) })
    }

    /// The bundles that the entries federate with. One that cannot be had is kept as it was.
    async fn federated_bundles(
        &self,
        entries: &[Arc<Entry>],
    ) -> BTreeMap<TrustDomain, Arc<Bundle>> {
        let wanted: BTreeSet<_> =
            entries.iter().flat_map(|entry| &entry.federates_with).cloned().collect();
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let held = self.cache.all_bundles().federated;
        let fetch = async |domain: TrustDomain| {
            let known = held.get(&domain);
            let bundle = match self.server.federated_bundle(&domain).await {
                Ok(Some(bundle)) => match known {
                    Some(known) if **known == bundle => Some(known.clone()),
                    _ => Some(Arc::new(bundle)),
                },
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        trust_domain = %domain,
                        subsystem_name = "manager",
                        "Failed to fetch federated bundle"
                    );
                    known.cloned()
                }
            };
            Some((domain, bundle?))
        };
        futures::stream::iter(wanted)
            .map(fetch)
            .buffer_unordered(PARALLEL_BUNDLES)
            .filter_map(std::future::ready)
            .collect()
            .await
    }
}

/// Whether `own` comes from a server that has not heard yet of the bundle that another one gave, which
/// is `held`. Where it still is older at the next sync, the servers have lost what is held.
fn is_stale(brought_older: &AtomicBool, held: &Bundle, own: &Bundle) -> bool {
    let is_older = own.sequence_number < held.sequence_number;
    let was_older = brought_older.swap(is_older, Ordering::Relaxed);
    is_older && !was_older
}

fn log_changes(changes: &Changes) {
    for entry in &changes.created {
        tracing::debug!(entry = %entry.id, spiffe_id = %entry.spiffe_id, "Entry created");
    }
    for entry in &changes.updated {
        tracing::debug!(entry = %entry.id, spiffe_id = %entry.spiffe_id, "Entry updated");
    }
    for entry in &changes.removed {
        tracing::debug!(entry = %entry.id, spiffe_id = %entry.spiffe_id, "Entry removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_bundle_waits_for_one_interval() {
        let numbered = |sequence_number| Bundle {
            sequence_number,
            ..Bundle::empty("example.org".parse().unwrap())
        };
        let brought_older = AtomicBool::new(false);
        let is_stale = |own| is_stale(&brought_older, &numbered(5), &numbered(own));
        // A server that is behind, and has caught up at the next sync.
        assert_eq!([5, 4, 5, 6].map(is_stale), [false, true, false, false]);
        // A database that fell back.
        assert_eq!([4, 4].map(is_stale), [true, false]);
    }
}
