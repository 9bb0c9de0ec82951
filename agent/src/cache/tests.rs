//! What callers of a cache see.

mod taint;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use jiff::SignedDuration;
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::entry::{AdditionalAttributes, Entry};
use spire_core::id::TrustDomain;

use super::samples::{entry, selectors, start, svid};
use super::*;

struct Node {
    cache: Arc<Cache>,
    clock: Clock,
    own: Bundle,
    federated: BTreeMap<TrustDomain, Arc<Bundle>>,
}

impl Node {
    fn new(max_svids: usize) -> Self {
        let clock = Clock::standing_at(start());
        let trust_domain = TrustDomain::parse("example.org").unwrap();
        let cache = Cache::new(trust_domain.clone(), max_svids, Renewal::default(), clock.clone());
        Self { cache, clock, own: Bundle::empty(trust_domain), federated: BTreeMap::new() }
    }

    fn authorize(&self, entries: impl IntoIterator<Item = Entry>) -> Changes {
        self.cache.authorize(Authorized {
            entries: entries.into_iter().map(Arc::new).collect(),
            own: Arc::new(self.own.clone()),
            federated: self.federated.clone(),
            synced_at: Some(self.clock.now()),
        })
    }

    /// Signs what is due, at most `limit`, and returns the ids.
    fn sign(&self, limit: usize) -> Vec<String> {
        let due = self.cache.due(limit);
        let signed = |due: &Due| (due.entry.id.clone(), svid(&due.entry, self.clock.now()));
        self.cache.hold(due.iter().map(signed).collect());
        due.iter().map(|due| due.entry.id.to_string()).collect()
    }
}

fn ids(update: &Update) -> Vec<&str> {
    update.identities.iter().map(|identity| identity.entry.id.as_str()).collect()
}

fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

#[test]
fn identities_come_in_order_of_their_entries() {
    let node = Node::new(10);
    node.authorize(["b", "c", "a"].map(|id| entry(id, &["unix:uid:1"])));
    node.sign(10);
    let mut caller = node.cache.subscribe(&selectors(&["unix:uid:1", "unix:gid:1"]));
    assert_eq!(ids(&now(caller.next()).unwrap()), ["a", "b", "c"]);
    assert!(now(caller.next()).is_none(), "nothing has changed");
}

#[test]
fn a_caller_without_an_entry_is_told_so_at_once_and_hears_of_a_later_one() {
    let node = Node::new(10);
    node.authorize([entry("a", &["unix:uid:1"])]);
    let mut caller = node.cache.subscribe(&selectors(&["unix:uid:2"]));
    assert!(now(caller.next()).unwrap().identities.is_empty());
    node.authorize([entry("a", &["unix:uid:1"]), entry("b", &["unix:uid:2"])]);
    assert!(now(caller.next()).is_none(), "its SVID is still being signed");
    node.sign(10);
    assert_eq!(ids(&now(caller.next()).unwrap()), ["b"]);
}

#[test]
fn only_callers_whom_a_change_concerns_are_told() {
    let node = Node::new(10);
    let entries = || [entry("a", &["unix:uid:1"]), entry("b", &["unix:uid:2"])];
    node.authorize(entries());
    node.sign(10);
    let mut one = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    let mut two = node.cache.subscribe(&selectors(&["unix:uid:2"]));
    assert!(now(one.next()).is_some() && now(two.next()).is_some());

    let [a, mut b] = entries();
    b.revision_number = 1;
    let changes = node.authorize([a, b]);
    assert_eq!((changes.created.len(), changes.updated.len(), changes.removed.len()), (0, 1, 0));
    assert_eq!(node.sign(10), ["b"]);
    assert!(now(one.next()).is_none());
    assert_eq!(ids(&now(two.next()).unwrap()), ["b"]);
}

#[test]
fn a_lost_identity_is_told_at_once_even_while_another_is_signed() {
    let node = Node::new(10);
    let of = |ids: &[&str]| ids.iter().map(|id| entry(id, &["unix:uid:1"])).collect::<Vec<_>>();
    node.authorize(of(&["a", "b"]));
    node.sign(10);
    let mut caller = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    now(caller.next()).unwrap();
    node.authorize(of(&["a", "c"]));
    assert_eq!(ids(&now(caller.next()).unwrap()), ["a"]);
    node.sign(10);
    assert_eq!(ids(&now(caller.next()).unwrap()), ["a", "c"]);
    node.authorize(of(&[]));
    assert!(now(caller.next()).unwrap().identities.is_empty());
}

