//! An EC2 instance joins by its identity document: its agent comes back, turns over and attests
//! again after it was evicted, and a workload has its SVID because of a tag.

use std::time::{Duration, Instant};

use spiffe::WorkloadApiClient;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Imds, Instance, Mode, RegionSigner};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{entry, member};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};
use spire_test_databases::{Database, Engine};

const REGION: &str = "us-west-2";
const ID: &str = "i-0b22a22eec53b9321";
const ALIAS: &str = "/fleet/web";
const USED: &str = "attestation data has already been used to attest an agent";

/// A small AWS with one instance.
struct World {
    aws: Aws,
    signer: RegionSigner,
    imds: Imds,
}

impl World {
    async fn new() -> Self {
        let signer = RegionSigner::new(REGION);
        let mut instance = Instance::new(HOME_ACCOUNT, REGION, ID);
        instance.tags = vec![("fleet".to_owned(), "web".to_owned())];
        instance.profile = Some(format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/Web"));
        let aws = Aws::start().await;
        let role = format!("arn:aws:iam::{HOME_ACCOUNT}:role/Web");
        aws.world().profiles.insert((HOME_ACCOUNT.to_owned(), "Web".to_owned()), vec![role]);
        let imds = Imds::start(Mode::Version2, signer.evidence(&instance, true)).await;
        aws.world().instances.push(instance);
        Self { aws, signer, imds }
    }

    /// A server, on the database that `data_store` names or on one of its own.
    async fn server(&self, folder: &Folder, data_store: Option<String>) -> Server {
        let certificates = folder.join("certificates");
        std::fs::create_dir(&certificates).unwrap();
        std::fs::write(certificates.join(format!("{REGION}.pem")), self.signer.pem()).unwrap();
        let endpoints = self.aws.endpoints();
        let plugins = format!(
            r#"NodeAttestor "aws_iid" {{
        plugin_data {{
            access_key_id = "AKIAFAKE"
            secret_access_key = "secret"
            certificates_dir = {certificates:?}
            {endpoints}
        }}
    }}"#
        );
        let server = "agent_ttl = \"24s\"".to_owned();
        let file = ServerFile { server, plugins, data_store, ..ServerFile::default() };
        Server::start(folder, &file).await.unwrap()
    }

    /// The file of an agent on the instance.
    fn agent_file(&self) -> AgentFile {
        AgentFile { node_attestor: Some(agent_file(&self.imds)), ..AgentFile::default() }
    }
}

/// The block of an agent's plugin that asks `imds`.
pub(crate) fn agent_file(imds: &Imds) -> String {
    let endpoint = format!("ec2_metadata_endpoint = \"{}/latest\"", imds.url());
    format!("NodeAttestor \"aws_iid\" {{ plugin_data {{ {endpoint} }} }}")
}

/// The path of the agent of an instance in the one region that there is here.
pub(crate) fn agent_path(account: &str, instance: &str) -> String {
    format!("/spire/agent/aws_iid/{account}/{REGION}/{instance}")
}

