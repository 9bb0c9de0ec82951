//! The registry against a model that looks at every entry for every question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use spire_core::entry::{AdditionalAttributes, Entry, EntryId};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};
use spire_core::wire::convert::entry::received_encoded;

use super::*;
use crate::store::Node;

const AGENTS: [&str; 4] = ["/spire/agent/a", "/spire/agent/b", "/spire/agent/c", "/spire/agent/d"];
const WORKLOADS: [&str; 6] = ["/v", "/w", "/x", "/y", "/z", "/z/z"];

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn id(path: &str) -> SpiffeId {
    trust_domain().member(path).unwrap()
}

fn selectors(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<Selector> {
    // The kinds sort otherwise than the texts do: `:` comes after `-`.
    let kinds = ["k", "k-k"];
    let selector = |number: u8| Selector::new(kinds[usize::from(number % 2)], &number.to_string());
    numbers.into_iter().map(|number| selector(number).unwrap()).collect()
}

pub(super) fn entry(name: &str, parent: &str, spiffe_id: &str, asked: &[u8]) -> Entry {
    Entry {
        id: name.parse().unwrap(),
        spiffe_id: id(spiffe_id),
        parent_id: id(parent),
        selectors: RequiredSelectors::new(selectors(asked.iter().copied())).unwrap(),
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: BTreeSet::new(),
        dns_names: Vec::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        hint: "".parse().unwrap(),
        revision_number: 0,
        created_at: Timestamp::from_second(1_700_000_000).unwrap(),
        attributes: None,
    }
}

pub(super) fn node(agent: &str, found: &[u8]) -> Node {
    Node {
        agent_id: id(agent),
        attestation_type: "x509pop".to_owned(),
        serial: "1".to_owned(),
        expires_at: Timestamp::from_second(1_800_000_000).unwrap(),
        new_serial: String::new(),
        new_expires_at: None,
        can_reattest: true,
        selectors: selectors(found.iter().copied()),
        agent_version: String::new(),
    }
}

#[derive(Debug, Clone)]
enum Change {
    PutEntry(Entry),
    RemoveEntry(EntryId),
    PutNode(Node),
    RemoveNode(SpiffeId),
    Expire(Timestamp),
    /// The same entry with other parts that no index knows.
    Touch(usize),
}

fn an_entry_id() -> impl Strategy<Value = EntryId> {
    let named = (0..12u8).prop_map(|number| format!("entry-{number}"));
    // In one spelling the id is stored as a number, in the other as text.
    let uuid = (0..6u8, any::<bool>()).prop_map(|(number, upper)| {
        let text = format!("7c2a8ab0-6f43-4ecb-9d2e-0000000000a{number}");
        if upper { text.to_uppercase() } else { text }
    });
    prop_oneof![named, uuid].prop_map(|text| text.parse().unwrap())
}

fn an_entry() -> impl Strategy<Value = Entry> {
    let parents = [&["/spire/server"][..], &["/spire/server"], &AGENTS, &WORKLOADS].concat();
    let place = (an_entry_id(), select(parents), select(&WORKLOADS[..]));
    let flags = (any::<[bool; 5]>(), 0..3u8, prop::option::of(0..40i64));
    let rest = (0..3i64, "[a-z]{0,4}", btree_set("[a-z]{1,6}", 0..3), 0..200_000u32);
    (place, vec(0..6u8, 1..4), flags, rest).prop_map(
        |((id, parent, spiffe_id), asked, (flags, rare, expires), (revision, hint, names, ttl))| {
            let domains = names.iter().map(|name| TrustDomain::parse(name).unwrap());
            Entry {
                id,
                x509_svid_ttl: ttl,
                jwt_svid_ttl: ttl / 2,
                federates_with: domains.collect(),
                dns_names: names.iter().rev().map(|name| name.parse().unwrap()).collect(),
                admin: flags[0] && rare == 0,
                downstream: flags[1] && rare == 0,
                store_svid: flags[2],
                expires_at: expires.map(|at| Timestamp::from_second(1 + at / 2).unwrap()),
                hint: hint.parse().unwrap(),
                revision_number: revision,
                attributes: (rare < 2).then_some(AdditionalAttributes {
                    disable_x509_svid_prefetch: flags[3],
                    jwt_svid_include_jti: flags[4],
                }),
                ..entry("unused", parent, spiffe_id, &asked)
            }
        },
    )
}

fn a_node() -> impl Strategy<Value = Node> {
    (select(&AGENTS[..]), vec(0..6u8, 0..6), any::<[bool; 3]>()).prop_map(
        |(agent, found, [banned, renewed, can_reattest])| Node {
            serial: if banned { String::new() } else { "123456789".to_owned() },
            new_serial: if renewed { "987654321".to_owned() } else { String::new() },
            can_reattest,
            ..node(agent, &found)
        },
    )
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => an_entry().prop_map(Change::PutEntry),
        4 => an_entry_id().prop_map(Change::RemoveEntry),
        3 => a_node().prop_map(Change::PutNode),
        1 => select(&AGENTS[..]).prop_map(|agent| Change::RemoveNode(id(agent))),
        1 => (0..20i64).prop_map(|at| Change::Expire(Timestamp::from_second(at).unwrap())),
        2 => any::<usize>().prop_map(Change::Touch),
    ]
}

