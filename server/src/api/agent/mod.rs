//! The agent service: nodes attest and renew, operators look at agents, ban, evict and invite them.

mod dialogue;
mod nodes;

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use jiff::SignedDuration;
use spire_core::entry::{Entry, EntryId, Hint};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};
use spire_core::wire::agent::agent_server::Agent;
use spire_core::wire::agent::*;
use spire_core::wire::convert;
use spire_core::wire::convert::denial::{self, Reason};
use spire_core::wire::types;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::call::Call;
use super::listing;
use super::request::{Reply, certificate_request};
use crate::attestation::{self, Attestation, Origin};
use crate::rate_limit::{Method, RateLimits};
use crate::store::{Store, StoreError};
use dialogue::Messages;
pub(crate) use nodes::parse_expires_before;

/// How SPIRE begins the refusal of an agent's certificate request.
const MALFORMED_CSR: &str = "failed to parse CSR";

/// Longest version that an agent may tell.
const MAX_VERSION_BYTES: usize = 255;

/// The agent service.
#[derive(Clone)]
pub struct AgentService {
    /// The funnel for nodes.
    pub attestation: Arc<Attestation>,
    /// How often an address may call.
    pub limits: Arc<RateLimits>,
}

#[tonic::async_trait]
impl Agent for AgentService {
    type AttestAgentStream = BoxStream<'static, Result<AttestAgentResponse, Status>>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Reply<Self::AttestAgentStream> {
        let call = Call::of(&request)?;
        let (challenges, sent) = mpsc::channel(1);
        let origin = Origin { caller: call.caller().address(), request_id: call.request_id() };
        let messages = Messages::new(request.into_inner(), challenges, origin);
        let service = self.clone();
        call.ends_with_its_stream();
        // The attestation runs while its answers are read: an agent that leaves ends it.
        let result = stream::once(async move {
            let result = service.attest(&call, messages).await;
            call.ended(result.as_ref().map(drop));
            result
        });
        let challenges = ReceiverStream::new(sent).map(|challenge| {
            let step = attest_agent_response::Step::Challenge(challenge);
            Ok(AttestAgentResponse { step: Some(step) })
        });
        Ok(Response::new(stream::select(challenges, result).boxed()))
    }

    async fn renew_agent(&self, request: Request<RenewAgentRequest>) -> Reply<RenewAgentResponse> {
        let call = Call::of(&request)?;
        let agent_id = call.own_id()?;
        self.limits.wait(Method::RenewAgent, call.ip(), 1).await?;
        let node = self.attestation.registry.snapshot();
        if node.node(&agent_id).is_some_and(|node| node.can_reattest()) {
            let sentence = "agent must reattest instead of renew";
            return Err(denial::status(sentence, Reason::AgentMustReattest));
        }
        let params = request.into_inner().params;
        let params = params.ok_or_else(|| Status::invalid_argument("params cannot be nil"))?;
        call.note(|fields| fields.add_csr(&params.csr));
        let csr = certificate_request(MALFORMED_CSR, &params.csr)?;
        let svid = self.attestation.authority.sign_agent(&csr, &agent_id).await?;
        let renewed = self.store().renew_node(agent_id, svid.serial.clone(), svid.expires_at);
        renewed.await.map_err(unknown_agent)?;
        self.attestation.known_here().await;
        Ok(Response::new(RenewAgentResponse { svid: Some(convert::svid::x509(svid, "")) }))
    }

    async fn post_status(&self, request: Request<PostStatusRequest>) -> Reply<PostStatusResponse> {
        let call = Call::of(&request)?;
        let agent_id = call.own_id()?;
        self.limits.wait(Method::PostStatus, call.ip(), 1).await?;
        let version = request.into_inner().agent_version;
        if version.len() > MAX_VERSION_BYTES {
            let longest = format!("agent_version has more than {MAX_VERSION_BYTES} bytes");
            return Err(Status::invalid_argument(longest));
        }
        if version.contains('\0') {
            return Err(Status::invalid_argument("agent_version has a NUL character"));
        }
        if !version.is_empty() {
            let told = self.store().set_agent_version(agent_id, version).await;
            told.map_err(unknown_agent)?;
        }
        Ok(Response::new(PostStatusResponse {}))
    }

    async fn count_agents(
        &self,
        request: Request<CountAgentsRequest>,
    ) -> Reply<CountAgentsResponse> {
        let call = Call::of(&request)?;
        let filter = request.into_inner().filter.map(nodes::Filter::from).unwrap_or_default();
        call.note(|fields| filter.note(fields));
        let count = self.store().count_nodes(&filter.checked()?).await?;
        Ok(Response::new(CountAgentsResponse { count: listing::count(count) }))
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Reply<ListAgentsResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let filter = request.filter.map(nodes::Filter::from).unwrap_or_default();
        call.note(|fields| filter.note(fields));
        let filter = filter.checked()?;
        let page = listing::page(request.page_size, &request.page_token)?;
        let listed = self.store().list_nodes(&filter, page).await?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(ListAgentsResponse {
            agents: listed.items.iter().map(|node| nodes::sent(node, mask)).collect(),
            next_page_token: listing::next_page_token(request.page_size, listed.next)?,
        }))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Reply<types::Agent> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| fields.add_wire_id("spiffe_id", request.id.as_ref()));
        let agent_id = self.named(request.id.as_ref())?;
        let node = self.store().node(&agent_id).await?;
        let node = node.ok_or_else(|| unknown_agent(StoreError::NotFound))?;
        Ok(Response::new(nodes::sent(&node, request.output_mask.as_ref())))
    }

    async fn delete_agent(&self, request: Request<DeleteAgentRequest>) -> Reply<()> {
        let call = Call::of(&request)?;
        let id = request.into_inner().id;
        call.note(|fields| fields.add_wire_id("spiffe_id", id.as_ref()));
        let agent_id = self.named(id.as_ref())?;
        self.store().delete_node(agent_id.clone()).await.map_err(unknown_agent)?;
        self.attestation.known_here().await;
        tracing::info!(subsystem_name = "api", spiffe_id = %agent_id, "Agent deleted");
        Ok(Response::new(()))
    }

    async fn ban_agent(&self, request: Request<BanAgentRequest>) -> Reply<()> {
        let call = Call::of(&request)?;
        let id = request.into_inner().id;
        call.note(|fields| fields.add_wire_id("spiffe_id", id.as_ref()));
        let agent_id = self.named(id.as_ref())?;
        self.store().ban_node(agent_id.clone()).await.map_err(unknown_agent)?;
        self.attestation.known_here().await;
        tracing::info!(subsystem_name = "api", spiffe_id = %agent_id, "Agent banned");
        Ok(Response::new(()))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Reply<types::JoinToken> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| {
            fields.add_value("ttl", request.ttl);
            fields.add_wire_id("spiffe_id", request.agent_id.as_ref());
        });
        if request.ttl < 1 {
            return Err(Status::invalid_argument("ttl is required, you must provide one"));
        }
        let alias_id = request.agent_id.as_ref();
        let alias_id = alias_id.map(|id| convert::workload_id(self.trust_domain(), Some(id)));
        let alias_id = alias_id.transpose().map_err(bad_agent_id)?;
        let token =
            if request.token.is_empty() { Uuid::new_v4().to_string() } else { request.token };
        let agent_id = attestation::agent_id_of(self.trust_domain(), &token).ok_or_else(|| {
            Status::invalid_argument(
                "token must consist of letters, numbers, dots, dashes, and underscores, since it \
                 becomes part of the agent's SPIFFE ID",
            )
        })?;
        let now = self.attestation.clock.now();
        let expires_at = now + SignedDuration::from_secs(request.ttl.into());
        let alias = alias_id.map(|id| alias(id, agent_id, now));
        self.store().create_join_token(token.clone(), expires_at, alias).await?;
        Ok(Response::new(types::JoinToken { value: token, expires_at: expires_at.as_second() }))
    }
}

