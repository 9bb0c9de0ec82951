//! Agents that were refused a moment ago, whose next calls need not ask the database again: who is
//! banned or was evicted calls on, and the database may be away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use spire_core::id::SpiffeId;
use spire_core::wire::convert::denial::Reason;

use crate::caller::PeerSvid;
use crate::store::Revision;

/// How long a refusal holds where memory learns of no change. An SVID is recorded before its agent
/// gets it, so that one that was refused is not admitted later.
const HOLDS: SignedDuration = SignedDuration::from_secs(5);

/// How many agents are remembered at most.
const MOST: usize = 10_000;

/// The last refusal of each agent.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<SpiffeId, Refusal>>);

struct Refusal {
    serial: Arc<str>,
    reason: Reason,
    /// What memory knew then.
    revision: Revision,
    until: Timestamp,
}

impl Refusals {
    /// Why this SVID was refused, if that still holds at `now`, when memory is at `revision`.
    pub(super) fn reason(
        &self,
        svid: &PeerSvid,
        revision: Revision,
        now: Timestamp,
    ) -> Option<Reason> {
        let refusals = self.lock();
        let refusal = refusals.get(&svid.id)?;
        let holds =
            refusal.serial == svid.serial && refusal.revision == revision && now < refusal.until;
        holds.then_some(refusal.reason)
    }

    pub(super) fn remember(
        &self,
        svid: &PeerSvid,
        reason: Reason,
        revision: Revision,
        now: Timestamp,
    ) {
        let mut refusals = self.lock();
        if refusals.len() >= MOST {
            refusals.retain(|_, refusal| now < refusal.until);
        }
        if refusals.len() < MOST {
            let until = now.checked_add(HOLDS).unwrap_or(Timestamp::MAX);
            let refusal = Refusal { serial: svid.serial.clone(), reason, revision, until };
            refusals.insert(svid.id.clone(), refusal);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SpiffeId, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Revision = Revision(1);
    const SECOND: Revision = Revision(2);

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let refusals = Refusals::default();
        let second = |second| Timestamp::from_second(second).unwrap();
        let svid = |number: usize| PeerSvid {
            id: SpiffeId::parse(&format!("spiffe://example.org/{number}")).unwrap(),
            serial: "1".into(),
            expires_at: Timestamp::MAX,
        };
        for number in 0..=MOST {
            refusals.remember(&svid(number), Reason::AgentBanned, FIRST, second(0));
        }
        assert_eq!(refusals.reason(&svid(0), FIRST, second(4)), Some(Reason::AgentBanned));
        assert_eq!(refusals.reason(&svid(0), SECOND, second(4)), None);
        assert_eq!(refusals.reason(&svid(MOST), FIRST, second(4)), None);
        // Those before hold no more.
        refusals.remember(&svid(MOST), Reason::AgentBanned, FIRST, second(5));
        assert_eq!(refusals.reason(&svid(MOST), FIRST, second(5)), Some(Reason::AgentBanned));
        assert_eq!(refusals.lock().len(), 1);
    }
}
