//! The contents of a cache under its lock: records, bundles, and the groups of callers that wait
//! for changes of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::TrustDomain;
use spire_core::selector::Selector;
use spire_core::svid::x509::leads_to;
use tokio::sync::watch;

use super::Authorized;
use super::records::{Availability, Changes, Records};
use super::update::{Bundles, HeldSvid, Identity, Update};
use crate::rotation::due::Renewal;

/// Updates that are kept for callers to come, beyond those that present callers hold.
const MAX_SHARED_UPDATES: usize = 1024;

type Published = watch::Sender<Option<Arc<Update>>>;

pub(super) struct State {
    pub(super) records: Records,
    pub(super) bundles: Bundles,
    pub(super) synced_at: Option<Timestamp>,
    groups: HashMap<Arc<BTreeSet<Selector>>, Group>,
    shared: SharedUpdates,
}

/// All callers in which the same selectors were found.
struct Group {
    matching: Vec<Arc<Entry>>,
    published: Published,
    subscribers: usize,
}

impl State {
    pub(super) fn new(trust_domain: TrustDomain, max_svids: usize, renewal: Renewal) -> Self {
        let own = Arc::new(Bundle::empty(trust_domain));
        Self {
            records: Records::new(max_svids, renewal),
            bundles: Bundles { own, federated: BTreeMap::new() },
            synced_at: None,
            groups: HashMap::new(),
            shared: SharedUpdates::default(),
        }
    }

    pub(super) fn subscribe(
        &mut self,
        found: &BTreeSet<Selector>,
        now: Timestamp,
    ) -> (Arc<BTreeSet<Selector>>, watch::Receiver<Option<Arc<Update>>>) {
        let known = self.groups.get_key_value(found).map(|(found, _)| found.clone());
        if let Some(found) = known
            && let Some(group) = self.groups.get_mut(&found)
        {
            group.subscribers += 1;
            let receiver = group.published.subscribe();
            if receiver.borrow().as_ref().is_some_and(|update| update.has_expired(now)) {
                group.published.send_replace(None);
                self.publish(&found, now);
            }
            return (found, receiver);
        }
        let found = Arc::new(found.clone());
        let matching = self.records.matching(&found);
        for entry in &matching {
            self.records.used(&entry.id, 1);
        }
        let published = watch::Sender::new(None);
        let receiver = published.subscribe();
        self.groups.insert(found.clone(), Group { matching, published, subscribers: 1 });
        self.publish(&found, now);
        (found, receiver)
    }

