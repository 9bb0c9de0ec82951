//! The tokens that are kept: those that were used last.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use spire_core::id::SpiffeId;

use super::JwtSvid;
use crate::rotation::due::{half_life, jitter};

/// A SPIFFE ID and audiences in order; an audience that was given twice counts twice.
pub(super) type Key = (SpiffeId, Vec<String>);

/// Tokens by what they were asked for.
pub(super) struct KeptTokens {
    by_key: HashMap<Key, Kept>,
    /// How many are kept at most.
    max_size: usize,
    /// Counts uses, so that the least recent one can be told.
    uses: u64,
}

struct Kept {
    svid: Arc<JwtSvid>,
    renew_at: Timestamp,
    last_use: u64,
}

impl KeptTokens {
    /// None yet, and at most `max_size` later.
    pub(super) fn new(max_size: usize) -> Self {
        Self { by_key: HashMap::new(), max_size, uses: 0 }
    }

    /// One that is still valid, with the time from which on it is to be renewed. This is a use.
    pub(super) fn take_use(
        &mut self,
        key: &Key,
        now: Timestamp,
    ) -> Option<(Arc<JwtSvid>, Timestamp)> {
        self.uses += 1;
        let kept = self.by_key.get_mut(key).filter(|kept| now < kept.svid.expires_at)?;
        kept.last_use = self.uses;
        Some((kept.svid.clone(), kept.renew_at))
    }

    /// Keeps one, in the place of that which was not used for longest where there is no room.
    pub(super) fn keep(&mut self, key: Key, svid: Arc<JwtSvid>) {
        let renew_at = half_life(svid.issued_at, svid.expires_at, jitter());
        self.uses += 1;
        self.by_key.insert(key, Kept { svid, renew_at, last_use: self.uses });
        while self.by_key.len() > self.max_size {
            let oldest = self.by_key.iter().min_by_key(|(_, kept)| kept.last_use);
            let Some((oldest, _)) = oldest else { return };
            let oldest = oldest.clone();
            self.by_key.remove(&oldest);
        }
    }

    /// Lets go of those that one of `key_ids` signed, and returns their number.
    pub(super) fn remove_signed_by(&mut self, key_ids: &[String]) -> usize {
        let before = self.by_key.len();
        let is_signed_by = |kept: &Kept| kept.svid.key_id().is_some_and(|id| key_ids.contains(&id));
        self.by_key.retain(|_, kept| !is_signed_by(kept));
        before - self.by_key.len()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by_key.len()
    }

    /// All of them, each with the audiences that it is kept under.
    pub(super) fn all(&self) -> Vec<(Vec<String>, Arc<JwtSvid>)> {
        let all = self.by_key.iter();
        all.map(|((_, audience), kept)| (audience.clone(), kept.svid.clone())).collect()
    }
}
