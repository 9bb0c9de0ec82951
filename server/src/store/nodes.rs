//! Attested nodes: the agents' serial numbers, expiry, bans and selectors.

use std::collections::BTreeSet;

use futures::Stream;
use jiff::Timestamp;
use spire_core::id::SpiffeId;
use spire_core::selector::Selector;

use super::{KeyFingerprint, Listed, Page, Redemption, SetMatch, Store, StoreError};

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
    /// The join token that is spent for it.
    pub join_token: Option<TokenUse>,
}

/// A join token and the key of the agent that offers it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenUse {
    /// The token, a secret until it is spent.
    pub token: String,
    /// The key in the agent's certificate request.
    pub key: KeyFingerprint,
}

impl std::fmt::Debug for TokenUse {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TokenUse").finish_non_exhaustive()
    }
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
    /// so that of several that use the same evidence at once only one is stored.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn record_attestation(
        &self,
        attestation: Attestation,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        let _ = (attestation, now);
        todo!()
    }

    /// The node with this ID.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn node(&self, agent_id: &SpiffeId) -> Result<Option<Node>, StoreError> {
        let _ = agent_id;
        todo!()
    }

    /// The nodes with these IDs, in no particular order; unknown IDs are left out.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn nodes(&self, agent_ids: &[SpiffeId]) -> Result<Vec<Node>, StoreError> {
        let _ = agent_ids;
        todo!()
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
        let _ = (filter, page);
        todo!()
    }

    /// How many nodes pass `filter`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn count_nodes(&self, filter: &NodeFilter) -> Result<u64, StoreError> {
        let _ = filter;
        todo!()
    }

    /// All nodes in batches; see [`Store::every_entry`].
    pub fn every_node(&self) -> impl Stream<Item = Result<Vec<Node>, StoreError>> + Send + use<> {
        futures::stream::empty()
    }

    /// Bans an agent: it keeps its row and has no serial number, so that nothing it holds counts
    /// and it cannot attest again until the row is deleted.
    ///
    /// # Errors
    /// `NotFound`, and as for [`Store::record_attestation`].
    pub async fn ban_node(&self, agent_id: SpiffeId) -> Result<(), StoreError> {
        let _ = agent_id;
        todo!()
    }

    /// Forgets an agent, so that it may attest anew (eviction). With an agent that came by join
    /// token go the token and the alias entry that was made with it.
    ///
    /// # Errors
    /// `NotFound`, and as for [`Store::record_attestation`].
    pub async fn delete_node(&self, agent_id: SpiffeId) -> Result<Node, StoreError> {
        let _ = agent_id;
        todo!()
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
        let _ = (agent_id, new_serial, new_expires_at);
        todo!()
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
        let _ = (agent_id, serial);
        todo!()
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
        let _ = (agent_id, version);
        todo!()
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
        let _ = (expired_before, include_non_reattestable, limit);
        todo!()
    }
}
