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
    let mut onlooker = Onlooker { store, examination: Examination::default(), first_use: Ok(()) };
    let proven = onlooker.prove(evidence, &*attestor).await;
    let (node, selectors, refusal) = match proven {
        Err(error) => (None, Vec::new(), Err(error)),
        Ok(node) => match node.resolver.selectors(&mut onlooker.examination).await {
            Ok(selectors) => (Some(node), selectors, onlooker.first_use),
            Err(error) => (Some(node), Vec::new(), Err(error)),
        },
    };
    let mut selectors: Vec<String> = selectors.iter().map(ToString::to_string).collect();
    selectors.sort();
    selectors.dedup();
    Verdict {
        accepted: refusal.is_ok(),
        reason: refusal.err().map(|error| error.to_string()),
        agent_id: node.as_ref().map(|node| node.agent_id.to_string()),
        can_reattest: node.as_ref().map(|node| node.can_reattest),
        selectors,
        examination: onlooker.examination,
    }
}

/// Stands where a node would be asked.
struct Onlooker {
    store: Result<Store, String>,
    examination: Examination,
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
