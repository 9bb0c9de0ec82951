//! Evidence out, agent SVID in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyError, KeyManager, SigningKey};
use spire_core::limits::REMOTE_CALL;
use spire_core::node::{EvidenceError, EvidenceSource};
use spire_core::svid::x509::{X509Svid, agent_request};
use spire_core::tls::{self, ServerTrust};
use spire_core::wire::agent::{
    AgentX509svidParams, AttestAgentRequest, agent_client::AgentClient, attest_agent_request,
    attest_agent_response,
};
use spire_core::wire::types::AttestationData;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::backoff::Backoff;
use crate::bootstrap::{Attempt, BootstrapError, Rebootstrap};
use crate::client::{self, Denial, RpcError, Server, ServerAddress, x509_svid_from_wire};
use crate::config::{BundleSource, RebootstrapMode};
use crate::identity::{AgentIdentity, KeySlot, StoredKey, stored_key};
use crate::storage::{BootstrapUse, Storage, StorageError};

/// How long to wait after the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// When an agent gives up.
const GIVE_UP: Duration = Duration::from_secs(60);
/// When an agent gives up that may wait for its servers to be replaced.
const GIVE_UP_REBOOTSTRAP: Duration = Duration::from_secs(24 * 60 * 60);
/// A stored SVID counts as expired this much early.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(1);
/// Challenges that an agent answers in one attestation.
const MAX_CHALLENGES: usize = 16;

/// All that one agent needs to attest its node.
pub struct NodeAttestation {
    /// The trust domain that it joins.
    pub trust_domain: TrustDomain,
    /// The server.
    pub server: ServerAddress,
    /// Where the first bundle comes from.
    pub bundle_source: BundleSource,
    /// When a stored bundle is given up.
    pub rebootstrap: Rebootstrap,
    /// The name of the attestor, as the server knows it.
    pub attestor: String,
    /// What proves the node, as it is configured now.
    pub evidence: watch::Receiver<Arc<dyn EvidenceSource>>,
    /// Where the agent's keys are.
    pub keys: Arc<dyn KeyManager>,
    /// The data folder.
    pub storage: Arc<Storage>,
    /// The time.
    pub clock: Clock,
}

/// Why a node is not attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// There is no evidence.
    #[error("nodeattestor({attestor}): {error}")]
    Evidence {
        /// The name of the attestor.
        attestor: String,
        /// What is missing.
        error: EvidenceError,
    },
    /// A call failed.
    #[error("{context}: {error}")]
    Rpc {
        /// During what.
        context: &'static str,
        /// What the server, or the connection to it, said.
        error: RpcError,
    },
    /// There is no bundle by which the server could be checked.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The agent's key failed.
    #[error("key manager: {0}")]
    Key(#[from] KeyError),
    /// The data folder failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The server's answer cannot be.
    #[error("{0}")]
    Answer(String),
    /// `rebootstrap_mode` asks for what this attestor cannot do.
    #[error(
        "you have requested rebootstrap support but the NodeAttestor plugin or the spire server \
         configuration is not allowing it"
    )]
    NotReattestable,
}

impl AttestationError {
    pub(crate) fn rpc(context: &'static str) -> impl Fn(RpcError) -> Self {
        move |error| Self::Rpc { context, error }
    }

    /// Whether another attempt would end the same way.
    fn is_final(&self) -> bool {
        match self {
            Self::Rpc { error, .. } => error.code() == Code::PermissionDenied,
            Self::NotReattestable => true,
            _ => false,
        }
    }

    /// Why the server denies this agent everything, where that is what the error says.
    pub fn denial(&self) -> Option<Denial> {
        match self {
            Self::Rpc { error, .. } => error.denial(),
            _ => None,
        }
    }

    fn is_unknown_authority(&self) -> bool {
        matches!(self, Self::Rpc { error, .. } if error.is_unknown_authority())
    }
}

/// A node that has been attested, now or before.
#[derive(Debug)]
pub struct AttestedNode {
    /// The agent's identity.
    pub identity: AgentIdentity,
    /// The bundle of its trust domain.
    pub bundle: Bundle,
}