/// Entries and nodes without any index.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: BTreeMap<EntryId, Entry>,
    nodes: BTreeMap<SpiffeId, Node>,
}

impl Model {
    fn apply(&mut self, draft: &mut Draft, change: Change) {
        match change {
            Change::PutEntry(entry) => {
                draft.put_entry(&entry);
                self.entries.insert(entry.id.clone(), entry);
            }
            Change::RemoveEntry(id) => {
                draft.remove_entry(&id);
                self.entries.remove(&id);
            }
            Change::PutNode(node) => {
                draft.put_node(&node);
                self.nodes.insert(node.agent_id.clone(), node);
            }
            Change::RemoveNode(agent_id) => {
                draft.remove_node(&agent_id);
                self.nodes.remove(&agent_id);
            }
            Change::Expire(now) => {
                let before = self.entries.len();
                self.entries.retain(|_, entry| entry.expires_at.is_none_or(|at| at > now));
                assert_eq!(draft.expire(now), before - self.entries.len());
            }
            Change::Touch(at) => {
                let count = self.entries.len().max(1);
                let Some(entry) = self.entries.values_mut().nth(at % count) else { return };
                entry.revision_number += 1;
                draft.put_entry(entry);
            }
        }
    }

    fn authorized(&self, agent_id: &SpiffeId) -> BTreeMap<EntryId, Entry> {
        let server = id("/spire/server");
        let found = self.nodes.get(agent_id).map(|node| node.selectors.clone()).unwrap_or_default();
        let aliases = self.entries.values().filter(|entry| entry.parent_id == server);
        let aliases = aliases.filter(|alias| alias.matches(&found));
        let mut parents: BTreeSet<_> = aliases.map(|alias| alias.spiffe_id.clone()).collect();
        parents.insert(agent_id.clone());
        loop {
            let entries = self.entries.values().filter(|it| parents.contains(&it.parent_id));
            let entries: BTreeMap<_, _> = entries.map(|it| (it.id.clone(), it.clone())).collect();
            let before = parents.len();
            parents.extend(entries.values().map(|entry| entry.spiffe_id.clone()));
            if parents.len() == before {
                return entries;
            }
        }
    }

