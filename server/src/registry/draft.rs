//! The next snapshot while it is being made: the one writer.

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use jiff::Timestamp;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::{SERVER_PATH, SpiffeId, TrustDomain};

use super::entry;
use super::group::{Group, Place};
use super::index::Index;
use super::node;
use super::numbers::Numbers;
use super::selectors::{Alias, Selectors};
use super::snapshot::{SERVER, Snapshot};
use super::vector::Vector;
use crate::store::{Node, Revision};

/// Changes entries and nodes, and hands out snapshots of what it holds. A snapshot shares with the
/// draft all that does not change after it.
#[derive(Debug)]
pub struct Draft {
    snapshot: Snapshot,
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
    selectors: Selectors,
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
            groups: Vector::default(),
            entry_ids: Index::default(),
            parents: Index::default(),
            links: Index::default(),
            aliases: Vector::default(),
            admins: Index::default(),
            downstreams: Index::default(),
        };
        let mut draft = Self {
            snapshot,
            group_numbers: Numbers::default(),
            tick: 1,
            uses: Vec::new(),
            link_uses: HashMap::new(),
            bearers: Index::default(),
            selectors: Selectors::default(),
            expiries: Index::default(),
        };
        let server = draft.group_of(SERVER_PATH);
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
        let Some(place) = self.snapshot.find_entry(&entry.id) else {
            return self.add_entry(entry);
        };
        let old = self.entry_at(place);
        if old == *entry {
            return;
        }
        let is_filed_alike = old.parent_id == entry.parent_id
            && old.spiffe_id == entry.spiffe_id
            && (old.admin, old.downstream) == (entry.admin, entry.downstream)
            && old.expires_at == entry.expires_at
            && (place.group != SERVER || old.selectors == entry.selectors);
        if is_filed_alike {
            let record = entry::pack(entry, &self.snapshot.trust_domain);
            self.changed_group(place.group).write(place.slot, &record);
        } else {
            self.remove_at(place, &old);
            self.add_entry(entry);
        }
    }

    /// Removes an entry, where it is there.
    pub fn remove_entry(&mut self, id: &EntryId) {
        if let Some(place) = self.snapshot.find_entry(id) {
            self.remove_at(place, &self.entry_at(place));
        }
    }

    /// Adds a node, or replaces what is known of it.
    pub fn put_node(&mut self, node: &Node) {
        let group = self.group_of(self.snapshot.short(&node.agent_id));
        let selectors = self.selectors.take(node.selectors.iter());
        let record = node::pack(node, &selectors);
        let present = self.snapshot.group(group).node.clone();
        if present.as_deref() != Some(record.bytes()) {
            self.group_mut(group).node = Some(record.bytes().into());
        }
        match present {
            Some(present) => self.selectors.give_back(node::selectors(&present)),
            None => {
                self.uses[group as usize] += 1;
                self.snapshot.node_count += 1;
            }
        }
    }

    /// Removes a node, where it is there.
    pub fn remove_node(&mut self, agent_id: &SpiffeId) {
        let Some(group) = self.snapshot.find_group(self.snapshot.short(agent_id)) else { return };
        let number = group.number;
        if let Some(present) = group.node.clone() {
            self.group_mut(number).node = None;
            self.selectors.give_back(node::selectors(&present));
            self.snapshot.node_count -= 1;
            self.release(number);
        }
    }

    /// Removes the entries that have ceased to exist by `now`; returns how many.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let mut expired = 0;
        while let Some((_, place)) = self.expiries.least() {
            let old = self.entry_at(place);
            if old.expires_at.is_none_or(|expires_at| expires_at > now) {
                break;
            }
            self.remove_at(place, &old);
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
        let Snapshot { groups, entry_ids, parents, links, aliases, .. } = &self.snapshot;
        let Snapshot { admins, downstreams, .. } = &self.snapshot;
        let indexes = [entry_ids, links, admins, downstreams, &self.bearers, &self.expiries];
        let server = parents.least().map(|(_, place)| place.group);
        indexes.iter().all(|index| index.least().is_none())
            && server == Some(SERVER)
            && groups.iter().flatten().count() == 1
            && self.group_numbers.taken() == 1
            && self.link_uses.is_empty()
            && aliases.iter().all(|filed| filed.len() == 0)
            && self.selectors.is_empty()
    }

    fn entry_at(&self, place: Place) -> Entry {
        self.snapshot.entry_at(place).to_entry()
    }

    fn add_entry(&mut self, entry: &Entry) {
        let number = self.group_of(self.snapshot.short(&entry.parent_id));
        self.uses[number as usize] += 1;
        self.connect(number, entry, true);
        let record = entry::pack(entry, &self.snapshot.trust_domain);
        let group = self.changed_group(number);
        let place = Place { group: number, slot: group.len() };
        group.push(&record);
        self.file(place, entry, true);
        self.snapshot.entry_count += 1;
    }

    fn remove_at(&mut self, place: Place, old: &Entry) {
        self.file(place, old, false);
        self.connect(place.group, old, false);
        // The last entry of the group takes the place that gets free.
        let last = Place { slot: self.snapshot.group(place.group).len() - 1, ..place };
        let moved = (last != place).then(|| self.entry_at(last));
        if let Some(moved) = &moved {
            self.file(last, moved, false);
        }
        self.changed_group(place.group).swap_remove(place.slot);
        if let Some(moved) = &moved {
            self.file(place, moved, true);
        }
        self.snapshot.entry_count -= 1;
        self.release(place.group);
    }

    /// Files an entry in all indexes that lead to it, or takes it out of all.
    fn file(&mut self, place: Place, entry: &Entry, filed: bool) {
        let snapshot = &mut self.snapshot;
        let id = snapshot.hash(entry.id.as_str());
        let name = snapshot.hash(snapshot.short(&entry.spiffe_id));
        set(&mut snapshot.entry_ids, id, place, filed);
        set(&mut self.bearers, name, place, filed);
        if entry.admin {
            set(&mut snapshot.admins, name, place, filed);
        }
        if entry.downstream {
            set(&mut snapshot.downstreams, name, place, filed);
        }
        if let Some(expires_at) = entry.expires_at {
            set(&mut self.expiries, expiry_second(expires_at), place, filed);
        }
    }

    /// Notes that one more, or one less, entry of `group` leads to what is below its SPIFFE ID. It
    /// is not among the bearers meanwhile, lest a group that is made for it counts it too.
    fn connect(&mut self, group: u32, entry: &Entry, connected: bool) {
        let spiffe_id = self.snapshot.short(&entry.spiffe_id);
        let below = match group {
            SERVER => self.group_of(spiffe_id),
            _ => match self.snapshot.find_group(spiffe_id) {
                Some(below) => below.number,
                None => return,
            },
        };
        if group == SERVER {
            self.file_alias(below, entry, connected);
        } else {
            self.link(group, below, connected);
        }
        match connected {
            true => self.uses[below as usize] += 1,
            false => self.release(below),
        }
    }

    /// Files an alias under the rarest of its selectors.
    fn file_alias(&mut self, group: u32, alias: &Entry, filed: bool) {
        let selectors = self.selectors.take(alias.selectors.iter());
        let aliases = &mut self.snapshot.aliases;
        if filed {
            let rarest = self.selectors.rarest(&selectors).expect("entries ask for something");
            while aliases.len() <= rarest {
                aliases.push(Vector::default());
            }
            let under_rarest = aliases.get_mut(rarest).expect("it was just made");
            under_rarest.push(Alias { group, selectors: selectors.into() });
            return;
        }
        self.selectors.give_back(selectors.iter().copied());
        // Which was the rarest then is not known any more.
        let is_it = |it: &Alias| it.group == group && *it.selectors == *selectors;
        for number in &selectors {
            let Some(filed) = aliases.get_mut(*number) else { continue };
            let at = filed.iter().position(is_it);
            if let Some(at) = at {
                filed.swap_remove(at as u32);
                break;
            }
        }
        self.selectors.give_back(selectors.into_iter());
    }

    /// Notes that one more, or one less, entry of `group` has the SPIFFE ID of `below`'s parent.
    fn link(&mut self, group: u32, below: u32, linked: bool) {
        if group != SERVER {
            let uses = count(&mut self.link_uses, (group, below), linked);
            set(&mut self.snapshot.links, group, Place::of_group(below), uses > 0);
        }
    }

    /// The group of that parent, made where there is none. A group that is made leads nowhere, and
    /// all groups with entries that bear its parent's ID lead to it.
    fn group_of(&mut self, short_parent: &str) -> u32 {
        if let Some(group) = self.snapshot.find_group(short_parent) {
            return group.number;
        }
        let number = self.group_numbers.take();
        let group = Some(Arc::new(Group::new(number, self.tick, short_parent)));
        match self.snapshot.groups.get_mut(number) {
            Some(free) => *free = group,
            None => {
                self.snapshot.groups.push(group);
                self.uses.push(0);
            }
        }
        let name = self.snapshot.hash(short_parent);
        self.snapshot.parents.insert(name, Place::of_group(number));
        let bearers = self.bearers.of(name).map(|place| self.snapshot.entry_at(place));
        let above: Vec<u32> = bearers
            .filter(|bearer| bearer.short_spiffe_id() == short_parent)
            .map(|bearer| bearer.group().number)
            .collect();
        for above in above {
            self.uses[number as usize] += 1;
            self.link(above, number, true);
        }
        number
    }

    fn group_mut(&mut self, number: u32) -> &mut Group {
        let group = self.snapshot.groups.get_mut(number).and_then(Option::as_mut);
        Arc::make_mut(group.expect("a number is free only while nothing names it"))
    }

    /// A group whose entries are about to change.
    fn changed_group(&mut self, number: u32) -> &mut Group {
        let tick = self.tick;
        let group = self.group_mut(number);
        group.changed = tick;
        group
    }

    /// Takes one use from a group, and the group away with the last.
    fn release(&mut self, number: u32) {
        let uses = &mut self.uses[number as usize];
        *uses -= 1;
        if *uses == 0 {
            let name = self.snapshot.hash(&self.snapshot.group(number).parent);
            self.snapshot.parents.remove(name, Place::of_group(number));
            if let Some(group) = self.snapshot.groups.get_mut(number) {
                *group = None;
            }
            self.group_numbers.give_back(number);
        }
    }
}

fn set(index: &mut Index, number: u32, place: Place, present: bool) {
    match present {
        true => index.insert(number, place),
        false => index.remove(number, place),
    }
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
