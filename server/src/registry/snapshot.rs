//! Everything at one moment, and the questions it answers.
//!
//! Entries below the same parent form a group and lie side by side. A group leads to those groups
//! whose parent is the SPIFFE ID of one of its entries, so that finding what an agent may serve goes
//! from group to group and never looks at an entry. Each node has a group, with entries or without,
//! and so has each alias for what is below its SPIFFE ID. An alias is filed under one of its
//! selectors, the rarest when it came: an agent finds it by walking its own selectors, and a
//! selector that all nodes share leads to few aliases.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::{SpiffeId, TrustDomain};

use super::draft::Draft;
use super::entry::EntryRef;
use super::group::{Group, Place};
use super::index::Index;
use super::node::{self, NodeRef};
use super::packing::short;
use super::selectors::Alias;
use super::vector::Vector;
use crate::store::{Node, Revision};

/// The number of the group below the server's own ID: the aliases.
pub(super) const SERVER: u32 = 0;

/// All entries and nodes as of one revision of the store.
///
/// An agent is authorised for the entries below its own ID and below its aliases, and for those
/// below the SPIFFE IDs of these entries, and so on. An alias is an entry below
/// `spiffe://<trust domain>/spire/server` all of whose selectors the agent's node has; it is not
/// itself among the entries that the agent may serve.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) revision: Revision,
    pub(super) trust_domain: TrustDomain,
    pub(super) hasher: DefaultHashBuilder,
    pub(super) entry_count: usize,
    pub(super) node_count: usize,
    /// By number; `None` where a number is free.
    pub(super) groups: Vector<Option<Arc<Group>>>,
    /// Hash of an entry's id → entry.
    pub(super) entry_ids: Index,
    /// Hash of a parent's ID → group.
    pub(super) parents: Index,
    /// Group → group that it leads to.
    pub(super) links: Index,
    /// By a selector's number, the aliases filed under it.
    pub(super) aliases: Vector<Vector<Alias>>,
    /// Hash of a SPIFFE ID → entry that makes its holder an administrator.
    pub(super) admins: Index,
    /// Hash of a SPIFFE ID → entry that makes its holder a server below this one.
    pub(super) downstreams: Index,
}

/// A print of what one agent is authorised for: equal prints of one process mean that nothing
/// changed for this agent. It means nothing to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(u64);

impl Snapshot {
    /// `entries` and `nodes` as of `revision`.
    pub fn of(
        trust_domain: &TrustDomain,
        entries: &[Entry],
        nodes: &[Node],
        revision: Revision,
    ) -> Arc<Self> {
        let mut draft = Draft::new(trust_domain.clone());
        entries.iter().for_each(|entry| draft.put_entry(entry));
        nodes.iter().for_each(|node| draft.put_node(node));
        draft.set_revision(revision);
        draft.snapshot()
    }

    /// The revision of the store up to which everything is in.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many entries there are.
    pub fn entry_count(&self) -> usize {
        self.entry_count
    }