#[tokio::test]
async fn an_instance_joins_by_its_document_and_counts_once() {
    let (folder, world) = (Folder::new().unwrap(), World::new().await);
    let mut server = world.server(&folder, None).await;
    let mut agent = Agent::start(&folder, &server, "", &world.agent_file()).await.unwrap();
    let id = format!("spiffe://example.org{}", agent_path(HOME_ACCOUNT, ID));
    let shown = server.command(&["agent", "show", "-spiffeID", &id]).await.unwrap();
    for selector in [
        "account_id:123456789012",
        "tag:fleet:web",
        "iamrole:arn:aws:iam::123456789012:role/Web",
        "region:us-west-2",
    ] {
        assert!(shown.contains(&format!("aws_iid:{selector}")), "{shown}");
    }

    // A workload has its SVID because of a tag of the instance.
    let mut alias = entry("/spire/server", ALIAS, "aws_iid:tag:fleet:web");
    alias.parent_id = Some(member("/spire/server"));
    server.create_entry(alias).await.unwrap();
    let user = format!("unix:uid:{}", User::current().uid);
    server.create_entry(entry(ALIAS, "/blog", &user)).await.unwrap();
    fetches(&agent, "spiffe://example.org/blog").await;
    let calls = world.aws.server().count();

    // The agent comes back by what it has kept.
    agent.process().stop().await.unwrap();
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("SVID loaded"), "the agent attested anew");
    fetches(&agent, "spiffe://example.org/blog").await;

    // Its SVID turns over, and AWS is not asked for it.
    let before = serial(&server, &id).await;
    let began = Instant::now();
    while serial(&server, &id).await == before {
        assert!(began.elapsed() < PATIENCE, "the agent's SVID stays: {}", agent.process().log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(world.aws.server().count(), calls);

    // Another host that got hold of the document is refused, and not told whose it was.
    let thief = Folder::new().unwrap();
    let refused = Agent::start(&thief, &server, "", &world.agent_file()).await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains(USED) && !refused.contains(&id), "{refused}");
    let line = server.process().logged("Node refused").await.unwrap();
    for part in [&id, "claimed_node", ID, "first use", USED] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    // A banned agent stays out; an evicted one may come once.
    server.command(&["agent", "ban", "-spiffeID", &id]).await.unwrap();
    assert!(!agent.process().ended().await.unwrap().success());
    let banned = Agent::start(&thief, &server, "", &world.agent_file()).await.unwrap_err();
    assert!(format!("{banned:#}").contains("agent is banned"), "{banned:#}");
    server.command(&["agent", "evict", "-spiffeID", &id]).await.unwrap();
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("Node attestation was successful"));
    fetches(&agent, "spiffe://example.org/blog").await;
    let refused = Agent::start(&thief, &server, "", &world.agent_file()).await.unwrap_err();
    assert!(format!("{refused:#}").contains(USED), "{refused:#}");
    agent.process().stop().await.unwrap();
    server.process().stop().await.unwrap();
}

#[tokio::test]
async fn x6_of_two_first_uses_at_two_servers_of_one_database_one_wins() {
    let (world, database) = (World::new().await, Database::new(Engine::Postgres).await.unwrap());
    let data_store = format!(
        "database_type = {:?}\nconnection_string = {:?}",
        database.database_type(),
        database.connection_string()
    );
    let nodes = [Folder::new().unwrap(), Folder::new().unwrap()];
    let folders = [Folder::new().unwrap(), Folder::new().unwrap()];
    let mut servers = Vec::new();
    for folder in &folders {
        servers.push(world.server(folder, Some(data_store.clone())).await);
    }
    let file = world.agent_file();
    let (one, other) = tokio::join!(
        Agent::start(&nodes[0], &servers[0], "", &file),
        Agent::start(&nodes[1], &servers[1], "", &file),
    );
    let (winners, losers): (Vec<_>, Vec<_>) = [one, other].into_iter().partition(Result::is_ok);
    assert_eq!((winners.len(), losers.len()), (1, 1), "{losers:?}");
    let refused = format!("{:#}", losers[0].as_ref().unwrap_err());
    assert!(refused.contains(USED), "{refused}");
    assert!(servers[0].command(&["agent", "count"]).await.unwrap().starts_with("1 "));
}

async fn serial(server: &Server, id: &str) -> String {
    let shown = server.command(&["agent", "show", "-spiffeID", id]).await.unwrap();
    let line = shown.lines().find(|line| line.starts_with("Serial number"));
    line.unwrap_or_else(|| panic!("no serial number in {shown}")).to_owned()
}

/// Waits until a workload of this user gets `id`.
async fn fetches(agent: &Agent, id: &str) {
    let client = WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap();
    let began = Instant::now();
    loop {
        match client.fetch_x509_svid().await {
            Ok(svid) => return assert_eq!(svid.spiffe_id().to_string(), id),
            Err(error) => assert!(began.elapsed() < PATIENCE, "no {id}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
