//! Nodes that attest to a server, and the agents that they become, over mTLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::stream;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use spire_agent::client::{ServerAddress, connect};
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::grpc::Gathered;
use spire_core::id::SpiffeId;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::{X509Svid, agent_request};
use spire_core::tls::{self, Identity, ServerTrust};
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::attest_agent_request::{Params, Step};
use spire_core::wire::agent::{AgentX509svidParams, AttestAgentRequest, attest_agent_response};
use spire_core::wire::types::AttestationData;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::Server;

/// How long a node waits until it is connected and greeted: as long as an agent waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);

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
        self.attest_over(self.channel(None), node).await
    }

    /// As [`attest`](Self::attest), from the address `source` of this machine to a server there.
    ///
    /// # Errors
    /// See above.
    pub async fn attest_from(&self, source: Ipv4Addr, node: &Node) -> Result<Agent> {
        self.attest_over(self.channel_from(source)?, node).await
    }

    async fn attest_over(&self, channel: Channel, node: &Node) -> Result<Agent> {
        let data = AttestationData { r#type: node.kind.to_owned(), payload: node.evidence.clone() };
        let params = AgentX509svidParams { csr: node.csr.clone() };
        let step = Step::Params(Params { data: Some(data), params: Some(params) });
        let request = AttestAgentRequest { step: Some(step) };
        let mut client = AgentClient::new(channel);
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
        connect(&self.address, self.tls(identity))
    }

    /// As the agent's own client would make it, from some address.
    fn channel_from(&self, source: Ipv4Addr) -> Result<Channel> {
        let server: Ipv4Addr = self.address.host.parse()?;
        let (server, tls) = (SocketAddr::from((server, self.address.port)), self.tls(None));
        let connector = service_fn(move |_: Uri| {
            let connector = TlsConnector::from(tls.clone());
            let greeting = async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind((source, 0).into())?;
                let stream = socket.connect(server).await?;
                stream.set_nodelay(true)?;
                connector.connect(ServerName::IpAddress(server.ip().into()), stream).await
            };
            async {
                io::Result::Ok(Gathered::new(TokioIo::new(timeout(PATIENCE, greeting).await??)))
            }
        });
        Ok(Endpoint::from_static("http://spire-server").connect_with_connector_lazy(connector))
    }

    fn tls(&self, identity: Option<Identity>) -> Arc<ClientConfig> {
        let identity = identity.map(|identity| watch::Sender::new(Some(identity)).subscribe());
        let trust_domain = self.bundle.borrow().trust_domain.clone();
        let trust = ServerTrust::Bundle(self.bundle.subscribe());
        Arc::new(tls::client_config(&trust_domain, trust, identity, Clock::system()))
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
