//! What this node may hand out now: entries, SVIDs and bundles, and who is waiting for them.
//!
//! Endpoints read it by the selectors of a caller; `sync` and `rotation` write it. It asks nobody
//! for anything: whatever is missing is said through [`Cache::wanted`], and whoever signs listens.

mod jwt;
mod subscription;
mod update;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use spire_core::clock::Clock;
use spire_core::entry::Entry;
use spire_core::id::TrustDomain;
use spire_core::selector::Selector;

pub use jwt::{JwtFetchError, JwtSvid, JwtSvids};
pub use subscription::Subscription;
pub use update::{Bundles, HeldSvid, Identity, PrivateKey, Update};

/// The entries, X.509-SVIDs and bundles of this node. Shared by everything in the agent.
#[derive(Debug)]
pub struct Cache {}

impl Cache {
    /// A cache that holds nothing but an empty bundle of `trust_domain`.
    ///
    /// `max_svids` is the number of X.509-SVIDs that it keeps for entries without subscribers;
    /// those with subscribers are always kept, so it is a soft limit.
    pub fn new(_trust_domain: TrustDomain, _max_svids: usize, _clock: Clock) -> Arc<Self> {
        todo!()
    }

    /// Follows what a caller in which `found` was found may have: the present state first, then
    /// every change to it. A caller without any entry gets an update without identities at once.
    ///
    /// An entry whose SVID is not held is signed because of this call; the first update waits for
    /// it.
    pub fn subscribe(self: &Arc<Self>, _found: &BTreeSet<Selector>) -> Subscription {
        todo!()
    }

    /// The entries that such a caller earns, in order of their ids. Of several with the same hint
    /// only the oldest is there, as in an [`Update`].
    pub fn matching(&self, _found: &BTreeSet<Selector>) -> Vec<Arc<Entry>> {
        todo!()
    }

    /// The bundles that such a caller may see: the own one, and those that its entries federate
    /// with.
    pub fn bundles(&self, _found: &BTreeSet<Selector>) -> Bundles {
        todo!()
    }

    /// The entry that a caller without identity came closest to, for the operator who wonders why.
    pub fn nearest(&self, _found: &BTreeSet<Selector>) -> Option<Nearest> {
        todo!()
    }

    /// How much is held.
    pub fn counts(&self) -> Counts {
        todo!()
    }

    /// When the server was last asked successfully; `None` before the first time.
    pub fn synced_at(&self) -> Option<Timestamp> {
        todo!()
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
