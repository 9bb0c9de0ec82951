//! An instance of Google Compute Engine, from its first boot to its ban.

use std::fs;
use std::time::Duration;

use spiffe::WorkloadApiClient;
use spire_core::wire::types::{Entry, Selector};
use spire_fakes::gcp::{Google, Metadata, Vm};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::entry;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

const AGENT: &str =
    "spiffe://example.org/spire/agent/gcp_iit/big-kahuna-123456/7152993111222333444";
const USED: &str = "attestation data has already been used to attest an agent";

#[tokio::test]
async fn an_instance_attests_by_its_cloud_and_serves_what_the_cloud_says_of_it() {
    let google = Google::start().await;
    let mut vm = Vm::new("blog-server", 7_152_993_111_222_333_444);
    vm.labels = vec![("team".to_owned(), "web".to_owned())];
    let metadata = google.launch(&vm).await;
    let folder = Folder::new().unwrap();
    let mut server = Server::start(&folder, &server_file(&folder, &google, &vm)).await.unwrap();
    // Whoever runs on a node of that team is known by the alias of such nodes.
    let cluster = Entry {
        selectors: selectors(&["label:team:web", "project-id:big-kahuna-123456"]),
        ..entry("/spire/server", "/cluster/web", "gcp_iit:")
    };
    server.create_entry(cluster).await.unwrap();
    let selector = format!("unix:uid:{}", User::current().uid);
    server.create_entry(entry("/cluster/web", "/blog", &selector)).await.unwrap();

    let file = agent_file(&metadata);
    let mut agent = Agent::start(&folder, &server, "", &file).await.unwrap();
    assert_eq!(svid(&agent).await, "spiffe://example.org/blog");
    let shown = server.command(&["agent", "show", "-spiffeID", AGENT]).await.unwrap();
    for selector in [
        "gcp_iit:project-id:big-kahuna-123456",
        "gcp_iit:zone:us-west1-b",
        "gcp_iit:instance-name:blog-server",
        "gcp_iit:sa:123456789-compute@developer.gserviceaccount.com",
        "gcp_iit:label:team:web",
    ] {
        assert!(shown.contains(selector), "{selector}: {shown}");
    }

    // The agent renews its SVID and starts again without showing anything to anybody.
    agent.process().logged("Successfully rotated agent SVID").await.unwrap();
    agent.process().stop().await.unwrap();
    agent.start_again().await.unwrap();
    agent.process().logged("SVID loaded").await.unwrap();
    assert_eq!(svid(&agent).await, "spiffe://example.org/blog");
    assert_eq!(metadata.server().count(), 1);
    assert_eq!(google.compute.server().count(), 1);

    x05_another_host_shows_the_same_evidence(&server, &metadata).await;
    let refused = server.process().logged("Node refused").await.unwrap();
    for part in [AGENT, "first use", USED, "instances/blog-server"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(google.compute.server().count(), 1, "the cloud was asked for nothing");

    x08_after_an_eviction_the_evidence_counts_once(&server, &mut agent).await;
    assert_eq!(svid(&agent).await, "spiffe://example.org/blog");

    x07_a_banned_agent_stays_away(&server, &mut agent).await;
    server.process().stop().await.unwrap();
}

async fn x05_another_host_shows_the_same_evidence(server: &Server, metadata: &Metadata) {
    let folder = Folder::new().unwrap();
    let error = Agent::start(&folder, server, "", &agent_file(metadata)).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains(USED), "{error}");
    assert!(!error.contains(AGENT), "the agent's ID is not for others: {error}");
}

async fn x08_after_an_eviction_the_evidence_counts_once(server: &Server, agent: &mut Agent) {
    server.command(&["agent", "evict", "-spiffeID", AGENT]).await.unwrap();
    assert!(!agent.process().ended().await.unwrap().success());
    agent.start_again().await.unwrap();
    assert!(!agent.process().log().contains("SVID loaded"), "the agent attests anew");
}

async fn x07_a_banned_agent_stays_away(server: &Server, agent: &mut Agent) {
    server.command(&["agent", "ban", "-spiffeID", AGENT]).await.unwrap();
    assert!(!agent.process().ended().await.unwrap().success());
    let error = agent.start_again().await.unwrap_err().to_string();
    assert!(error.contains("agent is banned"), "{error}");
}

fn server_file(folder: &Folder, google: &Google, vm: &Vm) -> ServerFile {
    let key = folder.join("service-account.json");
    fs::write(&key, google.tokens.service_account_file()).unwrap();
    let plugins = format!(
        r#"NodeAttestor "gcp_iit" {{
        plugin_data {{
            projectid_allow_list = ["{}"]
            use_instance_metadata = true
            service_account_file = "{}"
            allowed_label_keys = ["team"]
            {}
        }}
    }}"#,
        vm.project_id,
        key.display(),
        google.server_endpoints()
    );
    let server = "agent_ttl = \"20s\"\nratelimit { attestation = false }".to_owned();
    ServerFile { server, plugins, ..ServerFile::default() }
}

fn agent_file(metadata: &Metadata) -> AgentFile {
    AgentFile {
        agent: "experimental { sync_interval = \"1s\" }".to_owned(),
        node_attestor: Some(format!(
            "NodeAttestor \"gcp_iit\" {{ plugin_data {{ identity_token_host = \"{}\" }} }}",
            metadata.host()
        )),
        ..AgentFile::default()
    }
}

fn selectors(values: &[&str]) -> Vec<Selector> {
    let selector =
        |value: &&str| Selector { r#type: "gcp_iit".to_owned(), value: (*value).to_owned() };
    values.iter().map(selector).collect()
}

/// The ID of the SVID that a workload of this user gets, once the agent has heard of the entry.
async fn svid(agent: &Agent) -> String {
    let asked = async {
        let client = WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap();
        loop {
            match client.fetch_x509_svid().await {
                Ok(svid) => return svid.spiffe_id().to_string(),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the agent hears of the entry")
}
