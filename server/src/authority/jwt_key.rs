//! A key for JWT-SVIDs.

use std::sync::Arc;

use aws_lc_rs::rand;
use jiff::Timestamp;
use spire_core::bundle::{Bundle, JwtAuthority};
use spire_core::keys::{KeyError, SigningKey};

use super::journal::{JournalEntry, JwtKeyEntry, Status};
use super::slots::{Lifetime, SlotId, Slotted};
use super::{AuthorityState, Settings, after};

/// Length of a `kid`.
const KEY_ID_LENGTH: usize = 32;

/// A key for JWT-SVIDs in its slot.
#[derive(Debug)]
pub(super) struct JwtKey {
    slot: SlotId,
    lifetime: Lifetime,
    /// The `kid` of its tokens.
    pub(super) id: String,
    pub(super) key: Arc<dyn SigningKey>,
}

impl JwtKey {
    /// The id of its key in the key manager.
    pub(super) fn key_id(slot: SlotId) -> String {
        format!("JWT-Signer-{slot}")
    }

    /// Gives a fresh key its name and its dates.
    pub(super) fn new(
        slot: SlotId,
        key: Arc<dyn SigningKey>,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        let lifetime = Lifetime { issued_at: now, not_after: after(now, settings.ca_ttl) };
        Ok(Self { slot, lifetime, id: random_id()?, key })
    }

    /// Takes up a key that the journal remembers.
    ///
    /// # Errors
    /// Why it is of no use.
    pub(super) fn restore(
        entry: &JwtKeyEntry,
        key: Arc<dyn SigningKey>,
        bundle: &Bundle,
        now: Timestamp,
    ) -> Result<Self, String> {
        let slot = entry.slot().ok_or("its slot is unknown")?;
        let instant = |second| Timestamp::from_second(second).map_err(|err| err.to_string());
        let lifetime =
            Lifetime { issued_at: instant(entry.issued_at)?, not_after: instant(entry.not_after)? };
        if key.public_key().spki != entry.public_key {
            return Err("the key manager holds another key".to_owned());
        }
        if !bundle.jwt_authorities.iter().any(|known| known.key_id == entry.kid) {
            return Err("it is no longer in the bundle".to_owned());
        }
        if lifetime.has_ended(now) {
            return Err("it has expired".to_owned());
        }
        Ok(Self { slot, lifetime, id: entry.kid.clone(), key })
    }

    /// What belongs into the bundle.
    pub(super) fn authority(&self) -> JwtAuthority {
        JwtAuthority {
            key_id: self.id.clone(),
            public_key: self.key.public_key().spki.clone(),
            expires_at: Some(self.lifetime.not_after),
            tainted: false,
        }
    }

    pub(super) fn entry(&self, status: Status) -> JwtKeyEntry {
        JwtKeyEntry {
            slot_id: self.slot.to_string(),
            issued_at: self.lifetime.issued_at.as_second(),
            not_after: self.lifetime.not_after.as_second(),
            kid: self.id.clone(),
            public_key: self.key.public_key().spki.to_vec(),
            status: status as i32,
            authority_id: self.id.clone(),
        }
    }
}

impl Slotted for JwtKey {
    fn slot(&self) -> SlotId {
        self.slot
    }

    fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    fn state(&self) -> AuthorityState {
        self.lifetime.state(self.id.clone(), Vec::new(), None)
    }
}

/// 32 random letters and digits, each as likely as any other.
fn random_id() -> Result<String, KeyError> {
    const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    // Bytes at or above the largest multiple of 62 would favour the first letters.
    const FAIR: u8 = 62 * 4;
    let mut id = String::with_capacity(KEY_ID_LENGTH);
    while id.len() < KEY_ID_LENGTH {
        let mut bytes = [0; KEY_ID_LENGTH];
        rand::fill(&mut bytes)
            .map_err(|_| KeyError::Unavailable("the random source failed".to_owned()))?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR);
        let letters = fair.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
        id.extend(letters.take(KEY_ID_LENGTH - id.len()));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_are_32_letters_and_digits() {
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(one, other);
    }
}
