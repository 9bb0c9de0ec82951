//! The next snapshot while it is being made: the one writer.

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use jiff::Timestamp;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::{SERVER_PATH, SpiffeId, TrustDomain};

use super::entry;
use super::index::Index;
use super::node;
use super::places::Places;
use super::records::Records;
use super::snapshot::{SERVER, Snapshot};
use crate::store::{Node, Revision};

/// Changes entries and nodes, and hands out snapshots of what it holds. A snapshot shares with the
/// draft all that does not change after it.
#[derive(Debug)]
pub struct Draft {
    snapshot: Snapshot,
    places: Places,
    group_numbers: Numbers,
    /// Rises with every snapshot: groups that changed since the last one carry it.
    tick: u64,
    /// How many entries each group holds, how many bear its parent's SPIFFE ID, and one for its
    /// node. It is kept while there is any, so that it need not find its bearers again when
    /// entries return.
    uses: Vec<u32>,
    /// How many entries of the first group lead to the second.
    link_uses: HashMap<(u32, u32), u32>,
    /// Hash of a SPIFFE ID → entry that bears it.
    bearers: Index,
    /// Hash of a selector → how many aliases ask for it.
    alias_selectors: HashMap<u32, u32>,
    /// Second of expiry → entry.
    expiries: Index,
}

impl Draft {
    /// A draft without entries and nodes.
    pub fn new(trust_domain: TrustDomain) -> Self {
        let snapshot = Snapshot {
            revision: Revision::default(),
            hasher: DefaultHashBuilder::default(),
            trust_domain,
            entry_count: 0,
            node_count: 0,
            entries: Records::default(),
            nodes: Records::default(),
            groups: Records::default(),
            entry_ids: Index::default(),
            parents: Index::default(),
            pages: Index::default(),
            links: Index::default(),
            aliases: Index::default(),
            admins: Index::default(),
            downstreams: Index::default(),
        };
        let mut draft = Self {
            snapshot,
            places: Places::default(),
            group_numbers: Numbers::default(),
            tick: 1,
            uses: Vec::new(),
            link_uses: HashMap::new(),
            bearers: Index::default(),
            alias_selectors: HashMap::new(),
            expiries: Index::default(),
        };
        let server = draft.group_of(SERVER_PATH.as_bytes());
        assert_eq!(server, SERVER, "the first group is the server's");
        draft.uses[server as usize] += 1;
        draft
    }

    /// What the draft holds at present.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.tick += 1;
        Arc::new(self.snapshot.clone())
    }

    /// Notes that everything up to `revision` is in.
    pub fn set_revision(&mut self, revision: Revision) {
        self.snapshot.revision = revision;
    }

    /// Adds an entry, or replaces the one with its id.
    pub fn put_entry(&mut self, entry: &Entry) {
        let Some(number) = self.snapshot.find_entry(&entry.id) else {
            return self.add_entry(entry);
        };
        let (group, old) = self.entry_at(number);
        if old == *entry {
            return;
        }
        let is_filed_alike = old.parent_id == entry.parent_id
            && old.spiffe_id == entry.spiffe_id
            && (old.admin, old.downstream) == (entry.admin, entry.downstream)
            && old.expires_at == entry.expires_at
            && (group != SERVER || old.selectors == entry.selectors);
        if is_filed_alike {
            self.write_entry(number, entry, group);
        } else {
            self.remove_at(number, &old, group);
            self.add_entry(entry);
        }
    }

    /// Removes an entry, where it is there.
    pub fn remove_entry(&mut self, id: &EntryId) {
        if let Some(number) = self.snapshot.find_entry(id) {
            let (group, old) = self.entry_at(number);
            self.remove_at(number, &old, group);
        }
    }

    /// Adds a node, or replaces what is known of it.
    pub fn put_node(&mut self, node: &Node) {
        let group = self.group_of(self.snapshot.short(&node.agent_id).as_bytes());
        let record = node::pack(node, |text| self.snapshot.hash(text.as_bytes()));
        let present = self.snapshot.nodes.read(group);
        if present.is_empty() {
            self.uses[group as usize] += 1;
            self.snapshot.node_count += 1;
        } else if present == record.bytes() {
            return;
        }
        self.snapshot.nodes.write(group, record.bytes());
    }

    /// Removes a node, where it is there.
    pub fn remove_node(&mut self, agent_id: &SpiffeId) {
        let agent_id = self.snapshot.short(agent_id).as_bytes();
        let Some(group) = self.snapshot.find_group(agent_id) else { return };
        if self.snapshot.node_of(group).is_some() {
            self.snapshot.nodes.write(group, &[]);
            self.snapshot.node_count -= 1;
            self.release(group);
        }
    }

    /// Removes the entries that have ceased to exist by `now`; returns how many.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let mut expired = 0;
        while let Some((_, number)) = self.expiries.least() {
            let (group, old) = self.entry_at(number);
            if old.expires_at.is_none_or(|expires_at| expires_at > now) {
                break;
            }
            self.remove_at(number, &old, group);
            expired += 1;
        }
        expired
    }

    /// When the next entry ceases to exist, to the second.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let (second, _) = self.expiries.least()?;
        Timestamp::from_second(second.into()).ok()
    }
}

