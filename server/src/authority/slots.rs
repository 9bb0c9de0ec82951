//! Two slots for each kind of authority: one is active, the other is free, prepared or old.
//!
//! Everything here is a function of its arguments; [`super::rotation`] acts on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{AuthorityState, after};

/// Earliest preparation before the end of a long-lived authority.
const PREPARE_AT_MOST: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Earliest activation before the end of a long-lived authority.
const ACTIVATE_AT_MOST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long whoever checks SVIDs gets to learn of a prepared authority.
const DISTRIBUTE_AT_MOST: SignedDuration = SignedDuration::from_secs(30);
/// The same for those who check what servers below this one sign: each level adds a step.
const DISTRIBUTE_BELOW_AT_MOST: SignedDuration = SignedDuration::from_secs(60);

/// The name of a slot, which is part of the name of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotId {
    A,
    B,
}

impl SlotId {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// From when until when an authority lives. Its dates follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) issued_at: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Lifetime {
    /// When the next authority is prepared: at half life, or 30 days before the end.
    pub(super) fn prepare_next_at(&self) -> Timestamp {
        self.not_after - (self.length() / 2).min(PREPARE_AT_MOST)
    }

    /// When the next authority takes over: a sixth of the life, or 7 days, before the end.
    pub(super) fn activate_next_at(&self) -> Timestamp {
        self.not_after - (self.length() / 6).min(ACTIVATE_AT_MOST)
    }

    /// When an authority that was published at its issue is known to those who check SVIDs.
    pub(super) fn distributed_at(&self) -> Timestamp {
        self.issued_at + (self.length() / 12).min(DISTRIBUTE_AT_MOST)
    }

    /// When it is known to those too who check what servers below this one sign.
    pub(super) fn distributed_below_at(&self) -> Timestamp {
        self.issued_at + (self.length() / 6).min(DISTRIBUTE_BELOW_AT_MOST)
    }

    /// From when on it is alarming that no next authority is prepared: half of what was left of
    /// the life at the date for that.
    pub(super) fn alarm_at(&self) -> Timestamp {
        let due = self.prepare_next_at();
        due + self.not_after.duration_since(due) / 2
    }

    /// What operators see of the authority `authority_id` that lives so long.
    pub(super) fn state(
        &self,
        authority_id: String,
        chain: Vec<Bytes>,
        upstream_authority_id: Option<String>,
    ) -> AuthorityState {
        AuthorityState {
            authority_id,
            issued_at: self.issued_at,
            expires_at: self.not_after,
            prepares_next_at: self.prepare_next_at(),
            activates_next_at: self.activate_next_at(),
            chain,
            upstream_authority_id,
        }
    }

    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        now >= self.not_after
    }

    fn length(&self) -> SignedDuration {
        self.not_after.duration_since(self.issued_at).max(SignedDuration::ZERO)
    }
}

/// What lies in a slot.
pub(super) trait Slotted {
    fn slot(&self) -> SlotId;
    fn lifetime(&self) -> Lifetime;
    /// When whoever checks SVIDs knows what it needs for this one's.
    fn distributed_at(&self) -> Timestamp {
        self.lifetime().distributed_at()
    }
    /// What operators see of it.
    fn state(&self) -> AuthorityState;
}

/// The step that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Prepare,
    Activate,
}

/// The slots of one kind of authority.
#[derive(Debug)]
pub(super) struct Slots<T> {
    active: Option<Arc<T>>,
    prepared: Option<Arc<T>>,
    old: Option<Arc<T>>,
}

impl<T: Slotted> Slots<T> {
    /// Slots in which nothing lies.
    pub(super) fn empty() -> Self {
        Self { active: None, prepared: None, old: None }
    }

    /// The one that signs.
    pub(super) fn active(&self) -> Option<&Arc<T>> {
        self.active.as_ref()
    }

    /// The one that signs next.
    pub(super) fn prepared(&self) -> Option<&Arc<T>> {
        self.prepared.as_ref()
    }

    /// The one that signed before.
    pub(super) fn old(&self) -> Option<&Arc<T>> {
        self.old.as_ref()
    }

    /// The slot that the next authority goes to.
    pub(super) fn free(&self) -> SlotId {
        self.active.as_ref().map_or(SlotId::A, |active| active.slot().other())
    }

    /// Which step the dates ask for, where the next authority lives for `ttl`. One that would end before
    /// the active one is not due yet: `ttl` was longer before.
    pub(super) fn due(&self, now: Timestamp, ttl: Duration) -> Due {
        let Some(active) = self.active.as_ref().map(|active| active.lifetime()) else {
            return if self.prepared.is_some() { Due::Activate } else { Due::Prepare };
        };
        // A prepared authority that ended while it waited is none.
        match self.prepared.as_ref().filter(|prepared| !prepared.lifetime().has_ended(now)) {
            Some(_) if active.has_ended(now) => Due::Activate,
            Some(prepared)
                if now >= active.activate_next_at() && now >= prepared.distributed_at() =>
            {
                Due::Activate
            }
            Some(_) => Due::Nothing,
            None if now < active.prepare_next_at() => Due::Nothing,
            None if after(now, ttl) <= active.not_after => Due::Nothing,
            None => Due::Prepare,
        }
    }

    /// When the active authority ends, where it is alarming that it was not replaced.
    pub(super) fn alarming_end(&self, now: Timestamp, ttl: Duration) -> Option<Timestamp> {
        let Some(active) = self.active.as_ref().map(|active| active.lifetime()) else {
            return Some(now);
        };
        let is_alarming = self.due(now, ttl) != Due::Nothing && now >= active.alarm_at();
        is_alarming.then_some(active.not_after)
    }

