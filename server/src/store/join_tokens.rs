//! Join tokens: each admits one agent once.

use std::fmt;

use jiff::Timestamp;
use spire_core::entry::Entry;
use spire_core::id::SpiffeId;

use super::packing::sha256;
use super::sql::{Statement, look_up};
use super::transaction::Transaction;
use super::{CreatedEntry, Store, StoreError, entries};

/// SHA-256 of an agent's public key (SubjectPublicKeyInfo, DER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

/// A join token and the key of the agent that offers it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenUse {
    /// The token, a secret until it is spent.
    pub token: String,
    /// The key in the agent's certificate request.
    pub key: KeyFingerprint,
}

impl fmt::Debug for TokenUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenUse").finish_non_exhaustive()
    }
}

/// What a join token was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption {
    /// It was unused and is spent for this key.
    Fresh,
    /// It was spent for this key before, and has not expired: a reply was lost.
    Again,
    /// It was spent for another key.
    Used,
    /// It had expired unused; it is gone.
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
    /// `AlreadyExists` where the token is known or the entry's id is; `Invalid` as for
    /// [`Store::create_entries`]; `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn create_join_token(
        &self,
        token: String,
        expires_at: Timestamp,
        alias: Option<Entry>,
    ) -> Result<Option<CreatedEntry>, StoreError> {
        let alias: Vec<Entry> = alias.into_iter().collect();
        self.write(
            (sha256(token.as_bytes()), expires_at, alias),
            |tx, (token, expires_at, alias)| {
                Box::pin(async move {
                    let find =
                        Statement::new("SELECT 1 FROM join_tokens WHERE token = ?").bind(*token);
                    if tx.reader().fetch_first(find).await?.is_some() {
                        return Err(StoreError::AlreadyExists("join token already exists".into()));
                    }
                    let insert =
                        Statement::new("INSERT INTO join_tokens (token, expires_at) VALUES (?, ?)");
                    let created =
                        entries::create(tx, alias).await?.into_iter().next().transpose()?;
                    tx.execute(insert.bind(*token).bind(expires_at.as_second())).await?;
                    Ok(created)
                })
            },
        )
        .await
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
        self.write((offered, now), |tx, (offered, now)| Box::pin(redeem(tx, offered, *now))).await
    }

    /// Deletes tokens that expired before `now`, used or not, and returns how many.
    ///
    /// # Errors
    /// As for [`Store::redeem_join_token`].
    pub async fn prune_join_tokens(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(now, |tx, now| {
            Box::pin(async move {
                let delete = Statement::new("DELETE FROM join_tokens WHERE expires_at < ?");
                tx.execute(delete.bind(now.as_second())).await
            })
        })
        .await
    }
}

/// Spends a token for a key; the statement that spends it decides between several.
pub(super) async fn redeem(
    tx: &mut Transaction,
    offered: &TokenUse,
    now: Timestamp,
) -> Result<Redemption, StoreError> {
    let token = sha256(offered.token.as_bytes());
    let spend = "UPDATE join_tokens SET redeemed_by = ? \
                 WHERE token = ? AND redeemed_by IS NULL AND expires_at >= ?";
    let spend = Statement::new(spend).bind(offered.key.0).bind(token).bind(now.as_second());
    if tx.execute(spend).await? == 1 {
        return Ok(Redemption::Fresh);
    }
    let find = Statement::new("SELECT expires_at, redeemed_by FROM join_tokens WHERE token = ?");
    let Some(row) = tx.reader().fetch_first(find.bind(token)).await? else {
        return Ok(Redemption::Unknown);
    };
    let redeemed_by = row.optional_blob(1)?;
    if row.integer(0)? < now.as_second() {
        let used = redeemed_by.is_some();
        tx.execute(Statement::new("DELETE FROM join_tokens WHERE token = ?").bind(token)).await?;
        return Ok(if used { Redemption::Used } else { Redemption::Expired });
    }
    let same_key = redeemed_by == Some(&offered.key.0[..]);
    Ok(if same_key { Redemption::Again } else { Redemption::Used })
}

/// Deletes the tokens by which `agents` came, so that they do not admit them once more.
pub(super) async fn forget(tx: &mut Transaction, agents: &[&SpiffeId]) -> Result<(), StoreError> {
    let spent = agents.iter();
    let spent = spent.filter_map(|agent| agent.path().strip_prefix("/spire/agent/join_token/"));
    let tokens = spent.map(|token| sha256(token.as_bytes()).into());
    let delete = look_up("DELETE FROM join_tokens WHERE token IN", tokens.collect(), "");
    tx.execute_all(delete).await
}