impl Draft {
    /// Whether nothing is left of any entry and node.
    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        let Snapshot { entry_ids, parents, pages, links, aliases, .. } = &self.snapshot;
        let Snapshot { admins, downstreams, .. } = &self.snapshot;
        let indexes = [entry_ids, pages, links, aliases, admins, downstreams];
        let own = [&self.bearers, &self.expiries];
        let is_empty = indexes.iter().chain(&own).all(|index| index.least().is_none());
        let server = parents.least().map(|(_, group)| group);
        is_empty
            && server == Some(SERVER)
            && self.group_numbers.taken() == 1
            && self.link_uses.is_empty()
            && self.alias_selectors.is_empty()
    }

    fn entry_at(&self, number: u32) -> (u32, Entry) {
        let found = self.snapshot.entry_at(number);
        (found.group(), found.to_entry())
    }

    fn add_entry(&mut self, entry: &Entry) {
        let group = self.group_of(self.snapshot.short(&entry.parent_id).as_bytes());
        self.uses[group as usize] += 1;
        let number = self.places.take(group, &mut self.snapshot.pages);
        self.write_entry(number, entry, group);
        self.file(number, entry, group, true);
        self.snapshot.entry_count += 1;
    }

    fn write_entry(&mut self, number: u32, entry: &Entry, group: u32) {
        let record = entry::pack(entry, group, &self.snapshot.trust_domain);
        self.snapshot.entries.write(number, record.bytes());
        self.stamp(group);
    }

    fn remove_at(&mut self, number: u32, old: &Entry, group: u32) {
        self.file(number, old, group, false);
        self.snapshot.entries.write(number, &[]);
        self.snapshot.entry_count -= 1;
        self.places.give_back(number, group, &mut self.snapshot.pages);
        self.stamp(group);
        self.release(group);
    }

    /// Files an entry in all indexes, or takes it out of all.
    fn file(&mut self, number: u32, entry: &Entry, group: u32, filed: bool) {
        let snapshot = &mut self.snapshot;
        let id = snapshot.hash(entry.id.as_str().as_bytes());
        let spiffe_id = snapshot.short(&entry.spiffe_id).as_bytes();
        let name = snapshot.hash(spiffe_id);
        let below = snapshot.find_group(spiffe_id);
        set(&mut snapshot.entry_ids, id, number, filed);
        set(&mut self.bearers, name, number, filed);
        if entry.admin {
            set(&mut snapshot.admins, name, number, filed);
        }
        if entry.downstream {
            set(&mut snapshot.downstreams, name, number, filed);
        }
        if let Some(expires_at) = entry.expires_at {
            set(&mut self.expiries, expiry_second(expires_at), number, filed);
        }
        if group == SERVER {
            self.file_alias(number, entry, filed);
        }
        if let Some(below) = below {
            match filed {
                true => self.uses[below as usize] += 1,
                false => self.release(below),
            }
            self.link(group, below, filed);
        }
    }

    /// Files an alias under the selector that the fewest aliases ask for.
    fn file_alias(&mut self, number: u32, alias: &Entry, filed: bool) {
        let hashes =
            alias.selectors.iter().map(|selector| self.snapshot.hash(selector.as_str().as_bytes()));
        let hashes: Vec<u32> = hashes.collect();
        let uses = |hash: &u32| self.alias_selectors.get(hash).copied().unwrap_or_default();
        if filed {
            let rarest =
                hashes.iter().copied().min_by_key(uses).expect("entries ask for something");
            self.snapshot.aliases.insert(rarest, number);
        } else {
            // Which was the rarest then is not known any more.
            for hash in &hashes {
                self.snapshot.aliases.remove(*hash, number);
            }
        }
        for hash in hashes {
            count(&mut self.alias_selectors, hash, filed);
        }
    }

    /// Notes that one more, or one less, entry of `group` has the SPIFFE ID of `below`'s parent.
    fn link(&mut self, group: u32, below: u32, linked: bool) {
        if group != SERVER {
            let uses = count(&mut self.link_uses, (group, below), linked);
            set(&mut self.snapshot.links, group, below, uses > 0);
        }
    }

    /// The group of that parent, made where there is none. A group that is made leads nowhere, and
    /// all groups with entries that bear its parent's ID lead to it.
    fn group_of(&mut self, short_parent: &[u8]) -> u32 {
        if let Some(group) = self.snapshot.find_group(short_parent) {
            return group;
        }
        let group = self.group_numbers.take();
        if self.uses.len() <= group as usize {
            self.uses.push(0);
        }
        let name = self.snapshot.hash(short_parent);
        self.write_group(group, short_parent);
        self.snapshot.parents.insert(name, group);
        let bearers = self.bearers.of(name).map(|number| self.snapshot.entry_at(number));
        let above: Vec<u32> = bearers
            .filter(|bearer| bearer.short_spiffe_id() == short_parent)
            .map(|bearer| bearer.group())
            .collect();
        for above in above {
            self.uses[group as usize] += 1;
            self.link(above, group, true);
        }
        group
    }

    /// Marks a group as changed since the last snapshot.
    fn stamp(&mut self, group: u32) {
        let (changed, parent) = self.snapshot.group_record(group);
        if changed != self.tick {
            let parent = parent.to_owned();
            self.write_group(group, &parent);
        }
    }

    fn write_group(&mut self, group: u32, short_parent: &[u8]) {
        let record = [&self.tick.to_le_bytes(), short_parent].concat();
        self.snapshot.groups.write(group, &record);
    }

    /// Takes one use from a group, and the group away with the last.
    fn release(&mut self, group: u32) {
        let uses = &mut self.uses[group as usize];
        *uses -= 1;
        if *uses == 0 {
            let (_, parent) = self.snapshot.group_record(group);
            self.snapshot.parents.remove(self.snapshot.hash(parent), group);
            self.snapshot.groups.write(group, &[]);
            self.group_numbers.give_back(group);
        }
    }
}

fn set(index: &mut Index, first: u32, second: u32, present: bool) {
    match present {
        true => index.insert(first, second),
        false => index.remove(first, second),
    };
}

/// One more or one less; returns how many there are then.
fn count<K: std::hash::Hash + Eq + Copy>(uses: &mut HashMap<K, u32>, key: K, more: bool) -> u32 {
    let count = uses.entry(key).or_default();
    *count = if more { *count + 1 } else { *count - 1 };
    let count = *count;
    if count == 0 {
        uses.remove(&key);
    }
    count
}

/// The first whole second at which the entry has expired; what lies beyond the year 2106 is as far
/// as can be.
fn expiry_second(expires_at: Timestamp) -> u32 {
    let second = expires_at.as_second() + i64::from(expires_at.subsec_nanosecond() > 0);
    second.clamp(0, u32::MAX.into()) as u32
}

/// Numbers to give out, those that came back first.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let number = self.next;
            self.next += 1;
            number
        })
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.next as usize - self.free.len()
    }
}
