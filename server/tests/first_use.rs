//! Evidence that could be a copy counts once: cases of the attack catalogue that take a whole
//! server, with instances of a fake cloud.
#![cfg(feature = "gcp")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod harness;

use std::time::Duration;

use futures::future::join_all;
use harness::{TestAgent, TestServer};
use http::StatusCode;
use spire_core::id::SpiffeId;
use spire_core::wire::agent::{
    BanAgentRequest, CountAgentsRequest, DeleteAgentRequest, ListAgentsRequest,
};
use spire_core::wire::types::Spiffeid;
use spire_fakes::gcp::{AUDIENCE, Google, Vm};
use spire_fakes::http::Trouble;
use spire_server::store::{Settings, Store};
use tonic::Code;

const USED: &str = "attestation data has already been used to attest an agent";

/// A cloud, and a server that takes its instances.
struct World {
    google: Google,
    server: TestServer,
    folder: tempfile::TempDir,
}

impl World {
    async fn new(settings: &str) -> Self {
        let (google, folder) = (Google::start().await, tempfile::tempdir().unwrap());
        let key = folder.path().join("key.json");
        std::fs::write(&key, google.tokens.service_account_file()).unwrap();
        let plugins = format!(
            "NodeAttestor \"gcp_iit\" {{ plugin_data {{
                projectid_allow_list = [\"big-kahuna-123456\"]
                use_instance_metadata = true
                service_account_file = {key:?}
                {settings}
                {}
            }} }}",
            google.server_endpoints()
        );
        let server = TestServer::start_with("ratelimit { attestation = false }", &plugins).await;
        Self { google, server, folder }
    }

    /// An instance's token, and the path of its agent.
    fn launch(&self, number: u64) -> (String, String) {
        let vm = Vm::new(&format!("vm-{number}"), number);
        self.google.compute.add(&vm);
        let issued_at = u64::try_from(self.server.clock.now().as_second()).unwrap();
        let token = self.google.key.token(&vm.claims(AUDIENCE, issued_at));
        (token, format!("/spire/agent/gcp_iit/{}/{number}", vm.project_id))
    }

    async fn attest(&self, token: &str) -> Result<(), tonic::Status> {
        TestAgent::new().attest(&self.server, "gcp_iit", token).await.map(drop)
    }

    async fn agents(&self) -> i32 {
        let counted = self.server.agents().await.count_agents(CountAgentsRequest::default()).await;
        counted.unwrap().into_inner().count
    }

    async fn stop(self) {
        self.server.stop().await;
        self.folder.close().unwrap();
    }
}

fn id(path: &str) -> Option<Spiffeid> {
    Some(Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() })
}

fn assert_refused(result: Result<(), tonic::Status>, code: Code, part: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(part), "{status}");
}

#[tokio::test]
async fn x01_x02_empty_evidence_and_attestors_that_are_not_configured() {
    let world = World::new("").await;
    let (token, _) = world.launch(1);
    assert_refused(world.attest("").await, Code::InvalidArgument, "");
    let other = TestAgent::new().attest(&world.server, "aws_iid", &token).await.map(drop);
    assert_refused(other, Code::FailedPrecondition, "aws_iid");
    assert_refused(world.attest("a.b.c").await, Code::InvalidArgument, "nodeattestor(gcp_iit): ");
    assert_eq!(world.agents().await, 0);
    world.stop().await;
}

#[tokio::test]
async fn x04_evidence_above_the_limit_of_a_message() {
    let world = World::new("").await;
    let huge = "a".repeat(5 << 20);
    assert_refused(world.attest(&huge).await, Code::ResourceExhausted, "");
    let (token, _) = world.launch(1);
    world.attest(&token).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn x05_the_same_evidence_from_a_second_host() {
    let world = World::new("").await;
    let (token, path) = world.launch(1);
    world.attest(&token).await.unwrap();
    let status = world.attest(&token).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains(USED), "{status}");
    assert!(!status.message().contains(&path), "the agent's ID is not for others: {status}");
    assert_eq!(world.agents().await, 1);
    world.stop().await;
}

/// The answer may have been lost, so that whoever has the key is the one who was admitted.
#[tokio::test]
async fn x05_the_same_key_may_show_its_evidence_again_for_ten_minutes() {
    let world = World::new("").await;
    let (token, _) = world.launch(1);
    let agent = TestAgent::new();
    for minutes in [0, 9] {
        world.server.clock.advance(jiff::SignedDuration::from_mins(minutes));
        let identity = agent.attest(&world.server, "gcp_iit", &token).await.unwrap();
        assert_eq!(world.server.post_status(&identity).await, Ok(()));
        assert_refused(world.attest(&token).await, Code::PermissionDenied, USED);
    }
    world.server.clock.advance(jiff::SignedDuration::from_mins(1));
    let late = agent.attest(&world.server, "gcp_iit", &token).await.map(drop);
    assert_refused(late, Code::PermissionDenied, USED);
    assert_eq!(world.agents().await, 1);
    world.stop().await;
}

