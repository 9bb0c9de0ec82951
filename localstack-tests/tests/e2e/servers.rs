//! An agent moves between two servers of one database, in the middle of a sync and of a renewal,
//! and its workload sees nothing of it.

use std::time::{Duration, Instant};

use futures::StreamExt;
use spiffe::WorkloadApiClient;
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};
use spire_test_databases::{Database, Engine, Proxy};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::offline::fetch;
use crate::turnover::Held;

/// What is signed is renewed within half a minute; a renewal that fails is tried again after 5 s.
const LIVES: &str = "agent_ttl = \"45s\"\n    default_x509_svid_ttl = \"16s\"";
/// How often the agent asks.
const SYNC: Duration = Duration::from_secs(1);
/// How long what is sent is on its way while a renewal is to be cut off.
const ROAD: Duration = Duration::from_secs(1);

const RENEWED: &str = "Successfully rotated agent SVID";
/// Agents whose next SVID the servers have noted, and which have not used it yet.
const RENEWING: &str = "SELECT COUNT(*) FROM nodes WHERE new_serial_number <> ''";

#[tokio::test]
async fn an_agent_cut_off_in_a_sync_and_in_a_renewal_goes_on_with_the_other_server() {
    let database = Database::new(Engine::Postgres).await.unwrap();
    let (one_folder, other_folder) = (Folder::new().unwrap(), Folder::new().unwrap());
    let data_store = format!(
        "database_type = {:?}\nconnection_string = {:?}",
        database.database_type(),
        database.connection_string()
    );
    let file = ServerFile {
        server: LIVES.to_owned(),
        data_store: Some(data_store),
        ..ServerFile::default()
    };
    let one = Server::start(&one_folder, &file).await.unwrap();
    let other = Server::start(&other_folder, &file).await.unwrap();
    let token = one.join_token().await.unwrap();
    let parent = agent_path(&token);
    let selector = format!("unix:uid:{}", User::current().uid);
    let create = async |server: &Server, path| {
        server.create_entry(entry(&parent, path, &selector)).await.unwrap();
    };
    create(&one, "/first").await;

    let proxy = Proxy::to(one.address()).await.unwrap();
    let file = AgentFile {
        agent: format!("experimental {{ sync_interval = \"{}s\" }}", SYNC.as_secs()),
        server_address: Some(proxy.address()),
        ..AgentFile::default()
    };
    let folder = Folder::new().unwrap();
    // The one that started last knows the authorities of both.
    let mut agent = Agent::start(&folder, &other, &token, &file).await.unwrap();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(agent.endpoint(), stop.clone()));
    fetch(&agent, 1).await;

    // A question is on its way, and will not be answered.
    proxy.hold(true);
    sleep(SYNC * 2).await;
    proxy.lead_to(other.address());
    proxy.cut();
    proxy.hold(false);
    agent.process().logged("Synchronize failed").await.unwrap();
    create(&other, "/second").await;
    fetch(&agent, 2).await;

    // The other server has noted the next SVID, which does not arrive.
    proxy.delay(ROAD);
    renewing(&database, false).await;
    renewing(&database, true).await;
    let renewals = agent.process().log().matches(RENEWED).count();
    proxy.lead_to(one.address());
    proxy.cut();
    proxy.delay(Duration::ZERO);
    agent.process().logged("Failed to rotate agent SVID").await.unwrap();
    agent.process().logged_times(RENEWED, renewals + 1).await.unwrap();
    create(&one, "/third").await;
    fetch(&agent, 3).await;

    stop.cancel();
    let updates = watching.await.unwrap();
    assert!(updates > 3, "only {updates} updates");
    let log = agent.process().log();
    assert_eq!(log.matches("Node attestation was successful").count(), 1, "{log}");
}

/// Waits until an agent is amid a renewal, or none is.
async fn renewing(database: &Database, wanted: bool) {
    let began = Instant::now();
    while (database.number(RENEWING).await.unwrap() > 0) != wanted {
        assert!(began.elapsed() < PATIENCE, "the agent renews nothing, or for ever");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Follows the one stream of a workload until `stop` fires: it does not end, and what came last is
/// valid at every moment. Returns how many updates there were.
async fn watch(endpoint: String, stop: CancellationToken) -> usize {
    let client = WorkloadApiClient::connect_to(endpoint).await.unwrap();
    let mut answers = client.stream_x509_contexts().await.unwrap();
    let mut held = Held::of(&answers.next().await.unwrap().unwrap());
    let mut moments = tokio::time::interval(Duration::from_millis(50));
    for updates in 1.. {
        let next = loop {
            held.assert_valid();
            tokio::select! {
                () = stop.cancelled() => return updates,
                next = answers.next() => break next,
                _ = moments.tick() => {}
            }
        };
        held = Held::of(&next.expect("the stream goes on").unwrap());
    }
    unreachable!("it is told to stop before")
}