    /// Lays `authority` into its slot, the free one. What was there has lost its key.
    pub(super) fn prepare(&mut self, authority: Arc<T>) {
        self.old = None;
        self.prepared = Some(authority);
    }

    /// Forgets what is in the free slot, whose key is about to be replaced.
    pub(super) fn clear_free(&mut self) {
        self.old = None;
        self.prepared = None;
    }

    /// Lets the prepared authority sign; the one that signed becomes the old one.
    pub(super) fn activate(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            self.old = self.active.replace(prepared);
        }
    }

    /// Takes up what a journal remembers, of which at most one may lie in each slot.
    pub(super) fn restore(
        active: Option<Arc<T>>,
        prepared: Option<Arc<T>>,
        old: Option<Arc<T>>,
    ) -> Self {
        Self { active, prepared, old }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the next authority lives.
    const TTL: Duration = Duration::from_secs(180);

    struct Dated(SlotId, Lifetime);

    impl Slotted for Dated {
        fn slot(&self) -> SlotId {
            self.0
        }
        fn lifetime(&self) -> Lifetime {
            self.1
        }
        fn state(&self) -> AuthorityState {
            unreachable!("dates alone decide")
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lifetime(from: i64, to: i64) -> Lifetime {
        Lifetime { issued_at: at(from), not_after: at(to) }
    }

    fn dated(slot: SlotId, from: i64, to: i64) -> Arc<Dated> {
        Arc::new(Dated(slot, lifetime(from, to)))
    }

    #[test]
    fn dates_follow_from_the_lifetime() {
        let short = lifetime(0, 180);
        assert_eq!((short.prepare_next_at(), short.activate_next_at()), (at(90), at(150)));
        let day = 24 * 3600;
        let long = lifetime(0, 365 * day);
        assert_eq!(long.prepare_next_at(), at((365 - 30) * day));
        assert_eq!(long.activate_next_at(), at((365 - 7) * day));
        assert_eq!((short.distributed_at(), short.distributed_below_at()), (at(15), at(30)));
        assert_eq!(short.alarm_at(), at(135));
        let backwards = lifetime(10, 0);
        assert_eq!(backwards.prepare_next_at(), at(0));
    }

    #[test]
    fn the_first_authority_is_prepared_and_activated_at_once() {
        let mut slots = Slots::empty();
        assert_eq!((slots.due(at(0), TTL), slots.free()), (Due::Prepare, SlotId::A));
        slots.prepare(dated(SlotId::A, 0, 180));
        assert_eq!(slots.due(at(0), TTL), Due::Activate);
        slots.activate();
        assert_eq!((slots.due(at(0), TTL), slots.free()), (Due::Nothing, SlotId::B));
        assert!(slots.old().is_none());
    }

    #[test]
    fn the_slots_take_turns() {
        let mut slots = Slots::restore(Some(dated(SlotId::A, 0, 180)), None, None);
        assert_eq!(slots.due(at(89), TTL), Due::Nothing);
        assert_eq!(slots.due(at(90), TTL), Due::Prepare);
        slots.prepare(dated(SlotId::B, 90, 270));
        assert_eq!(slots.due(at(149), TTL), Due::Nothing);
        assert_eq!(slots.due(at(150), TTL), Due::Activate);
        slots.activate();
        assert_eq!(slots.active().unwrap().slot(), SlotId::B);
        assert_eq!(slots.old().unwrap().slot(), SlotId::A);
        assert_eq!(slots.free(), SlotId::A);
        assert_eq!(slots.due(at(180), TTL), Due::Prepare);
        slots.clear_free();
        assert!(slots.old().is_none() && slots.prepared().is_none());
    }

    #[test]
    fn an_authority_that_came_late_is_distributed_first() {
        let mut slots = Slots::restore(Some(dated(SlotId::A, 0, 3600)), None, None);
        slots.prepare(dated(SlotId::B, 3500, 7100));
        assert_eq!(slots.due(at(3529), TTL), Due::Nothing);
        assert_eq!(slots.due(at(3530), TTL), Due::Activate);
    }

    #[test]
    fn the_end_of_the_active_one_waits_for_nothing() {
        let mut slots = Slots::restore(Some(dated(SlotId::A, 0, 3600)), None, None);
        slots.prepare(dated(SlotId::B, 3599, 7199));
        assert_eq!(slots.due(at(3599), TTL), Due::Nothing);
        assert_eq!(slots.due(at(3600), TTL), Due::Activate);
    }

    #[test]
    fn a_prepared_authority_that_ended_is_made_anew() {
        let slots =
            Slots::restore(Some(dated(SlotId::A, 0, 180)), Some(dated(SlotId::B, 90, 140)), None);
        assert_eq!(slots.due(at(140), TTL), Due::Prepare);
    }

    #[test]
    fn one_that_would_end_before_the_active_one_is_not_due() {
        let slots = Slots::restore(Some(dated(SlotId::A, 0, 3600)), None, None);
        for (now, due) in [(1800, Due::Nothing), (3420, Due::Nothing), (3421, Due::Prepare)] {
            assert_eq!(slots.due(at(now), TTL), due, "{now}");
        }
        assert_eq!(slots.alarming_end(at(3420), TTL), None);
        assert_eq!(slots.alarming_end(at(3421), TTL), Some(at(3600)));
    }
}
