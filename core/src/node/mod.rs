//! The contract of node attestation: evidence from an agent, a proven node on the server.

mod age;
mod envelope;
mod examination;
mod written;

use std::net::IpAddr;

use async_trait::async_trait;

use crate::id::SpiffeId;
use crate::selector::Selector;

pub use age::check_age;
pub use envelope::read_envelope;
pub use examination::{Check, Examination, Outcome};
pub use written::WrittenEvidence;

/// The name of the attestor of agents that come with a token of an operator's.
pub const JOIN_TOKEN: &str = "join_token";

/// The server half of an attestor: evidence → attested node, or a refusal with a reason.
#[async_trait]
pub trait NodeAttestor: Send + Sync {
    /// Checks `evidence`, asking the node through `peer` where the scheme needs a fresh nonce. It
    /// makes every call that the ID or a refusal depends on; what only selectors need is left to
    /// the resolver. Where the ID follows from the evidence alone, it asks [`Peer::admit`] before
    /// it calls the cloud. What it makes sure of, it writes into [`Peer::examination`].
    ///
    /// # Errors
    /// `Malformed` (shape or signature), `Refused` (policy or proof), `Unavailable` (the cloud
    /// could not be asked), `NotFound` (the cloud knows no such node).
    async fn verify(&self, evidence: &[u8], peer: &mut dyn Peer) -> Result<Attested, AttestError>;
}

/// The agent at the other end, and the server's word on it, as an attestor sees them.
#[async_trait]
pub trait Peer: Send {
    /// Sends a challenge and returns the node's answer; `None` where evidence is looked at that
    /// was written down earlier, so that no node is there to answer. Then the evidence is all that
    /// there is, and what only a fresh answer proves is skipped.
    ///
    /// # Errors
    /// `Malformed` where the stream ended or carried something else.
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError>;

    /// Asks whether `agent_id` may attest at all: not banned, and not used before where its
    /// evidence could be replayed.
    ///
    /// # Errors
    /// `Refused`, with the sentence for the agent.
    async fn admit(&mut self, agent_id: &SpiffeId, can_reattest: bool) -> Result<(), AttestError>;

    /// Where the connection comes from, as far as it is known and trusted.
    fn address(&self) -> Option<IpAddr>;

    /// Where the attestor writes down what it makes sure of.
    fn examination(&mut self) -> &mut Examination;
}

/// A node that has proven itself.
pub struct Attested {
    /// The agent's ID.
    pub agent_id: SpiffeId,
    /// False where the evidence could be replayed: then only its first use counts.
    pub can_reattest: bool,
    /// Asked once the server has admitted the agent: it costs calls, and may still refuse.
    pub resolver: Box<dyn NodeResolver>,
}

/// Turns a proven node into selectors.
#[async_trait]
pub trait NodeResolver: Send + Sync {
    /// What is known of the node, each selector once.
    ///
    /// # Errors
    /// As [`NodeAttestor::verify`].
    async fn selectors(&self, examination: &mut Examination) -> Result<Vec<Selector>, AttestError>;
}

/// Selectors that followed from the evidence itself.
#[async_trait]
impl NodeResolver for Vec<Selector> {
    async fn selectors(&self, _: &mut Examination) -> Result<Vec<Selector>, AttestError> {
        Ok(self.clone())
    }
}

/// Why a node is not attested. The text is for the operator, on both sides.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The evidence has not the shape that its scheme prescribes.
    #[error("{0}")]
    Malformed(String),
    /// The proof does not hold, or policy forbids the node.
    #[error("{0}")]
    Refused(String),
    /// The cloud knows no node such as the evidence speaks of.
    #[error("{0}")]
    NotFound(String),
    /// Nothing is wrong with the evidence, but whoever vouches for it could not be asked.
    #[error("{0}")]
    Unavailable(String),
}

/// The agent half of an attestor.
#[async_trait]
pub trait EvidenceSource: Send + Sync {
    /// Collects the evidence for one attestation; what it is made of is read anew each time.
    ///
    /// # Errors
    /// [`EvidenceError`] says what could not be had, and what would help.
    async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError>;
}

/// The evidence of one attestation, and what answers the server's challenges to it.
#[async_trait]
pub trait Evidence: Send {
    /// What is sent first, exactly as the scheme prescribes. Never empty.
    fn payload(&self) -> &[u8];

    /// Answers a challenge.
    ///
    /// # Errors
    /// [`EvidenceError`] where the challenge is not one of this scheme's.
    async fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, EvidenceError>;

    /// What can be looked at without a server: the payload or, where the proof is in the answer to
    /// a challenge, that answer; for `nonce` where one is given.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    async fn exhibit(&mut self, nonce: Option<&str>) -> Result<Vec<u8>, EvidenceError> {
        let _ = nonce;
        Ok(self.payload().to_vec())
    }
}

/// Evidence that is shown as it is; nothing is asked about it.
pub struct Statement {
    attestor: &'static str,
    payload: Vec<u8>,
}

impl Statement {
    /// What `attestor` shows.
    pub fn new(attestor: &'static str, payload: impl Into<Vec<u8>>) -> Self {
        Self { attestor, payload: payload.into() }
    }
}

#[async_trait]
impl Evidence for Statement {
    fn payload(&self) -> &[u8] {
        &self.payload
    }

    async fn answer(&mut self, _challenge: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        let attestor = self.attestor;
        Err(EvidenceError(format!("{attestor} knows no challenges, but the server sent one")))
    }
}

/// Why an agent has nothing to show.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EvidenceError(pub String);
