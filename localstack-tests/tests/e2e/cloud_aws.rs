//! An EC2 instance joins by its identity document: its agent comes back, turns over and attests
//! again after it was evicted, and a workload has its SVID because of a tag.

use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use spiffe::WorkloadApiClient;
use spire_agent::client::ServerAddress;
use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Imds, Instance, Mode, RegionSigner};
use spire_localstack_tests::load::{Node, Nodes};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{TRUST_DOMAIN, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};
use spire_test_databases::{Database, Engine};

use crate::evidence::verify;

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

    /// A server, on the database that `data_store` names or on one of its own, with `more` in its
    /// block.
    async fn server(&self, folder: &Folder, data_store: Option<String>, more: &str) -> Server {
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
        let server = format!("agent_ttl = \"24s\"\n{more}");
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
    let mut server = world.server(&folder, None, "").await;
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
    add_workload(&server).await;
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
    for part in [&id, "claimed_node", ID, "first use", USED, "caller_addr", "request_id"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(server.process().log().matches(USED).count(), 1, "{}", server.process().log());

    // A banned agent stays out; an evicted one may come once.
    server.command(&["agent", "ban", "-spiffeID", &id]).await.unwrap();
    assert!(!agent.process().ended().await.unwrap().success());
    let banned = Agent::start(&thief, &server, "", &world.agent_file()).await.unwrap_err();
    assert!(format!("{banned:#}").contains("agent is banned"), "{banned:#}");
    let verdict = verify(&folder).await;
    assert!(
        verdict.code == Some(1) && verdict.stdout.contains("FAILED   first use"),
        "{verdict:?}"
    );
    server.command(&["agent", "evict", "-spiffeID", &id]).await.unwrap();
    let verdict = verify(&folder).await.success().unwrap();
    for part in [&id, "passed   block device", "passed   first use", "aws_iid:tag:fleet:web"] {
        assert!(verdict.contains(part), "{part} is not in {verdict}");
    }
    assert!(server.command(&["agent", "count"]).await.unwrap().starts_with("0 "));
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("Node attestation was successful"));
    fetches(&agent, "spiffe://example.org/blog").await;
    let refused = Agent::start(&thief, &server, "", &world.agent_file()).await.unwrap_err();
    assert!(format!("{refused:#}").contains(USED), "{refused:#}");
    agent.process().stop().await.unwrap();
    server.process().stop().await.unwrap();
}

/// How often two nodes race with the evidence of one instance.
const RACES: usize = 100;

#[tokio::test]
async fn x6_of_two_first_uses_one_wins_at_one_server_and_at_two_of_one_database() {
    let (world, database) = (World::new().await, Database::new(Engine::Postgres).await.unwrap());
    let data_store = format!(
        "database_type = {:?}\nconnection_string = {:?}",
        database.database_type(),
        database.connection_string()
    );
    let folders = [Folder::new().unwrap(), Folder::new().unwrap()];
    let unhurried = "ratelimit { attestation = false }";
    let one = world.server(&folders[0], Some(data_store.clone()), unhurried).await;
    let other = world.server(&folders[1], Some(data_store), unhurried).await;
    // The second server knows the authorities of both.
    let bundle = other.bundle_pem().await.unwrap();
    let trust_domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let bundle = Bundle::from_pem(trust_domain, bundle.as_bytes()).unwrap();
    let [at_one, at_other] = [&one, &other].map(|server| {
        let address = server.address();
        let address = ServerAddress { host: address.ip().to_string(), port: address.port() };
        Nodes::at(address, bundle.clone())
    });

    let mut nodes = Vec::new();
    for number in 0..RACES {
        let instance = Instance::new(HOME_ACCOUNT, REGION, &format!("i-{number:017x}"));
        let payload = world.signer.evidence(&instance, false).payload();
        world.aws.world().instances.push(instance);
        for _ in 0..2 {
            nodes.push(Node::new("aws_iid", payload.clone()).await.unwrap());
        }
    }
    // Odd races are run at one server, even ones at both. All begin before AWS has answered any.
    let races = nodes.chunks(2).enumerate().map(|(number, pair)| {
        let second = if number % 2 == 0 { &at_other } else { &at_one };
        join(at_one.attest(&pair[0]), second.attest(&pair[1]))
    });
    for (number, (first, second)) in join_all(races).await.into_iter().enumerate() {
        let (winners, losers): (Vec<_>, Vec<_>) =
            [first, second].into_iter().partition(Result::is_ok);
        assert_eq!((winners.len(), losers.len()), (1, 1), "race {number}");
        let refused = losers.into_iter().find_map(Result::err).unwrap();
        let status = refused.downcast_ref::<tonic::Status>().unwrap();
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
        assert!(status.message().contains(USED), "{status}");
    }
    let counted = one.command(&["agent", "count"]).await.unwrap();
    assert!(counted.starts_with(&format!("{RACES} ")), "{counted}");
}

async fn serial(server: &Server, id: &str) -> String {
    let shown = server.command(&["agent", "show", "-spiffeID", id]).await.unwrap();
    let line = shown.lines().find(|line| line.starts_with("Serial number"));
    line.unwrap_or_else(|| panic!("no serial number in {shown}")).to_owned()
}

/// Makes `/blog` the ID of this user's workloads on instances whose tag `fleet` says `web`.
pub(crate) async fn add_workload(server: &Server) {
    let alias = entry("/spire/server", ALIAS, "aws_iid:tag:fleet:web");
    server.create_entry(alias).await.unwrap();
    let user = format!("unix:uid:{}", User::current().uid);
    server.create_entry(entry(ALIAS, "/blog", &user)).await.unwrap();
}

/// Waits until a workload of this user gets `id`.
pub(crate) async fn fetches(agent: &Agent, id: &str) {
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
