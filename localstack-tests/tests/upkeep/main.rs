//! How an agent keeps itself and its workloads up: against a real server, in a time that the tests
//! turn.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]
#![allow(unreachable_pub, reason = "the stories use the world")]

mod first_trust;
mod giving_up;
mod told;
mod world;

use jiff::SignedDuration;
use spire_core::id::TrustDomain;
use spire_core::svid::x509::is_signed_by;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::{BanAgentRequest, DeleteAgentRequest};
use spire_core::wire::local_authority::local_authority_client::LocalAuthorityClient;
use spire_core::wire::local_authority::{
    ActivateX509AuthorityRequest, PrepareX509AuthorityRequest,
};
use spire_server::store::{Settings, Store};

use world::{By, Node, World};

/// Lifetimes of minutes, the server's own SVID's among them.
const SHORT: &str = r#"agent_ttl = "1m"
    default_x509_svid_ttl = "5m"
    experimental { rotation_check_interval = "10ms" }"#;
/// Lifetimes of which no test sees the half.
const LONG: &str = "agent_ttl = \"20h\"\n default_x509_svid_ttl = \"20h\"";

/// How a server denies an agent everything.
const DENIED: &str = "failed to fetch authorized entries: rpc error: code = PermissionDenied desc = \
                      authorization denied for method \
                      /spire.api.server.entry.v1.Entry/SyncAuthorizedEntries";

async fn evict(world: &World, node: &Node) {
    let request = DeleteAgentRequest { id: Some(node.id()) };
    AgentClient::new(world.operator().await).delete_agent(request).await.unwrap();
}

async fn ban(world: &World, node: &Node) {
    let request = BanAgentRequest { id: Some(node.id()) };
    AgentClient::new(world.operator().await).ban_agent(request).await.unwrap();
}

/// Waits until the agent has another SVID of its own.
async fn renewed(world: &World, node: &mut Node) {
    let before = node.serial().unwrap();
    world
        .pass_until(async || {
            assert_eq!(node.ended(), None);
            node.serial().filter(|serial| *serial != before)
        })
        .await;
}

/// Waits until the agent has ended, and returns why.
async fn end(world: &World, node: &mut Node) -> String {
    world.pass_until(async || node.ended()).await
}

