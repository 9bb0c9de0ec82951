//! A server, an agent and a workload in one process, whose time the test turns.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use spire_agent::app::{Agent, AgentError};
use spire_agent::config as agent_config;
use spire_agent::storage::Storage;
use spire_core::bundle::certificate_pem;
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyType, LocalKey, SigningKey, private_key_pem};
use spire_core::svid::x509::{Issuer, LeafTemplate, Subject, self_sign_ca};
use spire_core::telemetry::log::{LogSettings, Logger};
use spire_core::wire::agent::CreateJoinTokenRequest;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::bundle::GetBundleRequest;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::entry::BatchCreateEntryRequest;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::types::Spiffeid;
use spire_core::wire::workload::{
    self, Jwtsvid, JwtsvidRequest, X509svid, X509svidRequest, X509svidResponse,
};
use spire_localstack_tests::Folder;
use spire_localstack_tests::folder::own_address;
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{TRUST_DOMAIN, connect, entry, member};
use spire_localstack_tests::user::User;
use spire_server::app::Server;
use spire_server::config as server_config;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// How nodes prove themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Once.
    Token,
    /// As often as they are asked.
    Certificate,
    /// By the SVID that the first agent serves.
    Svid,
}

/// What a story wants of an agent's file.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'s> {
    /// More lines in its block `agent`.
    pub settings: &'s str,
    /// The lines that say where its first trust is from, if not from a file.
    pub trust: Option<&'s str>,
    pub trust_domain: &'s str,
    /// Its own folder in the world's.
    pub folder: &'s str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { settings: "", trust: None, trust_domain: TRUST_DOMAIN, folder: "agent" }
    }
}

pub struct World {
    pub clock: Clock,
    pub folder: Folder,
    address: SocketAddr,
    settings: &'static str,
    /// Whether an SVID proves a node, and not a certificate.
    svids_attest: bool,
    server: Option<Server>,
}

impl World {
    /// A server with `settings` in its block `server`.
    pub async fn start(settings: &'static str) -> Self {
        Self::start_with(settings, false).await
    }

    /// A server that attests nodes by SVIDs of its own trust domain.
    pub async fn start_where_svids_attest() -> Self {
        Self::start_with("", true).await
    }

    async fn start_with(settings: &'static str, svids_attest: bool) -> Self {
        let (folder, clock) = (Folder::new().unwrap(), Clock::standing_at(Timestamp::now()));
        let address = own_address();
        let mut world = Self { clock, folder, address, settings, svids_attest, server: None };
        world.write_certificates().await;
        world.start_server().await;
        world
    }

    /// A PKI, and the certificate by which the node can prove itself.
    async fn write_certificates(&self) {
        let day = Duration::from_secs(86_400);
        let (domain, now) = (TrustDomain::parse("pki.test").unwrap(), self.clock.now());
        let new_key = || LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        let (root_key, key) = (Arc::new(new_key()), new_key());
        let root = self_sign_ca(&*root_key, &domain, &Subject::of_svids(), day, now).await;
        let issuer = Issuer::root(root.unwrap(), root_key).unwrap();
        let template = LeafTemplate {
            id: &domain.member("/node").unwrap(),
            public_key: &key.public_key().spki,
            dns_names: &[],
            subject: None,
            ttl: day,
        };
        let leaf = issuer.sign_leaf(&template, now).await.unwrap();
        let write = |name, text: &str| fs::write(self.folder.join(name), text).unwrap();
        write("pki.pem", &certificate_pem(issuer.certificate()));
        write("node.pem", &certificate_pem(&leaf.chain[0]));
        write("unix.conf", "");
        write("node.key", &private_key_pem(&key.to_pkcs8().unwrap()));
    }