    pub(super) fn unsubscribe(&mut self, found: &BTreeSet<Selector>) {
        let Some(group) = self.groups.get_mut(found) else { return };
        group.subscribers -= 1;
        if group.subscribers == 0
            && let Some(group) = self.groups.remove(found)
        {
            for entry in &group.matching {
                self.records.used(&entry.id, -1);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn matching(&self, found: &BTreeSet<Selector>) -> Vec<Arc<Entry>> {
        by_unique_hint(&self.records.matching(found)).0
    }

    pub(super) fn bundles(&self, found: &BTreeSet<Selector>) -> Bundles {
        self.bundles_of(self.matching(found).iter())
    }

    /// Returns `None` where nothing changed at all.
    pub(super) fn authorize(&mut self, answer: Authorized, now: Timestamp) -> Option<Changes> {
        if answer.synced_at.is_some() {
            self.synced_at = answer.synced_at;
        }
        let changed_domains = self.replace_bundles(answer.own, answer.federated);
        let changes = self.records.replace(answer.entries);
        let updated: HashSet<_> = changes.updated.iter().map(|entry| entry.id.clone()).collect();
        let same_entries =
            updated.is_empty() && changes.created.is_empty() && changes.removed.is_empty();
        if same_entries && changed_domains.is_empty() {
            return None;
        }

        let own = self.bundles.own.trust_domain.clone();
        let concerns = |entry: &Entry| {
            updated.contains(&entry.id)
                || entry.federates_with.iter().any(|domain| changed_domains.contains(domain))
        };
        let mut concerned = Vec::new();
        for (found, group) in &mut self.groups {
            let mut concern =
                changed_domains.contains(&own) || group.matching.iter().any(|it| concerns(it));
            if !same_entries {
                let matching = self.records.matching(found);
                let ids = |entries: &[Arc<Entry>]| {
                    entries.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>()
                };
                concern |= ids(&matching) != ids(&group.matching)
                    || matching.iter().any(|entry| concerns(entry));
                for entry in &matching {
                    self.records.used(&entry.id, 1);
                }
                for entry in &group.matching {
                    self.records.used(&entry.id, -1);
                }
                group.matching = matching;
            }
            if concern {
                concerned.push(found.clone());
            }
        }
        self.shared.clear();
        for found in concerned {
            self.publish(&found, now);
        }
        Some(changes)
    }

    fn replace_bundles(
        &mut self,
        own: Arc<Bundle>,
        federated: BTreeMap<TrustDomain, Arc<Bundle>>,
    ) -> BTreeSet<TrustDomain> {
        let mut changed = BTreeSet::new();
        if self.bundles.own != own {
            changed.insert(own.trust_domain.clone());
            self.bundles.own = own;
        }
        let domains = self.bundles.federated.keys().chain(federated.keys());
        let differs =
            |domain: &&TrustDomain| self.bundles.federated.get(*domain) != federated.get(*domain);
        changed.extend(domains.filter(differs).cloned());
        self.bundles.federated = federated;
        changed
    }

    pub(super) fn hold(&mut self, svids: Vec<(EntryId, HeldSvid)>, now: Timestamp) {
        let mut changed = HashSet::with_capacity(svids.len());
        let tainted = self.bundles.own.tainted();
        for (id, svid) in svids {
            let leads_to = |tainted: &Bundle| leads_to(&svid.svid.chain, tainted, now);
            let is_tainted = tainted.as_ref().is_some_and(leads_to);
            if self.records.hold(&id, svid, is_tainted, now) {
                changed.insert(id);
            }
        }
        self.records.evict();
        self.shared.clear();
        self.publish_to_holders_of(&changed, now);
    }

    pub(super) fn refuse(&mut self, entries: &[EntryId], now: Timestamp) {
        for id in entries {
            self.records.refuse(id, now);
        }
        self.publish_to_holders_of(&entries.iter().cloned().collect(), now);
    }

    pub(super) fn postpone(&mut self, entries: &[EntryId], now: Timestamp) {
        for id in entries {
            self.records.postpone(id);
        }
        self.publish_to_holders_of(&entries.iter().cloned().collect(), now);
    }

    fn publish_to_holders_of(&mut self, changed: &HashSet<EntryId>, now: Timestamp) {
        let holds = |group: &Group| group.matching.iter().any(|it| changed.contains(&it.id));
        let concerned: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, group)| holds(group))
            .map(|(it, _)| it.clone())
            .collect();
        for found in concerned {
            self.publish(&found, now);
        }
    }

    /// Tells the callers of one group what they have now, where that differs from what they know.
    /// While an SVID is being signed they are told nothing, unless they know of an identity that
    /// they have lost; where nothing is left of what they know, they and those to come wait.
    fn publish(&mut self, found: &BTreeSet<Selector>, now: Timestamp) {
        let Some(group) = self.groups.get(found) else { return };
        let (entitled, ignored) = by_unique_hint(&group.matching);
        let mut identities = Vec::with_capacity(entitled.len());
        let mut pending = false;
        for entry in &entitled {
            match self.records.availability(&entry.id, now) {
                Availability::Held(svid) => {
                    identities.push(Identity { entry: entry.clone(), svid });
                }
                Availability::Pending => pending = true,
                Availability::Refused => {}
            }
        }
        let known = group.published.borrow().clone();
        let nothing_yet = identities.is_empty() && !entitled.is_empty();
        if nothing_yet || pending {
            if known.as_ref().is_none_or(|known| known.is_earned_by(&entitled)) {
                return;
            }
            if nothing_yet {
                group.published.send_replace(None);
                return;
            }
        }
        let update = self.shared.find(&identities).unwrap_or_else(|| {
            let bundles = self.bundles_of(identities.iter().map(|identity| &identity.entry));
            self.shared.add(Arc::new(Update::new(identities, bundles)))
        });
        if !known.is_some_and(|known| known.says_the_same_as(&update))
            && let Some(group) = self.groups.get(found)
        {
            for entry in ignored {
                tracing::warn!(
                    entry_id = %entry.id,
                    hint = entry.hint.as_str(),
                    "Ignoring entry with duplicate hint"
                );
            }
            group.published.send_replace(Some(update));
        }
    }

    fn bundles_of<'e>(&self, entries: impl Iterator<Item = &'e Arc<Entry>>) -> Bundles {
        let federated = entries
            .flat_map(|entry| &entry.federates_with)
            .filter_map(|domain| self.bundles.federated.get_key_value(domain))
            .map(|(domain, bundle)| (domain.clone(), bundle.clone()))
            .collect();
        Bundles { own: self.bundles.own.clone(), federated }
    }
}

/// Updates by the entries of their identities, so that callers that have the same identities share
/// what was encoded for one of them.
#[derive(Default)]
struct SharedUpdates(HashMap<Vec<EntryId>, Arc<Update>>);

impl SharedUpdates {
    fn key(identities: &[Identity]) -> Vec<EntryId> {
        identities.iter().map(|identity| identity.entry.id.clone()).collect()
    }

    fn find(&self, identities: &[Identity]) -> Option<Arc<Update>> {
        self.0.get(&Self::key(identities)).cloned()
    }

    fn add(&mut self, update: Arc<Update>) -> Arc<Update> {
        if self.0.len() >= MAX_SHARED_UPDATES {
            self.0.clear();
        }
        self.0.insert(Self::key(&update.identities), update.clone());
        update
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// The entries, and those left out since another one has their hint that was created earlier, or
/// at the same time with a lower id.
fn by_unique_hint(entries: &[Arc<Entry>]) -> (Vec<Arc<Entry>>, Vec<Arc<Entry>>) {
    let mut keepers: HashMap<&str, &Arc<Entry>> = HashMap::new();
    for entry in entries.iter().filter(|entry| !entry.hint.as_str().is_empty()) {
        let keeper = keepers.entry(entry.hint.as_str()).or_insert(entry);
        if (entry.created_at, &entry.id) < (keeper.created_at, &keeper.id) {
            *keeper = entry;
        }
    }
    let is_kept = |entry: &Arc<Entry>| {
        keepers.get(entry.hint.as_str()).is_none_or(|keeper| keeper.id == entry.id)
    };
    entries.iter().cloned().partition(is_kept)
}
