//! The agent's own SVID: renewed, or attested anew, with a new key each time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
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
        self.due_at = self.due_at.min(self.clock.now() + wait);
    }
}

fn due_at(identity: &AgentIdentity) -> Timestamp {
    let svid = identity.svid();
    half_of_certificate(svid.not_before, svid.expires_at, jitter())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use async_trait::async_trait;
    use spire_core::bundle::X509Authority;
    use spire_core::id::TrustDomain;
    use spire_core::keys::memory::MemoryKeyManager;
    use spire_core::keys::{KeyType, LocalKey, SigningKey};
    use spire_core::node::{Evidence, EvidenceError, EvidenceSource};
    use spire_core::svid::x509::{Issuer, LeafTemplate, Subject, self_sign_ca};
    use tonic::transport::Endpoint;

    use super::*;
    use crate::bootstrap::Rebootstrap;
    use crate::cache::samples::start;
    use crate::client::ServerAddress;
    use crate::config::{BundleSource, RebootstrapMode};
    use crate::identity::KeySlot;
    use crate::storage::Storage;

    const HOUR: Duration = Duration::from_hours(1);

    struct NoEvidence;

    #[async_trait]
    impl EvidenceSource for NoEvidence {
        async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError> {
            unreachable!("nothing is attested here")
        }
    }

    /// The CA that signs an agent's SVIDs.
    struct Ca {
        issuer: Issuer,
        bundle: watch::Sender<Arc<Bundle>>,
        clock: Clock,
    }

    impl Ca {
        async fn new() -> Self {
            let clock = Clock::standing_at(start());
            let domain = TrustDomain::parse("example.org").unwrap();
            let key = Arc::new(LocalKey::generate_blocking(KeyType::EcP256).unwrap());
            let subject = Subject::of_svids();
            let root = self_sign_ca(&*key, &domain, &subject, HOUR * 24, clock.now()).await;
            let root = root.unwrap();
            let x509_authorities = vec![X509Authority::trusted(root.clone()).unwrap()];
            let bundle = Bundle { x509_authorities, ..Bundle::empty(domain) };
            let issuer = Issuer::root(root, key).unwrap();
            Self { issuer, bundle: watch::Sender::new(Arc::new(bundle)), clock }
        }

        fn set_tainted(&self, tainted: bool) {
            self.bundle.send_modify(|bundle| {
                Arc::make_mut(bundle).x509_authorities[0].tainted = tainted;
            });
        }

        /// What the server gives to an agent.
        async fn identity(&self) -> AgentIdentity {
            let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
            let template = LeafTemplate {
                id: &self.bundle.borrow().trust_domain.member("/spire/agent/x").unwrap(),
                public_key: &key.public_key().spki,
                dns_names: &[],
                subject: None,
                ttl: HOUR,
            };
            let svid = self.issuer.sign_leaf(&template, self.clock.now()).await.unwrap();
            AgentIdentity::new(svid, Arc::new(key), KeySlot::A, false)
        }

        async fn own_svid(&self, folder: &Path) -> OwnSvid {
            let clock = self.clock.clone();
            let evidence: Arc<dyn EvidenceSource> = Arc::new(NoEvidence);
            let attestation = NodeAttestation {
                trust_domain: self.bundle.borrow().trust_domain.clone(),
                server: ServerAddress { host: "server.test".to_owned(), port: 1 },
                bundle_source: BundleSource::Insecure,
                rebootstrap: Rebootstrap {
                    mode: RebootstrapMode::Never,
                    delay: Duration::ZERO,
                    clock: clock.clone(),
                },
                attestor: "none".to_owned(),
                evidence: watch::channel(evidence).1,
                keys: Arc::new(MemoryKeyManager::new()),
                storage: Arc::new(Storage::open(folder).unwrap()),
                clock,
            };
            let server = Server::new(|| Endpoint::from_static("http://server.test").connect_lazy());
            let (presented, bundle) = (watch::Sender::new(None), self.bundle.subscribe());
            OwnSvid::new(self.identity().await, presented, attestation, server, bundle)
        }
    }

    #[tokio::test]
    async fn a_new_one_that_leads_to_a_tainted_root_is_replaced_soon_and_then_less_often() {
        let (ca, folder) = (Ca::new().await, tempfile::tempdir().unwrap());
        let mut own = ca.own_svid(folder.path()).await;
        let mut due_in = async || {
            own.replace(ca.identity().await).unwrap();
            own.due_at.duration_since(ca.clock.now()).as_secs_f64()
        };
        assert!(due_in().await > 1000.0);
        ca.set_tainted(true);
        for (low, high) in [(4.5, 5.5), (6.7, 8.3), (10.1, 12.4)] {
            let wait = due_in().await;
            assert!((low..=high).contains(&wait), "{wait} is not from {low} to {high}");
        }
        ca.set_tainted(false);
        assert!(due_in().await > 1000.0);
        ca.set_tainted(true);
        assert!(due_in().await < 5.6, "it begins anew");
    }
}
