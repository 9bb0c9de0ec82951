//! Nodes that attest to a server, and the agents that they become, over mTLS.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::stream;
use spire_agent::client::{ServerAddress, connect};
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::id::SpiffeId;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::{X509Svid, agent_request};
use spire_core::tls::{self, Identity, ServerTrust};
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::attest_agent_request::{Params, Step};
use spire_core::wire::agent::{AgentX509svidParams, AttestAgentRequest, attest_agent_response};
use spire_core::wire::types::AttestationData;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::Server;

/// The nodes of one server: where it is, and what it is known by.
#[derive(Debug)]
pub struct Nodes {
    address: ServerAddress,
    bundle: watch::Sender<Arc<Bundle>>,
}

/// A node that is not attested yet.
#[derive(Debug)]
pub struct Node {
    kind: &'static str,
    evidence: Bytes,
    key: Arc<LocalKey>,
    csr: Bytes,
}

/// An agent with its one connection, which is made with its first call.
pub struct Agent {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Its connection.
    pub channel: Channel,
    identity: Identity,
}

impl Nodes {
    /// Nodes of `server`.
    pub fn of(server: &Server) -> Self {
        let address = ServerAddress { host: "127.0.0.1".to_owned(), port: server.port };
        Self::at(address, server.bundle.clone())
    }

    /// Nodes of the server at `address`, which trust what is in `bundle`.
    pub fn at(address: ServerAddress, bundle: Bundle) -> Self {
        Self { address, bundle: watch::Sender::new(Arc::new(bundle)) }
    }

    /// A connection of `agent`, which attested to some server of the trust domain, to this one.
    pub fn connect(&self, agent: &Agent) -> Channel {
        self.channel(Some(agent.identity.clone()))
    }

    /// `node` attests over a new connection.
    ///
    /// # Errors
    /// Where the server refuses it.
    pub async fn attest(&self, node: &Node) -> Result<Agent> {
        let data = AttestationData { r#type: node.kind.to_owned(), payload: node.evidence.clone() };
        let params = AgentX509svidParams { csr: node.csr.clone() };
        let step = Step::Params(Params { data: Some(data), params: Some(params) });
        let request = AttestAgentRequest { step: Some(step) };
        let mut client = AgentClient::new(self.channel(None));
        let mut answers = client.attest_agent(stream::iter([request])).await?.into_inner();
        let answer = answers.message().await?.and_then(|answer| answer.step);
        let Some(attest_agent_response::Step::Result(result)) = answer else {
            bail!("a challenge where none was expected");
        };
        let svid = X509Svid::from_chain(result.svid.context("no SVID")?.cert_chain)?;
        let id = svid.id.clone();
        let identity = Identity::new(svid, node.key.clone());
        let channel = self.channel(Some(identity.clone()));
        Ok(Agent { id, channel, identity })
    }

    /// A channel of its own, over which nothing has been sent yet. The agent's own client makes it.
    fn channel(&self, identity: Option<Identity>) -> Channel {
        let identity = identity.map(|identity| watch::Sender::new(Some(identity)).subscribe());
        let trust_domain = self.bundle.borrow().trust_domain.clone();
        let trust = ServerTrust::Bundle(self.bundle.subscribe());
        let config = tls::client_config(&trust_domain, trust, identity, Clock::system());
        connect(&self.address, Arc::new(config))
    }
}

impl Node {
    /// A node that shows `evidence` to the attestor `kind`, with its key and its request.
    ///
    /// # Errors
    /// Where there are no random numbers.
    pub async fn new(kind: &'static str, evidence: impl Into<Bytes>) -> Result<Self> {
        let key = Arc::new(LocalKey::generate_blocking(KeyType::EcP256)?);
        let csr = agent_request(&*key).await?;
        Ok(Self { kind, evidence: evidence.into(), key, csr })
    }
}
