//! The cache on disk, for operators who set `persist_cache`: what workloads may be handed after a
//! restart although the server is away.
//!
//! The file is rewritten as a whole a while after each change, and at the end. `storage` holds it,
//! and removes it together with the agent's SVID.

mod document;

use std::sync::Arc;
use std::time::Duration;

use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use tokio_util::sync::CancellationToken;

pub use document::{Contents, DocumentError, Owner};

use crate::cache::{Authorized, Cache, JwtSvids};
use crate::storage::{Storage, StorageError};

/// How long after a change it is written, so that many changes cost one write.
const GATHERING: Duration = Duration::from_secs(5);

/// Keeps a cache in the data folder.
pub struct CacheFile {
    /// The trust domain of the agent.
    pub trust_domain: TrustDomain,
    /// The data folder.
    pub storage: Arc<Storage>,
    /// Entries, X.509-SVIDs and bundles.
    pub cache: Arc<Cache>,
    /// JWT-SVIDs.
    pub jwt_svids: JwtSvids,
    /// The time.
    pub clock: Clock,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("nothing in it is valid any more")]
    Stale,
}

impl CacheFile {
    /// Fills the cache with what is in the file and still valid. Returns whether there is anything
    /// to serve. A file that is of no use is told of and left alone.
    pub fn recover(&self) -> bool {
        match self.read() {
            Ok(Some(contents)) => {
                tracing::info!(
                    entries = contents.entries.len(),
                    x509_svids = contents.x509_svids.len(),
                    jwt_svids = contents.jwt_svids.len(),
                    "Cache loaded from disk"
                );
                self.fill(contents);
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, "Ignoring the cache on disk");
                false
            }
        }
    }

    fn read(&self) -> Result<Option<Contents>, Unusable> {
        let Some(owner) = self.owner() else {
            self.storage.delete_cache()?;
            return Ok(None);
        };
        let Some(text) = self.storage.read_cache()? else { return Ok(None) };
        let contents = Contents::read(&text, &owner, self.clock.now())?;
        if contents.x509_svids.is_empty() {
            return Err(Unusable::Stale);
        }
        Ok(Some(contents))
    }

    fn fill(&self, contents: Contents) {
        let Contents { bundles, entries, x509_svids, jwt_svids } = contents;
        let (own, federated) = (bundles.own, bundles.federated);
        self.cache.authorize(Authorized { entries, own, federated, synced_at: None });
        self.cache.hold(x509_svids);
        for (audience, svid) in jwt_svids {
            self.jwt_svids.keep(audience, svid);
        }
    }

    /// Writes every change from now on until `stop`, and what is left to write then.
    pub fn keep(self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let (mut cache, mut tokens) = (self.cache.changed(), self.jwt_svids.changed());
        let file = Arc::new(self);
        async move {
            let mut unwritten = false;
            loop {
                let gathered = async {
                    tokio::select! {
                        _ = cache.changed() => {}
                        _ = tokens.changed() => {}
                    }
                    unwritten = true;
                    file.clock.sleep(GATHERING).await;
                };
                let stopped = stop.run_until_cancelled(gathered).await.is_none();
                unwritten |= cache.has_changed().is_ok_and(|changed| changed)
                    || tokens.has_changed().is_ok_and(|changed| changed);
                if std::mem::take(&mut unwritten) {
                    // What changes while it is written is written the next time.
                    cache.mark_unchanged();
                    tokens.mark_unchanged();
                    file.clone().write().await;
                }
                if stopped {
                    return;
                }
            }
        }
    }

    async fn write(self: Arc<Self>) {
        let writes = move || {
            let Some(owner) = self.owner() else { return Ok(()) };
            self.storage.store_cache(&Contents::write(&owner, &self.cache, &self.jwt_svids))
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(writes).await {
            tracing::error!(%error, "Failed to write the cache; the next change tries again");
        }
    }

    /// Whose cache this is; `None` where the agent has no identity.
    fn owner(&self) -> Option<Owner> {
        let agent_id = self.storage.agent_id()?;
        Some(Owner { trust_domain: self.trust_domain.clone(), agent_id })
    }
}