#[tokio::test]
async fn an_agent_renews_its_svid_again_and_again() {
    let world = World::start(SHORT).await;
    let mut node = world.node(By::Token, "").await;
    let id = node.id();
    for _ in 0..3 {
        renewed(&world, &mut node).await;
    }
    assert_eq!(node.id(), id);
    world.create_entry(&id, "/second").await;
    world.pass_until(async || node.fetch().await.filter(|svids| svids.len() == 2)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_workload_api_that_is_switched_off_is_not_served() {
    let world = World::start("").await;
    let node = world.start_agent(By::Token, "disable_workload_api = true").await.unwrap();
    assert_eq!(node.watch().await.unwrap_err().code(), tonic::Code::Unimplemented);
    node.stop().await;
}

#[tokio::test]
async fn an_evicted_agent_that_cannot_attest_again_ends_without_an_svid() {
    let world = World::start("").await;
    let mut node = world.node(By::Token, "persist_cache = true").await;
    evict(&world, &node).await;
    assert_eq!(end(&world, &mut node).await, DENIED);
    assert_eq!(node.serial(), None);
    assert!(!node.storage().data().bundle.is_empty());
    let storage = node.storage();
    node.stop().await;
    assert!(storage.read_cache().unwrap().is_none());
}

#[tokio::test]
async fn a_banned_agent_ends_without_an_svid() {
    let world = World::start("").await;
    let mut node = world.node(By::Certificate, "").await;
    ban(&world, &node).await;
    assert_eq!(end(&world, &mut node).await, DENIED);
    assert_eq!(node.serial(), None);
    assert!(!node.storage().data().bundle.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn an_evicted_agent_that_can_attest_again_does_so_in_place() {
    let world = World::start("").await;
    let mut node = world.node(By::Certificate, "").await;
    let before = node.fetch().await.unwrap();
    evict(&world, &node).await;
    renewed(&world, &mut node).await;
    assert_eq!(node.fetch().await.unwrap(), before);
    node.stop().await;
}

#[tokio::test]
async fn an_agent_that_can_attest_again_does_so_instead_of_renewing() {
    let world = World::start(SHORT).await;
    let mut node = world.node(By::Certificate, "").await;
    assert!(node.id().path.starts_with("/spire/agent/x509pop/"));
    assert!(node.storage().data().reattestable);
    for _ in 0..2 {
        renewed(&world, &mut node).await;
    }
    let id = node.id();
    node.stop().await;
    let again = world.start_agent(By::Certificate, "").await.unwrap();
    assert_eq!(again.id(), id);
    assert_eq!(again.fetch().await.unwrap().len(), 1);
    again.stop().await;
}

#[tokio::test]
async fn a_workload_that_listens_gets_its_next_svid_in_time() {
    let world = World::start(SHORT).await;
    let node = world.node(By::Token, "").await;
    let mut answers = node.watch().await.unwrap();
    let first = answers.message().await.unwrap().unwrap().svids;
    let began = world.clock.now();
    let listening = tokio::spawn(async move { answers.message().await.unwrap().unwrap().svids });
    world.pass_until(async || listening.is_finished().then_some(())).await;
    let next = listening.await.unwrap();
    assert_eq!(next[0].spiffe_id, first[0].spiffe_id);
    assert_ne!(next[0].x509_svid_key, first[0].x509_svid_key);
    assert!(world.clock.now().duration_since(began) < SignedDuration::from_mins(4));
    node.stop().await;
}

#[tokio::test]
async fn settings_of_a_plugin_in_a_file_of_their_own_are_read_anew_on_demand() {
    let world = World::start("").await;
    let node = world.node(By::Token, "").await;
    let program = std::env::current_exe().unwrap();
    world
        .create_entry_for(&format!("unix:path:{}", program.display()), &node.id(), "/program")
        .await;
    world.pass(SignedDuration::from_secs(20)).await;
    assert_eq!(node.fetch().await.unwrap().len(), 1);
    node.reconfigure("discover_workload_path = true");
    world.pass_until(async || node.fetch().await.filter(|svids| svids.len() == 2)).await;
    node.reconfigure("discover_workload_path = \"what?\"");
    assert_eq!(node.fetch().await.unwrap().len(), 2, "it goes on as it was");
    node.stop().await;
}

#[tokio::test]
async fn what_a_tainted_authority_signed_is_replaced_at_once() {
    let world = World::start(LONG).await;
    let mut node = world.node(By::Token, "").await;
    let before = node.fetch().await.unwrap();
    let connection_string = world.database();
    let settings = Settings::new("sqlite3", &connection_string).unwrap();
    let store = Store::open(&settings).await.unwrap();
    let began = world.clock.now();
    let domain = TrustDomain::parse("example.org").unwrap();
    let taint = |bundle: &mut spire_core::bundle::Bundle| {
        bundle.x509_authorities.iter_mut().for_each(|root| root.tainted = true);
        Ok(())
    };
    store.edit_bundle(domain, taint).await.unwrap();
    store.close().await;
    renewed(&world, &mut node).await;
    world
        .pass_until(async || {
            node.fetch().await.filter(|svids| svids[0].x509_svid != before[0].x509_svid)
        })
        .await;
    // The server signs below the tainted root still.
    renewed(&world, &mut node).await;
    renewed(&world, &mut node).await;
    let mut authorities = LocalAuthorityClient::new(world.operator().await);
    let prepared = authorities.prepare_x509_authority(PrepareX509AuthorityRequest {}).await;
    let authority_id = prepared.unwrap().into_inner().prepared_authority.unwrap().authority_id;
    world.pass_until(async || (node.storage().data().bundle.len() == 2).then_some(())).await;
    let activate = ActivateX509AuthorityRequest { authority_id: authority_id.clone() };
    authorities.activate_x509_authority(activate).await.unwrap();
    let is_signed = |serial: &String| is_signed_by(serial, &authority_id);
    world.pass_until(async || node.serial().filter(is_signed)).await;
    let half = SignedDuration::from_hours(9);
    assert!(world.clock.now().duration_since(began) < half, "it was due anyway");
    let serial = node.serial();
    world.pass(SignedDuration::from_mins(10)).await;
    assert_eq!(node.serial(), serial, "it is replaced without need");
    node.stop().await;
}

#[tokio::test]
async fn an_agent_bootstraps_again_when_its_server_was_replaced() {
    let mut world = World::start("").await;
    let settings = "rebootstrap_mode = \"always\"\n rebootstrap_delay = \"1m\"";
    let mut node = world.node(By::Certificate, settings).await;
    let began = world.clock.now();
    world.replace_server().await;
    let why = end(&world, &mut node).await;
    assert_eq!(why, "Agent needs to rebootstrap. shutting down");
    assert!(world.clock.now().duration_since(began) >= SignedDuration::from_mins(1));
    assert_eq!(node.serial(), None);
    node.stop().await;
    let again = world.node(By::Certificate, settings).await;
    again.stop().await;
}

#[tokio::test]
async fn an_agent_that_may_not_bootstrap_again_ends_when_its_server_was_replaced() {
    let mut world = World::start("").await;
    let mut node = world.node(By::Certificate, "").await;
    world.replace_server().await;
    let why = end(&world, &mut node).await;
    assert!(why.starts_with("failed to fetch "), "{why}");
    assert!(node.serial().is_some());
    node.stop().await;
}

#[tokio::test]
async fn an_agent_whose_svid_expired_serves_what_is_valid_and_ends_only_after_that() {
    let mut world = World::start(SHORT).await;
    let mut node = world.node(By::Token, "").await;
    let before = node.fetch().await.unwrap();
    world.stop_server().await;
    world.pass(SignedDuration::from_mins(2)).await;
    assert_eq!(node.ended(), None);
    assert_eq!(node.fetch().await.unwrap(), before);
    let why = end(&world, &mut node).await;
    let expected = "current SVID has already expired and rotate agent SVID failed: ";
    assert!(why.starts_with(expected), "{why}");
    node.stop().await;
}

#[tokio::test]
async fn an_agent_whose_svid_expired_attests_again_when_the_server_is_back() {
    let mut world = World::start(SHORT).await;
    let mut node = world.node(By::Certificate, "").await;
    world.stop_server().await;
    world.pass(SignedDuration::from_mins(2)).await;
    world.start_server().await;
    renewed(&world, &mut node).await;
    world.create_entry(&node.id(), "/second").await;
    world.pass_until(async || node.fetch().await.filter(|svids| svids.len() == 2)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_persisted_cache_is_served_although_the_agents_own_svid_has_expired() {
    let mut world = World::start(SHORT).await;
    let node = world.node(By::Certificate, "persist_cache = true").await;
    let before = node.fetch().await.unwrap();
    node.stop().await;
    world.stop_server().await;
    world.clock.advance(SignedDuration::from_secs(90));
    let mut node = world.start_agent(By::Certificate, "persist_cache = true").await.unwrap();
    assert_eq!(node.fetch().await.unwrap(), before);
    world.pass(SignedDuration::from_secs(90)).await;
    assert_eq!(node.ended(), None, "it goes on beyond the minute of a first attestation");
    world.start_server().await;
    renewed(&world, &mut node).await;
    world.create_entry(&node.id(), "/second").await;
    world.pass_until(async || node.fetch().await.filter(|svids| svids.len() == 2)).await;
    node.stop().await;
}
