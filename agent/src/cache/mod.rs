//! What this node may hand out now: entries, SVIDs and bundles, and who is waiting for them.
//!
//! Endpoints read it by the selectors of a caller; `sync` and `rotation` write it. It asks nobody
//! for anything: whatever is missing is said through [`Cache::wanted`], and whoever signs listens.

mod encode;
mod index;
mod jwt;
mod records;
#[cfg(test)]
pub(crate) mod samples;
mod state;
mod subscription;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::TrustDomain;
use spire_core::selector::Selector;
use tokio::sync::{Notify, watch};

use crate::rotation::due::Renewal;

pub use jwt::{JwtFetchError, JwtSvid, JwtSvids, SignJwt};
pub use records::{Changes, Due};
use state::State;
pub use subscription::Subscription;
pub use update::{Bundles, HeldSvid, Identity, PrivateKey, Update};

/// The entries, X.509-SVIDs and bundles of this node. Shared by everything in the agent.
pub struct Cache {
    state: Mutex<State>,
    wanted: Notify,
    version: watch::Sender<u64>,
    clock: Clock,
}

/// An entry with the SVID that is held for it.
pub type HeldEntry = (Arc<Entry>, Option<Arc<HeldSvid>>);

/// What the server answered: everything that this node may serve from now on.
#[derive(Debug, Clone)]
pub struct Authorized {
    /// All entries. Those that did not change are the very ones of [`Cache::entries`].
    pub entries: Vec<Arc<Entry>>,
    /// This trust domain's bundle.
    pub own: Arc<Bundle>,
    /// The bundles of the trust domains that the entries federate with.
    pub federated: BTreeMap<TrustDomain, Arc<Bundle>>,
    /// When the server answered; `None` where this comes from a file.
    pub synced_at: Option<Timestamp>,
}

impl Cache {
    /// A cache that holds nothing but an empty bundle of `trust_domain`.
    ///
    /// `max_svids` is the number of X.509-SVIDs that it keeps for entries without subscribers;
    /// those with subscribers are always kept, so it is a soft limit.
    pub fn new(
        trust_domain: TrustDomain,
        max_svids: usize,
        renewal: Renewal,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(trust_domain, max_svids, renewal)),
            wanted: Notify::new(),
            version: watch::Sender::new(0),
            clock,
        })
    }

    /// Follows what a caller in which `found` was found may have: the present state first, then
    /// every change to it. A caller without any entry gets an update without identities at once.
    ///
    /// An entry whose SVID is not held is signed because of this call; the first update waits for
    /// it.
    pub fn subscribe(self: &Arc<Self>, found: &BTreeSet<Selector>) -> Subscription {
        let (found, receiver) = self.state().subscribe(found, self.clock.now());
        if receiver.borrow().is_none() {
            tracing::debug!(subsystem_name = "cache_manager", "Waiting for SVID to get cached");
            self.wanted.notify_one();
        }
        Subscription::new(self.clone(), found, receiver)
    }

    fn unsubscribe(&self, found: &BTreeSet<Selector>) {
        self.state().unsubscribe(found);
    }

    /// The entries that such a caller earns, in order of their ids. Of several with the same hint
    /// only the oldest is there, as in an [`Update`].
    pub fn matching(&self, found: &BTreeSet<Selector>) -> Vec<Arc<Entry>> {
        self.state().matching(found)
    }

    /// The bundles that such a caller may see: the own one, and those that its entries federate
    /// with.
    pub fn bundles(&self, found: &BTreeSet<Selector>) -> Bundles {
        self.state().bundles(found)
    }

    /// The entry that a caller without identity came closest to, for the operator who wonders why.
    pub fn nearest(&self, found: &BTreeSet<Selector>) -> Option<Nearest> {
        self.state().records.nearest(found)
    }

    /// How much is held.
    pub fn counts(&self) -> Counts {
        self.state().records.counts()
    }

    /// Whether an X.509-SVID is held that a workload may have now.
    pub fn can_serve(&self) -> bool {
        self.state().records.can_serve(self.clock.now())
    }

    /// When the server was last asked successfully; `None` before the first time.
    pub fn synced_at(&self) -> Option<Timestamp> {
        self.state().synced_at
    }

    /// All entries by id.
    pub fn entries(&self) -> BTreeMap<EntryId, Arc<Entry>> {
        self.state().records.entries()
    }

    /// Every entry with the SVID that is held for it, and all bundles.
    pub fn contents(&self) -> (Vec<HeldEntry>, Bundles) {
        let state = self.state();
        (state.records.contents(), state.bundles.clone())
    }

    /// All bundles that are held.
    pub fn all_bundles(&self) -> Bundles {
        self.state().bundles.clone()
    }

    /// Takes over what the server answered, tells those whom it concerns, and says what changed.
    pub fn authorize(&self, authorized: Authorized) -> Changes {
        let changes = self.state().authorize(authorized, self.clock.now());
        if changes.is_some() {
            self.touched();
        }
        self.wanted.notify_one();
        changes.unwrap_or_default()
    }

    /// Takes over SVIDs that were signed, and tells those whom they concern.
    pub fn hold(&self, svids: Vec<(EntryId, HeldSvid)>) {
        self.state().hold(svids, self.clock.now());
        self.touched();
    }

    /// Notes that these entries got no SVID. Callers that wait for them get the others, and the
    /// entries become due again after a while.
    pub fn refuse(&self, entries: &[EntryId]) {
        self.state().refuse(entries, self.clock.now());
    }

    /// Notes that the server could not be asked to sign for these entries. Callers that wait for
    /// them get the others; the entries stay due.
    pub fn postpone(&self, entries: &[EntryId]) {
        self.state().postpone(entries, self.clock.now());
    }

    /// What is to be signed now, at most `limit` entries: first what callers wait for, then what
    /// must be replaced, then what may be asked for.
    pub fn due(&self, limit: usize) -> Vec<Due> {
        self.state().records.due(self.clock.now(), limit)
    }

    /// When the next held SVID becomes due, or a refused entry may be tried again.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.state().records.next_due()
    }

    /// Makes every SVID due that `is_tainted` picks, and returns their number.
    pub fn taint(&self, is_tainted: impl Fn(&HeldSvid) -> bool) -> usize {
        let held = self.state().records.held();
        let tainted: Vec<_> = held.into_iter().filter(|(_, svid)| is_tainted(svid)).collect();
        let count = self.state().records.expedite(&tainted);
        self.wanted.notify_one();
        count
    }

    /// Returns once something is due because a caller asked or the server answered.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Is poked after each change of the contents.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn touched(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Cache").field(&self.counts()).finish()
    }
}

/// An entry that some caller almost earned.
#[derive(Debug, Clone)]
pub struct Nearest {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Which of its selectors the caller lacks; never empty.
    pub missing: Vec<Selector>,
}

/// How much a cache holds, for the debug service and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that this node may serve.
    pub entries: usize,
    /// X.509-SVIDs held for workloads.
    pub x509_svids: usize,
    /// X.509-SVIDs held for SVID stores.
    pub stored_x509_svids: usize,
}

#[cfg(test)]
mod tests;
