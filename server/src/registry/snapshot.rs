//! Everything at one moment, and the questions it answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::Selector;

use super::node::{Node, NodeRef};

/// All entries and nodes as of one revision of the store.
///
/// An agent is authorised for the entries below its own ID and below its aliases, and for those
/// below the SPIFFE IDs of these entries, and so on. An alias is an entry below
/// `spiffe://<trust domain>/spire/server` all of whose selectors the agent's node has; it is not
/// itself among the entries that the agent may serve.
#[derive(Debug, Clone)]
pub struct Snapshot {
    revision: i64,
}

/// A print of what one agent is authorised for: equal prints of one process mean that nothing
/// changed for this agent. It means nothing to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(u64);

/// An entry within a snapshot; the parts that a sync compares are read in place.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    snapshot: &'a Snapshot,
    slot: u32,
}

/// An entry that falls short of some selectors.
#[derive(Debug, Clone)]
pub struct Near {
    /// The entry.
    pub entry: Entry,
    /// What it asks for and was not found; empty where it matches.
    pub missing: BTreeSet<Selector>,
}

impl Snapshot {
    /// A snapshot for tests and for starting from: `entries` and `nodes` as of `revision`.
    pub fn of(
        trust_domain: &TrustDomain,
        entries: &[Entry],
        nodes: &[Node],
        revision: i64,
    ) -> Arc<Self> {
        let _ = (trust_domain, entries, nodes);
        Arc::new(Self { revision })
    }

    /// The revision of the store up to which everything is in.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// How many entries there are.
    pub fn entry_count(&self) -> usize {
        todo!()
    }

    /// How many nodes there are, banned and expired ones included.
    pub fn node_count(&self) -> usize {
        todo!()
    }

    /// What is known of the node of `agent_id`; `None` where it is not attested.
    pub fn node(&self, agent_id: &SpiffeId) -> Option<NodeRef<'_>> {
        let _ = agent_id;
        todo!()
    }

    /// The entries that `agent_id` may serve, each once, in no order.
    pub fn authorized(&self, agent_id: &SpiffeId) -> Vec<EntryRef<'_>> {
        let _ = agent_id;
        todo!()
    }

    /// The entry of that id, where `agent_id` may serve it.
    pub fn authorized_entry(&self, agent_id: &SpiffeId, id: &EntryId) -> Option<EntryRef<'_>> {
        let _ = (agent_id, id);
        todo!()
    }

    /// A print of [`Snapshot::authorized`], made without visiting the entries.
    pub fn version(&self, agent_id: &SpiffeId) -> Version {
        let _ = agent_id;
        todo!()
    }

    /// The entry of that id, whoever may serve it.
    pub fn entry(&self, id: &EntryId) -> Option<EntryRef<'_>> {
        let _ = id;
        todo!()
    }

    /// Whether an entry makes the holder of `id` an administrator.
    pub fn is_admin(&self, id: &SpiffeId) -> bool {
        let _ = id;
        todo!()
    }

    /// Whether an entry makes the holder of `id` a server below this one.
    pub fn is_downstream(&self, id: &SpiffeId) -> bool {
        let _ = id;
        todo!()
    }

    /// The `count` entries of `agent_id` that come closest to being matched by `found`, closest
    /// first. It visits all the agent's entries: for diagnosis, not for every call.
    pub fn nearest(
        &self,
        agent_id: &SpiffeId,
        found: &BTreeSet<Selector>,
        count: usize,
    ) -> Vec<Near> {
        let _ = (agent_id, found, count);
        todo!()
    }
}

impl EntryRef<'_> {
    /// Its id.
    pub fn id(&self) -> EntryId {
        let _ = (self.snapshot, self.slot);
        todo!()
    }

    /// Its revision number.
    pub fn revision_number(&self) -> i64 {
        todo!()
    }

    /// When it was created.
    pub fn created_at(&self) -> Timestamp {
        todo!()
    }

    /// All of it.
    pub fn to_entry(&self) -> Entry {
        todo!()
    }
}
