//! A node that applies to become an agent, as its attestor sees it.

use std::net::IpAddr;

use async_trait::async_trait;
use spire_core::id::SpiffeId;
use spire_core::node::{AttestError, Examination, Peer};

use super::{Attestation, Error, FIRST_USE};
use crate::store::KeyFingerprint;

/// Challenges of one attestation; no scheme needs more than a few.
const MAX_CHALLENGES: u32 = 8;

/// The conversation with a node, whatever carries it. It limits time and size.
#[async_trait]
pub trait Dialogue: Send {
    /// Sends a challenge and returns the answer.
    ///
    /// # Errors
    /// `Malformed` where the answer is not one, too large or too late.
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError>;

    /// Where the node comes from, as far as it is known and trusted.
    fn address(&self) -> Option<IpAddr>;
}

/// The dialogue with a node, and the server's word on it.
pub(super) struct Applicant<'a> {
    funnel: &'a Attestation,
    key: KeyFingerprint,
    dialogue: &'a mut dyn Dialogue,
    challenges: u32,
    examination: &'a mut Examination,
    /// Why the server refused the node when its attestor asked.
    pub(super) refusal: Option<Error>,
}

impl<'a> Applicant<'a> {
    pub(super) fn new(
        funnel: &'a Attestation,
        key: KeyFingerprint,
        dialogue: &'a mut dyn Dialogue,
        examination: &'a mut Examination,
    ) -> Self {
        Self { funnel, key, dialogue, challenges: 0, examination, refusal: None }
    }
}

#[async_trait]
impl Peer for Applicant<'_> {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        self.challenges += 1;
        if self.challenges > MAX_CHALLENGES {
            return Err(AttestError::Malformed("too many challenges".to_owned()));
        }
        self.dialogue.challenge(challenge).await.map(Some)
    }

    async fn admit(&mut self, agent_id: &SpiffeId, can_reattest: bool) -> Result<(), AttestError> {
        let admitted = self.funnel.admit(agent_id, can_reattest, self.key).await;
        let admitted = admitted.map_err(|refusal| {
            let sentence = refusal.to_string();
            self.refusal = Some(refusal);
            AttestError::Refused(sentence)
        });
        self.examination.check(FIRST_USE, admitted)
    }

    fn address(&self) -> Option<IpAddr> {
        self.dialogue.address()
    }

    fn examination(&mut self) -> &mut Examination {
        self.examination
    }
}