    pub async fn start_server(&mut self) {
        let (folder, settings) = (self.folder.path().display(), self.settings);
        let (ip, port) = (self.address.ip(), self.address.port());
        fs::create_dir_all(self.folder.join("server")).unwrap();
        let file = self.folder.join("server.conf");
        let x509pop = match self.svids_attest {
            true => "mode = \"spiffe\"".to_owned(),
            false => format!("ca_bundle_path = \"{folder}/pki.pem\""),
        };
        let text = format!(
            "server {{
                trust_domain = \"{TRUST_DOMAIN}\"
                data_dir = \"{folder}/server\"
                socket_path = \"{folder}/server.sock\"
                bind_address = \"{ip}\"
                bind_port = {port}
                {settings}
            }}
            plugins {{
                DataStore \"sql\" {{ plugin_data {{
                    database_type = \"sqlite3\"
                    connection_string = \"{folder}/server/datastore.sqlite3\"
                }} }}
                KeyManager \"disk\" {{ plugin_data {{ keys_path = \"{folder}/server/keys.json\" }} }}
                NodeAttestor \"join_token\" {{ plugin_data {{}} }}
                NodeAttestor \"x509pop\" {{ plugin_data {{ {x509pop} }} }}
            }}"
        );
        fs::write(&file, text).unwrap();
        let flags = server_config::RunFlags { config: Some(file), ..Default::default() };
        let config = server_config::load(&flags).unwrap_or_else(|error| panic!("{error}")).config;
        self.server = Some(Server::start(config, logger(), self.clock.clone()).await.unwrap());
        let mut bundles = BundleClient::new(self.operator().await);
        let bundle = bundles.get_bundle(GetBundleRequest::default()).await.unwrap().into_inner();
        let pem: String =
            bundle.x509_authorities.iter().map(|one| certificate_pem(&one.asn1)).collect();
        fs::write(self.folder.join("bootstrap.pem"), pem).unwrap();
    }

    pub async fn stop_server(&mut self) {
        assert!(self.server.take().unwrap().stop().await);
    }

    /// Another server takes the place of the one that was there, and knows nothing of it.
    pub async fn replace_server(&mut self) {
        self.stop_server().await;
        fs::remove_dir_all(self.folder.join("server")).unwrap();
        self.start_server().await;
    }

    /// A connection of the server's operator.
    pub async fn operator(&self) -> Channel {
        connect(&self.folder.join("server.sock")).await.unwrap()
    }

    /// Where the server is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn database(&self) -> String {
        self.folder.join("server/datastore.sqlite3").display().to_string()
    }

    /// An entry for this process.
    pub async fn create_entry(&self, parent: &Spiffeid, path: &str) {
        self.create_entry_for(&format!("unix:uid:{}", User::current().uid), parent, path).await;
    }

    pub async fn create_entry_for(&self, selector: &str, parent: &Spiffeid, path: &str) {
        let entry = entry(&parent.path, path, selector);
        let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
        let answer = EntryClient::new(self.operator().await).batch_create_entry(request).await;
        let results = answer.unwrap().into_inner().results;
        assert_eq!(results[0].status.as_ref().unwrap().code, 0, "{results:?}");
    }

    /// An agent with `settings` in its block `agent`, with the files of the last one that was here.
    pub async fn start_agent(&self, by: By, settings: &str) -> Result<Node, AgentError> {
        self.start_agent_of(by, &Setup { settings, ..Setup::default() }).await
    }

    pub async fn start_agent_of(&self, by: By, setup: &Setup<'_>) -> Result<Node, AgentError> {
        let Setup { settings, trust, trust_domain, folder: own } = setup;
        let folder = self.folder.path().display();
        let (ip, port) = (self.address.ip(), self.address.port());
        let file = self.folder.join(format!("{own}.conf"));
        let from_file = format!("trust_bundle_path = \"{folder}/bootstrap.pem\"");
        let trust = trust.unwrap_or(&from_file);
        let x509pop = match by {
            By::Svid => {
                format!("spiffe_endpoint_socket = \"unix://{folder}/agent/public/api.sock\"")
            }
            By::Token | By::Certificate => format!(
                "private_key_path = \"{folder}/node.key\"
                 certificate_path = \"{folder}/node.pem\""
            ),
        };
        let text = format!(
            "agent {{
                trust_domain = \"{trust_domain}\"
                server_address = \"{ip}\"
                server_port = {port}
                {trust}
                socket_path = \"{folder}/{own}/public/api.sock\"
                data_dir = \"{folder}/{own}/data\"
                {settings}
            }}
            plugins {{
                KeyManager \"disk\" {{ plugin_data {{ directory = \"{folder}/{own}/data\" }} }}
                NodeAttestor \"x509pop\" {{ plugin_data {{ {x509pop} }} }}
                WorkloadAttestor \"unix\" {{ plugin_data_file = \"{folder}/unix.conf\" }}
            }}"
        );
        fs::write(&file, text).unwrap();
        let join_token = match by {
            By::Token => {
                let request = CreateJoinTokenRequest { ttl: 600, ..Default::default() };
                let mut agents = AgentClient::new(self.operator().await);
                let token = agents.create_join_token(request).await.unwrap().into_inner().value;
                Some(token.into())
            }
            By::Certificate | By::Svid => None,
        };
        let flags = agent_config::RunFlags { config: Some(file), join_token, ..Default::default() };
        let config = agent_config::load(&flags).unwrap_or_else(|error| panic!("{error}")).config;
        let data = config.data_dir.clone();
        let socket = config.socket_path.clone();
        let agent = Agent::start(config, logger(), self.clock.clone()).await?;
        Ok(Node { agent, data, socket })
    }

    /// An agent that attested, with an entry `/first` for this process.
    pub async fn node(&self, by: By, settings: &str) -> Node {
        let node = self.start_agent(by, settings).await.unwrap();
        self.create_entry(&node.id(), "/first").await;
        self.pass_until(async || node.fetch().await.filter(|svids| svids.len() == 1)).await;
        node
    }

    /// Lets the time go by, a second after the other, until there is something.
    pub async fn pass_until<T>(&self, mut there_is: impl AsyncFnMut() -> Option<T>) -> T {
        let passing = async {
            loop {
                if let Some(it) = there_is().await {
                    return it;
                }
                self.clock.advance(SignedDuration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        tokio::time::timeout(PATIENCE, passing).await.expect("it comes about in time")
    }

    /// Lets so much time go by.
    pub async fn pass(&self, time: SignedDuration) {
        let end = self.clock.now() + time;
        self.pass_until(async || (self.clock.now() >= end).then_some(())).await;
    }
}

fn logger() -> Logger {
    Logger::start(LogSettings::default()).unwrap()
}

/// An agent that runs.
pub struct Node {
    agent: Agent,
    data: PathBuf,
    socket: PathBuf,
}

impl Node {
    /// What is in its data folder.
    pub fn storage(&self) -> Storage {
        Storage::open(&self.data).unwrap()
    }

    pub fn id(&self) -> Spiffeid {
        member(self.storage().agent_id().unwrap().path())
    }

    /// The serial number of its SVID; `None` where it has none.
    pub fn serial(&self) -> Option<String> {
        let chain = self.storage().data().svid;
        spire_core::svid::x509::X509Svid::from_chain(chain).ok().map(|svid| svid.serial)
    }

    /// Why it has ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        self.agent.ended().now_or_never().map(|error| error.to_string())
    }

    /// Writes the settings of its workload attestor, and has it read them.
    pub fn reconfigure(&self, unix: &str) {
        fs::write(self.data.join("../../unix.conf"), unix).unwrap();
        self.agent.reconfigure_plugins();
    }

    pub async fn stop(self) {
        assert!(self.agent.stop().await);
    }

    /// What this process gets, as it changes.
    pub async fn watch(&self) -> Result<Streaming<X509svidResponse>, Status> {
        let mut client = workload::client(connect(&self.socket).await.unwrap());
        client.fetch_x509svid(X509svidRequest {}).await.map(Response::into_inner)
    }

    /// The JWT-SVIDs that this process gets.
    pub async fn fetch_jwt(&self) -> Result<Vec<Jwtsvid>, Status> {
        let mut client = workload::client(connect(&self.socket).await.unwrap());
        let request =
            JwtsvidRequest { audience: vec!["backend".to_owned()], spiffe_id: String::new() };
        client.fetch_jwtsvid(request).await.map(|answer| answer.into_inner().svids)
    }

    /// What this process gets; `None` where it gets nothing.
    pub async fn fetch(&self) -> Option<Vec<X509svid>> {
        Some(self.watch().await.ok()?.message().await.ok()??.svids)
    }
}
