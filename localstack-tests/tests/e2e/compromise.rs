//! The key of the CA may be in wrong hands: an operator prepares another, activates it, taints the
//! one before and revokes it, while workloads shake hands all the time. Everything moves within two
//! of the agents' intervals, no handshake fails, and what the former CA signed is worthless.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use spiffe::{WorkloadApiClient, X509Source};
use spiffe_rustls::{TlsStatus, authorizer, mtls_client, mtls_server};
use spire_core::svid::x509::{VerifyError, is_signed_by, verify};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

use crate::mutual_tls::Handshakes;
use crate::turnover::Held;

/// How often agents ask their server.
const SYNC: Duration = Duration::from_secs(5);
const NODES: usize = 4;
/// Between two handshakes of a node.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn all_move_within_two_intervals_and_what_the_former_ca_signed_is_worthless() {
    let folder = Folder::new().unwrap();
    let server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(Node::start(&server, number).await);
    }
    let command = async |line: &str| {
        let words: Vec<_> = line.split(' ').chain(["-output", "json"]).collect();
        serde_json::from_str::<Value>(&server.command(&words).await.unwrap()).unwrap()
    };
    let id =
        |answer: &Value, field: &str| answer[field]["authority_id"].as_str().unwrap().to_owned();
    let stolen: Vec<_> = nodes.iter().map(|node| node.held().chain).collect();
    let token = nodes[0].api.fetch_jwt_svid(["x"], None).await.unwrap();

    let prepared = id(&command("localauthority x509 prepare").await, "prepared_authority");
    let key = id(&command("localauthority jwt prepare").await, "prepared_authority");
    // An operator in a hurry waits at least until the agents know the next one.
    let known = until(&mut nodes, |node| node.held().bundle.x509_authorities.len() == 2).await;
    assert!(known.elapsed() < PATIENCE);
    command(&format!("localauthority x509 activate -authorityID {prepared}")).await;
    command(&format!("localauthority jwt activate -authorityID {key}")).await;
    let shown = command("localauthority x509 show").await;
    let former = id(&shown, "old");
    let former_key = id(&command("localauthority jwt show").await, "old");

    let began = Instant::now();
    command(&format!("localauthority x509 taint -authorityID {former}")).await;
    command(&format!("localauthority jwt taint -authorityID {former_key}")).await;
    until(&mut nodes, |node| is_signed_by(&node.held().assert_valid().serial, &prepared)).await;
    let workloads_moved = began.elapsed();
    for node in &mut nodes {
        node.agent.process().logged("Successfully rotated agent SVID").await.unwrap();
    }
    let agents_moved = began.elapsed();
    println!("workloads moved within {workloads_moved:?}, agents within {agents_moved:?}");
    assert!(workloads_moved < 2 * SYNC && agents_moved < 2 * SYNC);
    // The server knows it from the next call of each.
    let old_agents = async || {
        let tree = command("authority show").await;
        let authorities = tree["x509_authorities"].as_array().unwrap().clone();
        let old = authorities.into_iter().find(|one| one["slot"] == "OLD").unwrap();
        old["agents"].as_str().unwrap().parse::<usize>().unwrap()
    };
    while old_agents().await > 0 {
        nodes.iter_mut().for_each(Node::shake_hands);
        assert!(began.elapsed() < PATIENCE, "agents keep what the tainted CA signed");
    }
    let fresh = nodes[0].api.fetch_jwt_svid(["x"], None).await.unwrap();
    assert_eq!(fresh.key_id(), key);

    command(&format!("localauthority x509 revoke -authorityID {former}")).await;
    command(&format!("localauthority jwt revoke -authorityID {former_key}")).await;
    until(&mut nodes, |node| node.held().bundle.x509_authorities.len() == 1).await;
    let bundle = nodes[0].held().bundle;
    for chain in &stolen {
        let refused = verify(chain, &bundle, Timestamp::now());
        assert_eq!(refused, Err(VerifyError::UnknownAuthority));
    }
    let refused =
        async { while nodes[0].api.validate_jwt_token("x", token.token()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("the stolen token is refused");
    nodes[0].api.validate_jwt_token("x", fresh.token()).await.unwrap();

    let mut handshakes = Handshakes::default();
    nodes.into_iter().for_each(|node| handshakes.add(node.handshakes));
    handshakes.assert_done(100);
}

/// Shakes hands on all nodes until `what` holds on each; returns when it began.
async fn until(nodes: &mut [Node], what: impl Fn(&Node) -> bool) -> Instant {
    let began = Instant::now();
    while !nodes.iter().all(&what) {
        tokio::time::sleep(PAUSE).await;
        nodes.iter_mut().for_each(Node::shake_hands);
        assert!(began.elapsed() < PATIENCE, "it takes longer than {PATIENCE:?}");
    }
    began
}

/// An agent with a workload that is both a client and a server.
struct Node {
    api: WorkloadApiClient,
    source: X509Source,
    client: (Arc<rustls::ClientConfig>, TlsStatus),
    server: (Arc<rustls::ServerConfig>, TlsStatus),
    handshakes: Handshakes,
    agent: Agent,
    _folder: Folder,
}

impl Node {
    async fn start(server: &Server, number: usize) -> Self {
        let folder = Folder::new().unwrap();
        let token = server.join_token().await.unwrap();
        let selector = format!("unix:uid:{}", User::current().uid);
        let path = format!("/workload/{number}");
        server.create_entry(entry(&agent_path(&token), &path, &selector)).await.unwrap();
        let seconds = SYNC.as_secs();
        let agent = format!("experimental {{ sync_interval = \"{seconds}s\" }}");
        let file = AgentFile { agent, ..AgentFile::default() };
        let agent = Agent::start(&folder, server, &token, &file).await.unwrap();
        let source = X509Source::builder().endpoint(agent.endpoint()).build().await.unwrap();
        let own = || authorizer::exact([format!("spiffe://example.org{path}")]).unwrap();
        let (client, client_status) =
            mtls_client(source.clone()).authorize(own()).build_with_status().unwrap();
        let (listener, server_status) =
            mtls_server(source.clone()).authorize(own()).build_with_status().unwrap();
        Self {
            api: WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap(),
            source,
            client: (Arc::new(client), client_status),
            server: (Arc::new(listener), server_status),
            handshakes: Handshakes::default(),
            agent,
            _folder: folder,
        }
    }

    fn held(&self) -> Held {
        Held::of(&self.source.x509_context().unwrap())
    }

    fn shake_hands(&mut self) {
        self.handshakes.shake(&self.client, &self.server);
    }
}
