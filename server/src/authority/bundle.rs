//! The trust domain's own bundle: stored for all servers, told to everyone in this one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::follow;
use crate::store::{Store, StoreError};

/// How often the stored bundle is read although nobody said that it changed.
const REFRESH: Duration = Duration::from_secs(5);
/// How long changes that follow each other are collected before the bundle is read.
const COLLECT: Duration = Duration::from_millis(100);
/// How often authorities that ended are looked for.
const PRUNE: Duration = Duration::from_secs(6 * 3600);
/// How long an authority that ended stays.
const GRACE: SignedDuration = SignedDuration::from_hours(24);
/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The stored bundle of one trust domain and those who watch it. It grows by additions alone, so
/// that several servers can share it.
pub(super) struct TrustBundle {
    trust_domain: TrustDomain,
    store: Store,
    told: watch::Sender<Arc<Bundle>>,
    /// Whether the database has lost something of what was told, and nobody has seen to it.
    fell_back: watch::Sender<bool>,
    /// Ids of all that was ever read as tainted. Where one is missing later it was revoked, by whomever.
    tainted: Mutex<BTreeSet<String>>,
}

impl TrustBundle {
    /// `told` gets each state of the bundle.
    pub(super) fn new(
        trust_domain: TrustDomain,
        store: Store,
        told: watch::Sender<Arc<Bundle>>,
    ) -> Self {
        let fell_back = watch::Sender::new(false);
        Self { trust_domain, store, told, fell_back, tainted: Mutex::default() }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Bundle>> {
        self.told.subscribe()
    }

    /// The bundle as it was last read.
    pub(super) fn current(&self) -> Arc<Bundle> {
        self.told.borrow().clone()
    }

    /// Reads what is stored. Where that is older than what was told, it is not told before
    /// [`TrustBundle::put_back`]: what is lost may still sign.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        // What is read from here on has all that was told before, unless the database lost it.
        let known = self.current();
        match self.store.bundle(&self.trust_domain).await? {
            Some(bundle) if bundle.sequence_number >= known.sequence_number => self.tell(bundle),
            None if known.same_authorities(&Bundle::empty(self.trust_domain.clone())) => {}
            _ => self.set_fell_back(true),
        }
        Ok(())
    }

    /// Whether the database has fallen back, as it changes.
    pub(super) fn fell_back(&self) -> watch::Receiver<bool> {
        self.fell_back.subscribe()
    }

    pub(super) fn set_fell_back(&self, fell_back: bool) {
        self.fell_back.send_if_modified(|known| std::mem::replace(known, fell_back) != fell_back);
    }

    /// Adds the authorities of `own` to a bundle that fell back, or was lost as a whole. It gets a
    /// number above all that were told.
    pub(super) async fn put_back(&self, own: Bundle) -> Result<(), StoreError> {
        let Bundle { trust_domain, x509_authorities, jwt_authorities, .. } = own;
        let told = self.current().sequence_number;
        self.store.append_to_bundle(trust_domain, x509_authorities, jwt_authorities).await?;
        self.edit(move |bundle| {
            if bundle.sequence_number <= told {
                bundle.sequence_number = told.saturating_add(1);
            }
            Ok(())
        })
        .await
    }

    /// Adds authorities that are not there yet. When this returns they are stored and told.
    pub(super) async fn append(
        &self,
        roots: Vec<X509Authority>,
        jwt_keys: Vec<JwtAuthority>,
    ) -> Result<(), StoreError> {
        let domain = self.trust_domain.clone();
        self.tell(self.store.append_to_bundle(domain, roots, jwt_keys).await?);
        Ok(())
    }

    /// Adds keys that are not there yet. Tainted ones only taint those that are.
    pub(super) async fn add_keys(&self, keys: Vec<JwtAuthority>) -> Result<(), StoreError> {
        let (tainted, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.tainted);
        self.append(Vec::new(), keys).await?;
        if tainted.is_empty() {
            return Ok(());
        }
        self.edit(move |bundle| {
            follow::taint_keys(bundle, &tainted);
            Ok(())
        })
        .await
    }