#[tokio::test]
async fn x06_the_same_evidence_at_the_same_time() {
    let world = World::new("").await;
    for number in 1..=100 {
        let (token, _) = world.launch(number);
        let results = join_all([world.attest(&token), world.attest(&token)]).await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 1), "{number}");
        lost.into_iter().for_each(|lost| assert_refused(lost, Code::PermissionDenied, USED));
    }
    assert_eq!(world.agents().await, 100);
    world.stop().await;
}

#[tokio::test]
async fn x07_x08_banned_agents_stay_away_and_evicted_ones_come_back_once() {
    let world = World::new("").await;
    let (token, path) = world.launch(1);
    world.attest(&token).await.unwrap();
    let delete = DeleteAgentRequest { id: id(&path) };
    world.server.agents().await.delete_agent(delete).await.unwrap();
    world.attest(&token).await.unwrap();
    assert_refused(world.attest(&token).await, Code::PermissionDenied, USED);

    let ban = BanAgentRequest { id: id(&path) };
    world.server.agents().await.ban_agent(ban).await.unwrap();
    assert_refused(world.attest(&token).await, Code::PermissionDenied, "agent is banned");
    world.stop().await;
}

/// The pruning is that of another server on the same database.
#[tokio::test]
async fn x09_pruning_lets_the_evidence_count_again_only_where_it_takes_such_agents() {
    let world = World::new("").await;
    let (token, path) = world.launch(1);
    world.attest(&token).await.unwrap();
    let database = world.server.socket.with_file_name("datastore.sqlite3");
    let settings = Settings::new("sqlite3", database.to_str().unwrap()).unwrap();
    let other = Store::open(&settings).await.unwrap();
    world.server.clock.advance(jiff::SignedDuration::from_hours(2));
    let now = world.server.clock.now();

    assert!(other.prune_expired_nodes(now, false, 10).await.unwrap().is_empty());
    let (later, _) = world.launch(1);
    assert_refused(world.attest(&later).await, Code::PermissionDenied, USED);

    let gone = other.prune_expired_nodes(now, true, 10).await.unwrap();
    assert_eq!(gone.iter().map(SpiffeId::path).collect::<Vec<_>>(), [path]);
    let admitted = async {
        while let Err(refused) = world.attest(&later).await {
            assert_refused(Err(refused), Code::PermissionDenied, USED);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), admitted).await.unwrap();
    other.close().await;
    world.stop().await;
}

#[tokio::test]
async fn x10_a_path_that_does_not_tell_nodes_apart() {
    let world = World::new("agent_path_template = \"/gcp_iit/{{ .ProjectID }}\"").await;
    let ((first, _), (second, _)) = (world.launch(1), world.launch(2));
    world.attest(&first).await.unwrap();
    assert_refused(world.attest(&second).await, Code::PermissionDenied, USED);
    world.stop().await;
}

#[tokio::test]
async fn x14_a_cloud_in_trouble_leaves_no_record_and_the_agent_may_try_again() {
    let world = World::new("").await;
    let (token, path) = world.launch(1);
    let compute = world.google.compute.server();
    compute.fail_next(1, Trouble::Status(StatusCode::FORBIDDEN));
    assert_refused(world.attest(&token).await, Code::Unavailable, "compute.instances.get");
    assert_eq!(world.agents().await, 0);
    world.attest(&token).await.unwrap();
    let listed = world.server.agents().await.list_agents(ListAgentsRequest::default()).await;
    let agents = listed.unwrap().into_inner().agents;
    assert_eq!(agents[0].id, id(&path));
    assert!(!agents[0].can_reattest);
    world.stop().await;
}

#[tokio::test]
async fn x15_a_node_that_leaves_during_the_clouds_answer_is_not_recorded() {
    let world = World::new("").await;
    let (token, _) = world.launch(1);
    let compute = world.google.compute.server();
    compute.fail_next(1, Trouble::Hang);
    let leaves = async {
        while compute.count() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        result = world.attest(&token) => panic!("answered: {result:?}"),
        () = leaves => {}
    }
    assert_eq!(world.agents().await, 0);
    world.attest(&token).await.unwrap();
    world.stop().await;
}
