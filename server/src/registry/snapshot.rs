//! Everything at one moment, and the questions it answers.
//!
//! Entries below the same parent form a group and lie side by side. A group leads to those groups
//! whose parent is the SPIFFE ID of one of its entries, so that finding what an agent may serve goes
//! from group to group and never looks at an entry. Each node has a group, with entries or without.
//! An alias is filed under one of its selectors, the rarest among aliases when it came: an agent
//! finds it by walking its own selectors, and a selector that all nodes share leads to few aliases.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::{SpiffeId, TrustDomain};

use super::draft::Draft;
use super::entry::EntryRef;
use super::index::Index;
use super::node::NodeRef;
use super::packing::short;
use super::records::Records;
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
    pub(super) entries: Records,
    /// The node whose agent is the parent of the group of that number.
    pub(super) nodes: Records,
    /// When each group last changed, and the shortened SPIFFE ID of its parent.
    pub(super) groups: Records,
    /// Hash of an entry's id → entry.
    pub(super) entry_ids: Index,
    /// Hash of a parent's ID → group.
    pub(super) parents: Index,
    /// Group → page of `entries` that holds its entries and no others.
    pub(super) pages: Index,
    /// Group → group that it leads to.
    pub(super) links: Index,
    /// Hash of a selector → alias filed under it.
    pub(super) aliases: Index,
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
        self.node_of(self.find_group(self.short(agent_id).as_bytes())?)
    }

    /// The entries that `agent_id` may serve, each once, in no order.
    pub fn authorized(&self, agent_id: &SpiffeId) -> Vec<EntryRef<'_>> {
        let reach = self.reach(agent_id);
        let pages = reach.reached.iter().flat_map(|group| self.pages.of(*group));
        let records = pages.flat_map(|page| self.entries.read_page(page));
        records.map(|record| EntryRef { snapshot: self, record }).collect()
    }

    /// The entry of that id, where `agent_id` may serve it.
    pub fn authorized_entry(&self, agent_id: &SpiffeId, id: &EntryId) -> Option<EntryRef<'_>> {
        let entry = self.entry(id)?;
        self.reach(agent_id).reached.contains(&entry.group()).then_some(entry)
    }

    /// A print of [`Snapshot::authorized`], made without visiting the entries.
    pub fn version(&self, agent_id: &SpiffeId) -> Version {
        let prints = self.reach(agent_id).reached.into_iter().map(|group| {
            let (changed, _) = self.group_record(group);
            self.hasher.hash_one((group, changed))
        });
        Version(prints.fold(0, u64::wrapping_add))
    }

    /// The entry of that id, whoever may serve it.
    pub fn entry(&self, id: &EntryId) -> Option<EntryRef<'_>> {
        self.find_entry(id).map(|number| self.entry_at(number))
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
    fn reach(&self, agent_id: &SpiffeId) -> Reach {
        let mut reach = Reach::default();
        let Some(own) = self.find_group(self.short(agent_id).as_bytes()) else { return reach };
        reach.add(own);
        if let Some(node) = self.node_of(own) {
            self.aliases_of(&node).for_each(|group| reach.add(group));
        }
        let mut at = 0;
        while let Some(group) = reach.reached.get(at) {
            self.links.of(*group).for_each(|group| reach.add(group));
            at += 1;
        }
        reach
    }

    /// The groups below the SPIFFE IDs of a node's aliases.
    fn aliases_of(&self, node: &NodeRef<'_>) -> impl Iterator<Item = u32> {
        let filed = node.selector_hashes().flat_map(|hash| self.aliases.of(hash));
        let aliases = filed.map(|alias| self.entry_at(alias)).filter(|alias| {
            // Both are in order: what is passed over for one is not asked for by the next.
            let mut found = node.selector_texts();
            alias.selector_texts().all(|asked| found.any(|it| it == asked))
        });
        aliases.filter_map(|alias| self.find_group(alias.short_spiffe_id()))
    }

    fn is_borne(&self, index: &Index, id: &SpiffeId) -> bool {
        let id = self.short(id).as_bytes();
        index.of(self.hash(id)).any(|number| self.entry_at(number).short_spiffe_id() == id)
    }
}

/// Parts that the draft and the records read with.
impl Snapshot {
    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(super) fn short<'a>(&self, id: &'a SpiffeId) -> &'a str {
        short(id, &self.trust_domain)
    }

    pub(super) fn hash(&self, text: &[u8]) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    pub(super) fn entry_at(&self, number: u32) -> EntryRef<'_> {
        EntryRef { snapshot: self, record: self.entries.read(number) }
    }

    pub(super) fn find_entry(&self, id: &EntryId) -> Option<u32> {
        let mut candidates = self.entry_ids.of(self.hash(id.as_str().as_bytes()));
        candidates.find(|number| self.entry_at(*number).has_id(id.as_str()))
    }

    pub(super) fn node_of(&self, group: u32) -> Option<NodeRef<'_>> {
        let record = self.nodes.read(group);
        (!record.is_empty()).then(|| NodeRef::new(record))
    }

    pub(super) fn find_group(&self, short_parent: &[u8]) -> Option<u32> {
        let mut candidates = self.parents.of(self.hash(short_parent));
        candidates.find(|group| self.group_record(*group).1 == short_parent)
    }

    /// When a group last changed, and the shortened SPIFFE ID of its parent.
    pub(super) fn group_record(&self, group: u32) -> (u64, &[u8]) {
        let (changed, name) = self.groups.read(group).split_first_chunk().expect("as written");
        (u64::from_le_bytes(*changed), name)
    }

    /// The shortened SPIFFE ID of a group's parent.
    pub(super) fn group_name(&self, group: u32) -> &str {
        let (_, name) = self.group_record(group);
        std::str::from_utf8(name).expect("packed from an ID")
    }
}

/// Groups, each once, in the order in which they were reached.
#[derive(Debug, Default)]
struct Reach {
    reached: Vec<u32>,
    /// The same, once there are too many to look through.
    set: HashSet<u32>,
}

impl Reach {
    const FEW: usize = 16;

    /// Aliases are below the server, and no agent may serve what is: that group is never reached.
    fn add(&mut self, group: u32) {
        if group == SERVER {
            return;
        }
        if self.reached.len() < Self::FEW {
            if !self.reached.contains(&group) {
                self.reached.push(group);
            }
            return;
        }
        if self.set.is_empty() {
            self.set.extend(&self.reached);
        }
        if self.set.insert(group) {
            self.reached.push(group);
        }
    }
}
