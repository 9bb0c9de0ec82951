//! The agent's own SVID: renewed, or attested anew, with a new key each time.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::id::SpiffeId;
use spire_core::svid::x509::{agent_request, leads_to};
use spire_core::tls;
use tokio::sync::watch;

use super::due::{half_of_certificate, jitter};
use crate::attestation::{AttestationError, NodeAttestation};
use crate::backoff::Backoff;
use crate::client::Server;
use crate::identity::AgentIdentity;

/// How soon another SVID is asked for where a new one leads to a tainted root, and the longest wait
/// between two tries.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_mins(4);

/// The SVID that this agent presents to its server. It has one owner, who replaces it in time.
pub struct OwnSvid {
    identity: AgentIdentity,
    due_at: Timestamp,
    taint_backoff: Backoff,
    presented: watch::Sender<Option<tls::Identity>>,
    attestation: NodeAttestation,
    server: Arc<Server>,
    bundle: watch::Receiver<Arc<Bundle>>,
    clock: Clock,
}

impl OwnSvid {
    /// Takes over an identity. Each one that replaces it goes to `presented`, which connections to
    /// `server` present; whoever is attested to is known by `bundle`.
    pub fn new(
        identity: AgentIdentity,
        presented: watch::Sender<Option<tls::Identity>>,
        attestation: NodeAttestation,
        server: Arc<Server>,
        bundle: watch::Receiver<Arc<Bundle>>,
    ) -> Self {
        let clock = attestation.clock.clone();
        let due_at = due_at(&identity);
        let taint_backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        Self { identity, due_at, taint_backoff, presented, attestation, server, bundle, clock }
    }

    /// Whom it names.
    pub fn id(&self) -> &SpiffeId {
        &self.identity.svid().id
    }

    /// Whether the server lets this agent attest again.
    pub fn is_reattestable(&self) -> bool {
        self.identity.reattestable
    }

    /// What the attestation works with.
    pub fn attestation(&self) -> &NodeAttestation {
        &self.attestation
    }

    /// Whether it is to be replaced.
    pub fn is_due(&self) -> bool {
        self.clock.now() >= self.due_at
    }

    /// Whether it is of no use any more.
    pub fn has_expired(&self) -> bool {
        self.clock.now() >= self.identity.svid().expires_at
    }

    /// Makes it due where it leads to one of the roots of `tainted`. Returns whether it does.
    pub fn is_tainted_by(&mut self, tainted: &Bundle) -> bool {
        let is_tainted = self.leads_to(tainted);
        if is_tainted {
            tracing::info!("Agent SVID is tainted by a root authority, forcing rotation");
            self.due_at = Timestamp::MIN;
        }
        is_tainted
    }

    fn leads_to(&self, roots: &Bundle) -> bool {
        leads_to(&self.identity.svid().chain, roots, self.clock.now())
    }

    /// Replaces it: by another attestation where the server allows that, else by renewal.
    ///
    /// # Errors
    /// [`AttestationError`]; the present one stays.
    pub async fn rotate(&mut self) -> Result<(), AttestationError> {
        if self.identity.reattestable {
            tracing::info!("Reattesting node");
            self.reattest().await?;
            tracing::info!("Successfully reattested node");
        } else {
            tracing::info!("Rotating agent SVID");
            self.renew().await?;
            tracing::info!("Successfully rotated agent SVID");
        }
        Ok(())
    }

    /// Attests the node anew.
    ///
    /// # Errors
    /// As [`OwnSvid::rotate`].
    pub async fn reattest(&mut self) -> Result<(), AttestationError> {
        let slot = self.identity.slot.other();
        let key = slot.generate(&*self.attestation.keys).await?;
        let bundle = Bundle::clone(&self.bundle.borrow());
        let node = self.attestation.attest(key, slot, Some(bundle)).await?;
        self.replace(node.identity)
    }

    async fn renew(&mut self) -> Result<(), AttestationError> {
        let slot = self.identity.slot.other();
        let key = slot.generate(&*self.attestation.keys).await?;
        let csr = agent_request(&*key).await?;
        let renewed = self.server.renew_agent(csr).await;
        let svid = renewed.map_err(AttestationError::rpc("failed to renew agent"))?;
        if svid.id != *self.id() {
            let text = format!("the server renewed {} as {}", self.id(), svid.id);
            return Err(AttestationError::Answer(text));
        }
        self.replace(AgentIdentity::new(svid, key, slot, self.identity.reattestable))
    }

    /// The new one is stored before it is used: the server may forget the old one at its first use.
    fn replace(&mut self, identity: AgentIdentity) -> Result<(), AttestationError> {
        self.attestation.storage.store_svid(identity.svid(), identity.reattestable)?;
        self.due_at = due_at(&identity);
        self.presented.send_replace(Some(identity.tls.clone()));
        self.identity = identity;
        self.server.reconnect();
        self.hasten_where_tainted();
        Ok(())
    }

    /// A server that does not know of a taint yet signs below the tainted root still: another SVID
    /// is asked for soon, and then less and less often.
    fn hasten_where_tainted(&mut self) {
        let tainted = self.bundle.borrow().tainted();
        if !tainted.is_some_and(|tainted| self.leads_to(&tainted)) {
            self.taint_backoff.reset();
            return;
        }
        let wait = self.taint_backoff.after_failure();
        tracing::warn!(retry_interval = ?wait, "New agent SVID is tainted by a root authority");
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        self.due_at = self.due_at.min(self.clock.now() + wait);
    }
}

fn due_at(identity: &AgentIdentity) -> Timestamp {
    let svid = identity.svid();
    half_of_certificate(svid.not_before, svid.expires_at, jitter())
}