#[test]
fn a_lost_identity_is_not_told_to_new_callers_while_the_only_other_one_is_signed() {
    let node = Node::new(10);
    let found = selectors(&["unix:uid:1"]);
    node.authorize([entry("a", &["unix:uid:1"])]);
    node.sign(10);
    let mut before = node.cache.subscribe(&found);
    assert_eq!(ids(&now(before.next()).unwrap()), ["a"]);

    let b = entry("b", &["unix:uid:1"]);
    node.authorize([b.clone()]);
    let mut after = node.cache.subscribe(&found);
    assert!(now(after.next()).is_none() && now(before.next()).is_none());
    node.sign(10);
    assert_eq!(ids(&now(after.next()).unwrap()), ["b"]);
    assert_eq!(ids(&now(before.next()).unwrap()), ["b"]);

    let mut renamed = b;
    renamed.spiffe_id = entry("c", &["unix:uid:1"]).spiffe_id;
    renamed.revision_number = 1;
    node.authorize([renamed.clone()]);
    let mut last = node.cache.subscribe(&found);
    assert!(now(last.next()).is_none(), "the SVID that is held names its old id");
    node.sign(10);
    assert_eq!(now(last.next()).unwrap().identities[0].svid.svid.id, renamed.spiffe_id);
}

#[test]
fn a_caller_that_has_just_earned_its_first_identity_waits_for_it() {
    let node = Node::new(10);
    let found = selectors(&["unix:uid:1"]);
    let mut before = node.cache.subscribe(&found);
    assert!(now(before.next()).unwrap().identities.is_empty());
    node.authorize([entry("a", &["unix:uid:1"])]);
    let mut after = node.cache.subscribe(&found);
    assert!(now(after.next()).is_none());
    node.sign(10);
    assert_eq!(ids(&now(after.next()).unwrap()), ["a"]);
}

#[test]
fn of_entries_with_one_hint_the_oldest_is_served() {
    let node = Node::new(10);
    let mut entries = ["a", "b", "c", "d"].map(|id| entry(id, &["unix:uid:1"]));
    for entry in &mut entries[..3] {
        entry.hint = "db".parse().unwrap();
        entry.created_at += SignedDuration::from_secs(5);
    }
    entries[1].created_at = start();
    node.authorize(entries);
    node.sign(10);
    let mut caller = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    assert_eq!(ids(&now(caller.next()).unwrap()), ["b", "d"]);
    let matching = node.cache.matching(&selectors(&["unix:uid:1"]));
    assert_eq!(matching.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["b", "d"]);
}

#[test]
fn callers_with_the_same_identities_share_what_is_encoded() {
    let node = Node::new(10);
    node.authorize([entry("a", &["unix:uid:1"])]);
    node.sign(10);
    let mut one = node.cache.subscribe(&selectors(&["unix:uid:1", "unix:path:/bin/a"]));
    let mut two = node.cache.subscribe(&selectors(&["unix:uid:1", "unix:path:/bin/b"]));
    assert!(Arc::ptr_eq(&now(one.next()).unwrap(), &now(two.next()).unwrap()));
}

#[test]
fn a_bundle_reaches_those_who_federate_with_it() {
    let mut node = Node::new(10);
    let foreign = TrustDomain::parse("other.org").unwrap();
    let mut federating = entry("a", &["unix:uid:1"]);
    federating.federates_with.insert(foreign.clone());
    let entries = [federating, entry("b", &["unix:uid:2"])];
    node.authorize(entries.clone());
    node.sign(10);
    let mut one = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    let mut two = node.cache.subscribe(&selectors(&["unix:uid:2"]));
    assert!(now(one.next()).is_some() && now(two.next()).is_some());

    node.federated.insert(foreign.clone(), Arc::new(Bundle::empty(foreign.clone())));
    node.authorize(entries.clone());
    assert!(now(one.next()).unwrap().bundles.federated.contains_key(&foreign));
    assert!(now(two.next()).is_none());

    node.own.sequence_number += 1;
    node.authorize(entries);
    assert_eq!(now(one.next()).unwrap().bundles.own.sequence_number, 1);
    assert_eq!(now(two.next()).unwrap().bundles.own.sequence_number, 1);
}

#[test]
fn svids_are_renewed_at_half_of_their_life_and_keep_being_served_meanwhile() {
    let node = Node::new(10);
    node.authorize([entry("a", &["unix:uid:1"])]);
    node.sign(10);
    let mut caller = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    let first = now(caller.next()).unwrap();
    node.clock.advance(SignedDuration::from_mins(26));
    assert!(node.cache.due(10).is_empty());
    let next = node.cache.next_due().unwrap();
    node.clock.advance(SignedDuration::from_mins(8));
    assert!(next <= node.clock.now());
    assert!(now(caller.next()).is_none());
    assert_eq!(node.sign(10), ["a"]);
    let second = now(caller.next()).unwrap();
    assert!(!Arc::ptr_eq(&first.identities[0].svid, &second.identities[0].svid));
}

#[test]
fn an_expired_svid_is_not_served() {
    let node = Node::new(10);
    node.authorize([entry("a", &["unix:uid:1"])]);
    node.sign(10);
    let mut before = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    now(before.next()).unwrap();
    node.clock.advance(SignedDuration::from_mins(61));
    let mut after = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    assert!(now(after.next()).is_none());
    node.sign(10);
    assert_eq!(ids(&now(after.next()).unwrap()), ["a"]);
    assert_eq!(ids(&now(before.next()).unwrap()), ["a"]);
}

