//! A whole server in a temporary folder, and agents that attest to it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use spire_core::clock::Clock;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::{X509Svid, agent_request};
use spire_core::telemetry::log::{LogSettings, Logger};
use spire_core::tls::Identity;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::attest_agent_request::{Params, Step};
use spire_core::wire::agent::*;
use spire_core::wire::convert::denial::{self, Reason};
use spire_core::wire::types;
use spire_fakes::log;
use spire_server::app::Server;
use spire_server::config::{self, RunFlags};
use spire_server::store::{Settings, Store};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use super::{channel, client_tls_at, unix_channel};

/// A server that goes with its folder. Its clock is turned by the test.
pub struct TestServer {
    pub server: Server,
    pub clock: Clock,
    pub socket: PathBuf,
    folder: TempDir,
}

impl TestServer {
    /// A server with a fresh database, keys in memory, and `settings` in the block `server`.
    pub async fn start(settings: &str) -> Self {
        Self::start_with(settings, "").await
    }

    /// As [`TestServer::start`], with more plugins.
    pub async fn start_with(settings: &str, plugins: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let file = folder.path().join("server.conf");
        let text = format!(
            "server {{
                trust_domain = \"example.org\"
                data_dir = \"{path}/data\"
                socket_path = \"{path}/api.sock\"
                bind_address = \"127.0.0.1\"
                {settings}
            }}
            plugins {{
                DataStore \"sql\" {{ plugin_data {{
                    database_type = \"sqlite3\"
                    connection_string = \"{path}/datastore.sqlite3\"
                }} }}
                KeyManager \"memory\" {{ plugin_data {{}} }}
                NodeAttestor \"join_token\" {{ plugin_data {{}} }}
                {plugins}
            }}"
        );
        std::fs::write(&file, text).unwrap();
        let flags = RunFlags { config: Some(file), ..RunFlags::default() };
        let mut config = config::load(&flags).unwrap_or_else(|error| panic!("{error}")).config;
        config.bind_port = 0;
        log::keep();
        let logger = Logger::start(LogSettings::default()).unwrap();
        let clock = Clock::standing_at(jiff::Timestamp::now());
        let socket = config.socket_path.clone();
        let server = Server::start(config, logger, clock.clone()).await.unwrap();
        Self { server, clock, socket, folder }
    }

    /// A store of the server's database, as another server has it.
    pub async fn store(&self) -> Store {
        let path = self.folder.path().join("datastore.sqlite3");
        let settings = Settings::new("sqlite3", &path.display().to_string()).unwrap();
        Store::open(&settings).await.unwrap()
    }

    pub async fn stop(self) {
        assert!(self.server.stop().await, "the server did not stop in time");
        assert!(!self.socket.exists());
    }

    /// A new connection of an operator of this machine.
    pub async fn operator(&self) -> Channel {
        unix_channel(&self.socket).await
    }

    /// A new connection over TCP, with or without an SVID.
    pub async fn channel(&self, identity: Option<&Identity>) -> Channel {
        let tls = client_tls_at(identity.cloned(), self.clock.clone());
        channel(self.server.address(), tls).await.unwrap()
    }

    /// The agent service for an operator of this machine.
    pub async fn agents(&self) -> AgentClient<Channel> {
        AgentClient::new(self.operator().await)
    }

    /// The agent service over a new connection of an agent.
    pub async fn agents_as(&self, identity: &Identity) -> AgentClient<Channel> {
        AgentClient::new(self.channel(Some(identity)).await)
    }

    pub async fn create_token(&self, token: &str, ttl: i32) {
        let request = CreateJoinTokenRequest { ttl, token: token.to_owned(), agent_id: None };
        self.agents().await.create_join_token(request).await.unwrap();
    }

    /// A call that agents alone may make: whether it went well, else the reason told.
    pub async fn post_status(&self, identity: &Identity) -> Result<(), Option<Reason>> {
        let mut agents = self.agents_as(identity).await;
        let called = agents.post_status(PostStatusRequest::default()).await;
        called.map(drop).map_err(|status| denial::reason(&status))
    }

    /// Calls until the agent is refused: its new SVID takes the old one's place in the background.
    pub async fn until_refused(&self, identity: &Identity, reason: Reason) {
        let refused = async {
            loop {
                match self.post_status(identity).await {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(said) => break assert_eq!(said, Some(reason)),
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), refused).await.unwrap();
    }
}

/// An agent's key, and what it can do with it.
pub struct TestAgent {
    key: Arc<LocalKey>,
}

impl TestAgent {
    pub fn new() -> Self {
        Self { key: Arc::new(LocalKey::generate_blocking(KeyType::EcP256).unwrap()) }
    }

    pub async fn csr(&self) -> Bytes {
        agent_request(&*self.key).await.unwrap()
    }

    pub fn identity(&self, svid: types::X509svid) -> Identity {
        let svid = X509Svid::from_chain(svid.cert_chain).unwrap();
        Identity::new(svid, self.key.clone())
    }

    /// Attests over a new connection without a certificate.
    pub async fn attest(
        &self,
        server: &TestServer,
        kind: &str,
        payload: &str,
    ) -> Result<Identity, Status> {
        let mut agents = AgentClient::new(server.channel(None).await);
        let data = types::AttestationData {
            r#type: kind.to_owned(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        let params = AgentX509svidParams { csr: self.csr().await };
        let step = Step::Params(Params { data: Some(data), params: Some(params) });
        let request = AttestAgentRequest { step: Some(step) };
        let mut answers = agents.attest_agent(stream::iter([request])).await?.into_inner();
        let answer = answers.message().await?.expect("an answer or a status");
        let Some(attest_agent_response::Step::Result(result)) = answer.step else {
            panic!("a challenge where none was expected");
        };
        assert!(!result.reattestable);
        Ok(self.identity(result.svid.unwrap()))
    }
}
