//! An Azure virtual machine becomes a node, by its attested document and by its managed identity:
//! the agent comes back after a restart, renews its SVID, is evicted and attests anew, and a
//! workload gets an SVID because of what Azure says of the machine.

use std::time::{Duration, Instant};

use spiffe::WorkloadApiClient;
use spire_fakes::azure::{APP, APP_SECRET, Azure, DOMAIN, Machine, SUBSCRIPTION, TENANT};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::entry;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

use crate::evidence::verify;

/// The ID that all machines in the resource group have beside their own.
const ALIAS: &str = "/azure/frontend";

/// How one attestor is configured, and what follows from it.
struct Attestor {
    name: &'static str,
    server: String,
    agent: String,
    path: String,
    selector: &'static str,
}

#[tokio::test]
async fn a_machine_proves_itself_by_its_attested_document() {
    let (folder, azure) = (Folder::new().unwrap(), Azure::start().await);
    let machine = azure.add_machine(Machine::new("web"));
    let roots = folder.join("azure-roots.pem");
    std::fs::write(&roots, azure.pki.root_pem()).unwrap();
    let tenant = format!("secret_auth = {{ app_id = {APP:?}, app_secret = {APP_SECRET:?} }}");
    let attestor = Attestor {
        name: "azure_imds",
        server: format!(
            "tenants = {{ {DOMAIN:?} = {{ {tenant} }} }}\ntrust_bundle_path = {roots:?}\n{}",
            azure.server_endpoints_with_issuers()
        ),
        agent: format!("tenant_domain = {DOMAIN:?}\n{}", azure.agent_endpoints(&machine)),
        path: format!("/spire/agent/azure_imds/{TENANT}/{SUBSCRIPTION}/{}", machine.vm_id),
        selector: "azure_imds:resource-group:frontend",
    };
    story(&folder, &azure, &attestor).await;
}

#[tokio::test]
async fn a_machine_proves_itself_by_its_managed_identity() {
    let (folder, azure) = (Folder::new().unwrap(), Azure::start().await);
    let machine = azure.add_machine(Machine::new("web"));
    let tenant = format!(
        "subscription_id = {SUBSCRIPTION:?}\napp_id = {APP:?}\napp_secret = {APP_SECRET:?}\n\
         resource_id = \"api://spire\""
    );
    let attestor = Attestor {
        name: "azure_msi",
        server: format!(
            "tenants = {{ {TENANT:?} = {{ {tenant} }} }}\n{}",
            azure.server_endpoints()
        ),
        agent: format!("resource_id = \"api://spire\"\n{}", azure.agent_endpoints(&machine)),
        path: format!("/spire/agent/azure_msi/{TENANT}/{}", machine.principal_id),
        selector: "azure_msi:vm-name:frontend:web",
    };
    story(&folder, &azure, &attestor).await;
}

async fn story(folder: &Folder, azure: &Azure, attestor: &Attestor) {
    let block =
        |body: &str| format!("NodeAttestor {:?} {{ plugin_data {{\n{body}\n}} }}", attestor.name);
    let file = ServerFile {
        server: "agent_ttl = \"30s\"".to_owned(),
        plugins: block(&attestor.server),
        ..ServerFile::default()
    };
    let mut server = Server::start(folder, &file).await.unwrap();
    let file = AgentFile { node_attestor: Some(block(&attestor.agent)), ..AgentFile::default() };
    let mut agent = Agent::start(folder, &server, "", &file).await.unwrap();
    let id = format!("spiffe://example.org{}", attestor.path);
    let shown = server.command(&["agent", "show", "-spiffeID", &id]).await.unwrap();
    assert!(shown.contains(attestor.selector), "{shown}");

    let alias = entry("/spire/server", ALIAS, attestor.selector);
    server.create_entry(alias).await.unwrap();
    let user = format!("unix:uid:{}", User::current().uid);
    server.create_entry(entry(ALIAS, "/web", &user)).await.unwrap();
    gets_its_svid(&agent).await;
    let calls = azure.resource_manager.count();

    // What was proven is kept over a restart, and renewed without Azure.
    agent.process().stop().await.unwrap();
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("SVID loaded"), "the agent attested anew");
    gets_its_svid(&agent).await;
    let first = serial_number(&server, &id).await;
    let began = Instant::now();
    while serial_number(&server, &id).await == first {
        assert!(began.elapsed() < PATIENCE, "no renewal: {}", agent.process().log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(azure.resource_manager.count(), calls, "Azure was asked again");

    // Another host with the same evidence is refused; once the agent is evicted, it may come again.
    let elsewhere = Folder::new().unwrap();
    let second = Agent::start(&elsewhere, &server, "", &file).await.unwrap_err();
    let used = "attestation data has already been used to attest an agent";
    assert!(format!("{second:#}").contains(used), "{second:#}");
    let line = server.process().logged("Node refused").await.unwrap();
    assert!(line.contains(&id) && line.contains("first use"), "{line}");

    // What it would show is looked at without it, and changes nothing.
    let verdict = verify(folder).await;
    assert!(verdict.stdout.contains("FAILED   first use"), "{verdict:?}");
    assert!(verdict.code == Some(1) && verdict.stderr.contains(used), "{verdict:?}");
    assert!(server.command(&["agent", "count"]).await.unwrap().starts_with("1 "));
    server.command(&["agent", "evict", "-spiffeID", &id]).await.unwrap();
    assert!(!agent.process().ended().await.unwrap().success());
    let verdict = verify(folder).await.success().unwrap();
    let skipped = "Check           : skipped  nonce: only a challenged node can answer it";
    let selector = format!("Selector        : {}", attestor.selector);
    let mut told = vec![id.as_str(), "passed   virtual machine", "passed   first use", &selector];
    told.extend((attestor.name == "azure_imds").then_some(skipped));
    for part in told {
        assert!(verdict.contains(part), "{part} is not in {verdict}");
    }
    assert!(server.command(&["agent", "count"]).await.unwrap().starts_with("0 "));
    agent.start_again().await.unwrap();
    assert!(agent.process().log().contains("Node attestation was successful"));
    gets_its_svid(&agent).await;
    agent.process().stop().await.unwrap();
    server.process().stop().await.unwrap();
}

async fn serial_number(server: &Server, id: &str) -> String {
    let shown = server.command(&["agent", "show", "-spiffeID", id]).await.unwrap();
    let line = shown.lines().find(|line| line.starts_with("Serial number"));
    line.unwrap_or_else(|| panic!("no serial number: {shown}")).to_owned()
}

/// Waits until the agent has heard of the entry below the alias.
async fn gets_its_svid(agent: &Agent) {
    let client = WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap();
    let began = Instant::now();
    loop {
        match client.fetch_x509_svid().await {
            Ok(svid) => {
                return assert_eq!(svid.spiffe_id().to_string(), "spiffe://example.org/web");
            }
            Err(error) => assert!(began.elapsed() < PATIENCE, "no SVID: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
