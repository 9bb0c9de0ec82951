//! Who becomes an agent: the one funnel that evidence goes down and an agent's SVID comes back up.
//!
//! What evidence proves is left to the attestors; how it travels, to `api/agent/dialogue.rs`.

mod applicant;
mod evidence;
mod join_token;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use bytes::Bytes;
use spire_core::clock::Clock;
use spire_core::id::{SERVER_PATH, SpiffeId, TrustDomain};
use spire_core::node::{AttestError, Attested, Examination, JOIN_TOKEN, NodeAttestor};
use spire_core::selector::Selector;
use spire_core::svid::x509::{CertificateRequest, X509Svid};
use uuid::Uuid;

use crate::authority::{Authority, IssueError};
use crate::registry::Registry;
use crate::store::{self, KeyFingerprint, Recorded, Redemption, Store, StoreError, TokenUse};

use applicant::Applicant;
pub use applicant::Dialogue;
pub use evidence::{Verdict, examine};
pub use join_token::agent_id_of;

/// The check that an agent is neither banned nor known where its evidence counts once only.
const FIRST_USE: &str = "first use";

/// How long an agent waits at most until this server knows it in memory. It has its SVID either
/// way; were its first call faster, the agent would be sent away.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// What an agent asks with.
pub struct Request {
    /// The attestor by its name.
    pub kind: String,
    /// What the agent presents, as the attestor's scheme lays it out.
    pub evidence: Bytes,
    /// Its certificate request, of which only the key counts.
    pub csr: CertificateRequest,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an attestation comes from, for the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin {
    /// The agent's address, where it came over a network.
    pub caller: Option<SocketAddr>,
    /// What all log lines of its call share.
    pub request_id: Uuid,
}

impl Request {
    /// The key for which evidence is used: the same agent may ask again where the answer was lost.
    fn key(&self) -> KeyFingerprint {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &self.csr.public_key).as_ref());
        KeyFingerprint(fingerprint)
    }
}

/// An agent, as it is let in.
#[derive(Debug)]
pub struct Admitted {
    /// Its SVID.
    pub svid: X509Svid,
    /// Whether it renews this SVID by attesting again.
    pub can_reattest: bool,
}