    fn agrees_with(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.entry_count(), self.entries.len());
        assert_eq!(snapshot.node_count(), self.nodes.len());
        for agent_id in AGENTS.map(id) {
            let expected = self.authorized(&agent_id);
            let authorized = snapshot.authorized(&agent_id);
            assert_eq!(authorized.len(), expected.len(), "{agent_id}");
            for entry in &authorized {
                let mut bytes = Vec::new();
                entry.view(&mut uuid::Uuid::encode_buffer()).encode(None, &mut bytes);
                assert_eq!(received_encoded(bytes.into()).unwrap(), entry.to_entry());
            }
            let found = authorized.iter().map(|entry| (entry.id(), entry.to_entry())).collect();
            assert_eq!(expected, found, "{agent_id}");
            for (id, entry) in &self.entries {
                let found = snapshot.authorized_entry(&agent_id, id);
                assert_eq!(found.map(|found| found.to_entry()), expected.get(id).cloned());
                let found = snapshot.entry(id).unwrap();
                assert_eq!(found.revision_number(), entry.revision_number);
                assert_eq!(found.created_second(), entry.created_at.as_second());
            }
            let (expected, found) = (self.nodes.get(&agent_id), snapshot.node(&agent_id));
            assert_eq!(expected.is_some(), found.is_some());
            if let (Some(expected), Some(found)) = (expected, found) {
                assert_eq!(found.serial(), expected.serial);
                assert_eq!(found.new_serial().unwrap_or_default(), expected.new_serial);
                assert_eq!(found.expires_at(), expected.expires_at);
                assert_eq!(found.can_reattest(), expected.can_reattest);
                assert_eq!(found.is_banned(), expected.is_banned());
            }
        }
        for bearer in WORKLOADS.map(id) {
            let borne = || self.entries.values().filter(|entry| entry.spiffe_id == bearer);
            assert_eq!(snapshot.is_admin(&bearer), borne().any(|entry| entry.admin));
            assert_eq!(snapshot.is_downstream(&bearer), borne().any(|entry| entry.downstream));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn every_answer_is_the_models(changes in vec(a_change(), 1..80)) {
        let (mut model, mut draft) = (Model::default(), Draft::new(trust_domain()));
        let mut before: (Model, Arc<Snapshot>) = (model.clone(), draft.snapshot());
        for change in changes {
            model.apply(&mut draft, change);
            let snapshot = draft.snapshot();
            model.agrees_with(&snapshot);
            // The snapshot before shows what it showed, and versions differ where answers do.
            before.0.agrees_with(&before.1);
            for agent_id in AGENTS.map(id) {
                let is_same = snapshot.version(&agent_id) == before.1.version(&agent_id);
                if model.authorized(&agent_id) != before.0.authorized(&agent_id) {
                    prop_assert!(!is_same, "{}", agent_id);
                } else if model == before.0 {
                    prop_assert!(is_same, "{}", agent_id);
                }
            }
            before = (model.clone(), snapshot);
        }
        // Nothing is left behind when all have gone.
        for id in model.entries.into_keys() {
            draft.remove_entry(&id);
        }
        AGENTS.map(id).iter().for_each(|agent_id| draft.remove_node(agent_id));
        prop_assert!(draft.is_clear());
    }

    #[test]
    fn an_order_of_arrival_is_as_good_as_any(
        entries in vec(an_entry(), 1..40), nodes in vec(a_node(), 0..6), turn in 0..40usize,
    ) {
        let mut model = Model::default();
        let mut draft = Draft::new(trust_domain());
        entries.into_iter().for_each(|it| model.apply(&mut draft, Change::PutEntry(it)));
        nodes.into_iter().for_each(|it| model.apply(&mut draft, Change::PutNode(it)));
        let mut entries: Vec<_> = model.entries.values().cloned().collect();
        let count = entries.len();
        entries.rotate_left(turn % count);
        let nodes: Vec<_> = model.nodes.values().cloned().collect();
        model.agrees_with(&Snapshot::of(&trust_domain(), &entries, &nodes, Revision(1)));
    }
}

#[test]
fn a_change_elsewhere_leaves_an_agents_version() {
    let [a, b, ..] = AGENTS;
    let mut draft = Draft::new(trust_domain());
    draft.put_entry(&entry("alias", "/spire/server", "/v", &[1]));
    draft.put_entry(&entry("below-alias", "/v", "/w", &[9]));
    draft.put_entry(&entry("below-a", a, "/x", &[9]));
    draft.put_node(&node(a, &[1, 2]));
    draft.put_node(&node(b, &[2]));
    let before = draft.snapshot();
    let is_same = |now: &Snapshot, agent| now.version(&id(agent)) == before.version(&id(agent));

    draft.put_entry(&entry("below-b", b, "/y", &[9]));
    draft.put_node(&Node { serial: "2".to_owned(), ..node(a, &[1, 2]) });
    let now = draft.snapshot();
    assert!(is_same(&now, a) && !is_same(&now, b));

    draft.put_entry(&entry("nested", "/w", "/z", &[9]));
    let now = draft.snapshot();
    assert!(!is_same(&now, a), "an entry two steps below the alias came");
    draft.remove_entry(&"nested".parse().unwrap());
    let gone = draft.snapshot();
    assert_ne!(gone.version(&id(a)), now.version(&id(a)));
    draft.put_node(&node(a, &[2]));
    assert_ne!(draft.snapshot().version(&id(a)), gone.version(&id(a)), "the alias is lost");
}

#[test]
fn entries_may_lead_in_circles() {
    let [a, ..] = AGENTS;
    let entries = [
        entry("one", a, "/v", &[9]),
        entry("two", "/v", "/w", &[9]),
        entry("three", "/w", "/v", &[9]),
        entry("self", "/w", "/w", &[9]),
        entry("apart", "/x", "/x", &[9]),
    ];
    let snapshot = Snapshot::of(&trust_domain(), &entries, &[node(a, &[])], Revision(1));
    assert_eq!(snapshot.authorized(&id(a)).len(), 4);
    assert!(snapshot.authorized_entry(&id(a), &"apart".parse().unwrap()).is_none());
}

#[test]
fn an_agent_reaches_many_groups_each_once() {
    let [a, ..] = AGENTS;
    let below = |number: usize| entry(&format!("e{number}"), a, &format!("/w/{number}"), &[9]);
    let parent = |number: usize| format!("/w/{}", number % 50);
    let nested = |number| entry(&format!("n{number}"), &parent(number), &parent(number + 1), &[9]);
    let entries: Vec<_> = (0..50).map(below).chain((0..200).map(nested)).collect();
    let snapshot = Snapshot::of(&trust_domain(), &entries, &[], Revision(1));
    assert_eq!(snapshot.authorized(&id(a)).len(), 250);
}

#[test]
fn entries_that_take_the_places_of_others_are_found() {
    let [a, ..] = AGENTS;
    let (mut model, mut draft) = (Model::default(), Draft::new(trust_domain()));
    let name = |number: usize| format!("e{number}");
    // Several pages of entries below one parent, of which some lead on, some expire, some are
    // administrators'; whatever moves when another goes must be found where it is then.
    for number in 0..100 {
        let spiffe_id = WORKLOADS[number % WORKLOADS.len()];
        let expires_at = (number % 3 == 0).then(|| Timestamp::from_second(1).unwrap());
        let admin = number % 7 == 0;
        let put = Entry { admin, expires_at, ..entry(&name(number), a, spiffe_id, &[9]) };
        model.apply(&mut draft, Change::PutEntry(put));
    }
    for number in [3, 98, 0, 50, 97, 4] {
        model.apply(&mut draft, Change::RemoveEntry(name(number).parse().unwrap()));
        model.agrees_with(&draft.snapshot());
    }
    model.apply(&mut draft, Change::Expire(Timestamp::from_second(2).unwrap()));
    model.agrees_with(&draft.snapshot());
    model.apply(&mut draft, Change::PutEntry(entry("below", WORKLOADS[0], "/new", &[9])));
    for number in (0..100).rev() {
        model.agrees_with(&draft.snapshot());
        model.apply(&mut draft, Change::RemoveEntry(name(number).parse().unwrap()));
    }
    model.apply(&mut draft, Change::RemoveEntry("below".parse().unwrap()));
    assert!(draft.is_clear());
}

#[test]
fn aliases_are_served_to_nobody() {
    let [a, ..] = AGENTS;
    let entries = [entry("alias", "/spire/server", "/v", &[1]), entry("w", "/v", "/w", &[9])];
    let snapshot = Snapshot::of(&trust_domain(), &entries, &[node(a, &[1])], Revision(1));
    let authorized = snapshot.authorized(&id(a));
    assert_eq!(authorized.iter().map(EntryRef::id).collect::<Vec<_>>(), ["w".parse().unwrap()]);
    let alias = "alias".parse().unwrap();
    assert!(snapshot.entry(&alias).is_some());
    assert!(snapshot.authorized_entry(&id(a), &alias).is_none());
    assert!(snapshot.authorized_entry(&id("/spire/server"), &alias).is_none());
    assert!(snapshot.authorized(&id("/spire/server")).is_empty());
}

#[tokio::test]
async fn a_writer_waits_for_its_own_revision() {
    let mut draft = Draft::new(trust_domain());
    let registry = Arc::new(Registry::showing(draft.snapshot()));
    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.wait_for(Revision(2)).await }
    });
    for revision in 1..=2 {
        draft.set_revision(Revision(revision));
        registry.publish(draft.snapshot());
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap().revision(), Revision(2));
}
