//! The entries and what is held for them: which SVIDs are kept, and which are due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use spire_core::entry::{Entry, EntryId};
use spire_core::selector::Selector;

use super::index::Index;
use super::update::HeldSvid;
use super::{Counts, Nearest};
use crate::rotation::due::{Renewal, jitter, spread};

/// An entry that was refused, or whose new SVID leads to a tainted root, is tried again after this
/// long, and after twice as long each further time.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest wait between two tries.
const LAST_RETRY: Duration = Duration::from_secs(240);

/// What a sync changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Entries that were not there before.
    pub created: Vec<Arc<Entry>>,
    /// Entries that are there in another revision, as they are from now on.
    pub updated: Vec<Arc<Entry>>,
    /// Entries that are gone.
    pub removed: Vec<Arc<Entry>>,
}

/// An entry whose SVID is to be signed.
#[derive(Debug, Clone)]
pub struct Due {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Whether a caller has it or waits for it.
    pub subscribed: bool,
    /// Whether an SVID is held already.
    pub renewal: bool,
}

#[derive(Debug)]
pub(super) struct Records {
    by_id: HashMap<EntryId, Record>,
    index: Index,
    /// How many SVIDs are kept for entries that nobody subscribed to.
    max_svids: usize,
    renewal: Renewal,
    /// Counts uses, so that the least recent ones can be told.
    uses: u64,
}

#[derive(Debug)]
struct Record {
    entry: Arc<Entry>,
    svid: Option<Arc<HeldSvid>>,
    renew_at: Timestamp,
    retry_at: Option<Timestamp>,
    refusals: u32,
    /// How many SVIDs in a row led to a tainted root when they came.
    tainted: u32,
    subscribers: usize,
    last_use: u64,
}

impl Record {
    /// The SVID, where it may be handed out.
    fn usable(&self, now: Timestamp) -> Option<&Arc<HeldSvid>> {
        let svid = self.svid.as_ref()?;
        (now < svid.svid.expires_at && svid.svid.id == self.entry.spiffe_id).then_some(svid)
    }

    /// From most to least urgent; `None` where nothing is to be done.
    fn urgency(&self, now: Timestamp) -> Option<Urgency> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        match &self.svid {
            None if self.subscribers > 0 => Some(Urgency::Awaited),
            Some(_) if self.subscribers > 0 && self.usable(now).is_none() => Some(Urgency::Awaited),
            Some(svid) if svid.revision != self.entry.revision_number => Some(Urgency::Stale),
            Some(_) if now >= self.renew_at => Some(Urgency::Stale),
            Some(_) => None,
            None if self.entry.attributes.is_some_and(|it| it.disable_x509_svid_prefetch) => None,
            None => Some(Urgency::Prefetch),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Awaited,
    Stale,
    Prefetch,
}

/// What is there for an entry.
pub(super) enum Availability {
    Held(Arc<HeldSvid>),
    /// It is being signed.
    Pending,
    /// It was tried in vain.
    Refused,
}

impl Records {
    pub(super) fn new(max_svids: usize, renewal: Renewal) -> Self {
        Self { by_id: HashMap::new(), index: Index::default(), max_svids, renewal, uses: 0 }
    }

    /// Replaces the set of entries; SVIDs stay with those that stay.
    pub(super) fn replace(&mut self, entries: Vec<Arc<Entry>>) -> Changes {
        let mut changes = Changes::default();
        let mut before = std::mem::take(&mut self.by_id);
        self.by_id.reserve(entries.len());
        for entry in entries {
            let record = match before.remove(&entry.id) {
                Some(mut record) => {
                    if !Arc::ptr_eq(&record.entry, &entry) && record.entry != entry {
                        self.index.remove(&record.entry);
                        self.index.insert(&entry);
                        record.retry_at = None;
                        record.entry = entry.clone();
                        changes.updated.push(entry.clone());
                    }
                    record
                }
                None => {
                    self.index.insert(&entry);
                    changes.created.push(entry.clone());
                    Record::of(entry.clone())
                }
            };
            self.by_id.insert(entry.id.clone(), record);
        }
        for record in before.into_values() {
            self.index.remove(&record.entry);
            changes.removed.push(record.entry);
        }
        changes
    }