impl AgentService {
    fn store(&self) -> &Store {
        &self.attestation.store
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.attestation.trust_domain
    }

    fn named(&self, id: Option<&types::Spiffeid>) -> Result<SpiffeId, Status> {
        convert::agent_id(self.trust_domain(), id).map_err(bad_agent_id)
    }

    async fn attest(
        &self,
        call: &Call,
        mut messages: Messages,
    ) -> Result<AttestAgentResponse, Status> {
        self.limits.wait(Method::AttestAgent, call.ip(), 1).await?;
        let request = messages.request().await?;
        let kind = request.kind.clone();
        call.note(|fields| fields.add("node_attestor_type", &kind));
        let admitted = self.attestation.attest(request, &mut messages).await?;
        call.note(|fields| fields.add("agent_id", &admitted.svid.id));
        tracing::info!(
            subsystem_name = "api",
            agent_id = %admitted.svid.id,
            node_attestor_type = kind,
            caller_addr = call.caller().address().map(tracing::field::display),
            request_id = %call.request_id(),
            "Agent attestation request completed"
        );
        let svid = Some(convert::svid::x509(admitted.svid, ""));
        let result = attest_agent_response::Result { svid, reattestable: admitted.can_reattest };
        let step = attest_agent_response::Step::Result(result);
        Ok(AttestAgentResponse { step: Some(step) })
    }
}

fn bad_agent_id(why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("invalid agent ID: {why}"))
}

fn unknown_agent(error: StoreError) -> Status {
    match error {
        StoreError::NotFound => Status::not_found("agent not found"),
        other => other.into(),
    }
}

/// The entry by which the agent of a token gets a second ID, below which entries may stand.
fn alias(id: SpiffeId, agent_id: SpiffeId, now: jiff::Timestamp) -> Entry {
    let own = Selector::of_agent(&agent_id);
    Entry {
        id: EntryId::random(),
        spiffe_id: id,
        parent_id: agent_id,
        selectors: RequiredSelectors::new([own]).expect("one selector is given"),
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: Default::default(),
        dns_names: Vec::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        hint: Hint::default(),
        revision_number: 0,
        created_at: now,
        attributes: None,
    }
}
