//! A server in a temporary folder, and its clients: the operator, and agents over mTLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream;
use hyper_util::rt::TokioIo;
use spire_agent::client::{Server, ServerAddress, connect};
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::{X509Svid, agent_request};
use spire_core::tls::{self, Identity, ServerTrust};
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::attest_agent_request::{Params, Step};
use spire_core::wire::agent::{
    AgentX509svidParams, AttestAgentRequest, CreateJoinTokenRequest, attest_agent_response,
};
use spire_core::wire::types::AttestationData;
use spire_localstack_tests::load::{Process, binary, free_port};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// How long the server may take until it answers.
const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// How long the server and its database rest before its memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// A running server.
pub(crate) struct World {
    pub(crate) process: Process,
    pub(crate) operator: Channel,
    pub(crate) trust_domain: TrustDomain,
    address: ServerAddress,
    bundle: watch::Sender<Arc<Bundle>>,
    _folder: TempDir,
}

impl World {
    /// Starts a server with an empty database.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let path = folder.path().display();
        let text = format!(
            r#"server {{
                trust_domain = "example.org"
                data_dir = "{path}/data"
                socket_path = "{path}/api.sock"
                bind_address = "127.0.0.1"
                bind_port = {port}
                ratelimit {{
                    attestation = false
                    signing = false
                }}
            }}
            plugins {{
                DataStore "sql" {{ plugin_data {{
                    database_type = "sqlite3"
                    connection_string = "{path}/datastore.sqlite3"
                }} }}
                KeyManager "memory" {{ plugin_data {{}} }}
                NodeAttestor "join_token" {{ plugin_data {{}} }}
            }}"#
        );
        let file = folder.path().join("server.conf");
        std::fs::write(&file, text)?;
        let log = folder.path().join("server.log");
        let arguments = ["run".into(), "-config".into(), file.into_os_string()];
        let mut process = Process::start(&binary("spire-server")?, arguments, &log)?;

        let operator = unix_channel(folder.path().join("api.sock"));
        let trust_domain = TrustDomain::parse("example.org")?;
        let begin = tokio::time::Instant::now();
        let bundle = loop {
            process.check(&log)?;
            let operator = operator.clone();
            match Server::new(move || operator.clone()).bundle().await {
                Ok(bundle) => break bundle,
                Err(error) if begin.elapsed() > STARTED_WITHIN => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let address = ServerAddress { host: "127.0.0.1".to_owned(), port };
        let bundle = watch::Sender::new(Arc::new(bundle));
        Ok(Self { process, operator, trust_domain, address, bundle, _folder: folder })
    }

    /// The server's memory once it is at rest, in bytes.
    pub(crate) async fn resident_at_rest(&self) -> Result<u64> {
        tokio::time::sleep(REST).await;
        self.process.resident()
    }

    /// A join token for an agent, and the agent with its key, ready to attest.
    pub(crate) async fn candidate(&self) -> Result<Candidate> {
        let request = CreateJoinTokenRequest { ttl: 600, ..CreateJoinTokenRequest::default() };
        let token = AgentClient::new(self.operator.clone()).create_join_token(request).await?;
        let key = Arc::new(LocalKey::generate_blocking(KeyType::EcP256)?);
        let csr = agent_request(&*key).await?;
        Ok(Candidate { token: token.into_inner().value, key, csr })
    }

    /// A channel of its own, over which nothing has been sent yet. The agent's own client makes it.
    fn channel(&self, identity: Option<Identity>) -> Channel {
        let identity = identity.map(|identity| watch::Sender::new(Some(identity)).subscribe());
        let trust = ServerTrust::Bundle(self.bundle.subscribe());
        let config = tls::client_config(&self.trust_domain, trust, identity, Clock::system());
        connect(&self.address, Arc::new(config))
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

fn unix_channel(path: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let stream = UnixStream::connect(path.clone());
        async move { stream.await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://spire-server").connect_with_connector_lazy(connector)
}
