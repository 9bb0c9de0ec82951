//! A server and the agents that attest to it, over mTLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
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
use spire_localstack_tests::load::Server;
use tokio::sync::watch;
use tonic::transport::Channel;

/// How long the server and its database rest before its memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// A running server.
pub(crate) struct World {
    pub(crate) server: Server,
    bundle: watch::Sender<Arc<Bundle>>,
}

impl World {
    /// Starts a server with an empty database.
    pub(crate) async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let bundle = watch::Sender::new(Arc::new(server.bundle.clone()));
        Ok(Self { server, bundle })
    }

    /// The server's memory once it is at rest, in bytes.
    pub(crate) async fn resident_at_rest(&self) -> Result<u64> {
        tokio::time::sleep(REST).await;
        self.server.process.resident()
    }

    /// A join token for an agent, and the agent with its key, ready to attest.
    pub(crate) async fn candidate(&self) -> Result<Candidate> {
        let token = self.server.join_token().await?;
        let key = Arc::new(LocalKey::generate_blocking(KeyType::EcP256)?);
        let csr = agent_request(&*key).await?;
        Ok(Candidate { token, key, csr })
    }

    /// A channel of its own, over which nothing has been sent yet. The agent's own client makes it.
    fn channel(&self, identity: Option<Identity>) -> Channel {
        let identity = identity.map(|identity| watch::Sender::new(Some(identity)).subscribe());
        let trust = ServerTrust::Bundle(self.bundle.subscribe());
        let Server { trust_domain, port, .. } = &self.server;
        let config = tls::client_config(trust_domain, trust, identity, Clock::system());
        let address = ServerAddress { host: "127.0.0.1".to_owned(), port: *port };
        connect(&address, Arc::new(config))
    }
}

/// A node that is not attested yet.
pub(crate) struct Candidate {
    token: String,
    key: Arc<LocalKey>,
    csr: Bytes,
}

impl Candidate {
    /// Attests over a new connection.
    pub(crate) async fn attest(&self, world: &World) -> Result<Agent> {
        let data = AttestationData {
            r#type: "join_token".to_owned(),
            payload: Bytes::copy_from_slice(self.token.as_bytes()),
        };
        let params = AgentX509svidParams { csr: self.csr.clone() };
        let step = Step::Params(Params { data: Some(data), params: Some(params) });
        let request = AttestAgentRequest { step: Some(step) };
        let mut client = AgentClient::new(world.channel(None));
        let mut answers = client.attest_agent(stream::iter([request])).await?.into_inner();
        let answer = answers.message().await?.and_then(|answer| answer.step);
        let Some(attest_agent_response::Step::Result(result)) = answer else {
            anyhow::bail!("a challenge where none was expected");
        };
        let svid = X509Svid::from_chain(result.svid.context("no SVID")?.cert_chain)?;
        let id = svid.id.clone();
        let channel = world.channel(Some(Identity::new(svid, self.key.clone())));
        Ok(Agent { id, channel })
    }
}

/// An agent with its one connection, which is made with its first call.
pub(crate) struct Agent {
    pub(crate) id: SpiffeId,
    pub(crate) channel: Channel,
}