#[test]
fn those_who_wait_are_signed_first_and_the_rest_up_to_the_limit() {
    let node = Node::new(3);
    node.authorize(
        (0..9).map(|number| entry(&format!("e{number}"), &[&format!("unix:uid:{number}")])),
    );
    let _caller = node.cache.subscribe(&selectors(&["unix:uid:7"]));
    assert_eq!(node.sign(1), ["e7"]);
    assert_eq!(node.sign(10).len(), 2);
    assert!(node.cache.due(10).is_empty());
    assert_eq!(node.cache.counts().x509_svids, 3);
}

#[test]
fn the_least_used_svid_without_subscribers_goes() {
    let node = Node::new(2);
    node.authorize(
        (0..4).map(|number| entry(&format!("e{number}"), &[&format!("unix:uid:{number}")])),
    );
    let caller = |number: usize| node.cache.subscribe(&selectors(&[&format!("unix:uid:{number}")]));
    let kept = caller(0);
    node.sign(1);
    drop(caller(1));
    node.sign(1);
    let held = || {
        let (contents, _) = node.cache.contents();
        let mut ids: Vec<_> = contents
            .into_iter()
            .filter(|(_, svid)| svid.is_some())
            .map(|(entry, _)| entry.id.to_string())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(held(), ["e0", "e1"]);
    let mut third = caller(2);
    node.sign(1);
    assert_eq!(ids(&now(third.next()).unwrap()), ["e2"]);
    assert_eq!(held(), ["e0", "e2"]);
    let _fourth = caller(3);
    node.sign(1);
    assert_eq!(held(), ["e0", "e2", "e3"], "the limit is soft for subscribers");
    drop((kept, third));
}

#[test]
fn an_entry_without_prefetch_is_signed_when_it_is_asked_for() {
    let node = Node::new(10);
    let mut lazy = entry("a", &["unix:uid:1"]);
    lazy.attributes =
        Some(AdditionalAttributes { disable_x509_svid_prefetch: true, ..Default::default() });
    node.authorize([lazy]);
    assert!(node.cache.due(10).is_empty());
    let _caller = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    assert_eq!(node.sign(10), ["a"]);
}

#[test]
fn a_refused_entry_does_not_hold_up_the_others() {
    let node = Node::new(10);
    node.authorize([entry("a", &["unix:uid:1"]), entry("b", &["unix:uid:1"])]);
    let mut caller = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    let b = node.cache.entries()["b"].clone();
    node.cache.hold(vec![(b.id.clone(), svid(&b, node.clock.now()))]);
    assert!(now(caller.next()).is_none());
    node.cache.refuse(&["a".parse().unwrap()]);
    assert_eq!(ids(&now(caller.next()).unwrap()), ["b"]);
    assert!(node.cache.due(10).is_empty());
    node.clock.advance(SignedDuration::from_secs(5));
    assert_eq!(node.sign(10), ["a"]);
    assert_eq!(ids(&now(caller.next()).unwrap()), ["a", "b"]);
}

#[test]
fn an_entry_for_svid_stores_is_signed_but_not_served() {
    let node = Node::new(0);
    let mut stored = entry("a", &["unix:uid:1"]);
    stored.store_svid = true;
    node.authorize([stored]);
    assert_eq!(node.sign(10), ["a"]);
    let mut caller = node.cache.subscribe(&selectors(&["unix:uid:1"]));
    assert!(now(caller.next()).unwrap().identities.is_empty());
    let counts = node.cache.counts();
    assert_eq!((counts.x509_svids, counts.stored_x509_svids), (0, 1));
}

#[test]
fn the_nearest_entry_says_what_a_caller_lacks() {
    let node = Node::new(10);
    node.authorize([
        entry("far", &["k8s:ns:x", "k8s:sa:y"]),
        entry("a-node", &["spiffe_id:spiffe://td/spire/agent/x"]),
        entry("near", &["unix:uid:1", "unix:path:/bin/a"]),
    ]);
    let nearest = node.cache.nearest(&selectors(&["unix:uid:1"])).unwrap();
    assert_eq!(nearest.entry.id.as_str(), "near");
    assert_eq!(nearest.missing, ["unix:path:/bin/a".parse().unwrap()]);
}

#[test]
fn nothing_of_gone_callers_is_kept() {
    let node = Node::new(10);
    node.authorize([entry("a", &["unix:uid:1"])]);
    for path in 0..100 {
        let found = selectors(&["unix:uid:1", &format!("unix:path:/{path}")]);
        let (_one, _two) = (node.cache.subscribe(&found), node.cache.subscribe(&found));
    }
    assert_eq!(node.cache.state().group_count(), 0);
    assert_eq!(node.cache.due(10).len(), 1);
    assert!(!node.cache.due(10)[0].subscribed);
}