    /// The entries that a caller earns through the Workload API, in order of their ids.
    pub(super) fn matching(&self, found: &BTreeSet<Selector>) -> Vec<Arc<Entry>> {
        let mut matching: Vec<_> = self
            .index
            .candidates(found)
            .filter_map(|id| self.by_id.get(id))
            .map(|record| &record.entry)
            .filter(|entry| !entry.store_svid && entry.matches(found))
            .cloned()
            .collect();
        matching.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        matching
    }

    pub(super) fn availability(&self, id: &EntryId, now: Timestamp) -> Availability {
        let Some(record) = self.by_id.get(id) else { return Availability::Refused };
        match record.usable(now) {
            Some(svid) => Availability::Held(svid.clone()),
            None if record.refusals > 0 => Availability::Refused,
            None => Availability::Pending,
        }
    }

    /// Notes a use, and `more` or fewer subscribers.
    pub(super) fn used(&mut self, id: &EntryId, more: isize) {
        self.uses += 1;
        if let Some(record) = self.by_id.get_mut(id) {
            record.last_use = self.uses;
            record.subscribers = record.subscribers.saturating_add_signed(more);
        }
    }

    /// Takes over an SVID. Returns whether its entry is still there. One that leads to a tainted
    /// root is due again soon: the server that signed it may not know of the taint yet. Other agents
    /// hear of it at the same moment, and shall not all ask together.
    pub(super) fn hold(
        &mut self,
        id: &EntryId,
        svid: HeldSvid,
        is_tainted: bool,
        now: Timestamp,
    ) -> bool {
        let Some(record) = self.by_id.get_mut(id) else { return false };
        record.renew_at = self.renewal.due_at(svid.svid.not_before, svid.svid.expires_at, jitter());
        if is_tainted {
            record.renew_at = record.renew_at.min(now + spread(retry_wait(record.tainted)));
            record.tainted = record.tainted.saturating_add(1);
        } else {
            record.tainted = 0;
        }
        record.retry_at = None;
        record.refusals = 0;
        record.svid = Some(Arc::new(svid));
        true
    }

    /// Lets go of the SVIDs that were not used for longest, beyond the limit and without
    /// subscribers.
    pub(super) fn evict(&mut self) {
        let held = self.by_id.values().filter(|record| record.is_workload_svid()).count();
        let Some(surplus) = held.checked_sub(self.max_svids).filter(|surplus| *surplus > 0) else {
            return;
        };
        let mut idle: Vec<_> = self
            .by_id
            .values_mut()
            .filter(|record| record.is_workload_svid() && record.subscribers == 0)
            .collect();
        idle.sort_unstable_by_key(|record| record.last_use);
        for record in idle.into_iter().take(surplus) {
            record.svid = None;
        }
    }

    pub(super) fn refuse(&mut self, id: &EntryId, now: Timestamp) {
        let Some(record) = self.by_id.get_mut(id) else { return };
        record.retry_at = Some(now + retry_wait(record.refusals));
        record.refusals = record.refusals.saturating_add(1);
    }

    pub(super) fn postpone(&mut self, id: &EntryId) {
        if let Some(record) = self.by_id.get_mut(id) {
            record.refusals = record.refusals.max(1);
        }
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let mut due: Vec<_> =
            self.by_id.values().filter_map(|record| Some((record.urgency(now)?, record))).collect();
        due.sort_unstable_by_key(|(urgency, record)| {
            (*urgency, record.subscribers == 0, Reverse(record.last_use), &record.entry.id)
        });
        let held = self.by_id.values().filter(|record| record.is_workload_svid()).count();
        let awaited = due.iter().filter(|(urgency, _)| *urgency == Urgency::Awaited).count();
        let mut room = self.max_svids.saturating_sub(held + awaited);
        due.into_iter()
            .filter(|(urgency, record)| {
                if *urgency != Urgency::Prefetch || record.entry.store_svid {
                    return true;
                }
                let fits = room > 0;
                room = room.saturating_sub(1);
                fits
            })
            .take(limit)
            .map(|(_, record)| Due {
                entry: record.entry.clone(),
                subscribed: record.subscribers > 0,
                renewal: record.svid.is_some(),
            })
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let renewal = |record: &Record| {
            let renew_at = record.svid.as_ref().map(|_| record.renew_at);
            match record.retry_at {
                Some(retry_at) => Some(renew_at.map_or(retry_at, |at| at.max(retry_at))),
                None => renew_at,
            }
        };
        self.by_id.values().filter_map(renewal).min()
    }

