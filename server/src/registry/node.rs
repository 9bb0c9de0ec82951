//! What the registry knows of a node, and how it lies in memory.

use std::collections::BTreeSet;

use jiff::Timestamp;
use spire_core::id::SpiffeId;
use spire_core::selector::Selector;

/// An attested node, as far as calls of its agent depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its agent's ID.
    pub agent_id: SpiffeId,
    /// Serial number of the agent's present SVID, decimal; empty means that the node is banned.
    pub serial: String,
    /// Serial number of the SVID that a renewal made and the agent has not used yet.
    pub new_serial: Option<String>,
    /// When its present SVID expires.
    pub expires_at: Timestamp,
    /// Whether it may attest anew.
    pub can_reattest: bool,
    /// What is known of it.
    pub selectors: BTreeSet<Selector>,
}

/// A node within a snapshot, read in place.
#[derive(Debug, Clone, Copy)]
pub struct NodeRef<'a> {
    bytes: &'a [u8],
}

impl<'a> NodeRef<'a> {
    /// Serial number of the agent's present SVID, decimal; empty means that the node is banned.
    pub fn serial(&self) -> &'a str {
        todo!()
    }

    /// Serial number of the SVID that a renewal made and the agent has not used yet.
    pub fn new_serial(&self) -> Option<&'a str> {
        todo!()
    }

    /// When the present SVID expires.
    pub fn expires_at(&self) -> Timestamp {
        todo!()
    }

    /// Whether the node may attest anew.
    pub fn can_reattest(&self) -> bool {
        todo!()
    }

    /// Whether the node is banned.
    pub fn is_banned(&self) -> bool {
        self.serial().is_empty()
    }

    /// What is known of the node.
    pub fn selectors(&self) -> BTreeSet<Selector> {
        let _ = self.bytes;
        todo!()
    }
}