    /// How many nodes there are, banned and expired ones included.
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// What is known of the node of `agent_id`; `None` where it is not attested.
    pub fn node(&self, agent_id: &SpiffeId) -> Option<NodeRef<'_>> {
        self.find_group(self.short(agent_id))?.node.as_deref().map(NodeRef::new)
    }

    /// The entries that `agent_id` may serve, each once, in no order.
    pub fn authorized(&self, agent_id: &SpiffeId) -> Vec<EntryRef<'_>> {
        let groups = self.reach(agent_id).reached;
        let count = groups.iter().map(|group| group.len() as usize).sum();
        let mut entries = Vec::with_capacity(count);
        for group in groups {
            for page in group.pages() {
                entries.extend(EntryRef::of_page(self, group, page));
            }
        }
        entries
    }

    /// The entry of that id, where `agent_id` may serve it.
    pub fn authorized_entry(&self, agent_id: &SpiffeId, id: &EntryId) -> Option<EntryRef<'_>> {
        let entry = self.entry(id)?;
        self.reach(agent_id).has(entry.group()).then_some(entry)
    }

    /// A print of [`Snapshot::authorized`], made without visiting the entries.
    pub fn version(&self, agent_id: &SpiffeId) -> Version {
        let groups = self.reach(agent_id).reached.into_iter();
        let prints = groups.map(|group| self.hasher.hash_one((group.number, group.changed)));
        Version(prints.fold(0, u64::wrapping_add))
    }

    /// The entry of that id, whoever may serve it.
    pub fn entry(&self, id: &EntryId) -> Option<EntryRef<'_>> {
        self.find_entry(id).map(|place| self.entry_at(place))
    }

    /// Whether an entry makes the holder of `id` an administrator.
    pub fn is_admin(&self, id: &SpiffeId) -> bool {
        self.is_borne(&self.admins, id)
    }

    /// Whether an entry makes the holder of `id` a server below this one.
    pub fn is_downstream(&self, id: &SpiffeId) -> bool {
        self.is_borne(&self.downstreams, id)
    }

    /// The groups whose entries `agent_id` may serve.
    fn reach(&self, agent_id: &SpiffeId) -> Reach<'_> {
        let mut reach = Reach::default();
        let Some(own) = self.find_group(self.short(agent_id)) else { return reach };
        reach.add(own);
        if let Some(node) = &own.node {
            self.aliases_of(node).for_each(|alias| reach.add(self.group(alias.group)));
        }
        let mut at = 0;
        while let Some(group) = reach.reached.get(at) {
            let links = self.links.of(group.number);
            links.for_each(|below| reach.add(self.group(below.group)));
            at += 1;
        }
        reach
    }

    /// The aliases all of whose selectors a node has.
    fn aliases_of(&self, node: &[u8]) -> impl Iterator<Item = &Alias> {
        let found = node::selectors(node);
        let filed = found.clone().filter_map(|number| self.aliases.get(number));
        filed.flat_map(Vector::iter).filter(move |alias| {
            // Each is compared with all, whichever is found: that takes no longer, and no branch
            // waits for what an alias asks while that comes from memory.
            let is_found = |asked| found.clone().fold(false, |is_it, it| is_it | (it == asked));
            alias.selectors.iter().fold(true, |all, asked| all & is_found(*asked))
        })
    }

    fn is_borne(&self, index: &Index, id: &SpiffeId) -> bool {
        let id = self.short(id);
        index.of(self.hash(id)).any(|place| self.entry_at(place).short_spiffe_id() == id)
    }
}

/// Parts that the draft and the entries read with.
impl Snapshot {
    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(super) fn short<'a>(&self, id: &'a SpiffeId) -> &'a str {
        short(id, &self.trust_domain)
    }

    pub(super) fn hash(&self, text: &str) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    pub(super) fn entry_at(&self, place: Place) -> EntryRef<'_> {
        EntryRef::of(self, self.group(place.group), place.slot)
    }

    pub(super) fn find_entry(&self, id: &EntryId) -> Option<Place> {
        let mut candidates = self.entry_ids.of(self.hash(id.as_str()));
        candidates.find(|place| self.entry_at(*place).has_id(id.as_str()))
    }

    pub(super) fn group(&self, number: u32) -> &Group {
        let group = self.groups.get(number).and_then(Option::as_deref);
        group.expect("a number is free only while nothing names it")
    }

    pub(super) fn find_group(&self, short_parent: &str) -> Option<&Group> {
        let candidates = self.parents.of(self.hash(short_parent));
        let mut candidates = candidates.map(|place| self.group(place.group));
        candidates.find(|group| *group.parent == *short_parent)
    }
}

/// Groups, each once, in the order in which they were reached.
#[derive(Debug, Default)]
struct Reach<'a> {
    reached: Vec<&'a Group>,
    /// The numbers of the same, once there are too many to look through.
    set: HashSet<u32>,
}

impl<'a> Reach<'a> {
    const FEW: usize = 16;

    /// Aliases are below the server, and no agent may serve what is: that group is never reached.
    fn add(&mut self, group: &'a Group) {
        if group.number == SERVER {
            return;
        }
        if self.reached.len() < Self::FEW {
            if !self.has(group) {
                self.reached.push(group);
            }
            return;
        }
        if self.set.is_empty() {
            self.set.extend(self.reached.iter().map(|group| group.number));
        }
        if self.set.insert(group.number) {
            self.reached.push(group);
        }
    }

    fn has(&self, group: &Group) -> bool {
        match self.set.is_empty() {
            true => self.reached.iter().any(|reached| reached.number == group.number),
            false => self.set.contains(&group.number),
        }
    }
}