    /// Makes those of `svids` that are still held due at once.
    pub(super) fn expedite(&mut self, svids: &[(EntryId, Arc<HeldSvid>)]) -> usize {
        let mut count = 0;
        for (id, tainted) in svids {
            let Some(record) = self.by_id.get_mut(id) else { continue };
            if record.svid.as_ref().is_some_and(|held| Arc::ptr_eq(held, tainted)) {
                record.renew_at = Timestamp::MIN;
                record.retry_at = None;
                count += 1;
            }
        }
        count
    }

    pub(super) fn held(&self) -> Vec<(EntryId, Arc<HeldSvid>)> {
        let held = |(id, record): (&EntryId, &Record)| Some((id.clone(), record.svid.clone()?));
        self.by_id.iter().filter_map(held).collect()
    }

    pub(super) fn entries(&self) -> BTreeMap<EntryId, Arc<Entry>> {
        self.by_id.iter().map(|(id, record)| (id.clone(), record.entry.clone())).collect()
    }

    pub(super) fn contents(&self) -> Vec<(Arc<Entry>, Option<Arc<HeldSvid>>)> {
        self.by_id.values().map(|record| (record.entry.clone(), record.svid.clone())).collect()
    }

    pub(super) fn nearest(&self, found: &BTreeSet<Selector>) -> Option<Nearest> {
        let missing = |entry: &Entry| entry.selectors.as_set().difference(found).count();
        let entry = self
            .by_id
            .values()
            .map(|record| &record.entry)
            .filter(|entry| !entry.store_svid && !names_a_node(entry) && !entry.matches(found))
            .min_by_key(|entry| {
                (missing(entry), Reverse(entry.selectors.iter().len()), &entry.id)
            })?;
        let missing = entry.selectors.as_set().difference(found).cloned().collect();
        Some(Nearest { entry: entry.clone(), missing })
    }

    pub(super) fn can_serve(&self, now: Timestamp) -> bool {
        let mut records = self.by_id.values();
        records.any(|record| !record.entry.store_svid && record.usable(now).is_some())
    }

    pub(super) fn counts(&self) -> Counts {
        let held = self.by_id.values().filter(|record| record.svid.is_some());
        let (stored, served): (Vec<_>, Vec<_>) = held.partition(|record| record.entry.store_svid);
        Counts {
            entries: self.by_id.len(),
            x509_svids: served.len(),
            stored_x509_svids: stored.len(),
        }
    }
}

/// How long an entry is left alone after so many failures in a row and one more.
fn retry_wait(failures: u32) -> Duration {
    (FIRST_RETRY * 2_u32.pow(failures.min(6))).min(LAST_RETRY)
}

/// Whether the entry gives a node a second ID, which no workload can come close to.
fn names_a_node(entry: &Entry) -> bool {
    entry.selectors.iter().any(Selector::names_an_agent)
}

impl Record {
    fn of(entry: Arc<Entry>) -> Self {
        Self {
            entry,
            svid: None,
            renew_at: Timestamp::MAX,
            retry_at: None,
            refusals: 0,
            tainted: 0,
            subscribers: 0,
            last_use: 0,
        }
    }

    fn is_workload_svid(&self) -> bool {
        self.svid.is_some() && !self.entry.store_svid
    }
}
