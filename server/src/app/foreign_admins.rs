//! Administrators of other trust domains, whom `admin_ids` names: their SVIDs are checked against
//! the bundles of their domains as the store has them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use spire_core::bundle::Bundle;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::tasks::Tasks;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::store::{Revision, Store, StoreError};

/// How long changes of the store are gathered before bundles are read again.
const COLLECT: Duration = Duration::from_millis(100);

/// The pause after the store could not be read.
const RETRY: Duration = Duration::from_secs(5);

type Bundles = HashMap<TrustDomain, Arc<Bundle>>;

/// Who they are, and the bundles of their trust domains.
pub(super) struct ForeignAdmins {
    ids: HashSet<SpiffeId>,
    bundles: watch::Receiver<Bundles>,
}

impl ForeignAdmins {
    /// Those of `admin_ids` that are no members of `own`. One of `tasks` keeps their bundles up to
    /// the store where there are any.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt` at first; later errors are logged and survived.
    pub(super) async fn follow(
        admin_ids: &[SpiffeId],
        own: &TrustDomain,
        store: &Store,
        tasks: &Tasks,
    ) -> Result<Self, StoreError> {
        let foreign = admin_ids.iter().filter(|id| !id.is_member_of(own));
        let ids: HashSet<_> = foreign.cloned().collect();
        let domains: BTreeSet<_> = ids.iter().map(SpiffeId::trust_domain).collect();
        let changed = store.changed();
        let present = read(store, &domains).await?;
        for domain in domains.iter().filter(|domain| !present.contains_key(domain)) {
            tracing::warn!(
                trust_domain = %domain,
                "Admins of another trust domain cannot connect until its bundle is set"
            );
        }
        let (told, bundles) = watch::channel(present);
        if !domains.is_empty() {
            let keeper = Keeper { store: store.clone(), domains, changed, told };
            let stop = tasks.stop_token();
            tasks.spawn(async move {
                stop.run_until_cancelled(keeper.keep()).await;
            });
        }
        Ok(Self { ids, bundles })
    }

    /// What checks the SVID of `id`; `None` for everyone but these administrators, and while the
    /// bundle of their trust domain is unknown.
    pub(super) fn bundle_of(&self, id: &SpiffeId) -> Option<Arc<Bundle>> {
        self.ids.contains(id).then(|| self.bundles.borrow().get(&id.trust_domain()).cloned())?
    }
}

async fn read(store: &Store, domains: &BTreeSet<TrustDomain>) -> Result<Bundles, StoreError> {
    let mut bundles = Bundles::new();
    for domain in domains {
        if let Some(bundle) = store.bundle(domain).await? {
            bundles.insert(domain.clone(), Arc::new(bundle));
        }
    }
    Ok(bundles)
}

struct Keeper {
    store: Store,
    domains: BTreeSet<TrustDomain>,
    changed: watch::Receiver<Revision>,
    told: watch::Sender<Bundles>,
}

impl Keeper {
    async fn keep(mut self) {
        loop {
            // The store holds the sender, and this task the store: it does not close.
            let _ = self.changed.changed().await;
            sleep(COLLECT).await;
            self.changed.mark_unchanged();
            match read(&self.store, &self.domains).await {
                Ok(bundles) => drop(self.told.send_replace(bundles)),
                Err(error) => {
                    tracing::error!(
                        subsystem_name = "endpoints",
                        %error,
                        "Failed to read the bundles of foreign admins"
                    );
                    self.changed.mark_changed();
                    sleep(RETRY).await;
                }
            }
        }
    }
}