/// Why a node does not become an agent. The texts are those of SPIRE where it has one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No attestor of that name is configured.
    #[error("error getting node attestor: could not find node attestor type {0:?}")]
    UnknownKind(String),
    /// The attestor, or the resolver that it named, says no.
    #[error("nodeattestor({kind}): {source}")]
    Attestor {
        /// The attestor by its name.
        kind: String,
        /// Why.
        source: AttestError,
    },
    /// The attestor gave an ID that no agent may have.
    #[error("the node attestor produced an invalid agent ID: {0:?} {1}")]
    AgentId(SpiffeId, &'static str),
    /// An operator has banned the agent; only its deletion lets it back.
    #[error("failed to attest: agent is banned")]
    Banned(SpiffeId),
    /// The evidence counts once only; an operator may evict the agent that used it.
    #[error("attestation data has already been used to attest an agent")]
    AlreadyUsed(SpiffeId),
    /// There is no such token, or another key has used it.
    #[error("failed to attest: join token does not exist or has already been used")]
    NoSuchToken,
    /// The token was good once.
    #[error("join token expired")]
    TokenExpired,
    /// Nothing is wrong with the node, but it cannot get an SVID.
    #[error("failed to sign X509 SVID: {0}")]
    Sign(#[from] IssueError),
    /// Nothing is wrong with the node, but it cannot be recorded.
    #[error("failed to attest: {0}")]
    Store(#[from] StoreError),
}

/// Attestors by their name.
pub type Attestors = HashMap<String, Arc<dyn NodeAttestor>>;

/// Where nodes become agents.
pub struct Attestation {
    /// Whose agents they become.
    pub trust_domain: TrustDomain,
    /// The configured attestors by name; `join_token` needs no configuration.
    pub attestors: ArcSwap<Attestors>,
    /// Signs their SVIDs.
    pub authority: Arc<Authority>,
    /// Records them.
    pub store: Store,
    /// Knows them without asking the store.
    pub registry: Arc<Registry>,
    /// Whether each gets its own ID as a selector `spiffe_id:…`.
    pub id_as_selector: bool,
    /// The time.
    pub clock: Clock,
}

impl Attestation {
    /// Evidence in, agent SVID out. Nothing is stored until every step before it has held; of
    /// several that use the same evidence at once, the store lets one through.
    ///
    /// # Errors
    /// [`Error`], whose text is for the agent and its operator.
    pub async fn attest(
        &self,
        request: Request,
        dialogue: &mut dyn Dialogue,
    ) -> Result<Admitted, Error> {
        let mut examination = Examination::default();
        let admitted = self.examine(&request, dialogue, &mut examination).await;
        if let Err(refusal) = &admitted {
            log_refusal(&request, &examination, refusal);
        }
        admitted
    }

    async fn examine(
        &self,
        request: &Request,
        dialogue: &mut dyn Dialogue,
        examination: &mut Examination,
    ) -> Result<Admitted, Error> {
        let node = self.verify(request, dialogue, examination).await?;
        let can_come_again = node.can_reattest || request.kind == JOIN_TOKEN;
        self.admit(&node.agent_id, can_come_again, request.key()).await?;
        let selectors = self.resolve(&request.kind, &node, examination).await?;
        let svid = self.authority.sign_agent(&request.csr, &node.agent_id).await?;
        self.record(request, &node, selectors, &svid).await?;
        self.known_here().await;
        Ok(Admitted { svid, can_reattest: node.can_reattest })
    }

    async fn verify(
        &self,
        request: &Request,
        dialogue: &mut dyn Dialogue,
        examination: &mut Examination,
    ) -> Result<Attested, Error> {
        if request.kind == JOIN_TOKEN {
            return join_token::verify(&request.evidence, &self.trust_domain);
        }
        let attestor = self.attestors.load().get(&request.kind).cloned();
        let attestor = attestor.ok_or_else(|| Error::UnknownKind(request.kind.clone()))?;
        let mut applicant = Applicant::new(self, request.key(), dialogue, examination);
        match attestor.verify(&request.evidence, &mut applicant).await {
            Ok(node) => {
                self.check_id(&request.kind, &node.agent_id)?;
                Ok(node)
            }
            Err(refused) => Err(applicant.refusal.unwrap_or_else(|| Error::Attestor {
                kind: request.kind.clone(),
                source: refused,
            })),
        }
    }

    fn check_id(&self, kind: &str, agent_id: &SpiffeId) -> Result<(), Error> {
        let wrong = |why| Err(Error::AgentId(agent_id.clone(), why));
        if !agent_id.is_member_of(&self.trust_domain) {
            return wrong("is not in this trust domain");
        }
        if agent_id.path().is_empty() || agent_id.path() == SERVER_PATH {
            return wrong("is that of the server or of the trust domain");
        }
        let inside = agent_id
            .path()
            .strip_prefix("/spire/agent/")
            .and_then(|path| path.strip_prefix(kind))
            .is_some_and(|path| path.starts_with('/'));
        if !inside {
            tracing::warn!(
                subsystem_name = "api",
                agent_id = %agent_id,
                node_attestor_type = kind,
                "The node attestor produced an agent ID outside of its namespace \
                 /spire/agent/<node attestor type>/"
            );
        }
        Ok(())
    }

    /// Turns away at once whom the store would turn away in the end. What is known here may be a
    /// moment old; the store decides, and is asked already here where an agent that counts once
    /// comes a second time.
    async fn admit(
        &self,
        agent_id: &SpiffeId,
        can_come_again: bool,
        key: KeyFingerprint,
    ) -> Result<(), Error> {
        match self.registry.snapshot().node(agent_id) {
            Some(node) if node.is_banned() => return Err(Error::Banned(agent_id.clone())),
            Some(_) if !can_come_again => {}
            _ => return Ok(()),
        }
        match self.store.has_just_attested(agent_id, key, self.clock.now()).await? {
            true => Ok(()),
            false => Err(Error::AlreadyUsed(agent_id.clone())),
        }
    }

    async fn resolve(
        &self,
        kind: &str,
        node: &Attested,
        examination: &mut Examination,
    ) -> Result<BTreeSet<Selector>, Error> {
        let found = node.resolver.selectors(examination).await;
        let found = found.map_err(|source| Error::Attestor { kind: kind.to_owned(), source })?;
        let own = self.id_as_selector.then(|| Selector::of_agent(&node.agent_id));
        Ok(found.into_iter().chain(own).collect())
    }

    async fn record(
        &self,
        request: &Request,
        node: &Attested,
        selectors: BTreeSet<Selector>,
        svid: &X509Svid,
    ) -> Result<(), Error> {
        let attestation = store::Attestation {
            agent_id: node.agent_id.clone(),
            attestation_type: request.kind.clone(),
            serial: svid.serial.clone(),
            expires_at: svid.expires_at,
            can_reattest: node.can_reattest,
            selectors,
            key: request.key(),
            join_token: token_use(request),
        };
        match self.store.record_attestation(attestation, self.clock.now()).await? {
            Recorded::Stored(_) => Ok(()),
            Recorded::Banned => Err(Error::Banned(node.agent_id.clone())),
            Recorded::AlreadyUsed => Err(Error::AlreadyUsed(node.agent_id.clone())),
            Recorded::Token(Redemption::Expired) => Err(Error::TokenExpired),
            Recorded::Token(_) => Err(Error::NoSuchToken),
        }
    }

    /// Waits a moment until the registry shows what was just written, so that whoever is answered
    /// finds it true.
    pub(crate) async fn known_here(&self) {
        let revision = *self.store.changed().borrow();
        let known = self.registry.wait_for(revision);
        let _ = tokio::time::timeout(KNOWN_WITHIN, known).await;
    }
}

/// One line for each refused node: what it claims to be, and which check stood in its way. The
/// agent's ID is told here alone, never to the peer.
fn log_refusal(request: &Request, examination: &Examination, refusal: &Error) {
    let agent_id = match refusal {
        Error::Banned(id) | Error::AlreadyUsed(id) | Error::AgentId(id, _) => Some(id),
        _ => None,
    };
    let check = match refusal {
        Error::Banned(_) | Error::AlreadyUsed(_) => Some(FIRST_USE),
        _ => examination.failed().map(|check| check.name),
    };
    tracing::warn!(
        subsystem_name = "attestation",
        node_attestor_type = request.kind,
        caller_addr = request.origin.caller.map(tracing::field::display),
        request_id = %request.origin.request_id,
        claimed_node = examination.claimed,
        agent_id = agent_id.map(tracing::field::display),
        check,
        cloud_request_id = examination.cloud_request_id,
        reason = %refusal,
        "Node refused"
    );
}

/// The token that the request spends.
fn token_use(request: &Request) -> Option<TokenUse> {
    if request.kind != JOIN_TOKEN {
        return None;
    }
    let token = String::from_utf8(request.evidence.to_vec()).ok()?;
    Some(TokenUse { token, key: request.key() })
}
