//! Join tokens: each admits one agent once.

use jiff::Timestamp;
use spire_core::entry::Entry;

use super::{CreatedEntry, Store, StoreError, TokenUse};

/// SHA-256 of an agent's public key (SubjectPublicKeyInfo, DER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

/// What a join token was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption {
    /// It was unused and is spent for this key.
    Fresh,
    /// It was spent for this key before, and has not expired: a reply was lost.
    Again,
    /// It was spent for another key.
    Used,
    /// It had expired; it is gone.
    Expired,
    /// There is no such token.
    Unknown,
}

impl Redemption {
    /// Whether the agent is admitted.
    pub fn admits(self) -> bool {
        matches!(self, Self::Fresh | Self::Again)
    }
}

impl Store {
    /// Stores a token, and with it the entry that gives its agent an alias, in one transaction.
    ///
    /// # Errors
    /// `AlreadyExists` where the token is known or the entry's id is; `Unavailable`, `Conflict`,
    /// `Corrupt`.
    pub async fn create_join_token(
        &self,
        token: String,
        expires_at: Timestamp,
        alias: Option<Entry>,
    ) -> Result<Option<CreatedEntry>, StoreError> {
        let _ = (token, expires_at, alias);
        todo!()
    }

    /// Spends a token for the key of the agent that offers it. The same key may come again until
    /// the token expires, so that a lost reply burns nothing; of several keys at once one wins.
    ///
    /// [`Store::record_attestation`] does the same within its own transaction.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn redeem_join_token(
        &self,
        offered: TokenUse,
        now: Timestamp,
    ) -> Result<Redemption, StoreError> {
        let _ = (offered, now);
        todo!()
    }

    /// Deletes tokens that expired before `now`, used or not, and returns how many.
    ///
    /// # Errors
    /// As for [`Store::redeem_join_token`].
    pub async fn prune_join_tokens(&self, now: Timestamp) -> Result<u64, StoreError> {
        let _ = now;
        todo!()
    }
}