    /// Changes what is stored. When this returns the change is told.
    pub(super) async fn edit<F>(&self, change: F) -> Result<(), StoreError>
    where
        F: Fn(&mut Bundle) -> Result<(), StoreError> + Send + Sync + 'static,
    {
        self.tell(self.store.edit_bundle(self.trust_domain.clone(), change).await?);
        Ok(())
    }

    /// Whether the root with this id is tainted.
    pub(super) fn is_tainted(&self, root_id: &str) -> bool {
        let bundle = self.told.borrow();
        bundle.x509_authorities.iter().any(|root| root.tainted && root.has_id(root_id))
    }

    /// Removes what ended more than a day before `now`.
    pub(super) async fn prune(&self, now: Timestamp) -> Result<(), StoreError> {
        if !prune(&mut Bundle::clone(&self.current()), now - GRACE) {
            return Ok(());
        }
        self.edit(move |bundle| {
            prune(bundle, now - GRACE);
            Ok(())
        })
        .await
    }

    /// Follows what other servers and callers do to the stored bundle, and prunes it.
    pub(super) async fn keep(&self, clock: &Clock) {
        let mut changed = self.store.changed();
        let mut refresh = interval(REFRESH);
        let mut prune = interval(PRUNE);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let outcome = tokio::select! {
                Ok(()) = changed.changed() => {
                    sleep(COLLECT).await;
                    changed.mark_unchanged();
                    self.refresh().await
                }
                _ = refresh.tick() => self.refresh().await,
                _ = prune.tick() => self.prune(clock.now()).await,
            };
            if let Err(error) = outcome {
                tracing::error!(subsystem_name = "ca_manager", %error, "Unable to keep the bundle");
                sleep(RETRY).await;
            }
        }
    }

    /// Whether the authority with this id was ever tainted, here or elsewhere.
    pub(super) fn was_tainted(&self, id: &str) -> bool {
        self.ever_tainted().contains(id)
    }

    fn ever_tainted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.tainted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a state of the bundle unless a later one was told already.
    fn tell(&self, bundle: Bundle) {
        self.ever_tainted().extend(tainted(&bundle));
        self.told.send_if_modified(|told| {
            let newer = told.sequence_number <= bundle.sequence_number && **told != bundle;
            if newer {
                *told = Arc::new(bundle);
            }
            newer
        });
    }
}

/// The ids of all that is tainted in `bundle`.
fn tainted(bundle: &Bundle) -> impl Iterator<Item = String> {
    let roots = bundle.x509_authorities.iter().filter(|root| root.tainted);
    let keys = bundle.jwt_authorities.iter().filter(|key| key.tainted);
    let keys = keys.map(|key| key.key_id.clone());
    roots.filter_map(|root| root.authority_id().ok()).chain(keys)
}

/// Removes what ended before `ended_before`; returns whether anything did. Neither list is ever
/// emptied: a trust domain whose servers were off for long must still be able to say who it was.
fn prune(bundle: &mut Bundle, ended_before: Timestamp) -> bool {
    let roots = retain_some(&mut bundle.x509_authorities, |root| {
        !root.validity().is_ok_and(|(_, end)| end < ended_before)
    });
    let jwt_keys = retain_some(&mut bundle.jwt_authorities, |key| {
        key.expires_at.is_none_or(|end| end >= ended_before)
    });
    roots || jwt_keys
}

/// Keeps what `stays`, or everything where nothing would be left. Returns whether any went.
pub(super) fn retain_some<T>(items: &mut Vec<T>, stays: impl Fn(&T) -> bool) -> bool {
    let before = items.len();
    if items.iter().any(&stays) {
        items.retain(stays);
    }
    items.len() < before
}
