//! Attested nodes: the agents' serial numbers, expiry, bans and selectors.

use std::collections::BTreeSet;

use futures::Stream;
use jiff::Timestamp;
use spire_core::id::SpiffeId;
use spire_core::node::JOIN_TOKEN;
use spire_core::selector::Selector;

use super::admission::{has_just_attested, record};
use super::node_rows::{COLUMNS, Kept, by_ids, fetch, select, unlink};
use super::selection::Start;
use super::sql::{Statement, look_up};
use super::transaction::Transaction;
use super::{
    BATCH, Bookmark, Change, KeyFingerprint, Listed, Page, Redemption, SetMatch, Store, StoreError,
    TokenUse, entries, join_tokens, node_rows,
};

/// An agent as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The agent's ID.
    pub agent_id: SpiffeId,
    /// The attestor that proved it first.
    pub attestation_type: String,
    /// Serial number of its SVID, decimal; empty where the agent is banned.
    pub serial: String,
    /// When that SVID ends.
    pub expires_at: Timestamp,
    /// Serial number of the SVID that it was given last and has not used yet, decimal; empty where
    /// there is none.
    pub new_serial: String,
    /// When that SVID ends.
    pub new_expires_at: Option<Timestamp>,
    /// Whether it may attest again while it is known.
    pub can_reattest: bool,
    /// What was found out about the node.
    pub selectors: BTreeSet<Selector>,
    /// The agent's version as it last told it; often empty.
    pub agent_version: String,
}

impl Node {
    /// Whether the agent is banned.
    pub fn is_banned(&self) -> bool {
        self.serial.is_empty()
    }
}

/// A proof that held, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The agent's ID.
    pub agent_id: SpiffeId,
    /// The attestor.
    pub attestation_type: String,
    /// Serial number of the SVID that the agent is given, decimal.
    pub serial: String,
    /// When that SVID ends.
    pub expires_at: Timestamp,
    /// False where the evidence could be replayed: then only its first use counts.
    pub can_reattest: bool,
    /// What was found out about the node.
    pub selectors: BTreeSet<Selector>,
    /// The key that the SVID is for.
    pub key: KeyFingerprint,
    /// The join token that is spent for it.
    pub join_token: Option<TokenUse>,
}

/// What became of an attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The agent is known with the SVID given; any pending serial number is gone.
    Stored(Node),
    /// Refused: the agent is banned.
    Banned,
    /// Refused: the evidence could be replayed and was used before.
    AlreadyUsed,
    /// Refused: the join token was not redeemed, for the reason given.
    Token(Redemption),
}

/// Which nodes a list holds: those that pass every filter that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Those proven by this attestor.
    pub attestation_type: Option<String>,
    /// Those whose selectors match.
    pub selectors: Option<SetMatch<Selector>>,
    /// Those that are banned, or are not.
    pub banned: Option<bool>,
    /// Those that may attest again, or may not.
    pub can_reattest: Option<bool>,
    /// Those whose SVID ends before this time.
    pub expires_before: Option<Timestamp>,
}

