//! Restarts of an agent whose server is away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spire_core::wire::workload::{self, JwtsvidRequest, X509svid, X509svidRequest};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{agent_path, connect, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

/// Far less than what an agent waits after its first vain try to reach a server.
const MOMENT: Duration = Duration::from_secs(3);

async fn begin(folder: &Folder, persist: bool) -> (Server, Agent, String) {
    let server = Server::start(folder, &ServerFile::default()).await.unwrap();
    let token = server.join_token().await.unwrap();
    let parent = agent_path(&token);
    let selector = format!("unix:uid:{}", User::current().uid);
    server.create_entry(entry(&parent, "/first", &selector)).await.unwrap();
    let lines = format!("persist_cache = {persist}\nexperimental {{ sync_interval = \"1s\" }}");
    let file = AgentFile { agent: lines, ..AgentFile::default() };
    let agent = Agent::start(folder, &server, &token, &file).await.unwrap();
    (server, agent, parent)
}

/// The identities that the agent hands out once there are `count`, and a token of each.
pub(crate) async fn fetch(agent: &Agent, count: usize) -> (Vec<X509svid>, Vec<String>) {
    let channel = connect(agent.socket()).await.unwrap();
    let fetched = async {
        let request = X509svidRequest {};
        let mut answers =
            workload::client(channel.clone()).fetch_x509svid(request).await.unwrap().into_inner();
        let svids = loop {
            let svids = answers.message().await.unwrap().unwrap().svids;
            if svids.len() == count {
                break svids;
            }
        };
        let audience = vec!["audience".to_owned()];
        let request = JwtsvidRequest { audience, spiffe_id: String::new() };
        let tokens = workload::client(channel).fetch_jwtsvid(request).await.unwrap().into_inner();
        (svids, tokens.svids.into_iter().map(|it| it.svid).collect())
    };
    tokio::time::timeout(PATIENCE, fetched).await.expect("identities come in time")
}

/// The files below `folder` in which the private key of `svid` lies, plain or in base64.
fn files_with_key(folder: &Path, svid: &X509svid) -> Vec<String> {
    // Bytes 36 to 68 of a P-256 key in PKCS#8 are its number. Lines of PEM begin each 48 bytes.
    let (number, line) =
        (&svid.x509_svid_key[36..68], STANDARD.encode(&svid.x509_svid_key[48..66]));
    let holds = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
    let mut found = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read(&path).unwrap();
        if holds(&text, number) || holds(&text, line.as_bytes()) {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

#[tokio::test]
async fn a_persisted_cache_is_served_at_once_and_the_server_is_followed_when_it_is_back() {
    let folder = Folder::new().unwrap();
    let (mut server, mut agent, parent) = begin(&folder, true).await;
    let (before, tokens) = fetch(&agent, 1).await;
    agent.process().stop().await.unwrap();
    assert_eq!(files_with_key(agent.data(), &before[0]), ["cache.json"]);
    let mode = fs::metadata(agent.data().join("cache.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.process().stop().await.unwrap();

    for last in [false, true] {
        let began = Instant::now();
        agent.start_again().await.unwrap();
        assert_eq!(fetch(&agent, 1).await, (before.clone(), tokens.clone()));
        assert!(began.elapsed() < MOMENT, "it took {:?}", began.elapsed());
        if last {
            break;
        }
        agent.process().kill().unwrap();
    }

    server.start_again().await.unwrap();
    let selector = format!("unix:uid:{}", User::current().uid);
    server.create_entry(entry(&parent, "/second", &selector)).await.unwrap();
    let (after, _) = fetch(&agent, 2).await;
    assert!(after.contains(&before[0]), "what was valid has stayed");
    agent.process().stop().await.unwrap();
    server.process().stop().await.unwrap();
}

#[tokio::test]
async fn an_evicted_agent_leaves_no_cache() {
    let folder = Folder::new().unwrap();
    let (server, mut agent, parent) = begin(&folder, true).await;
    let (before, _) = fetch(&agent, 1).await;
    agent.process().stop().await.unwrap();
    assert_eq!(files_with_key(agent.data(), &before[0]), ["cache.json"]);
    let id = format!("spiffe://example.org{parent}");
    server.command(&["agent", "evict", "-spiffeID", &id]).await.unwrap();
    agent.start_again().await.unwrap();
    assert!(!agent.process().ended().await.unwrap().success());
    assert!(files_with_key(agent.data(), &before[0]).is_empty());
    assert!(!agent.data().join("cache.json").exists());
}

#[tokio::test]
async fn without_persist_cache_no_key_touches_the_disk_and_nothing_is_served_without_a_server() {
    let folder = Folder::new().unwrap();
    let (mut server, mut agent, _) = begin(&folder, false).await;
    let (before, _) = fetch(&agent, 1).await;
    assert!(files_with_key(agent.data(), &before[0]).is_empty());
    agent.process().stop().await.unwrap();
    assert!(files_with_key(agent.data(), &before[0]).is_empty());
    server.process().stop().await.unwrap();

    fs::write(agent.data().join("cache.json"), "from a time when it was on").unwrap();
    agent.start_again_until("Failed to initialize manager").await.unwrap();
    assert!(!agent.process().log().contains("Starting agent APIs"));
    assert!(!agent.data().join("cache.json").exists());
    server.start_again().await.unwrap();
    agent.process().logged("Starting agent APIs").await.unwrap();
    fetch(&agent, 1).await;
}