impl NodeAttestation {
    /// The identity that is stored, where it is still good.
    ///
    /// # Errors
    /// [`AttestationError`] where the key manager fails.
    pub async fn stored_identity(&self) -> Result<Option<AttestedNode>, AttestationError> {
        let data = self.storage.data();
        let leaf = data.svid.first().cloned().unwrap_or_default();
        let key = stored_key(&*self.keys, &leaf).await?;
        let svid = X509Svid::from_chain(data.svid);
        let (slot, key) = match (key, leaf.is_empty()) {
            (StoredKey::Found(slot, key), false) => (slot, key),
            (StoredKey::None, true) => return Ok(None),
            (_, true) => {
                tracing::warn!("Keys recovered, but no SVID found. Generating new keypair");
                return Ok(None);
            }
            (StoredKey::None, false) => {
                tracing::warn!("SVID recovered, but no keys found. Generating new keypair");
                return Ok(None);
            }
            (StoredKey::OthersOnly, false) => {
                tracing::warn!("SVID recovered, but no SVID key found. Generating new keypair");
                return Ok(None);
            }
        };
        let svid = svid.map_err(|error| {
            StorageError::Malformed(format!("the stored SVID cannot be read: {error}"))
        })?;
        if svid.expires_at <= self.clock.now() + EXPIRY_MARGIN {
            let expiry = svid.expires_at;
            tracing::warn!(
                %expiry,
                "SVID key recovered, but SVID is expired. Generating new keypair"
            );
            return Ok(None);
        }
        let Some(bundle) = self.storage.bundle(&self.trust_domain) else { return Ok(None) };
        tracing::info!(spiffe_id = %svid.id, expiration = %svid.expires_at, "SVID loaded");
        let identity = AgentIdentity::new(svid, key, slot, data.reattestable);
        Ok(Some(AttestedNode { identity, bundle }))
    }

    /// Attests the node, again and again until it succeeds, is denied, or the time is up and there
    /// is nothing left to serve. All attempts are made with one key: where the server's answer is
    /// lost, the next attempt is known to come from the same agent, and no join token is burnt.
    ///
    /// # Errors
    /// The last [`AttestationError`].
    pub async fn attest_until_given_up(
        &self,
        can_serve: impl Fn() -> bool,
    ) -> Result<AttestedNode, AttestationError> {
        tracing::info!("SVID is not found. Starting node attestation");
        let limit = match self.rebootstrap.mode {
            RebootstrapMode::Never => GIVE_UP,
            RebootstrapMode::Auto | RebootstrapMode::Always => GIVE_UP_REBOOTSTRAP,
        };
        let began = self.clock.now();
        let mut backoff = Backoff::new(FIRST_RETRY, limit);
        let slot = KeySlot::A;
        let key = slot.generate(&*self.keys).await?;
        loop {
            let error = match self.attest_once(key.clone(), slot).await {
                Ok(node) => return Ok(node),
                Err(error) => error,
            };
            if error.is_unknown_authority()
                && self.rebootstrap.authority_is_unknown(&self.storage)?
            {
                tracing::info!("The server's authority is unknown. Bootstrapping again");
                continue;
            }
            if error.is_final() {
                // Nobody is to be served on the word of a server that has taken it back.
                self.storage.delete_cache()?;
                return Err(error);
            }
            let wait = backoff.after_failure();
            let waited = self.clock.now().duration_since(began).unsigned_abs() + wait;
            if waited > limit && !can_serve() {
                return Err(error);
            }
            tracing::error!(
                %error,
                retry_interval = ?wait,
                "Failed to retrieve attestation result"
            );
            self.clock.sleep(wait).await;
        }
    }

    async fn attest_once(
        &self,
        key: Arc<dyn SigningKey>,
        slot: KeySlot,
    ) -> Result<AttestedNode, AttestationError> {
        let record = self.rebootstrap.attempt_begins(&self.storage)?;
        let stored = match record.source {
            BootstrapUse::Configured => None,
            BootstrapUse::Stored | BootstrapUse::Unspecified => {
                self.storage.bundle(&self.trust_domain)
            }
        };
        let bundle = match stored {
            Some(bundle) => Some(bundle),
            None => {
                let attempt = Attempt {
                    trust_domain: &self.trust_domain,
                    server: &self.server,
                    is_rebootstrap: record.source == BootstrapUse::Configured,
                    number: record.attempts,
                    started_at: record.started_at.unwrap_or_else(|| self.clock.now()),
                };
                self.bundle_source.fetch(&attempt).await?
            }
        };
        if bundle.is_none() {
            tracing::warn!("Insecure bootstrap enabled; skipping server certificate verification");
        }
        let node = self.attest(key, slot, bundle).await?;
        self.check_rebootstrap(node.identity.reattestable)?;
        let svid = node.identity.svid();
        self.storage.store_attested(svid, node.identity.reattestable, &node.bundle)?;
        tracing::info!(
            spiffe_id = %svid.id,
            reattestable = node.identity.reattestable,
            "Node attestation was successful"
        );
        Ok(node)
    }

