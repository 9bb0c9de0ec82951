//! What this server would say to evidence that was written down: its own checks, with nobody to
//! challenge and nothing changed.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use spire_core::id::SpiffeId;
use spire_core::node::{AttestError, Attested, Examination, NodeAttestor, Peer, WrittenEvidence};

use super::FIRST_USE;
use crate::store::{Store, StoreError};

/// The outcome, as `evidence verify -output json` prints it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whether nothing speaks against the node.
    pub accepted: bool,
    /// Why it would be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The ID that its agent would have, where the checks came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Whether the agent could attest again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_reattest: Option<bool>,
    /// The selectors that it would have, as `type:value`.
    pub selectors: Vec<String>,
    /// What was checked, and of what.
    #[serde(flatten)]
    pub examination: Examination,
}

/// Runs the checks of `attestor` over `evidence`. Whether it would be its first use is looked up in
/// `store`, or left out for the reason that stands in its place.
pub async fn examine(
    evidence: &WrittenEvidence,
    attestor: Arc<dyn NodeAttestor>,
    store: Result<Store, String>,
) -> Verdict {
    let examination = Examination::default();
    let mut onlooker = Onlooker { store, examination, agent: None, first_use: Ok(()) };
    let proven = onlooker.prove(evidence, &*attestor).await;
    let (selectors, refusal) = match proven {
        Err(error) => (Vec::new(), Err(error)),
        Ok(node) => match node.resolver.selectors(&mut onlooker.examination).await {
            Ok(selectors) => (selectors, onlooker.first_use),
            Err(error) => (Vec::new(), Err(error)),
        },
    };
    let mut selectors: Vec<String> = selectors.iter().map(ToString::to_string).collect();
    selectors.sort();
    selectors.dedup();
    Verdict {
        accepted: refusal.is_ok(),
        reason: refusal.err().map(|error| error.to_string()),
        agent_id: onlooker.agent.as_ref().map(|(id, _)| id.to_string()),
        can_reattest: onlooker.agent.map(|(_, can_reattest)| can_reattest),
        selectors,
        examination: onlooker.examination,
    }
}

/// Stands where a node would be asked.
struct Onlooker {
    store: Result<Store, String>,
    examination: Examination,
    /// The ID that the evidence leads to, and whether it can attest again: known before the checks
    /// that ask the cloud.
    agent: Option<(SpiffeId, bool)>,
    /// A node that would be sent away is looked at to the end nevertheless.
    first_use: Result<(), AttestError>,
}

impl Onlooker {
    async fn prove(
        &mut self,
        evidence: &WrittenEvidence,
        attestor: &dyn NodeAttestor,
    ) -> Result<Attested, AttestError> {
        let node = attestor.verify(&evidence.payload, self).await?;
        let is_known = self.examination.checks.iter().any(|check| check.name == FIRST_USE);
        if !is_known {
            self.admit(&node.agent_id, node.can_reattest).await?;
        }
        Ok(node)
    }

    async fn first_use(&self, agent_id: &SpiffeId, can_reattest: bool) -> Result<(), Doubt> {
        let store = self.store.as_ref().map_err(|why| Doubt::Unknown(why.clone()))?;
        let node = store.node(agent_id).await;
        match node.map_err(|error: StoreError| Doubt::Unknown(error.to_string()))? {
            Some(node) if node.is_banned() => {
                Err(Doubt::Refused(super::Error::Banned(agent_id.clone())))
            }
            Some(_) if !can_reattest => {
                Err(Doubt::Refused(super::Error::AlreadyUsed(agent_id.clone())))
            }
            _ => Ok(()),
        }
    }
}

/// Why it is not certain that the node would be let in.
enum Doubt {
    Refused(super::Error),
    Unknown(String),
}

#[async_trait]
impl Peer for Onlooker {
    async fn challenge(&mut self, _: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        Ok(None)
    }

    async fn admit(&mut self, agent_id: &SpiffeId, can_reattest: bool) -> Result<(), AttestError> {
        self.agent = Some((agent_id.clone(), can_reattest));
        match self.first_use(agent_id, can_reattest).await {
            Ok(()) => self.examination.check(FIRST_USE, Ok(()))?,
            Err(Doubt::Unknown(why)) => self.examination.skip(FIRST_USE, why),
            Err(Doubt::Refused(error)) => {
                let refused = || Err(AttestError::Refused(error.to_string()));
                self.first_use = refused();
                // The verdict is told at the end, after everything else was looked at.
                let _ = self.examination.check::<()>(FIRST_USE, refused());
            }
        }
        Ok(())
    }

    fn address(&self) -> Option<IpAddr> {
        None
    }

    fn examination(&mut self) -> &mut Examination {
        &mut self.examination
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows who the node is, and that its cloud will not have it.
    struct Stopped;

    #[async_trait]
    impl NodeAttestor for Stopped {
        async fn verify(&self, _: &[u8], peer: &mut dyn Peer) -> Result<Attested, AttestError> {
            let id = SpiffeId::parse("spiffe://example.org/spire/agent/aws_iid/i-1").unwrap();
            peer.admit(&id, false).await?;
            let stopped = AttestError::Refused("the instance is stopped".to_owned());
            peer.examination().check("instance", Err(stopped))
        }
    }

    #[tokio::test]
    async fn an_agent_that_a_later_check_refuses_is_named() {
        let evidence = WrittenEvidence {
            kind: "aws_iid".to_owned(),
            payload: b"{}".to_vec(),
            collected_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let verdict = examine(&evidence, Arc::new(Stopped), Err("no store".to_owned())).await;
        assert_eq!(verdict.reason.as_deref(), Some("the instance is stopped"));
        let id = "spiffe://example.org/spire/agent/aws_iid/i-1";
        assert_eq!((verdict.agent_id.as_deref(), verdict.can_reattest), (Some(id), Some(false)));
        assert_eq!(verdict.examination.checks[0].name, FIRST_USE);
    }
}
