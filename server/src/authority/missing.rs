//! Roots that a SPIRE above names no longer although it did not taint them: revoked there while
//! nobody here looked, or not known yet to a server above that is behind the others.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::upstream::UpstreamBundle;

use super::follow::is_among;

/// How long a root may be left out before it is given up: servers that share a database learn of a
/// new root one after the other. For as long it is tainted before it goes: what it signed is replaced
/// meanwhile.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// The roots that are left out, and those that were given up for it.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Each with the time since when it is left out. One that was given up is tainted, and its time
    /// is that since when the bundle says so.
    roots: Vec<(X509Authority, Timestamp)>,
    /// Ids of all that were given up.
    lost: BTreeSet<String>,
    /// The highest number that an answer had.
    newest: u64,
}

impl Missing {
    /// Whether nothing is left out.
    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Notes at `time` that the upstream trusted `last` before and trusts `now`. Returns what is given
    /// up, as tainted roots, until `bundle` has shown them as such for long enough. Other upstreams
    /// name what signs now, and former roots of theirs are trusted on.
    pub(super) fn note(
        &mut self,
        last: &UpstreamBundle,
        now: &UpstreamBundle,
        bundle: &Bundle,
        time: Timestamp,
    ) -> Vec<X509Authority> {
        if now.jwt_keys.is_none() {
            return Vec::new();
        }
        // A server above that is behind cannot tell of what came later.
        let is_old = now.sequence_number < self.newest;
        self.newest = self.newest.max(now.sequence_number);

        // A root that was renewed goes on under the same key.
        let is_named = |root: &X509Authority| {
            let id = root.authority_id();
            is_among(&now.roots, root)
                || id.is_ok_and(|id| now.roots.iter().any(|named| named.has_id(&id)))
        };
        self.roots.retain(|(root, _)| !is_named(root));
        let is_missing = |root: &&X509Authority| {
            let has_ended = root.validity().is_ok_and(|(_, end)| end < time);
            !root.tainted && !has_ended && !is_named(root)
        };
        for root in last.roots.iter().filter(is_missing) {
            if !self.roots.iter().any(|(known, _)| known.certificate == root.certificate) {
                self.roots.push((root.clone(), time));
            }
        }

        for (root, since) in &mut self.roots {
            let is_trusted = bundle
                .x509_authorities
                .iter()
                .any(|kept| !kept.tainted && kept.certificate == root.certificate);
            if root.tainted && is_trusted {
                *since = time;
            } else if !root.tainted && !is_old && time >= *since + PATIENCE {
                (root.tainted, *since) = (true, time);
                self.lost.extend(log_lost(root));
            }
        }
        self.roots.retain(|(root, since)| !root.tainted || time < *since + PATIENCE);
        let lost = self.roots.iter().filter(|(root, _)| root.tainted);
        lost.map(|(root, _)| root.clone()).collect()
    }

    /// Ids of roots that were given up and that the upstream names again: the server above was only
    /// behind the others.
    pub(super) fn found(&self, now: &UpstreamBundle) -> BTreeSet<String> {
        let is_named = |id: &&String| now.roots.iter().any(|it| !it.tainted && it.has_id(id));
        self.lost.iter().filter(is_named).cloned().collect()
    }

    /// Forgets that these roots were given up.
    pub(super) fn forget(&mut self, found: &BTreeSet<String>) {
        self.lost.retain(|id| !found.contains(id));
    }
}

/// Tells of a root that is given up, and returns its id.
fn log_lost(root: &X509Authority) -> Option<String> {
    let id = root.authority_id().ok();
    tracing::warn!(
        subsystem_name = "ca_manager",
        subject_key_id = id,
        "The upstream authority no longer trusts a root that was not tainted; it is given up"
    );
    id
}