impl Store {
    /// Records an attestation. Whether the agent may attest is decided in the same transaction,
    /// so that of several that use the same evidence at once only one is stored; its key may come
    /// again for ten minutes, in case the answer was lost. The attestor of a known agent stays the
    /// one of its first attestation. Times are kept in whole seconds.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn record_attestation(
        &self,
        attestation: Attestation,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        self.write((attestation, now), |tx, (attestation, now)| {
            Box::pin(record(tx, attestation, *now))
        })
        .await
    }

    /// Whether the agent's last attestation, for this key, is so recent that it may be repeated.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn has_just_attested(
        &self,
        agent_id: &SpiffeId,
        key: KeyFingerprint,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.read((agent_id.clone(), key, now), |connection, (agent_id, key, now)| {
            Box::pin(has_just_attested(connection, agent_id, *key, *now))
        })
        .await
    }

    /// The node with this ID.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn node(&self, agent_id: &SpiffeId) -> Result<Option<Node>, StoreError> {
        Ok(self.nodes(std::slice::from_ref(agent_id)).await?.pop())
    }

    /// The nodes with these IDs, in no particular order; unknown IDs are left out.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn nodes(&self, agent_ids: &[SpiffeId]) -> Result<Vec<Node>, StoreError> {
        let ids = agent_ids.to_vec();
        let kept = self.read(ids, |connection, ids| Box::pin(by_ids(connection, ids))).await?;
        Ok(kept.into_iter().map(|kept| kept.node).collect())
    }

    /// A page of the nodes that pass `filter`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn list_nodes(
        &self,
        filter: &NodeFilter,
        page: Page,
    ) -> Result<Listed<Node>, StoreError> {
        let kept = self.read((filter.clone(), page), |connection, (filter, page)| {
            Box::pin(node_rows::list(connection, filter, *page))
        });
        Ok(Listed::of_page(kept.await?, page, |kept| kept.number).map(|kept| kept.node))
    }

    /// How many nodes pass `filter`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn count_nodes(&self, filter: &NodeFilter) -> Result<u64, StoreError> {
        let count = self.read(filter.clone(), |connection, filter| {
            Box::pin(node_rows::count(connection, filter))
        });
        Ok(count.await?.unsigned_abs())
    }

    /// All nodes in batches; see [`Store::every_entry`].
    pub fn every_node(
        &self,
        bookmark: Bookmark,
    ) -> impl Stream<Item = Result<Vec<Node>, StoreError>> + Send + use<> {
        let store = self.clone();
        let first = Some(Page { after: None, limit: Some(BATCH) });
        futures::stream::try_unfold(first, move |page| {
            let store = store.clone();
            async move {
                let Some(page) = page else { return Ok(None) };
                let rows = select(&NodeFilter::default(), page, Start::default()).rows(COLUMNS);
                let kept = store.read_since(bookmark, rows, |connection, rows| {
                    Box::pin(fetch(connection, rows.clone()))
                });
                let listed = Listed::of_page(kept.await?, page, |kept| kept.number);
                let listed = listed.map(|kept| kept.node);
                Ok(Some((listed.items, listed.next.map(|next| Page { after: Some(next), ..page }))))
            }
        })
    }

    /// Bans an agent: it keeps its row and has no serial number, so that nothing it holds counts
    /// and it cannot attest again until the row is deleted.
    ///
    /// # Errors
    /// `NotFound`, and as for [`Store::record_attestation`].
    pub async fn ban_node(&self, agent_id: SpiffeId) -> Result<(), StoreError> {
        self.write(agent_id, |tx, agent_id| {
            let text = "UPDATE nodes SET serial_number = '', new_serial_number = '', \
                        new_expires_at = NULL WHERE agent_id = ?";
            Box::pin(change(tx, agent_id, Statement::new(text).bind(agent_id.as_str())))
        })
        .await
    }

    /// Forgets an agent, so that it may attest anew (eviction). With an agent that came by join
    /// token go the token and the alias entry that was made with it.
    ///
    /// # Errors
    /// `NotFound`, and as for [`Store::record_attestation`].
    pub async fn delete_node(&self, agent_id: SpiffeId) -> Result<Node, StoreError> {
        self.write(agent_id, |tx, agent_id| {
            Box::pin(async move {
                let kept = require(tx, agent_id).await?;
                delete(tx, std::slice::from_ref(&kept)).await?;
                Ok(kept.node)
            })
        })
        .await
    }

    /// Notes the SVID that an agent was given on renewal; it counts beside the present one until
    /// it is first used.
    ///
    /// # Errors
    /// `NotFound`; `Refused` where the agent is banned; as for [`Store::record_attestation`].
    pub async fn renew_node(
        &self,
        agent_id: SpiffeId,
        new_serial: String,
        new_expires_at: Timestamp,
    ) -> Result<Node, StoreError> {
        let renewal = (agent_id, new_serial, new_expires_at);
        self.write(renewal, |tx, (agent_id, new_serial, new_expires_at)| {
            Box::pin(async move {
                let kept = require(tx, agent_id).await?;
                let text = "UPDATE nodes SET new_serial_number = ?, new_expires_at = ?, \
                            attested_key = NULL WHERE agent_id = ? AND serial_number <> ''";
                let update = Statement::new(text)
                    .bind(new_serial.as_str())
                    .bind(new_expires_at.as_second())
                    .bind(agent_id.as_str());
                if kept.node.is_banned() || tx.execute(update).await? == 0 {
                    return Err(StoreError::Refused("agent is banned".into()));
                }
                tx.note(Change::Node(agent_id.clone()));
                Ok(require(tx, agent_id).await?.node)
            })
        })
        .await
    }

    /// Makes the pending serial number the present one, if it is `serial`. Returns the node as it
    /// is then; nothing changes where `serial` is not pending.
    ///
    /// # Errors
    /// `NotFound`, and as for [`Store::record_attestation`].
    pub async fn promote_serial(
        &self,
        agent_id: SpiffeId,
        serial: String,
    ) -> Result<Node, StoreError> {
        self.write((agent_id, serial), |tx, (agent_id, serial)| {
            Box::pin(async move {
                let text = "UPDATE nodes SET serial_number = new_serial_number, \
                            expires_at = new_expires_at, new_serial_number = '', \
                            new_expires_at = NULL WHERE agent_id = ? AND new_serial_number = ? \
                            AND new_serial_number <> '' AND new_expires_at IS NOT NULL";
                let kept = require(tx, agent_id).await?;
                if kept.node.new_serial != *serial || serial.is_empty() {
                    return Ok(kept.node);
                }
                let update = Statement::new(text).bind(agent_id.as_str()).bind(serial.as_str());
                if tx.execute(update).await? == 1 {
                    tx.note(Change::Node(agent_id.clone()));
                }
                Ok(require(tx, agent_id).await?.node)
            })
        })
        .await
    }

    /// Notes the version that an agent told.
    ///
    /// # Errors
    /// `NotFound`, and as for [`Store::record_attestation`].
    pub async fn set_agent_version(
        &self,
        agent_id: SpiffeId,
        version: String,
    ) -> Result<(), StoreError> {
        self.write((agent_id, version), |tx, (agent_id, version)| {
            Box::pin(async move {
                if require(tx, agent_id).await?.node.agent_version == *version {
                    return Ok(());
                }
                let update =
                    Statement::new("UPDATE nodes SET agent_version = ? WHERE agent_id = ?")
                        .bind(version.as_str())
                        .bind(agent_id.as_str());
                change(tx, agent_id, update).await
            })
        })
        .await
    }

    /// Deletes nodes whose SVID ended before `expired_before`, at most `limit`, as
    /// [`Store::delete_node`] does, and returns their IDs. Banned ones stay, and so do those that
    /// may not attest again unless `include_non_reattestable` is set.
    ///
    /// # Errors
    /// As for [`Store::record_attestation`].
    pub async fn prune_expired_nodes(
        &self,
        expired_before: Timestamp,
        include_non_reattestable: bool,
        limit: u32,
    ) -> Result<Vec<SpiffeId>, StoreError> {
        let find = node_rows::find_expired(expired_before, include_non_reattestable, limit);
        self.write(find, |tx, find| {
            Box::pin(async move {
                let expired = fetch(tx.reader(), find.clone()).await?;
                delete(tx, &expired).await?;
                Ok(expired.into_iter().map(|kept| kept.node.agent_id).collect())
            })
        })
        .await
    }
}

