//! The answer that servers give and agents read most.

use bytes::Bytes;

use super::entry::EntryRevision;

/// `spire.api.server.entry.v1.SyncAuthorizedEntriesResponse` whose entries stay encoded: a server
/// writes them from its own records, without a message in between, and an agent can pass over
/// those whose bytes it knows. On the wire it is the same message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SyncAuthorizedEntriesResponse {
    /// What the agent may serve, for it to ask for what it lacks.
    #[prost(message, repeated, tag = "1")]
    pub entry_revisions: Vec<EntryRevision>,
    /// `spire.api.types.Entry`, each encoded.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub entries: Vec<Bytes>,
    /// Whether more of the same follows.
    #[prost(bool, tag = "3")]
    pub more: bool,
}