    /// Attests once with `key`, trusting the server by `bundle`, or by its name alone. Nothing is
    /// stored.
    ///
    /// # Errors
    /// [`AttestationError`].
    pub async fn attest(
        &self,
        key: Arc<dyn SigningKey>,
        slot: KeySlot,
        bundle: Option<Bundle>,
    ) -> Result<AttestedNode, AttestationError> {
        let trust = match bundle {
            Some(bundle) => ServerTrust::Bundle(watch::Sender::new(Arc::new(bundle)).subscribe()),
            None => ServerTrust::Insecure(Arc::new(OnceLock::new())),
        };
        let config = tls::client_config(&self.trust_domain, trust, None, self.clock.clone());
        let channel = client::connect(&self.server, Arc::new(config));
        let csr = agent_request(&*key).await?;
        let agent = AgentClient::new(channel.clone());
        let (svid, reattestable) = timeout(REMOTE_CALL, self.present_evidence(agent, csr))
            .await
            .map_err(|_| AttestationError::Rpc {
            context: "failed to receive attestation response",
            error: Status::deadline_exceeded("context deadline exceeded").into(),
        })??;
        if !svid.id.is_member_of(&self.trust_domain) {
            let text = format!("the server returned an SVID of another domain: {}", svid.id);
            return Err(AttestationError::Answer(text));
        }
        let bundle = Server::new(move || channel.clone())
            .bundle()
            .await
            .map_err(AttestationError::rpc("failed to get updated bundle"))?;
        if bundle.trust_domain != self.trust_domain || bundle.x509_authorities.is_empty() {
            let text = "the server returned no bundle of this trust domain";
            return Err(AttestationError::Answer(text.to_owned()));
        }
        Ok(AttestedNode { identity: AgentIdentity::new(svid, key, slot, reattestable), bundle })
    }

    async fn present_evidence(
        &self,
        mut agent: AgentClient<tonic::transport::Channel>,
        csr: Bytes,
    ) -> Result<(X509Svid, bool), AttestationError> {
        let evidence_error =
            |error| AttestationError::Evidence { attestor: self.attestor.clone(), error };
        let receive = AttestationError::rpc("failed to receive attestation response");
        let source = self.evidence.borrow().clone();
        let mut evidence = source.collect().await.map_err(evidence_error)?;
        let data = AttestationData {
            r#type: self.attestor.clone(),
            payload: Bytes::copy_from_slice(evidence.payload()),
        };
        let params = attest_agent_request::Params {
            data: Some(data),
            params: Some(AgentX509svidParams { csr }),
        };
        let (requests, outgoing) = mpsc::channel(1);
        let send = async |step| {
            // A stream that ended is noticed where its answer is read.
            let _ = requests.send(AttestAgentRequest { step: Some(step) }).await;
        };
        send(attest_agent_request::Step::Params(params)).await;
        let answers = agent.attest_agent(ReceiverStream::new(outgoing)).await;
        let mut answers = answers.map_err(|status| receive(status.into()))?.into_inner();
        for _ in 0..=MAX_CHALLENGES {
            let answer = answers.message().await.map_err(|status| receive(status.into()))?;
            match answer.and_then(|answer| answer.step) {
                Some(attest_agent_response::Step::Result(result)) => {
                    let svid = x509_svid_from_wire(result.svid).map_err(&receive)?;
                    return Ok((svid, result.reattestable));
                }
                Some(attest_agent_response::Step::Challenge(challenge)) => {
                    let response = evidence.answer(&challenge).await.map_err(evidence_error)?;
                    let response = Bytes::from(response);
                    send(attest_agent_request::Step::ChallengeResponse(response)).await;
                }
                None => break,
            }
        }
        let text = "the server ended the attestation without a result";
        Err(AttestationError::Answer(text.to_owned()))
    }

    fn check_rebootstrap(&self, reattestable: bool) -> Result<(), AttestationError> {
        if reattestable {
            return Ok(());
        }
        match self.rebootstrap.mode {
            RebootstrapMode::Never => Ok(()),
            RebootstrapMode::Auto => {
                tracing::warn!(
                    "The agent cannot attest again, so that it will not bootstrap again either"
                );
                Ok(())
            }
            RebootstrapMode::Always => Err(AttestationError::NotReattestable),
        }
    }
}