/// Runs a statement that changes the row of `agent_id`.
async fn change(
    tx: &mut Transaction,
    agent_id: &SpiffeId,
    update: Statement,
) -> Result<(), StoreError> {
    if tx.execute(update).await? == 0 {
        return Err(StoreError::NotFound);
    }
    tx.note(Change::Node(agent_id.clone()));
    Ok(())
}

/// Deletes nodes with all that belongs to them.
async fn delete(tx: &mut Transaction, nodes: &[Kept]) -> Result<(), StoreError> {
    let numbers = nodes.iter().map(|kept| kept.number.into()).collect();
    tx.execute_all(look_up("DELETE FROM nodes WHERE number IN", numbers, "")).await?;
    let linked: Vec<_> = nodes.iter().map(|kept| (kept.number, &kept.node.selectors)).collect();
    unlink(tx, &linked).await?;
    for kept in nodes {
        tx.note(Change::Node(kept.node.agent_id.clone()));
    }
    let by_token = nodes.iter().filter(|kept| kept.node.attestation_type == JOIN_TOKEN);
    let by_token: Vec<_> = by_token.map(|kept| &kept.node.agent_id).collect();
    join_tokens::forget(tx, &by_token).await?;
    let aliases = entries::aliases(tx.reader(), &by_token).await?;
    entries::delete(tx, &aliases).await
}

async fn require(tx: &mut Transaction, agent_id: &SpiffeId) -> Result<Kept, StoreError> {
    let found = by_ids(tx.reader(), std::slice::from_ref(agent_id)).await?;
    found.into_iter().next().ok_or(StoreError::NotFound)
}
