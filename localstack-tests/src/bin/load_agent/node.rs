//! A real agent of a real server, and the workload that asks it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use spire_core::bundle::certificate_pem;
use spire_core::wire::agent_debug::GetInfoRequest;
use spire_core::wire::agent_debug::debug_client::DebugClient;
use spire_core::wire::entry::BatchCreateEntryRequest;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::types::{Entry, Selector, Spiffeid};
use spire_core::wire::workload::{self, X509svidRequest, X509svidResponse};
use spire_localstack_tests::load::{Process, Server, binary, unix_channel};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::Streaming;

/// How often it is looked whether the socket is there.
const LOOK: Duration = Duration::from_millis(1);

/// How long the agent rests before its memory is looked at.
const REST: Duration = Duration::from_secs(2);

/// How long everything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with an agent that may run.
pub(crate) struct Node {
    folder: TempDir,
    token: String,
    pub(crate) process: Option<Process>,
}

impl Node {
    /// A node that has not joined. Its agent will have so many entries; this process earns the
    /// first of them. `settings` stand in the `agent` block beside what every agent needs.
    pub(crate) async fn new(server: &Server, entries: usize, settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().display();
        let root = server.bundle.x509_authorities.first().context("no root")?;
        std::fs::write(folder.path().join("root.pem"), certificate_pem(&root.certificate))?;
        let port = server.port;
        let text = format!(
            r#"agent {{
                trust_domain = "example.org"
                server_address = "127.0.0.1"
                server_port = {port}
                trust_bundle_path = "{path}/root.pem"
                data_dir = "{path}/data"
                socket_path = "{path}/public/api.sock"
                admin_socket_path = "{path}/private/admin.sock"
                {settings}
            }}
            plugins {{
                KeyManager "disk" {{ plugin_data {{ directory = "{path}/data" }} }}
                NodeAttestor "join_token" {{ plugin_data {{}} }}
                WorkloadAttestor "unix" {{ plugin_data {{}} }}
            }}"#
        );
        std::fs::write(folder.path().join("agent.conf"), text)?;
        let token = server.join_token().await?;
        let all: Vec<_> = (0..entries).map(|number| entry(&token, number)).collect();
        for some in all.chunks(100) {
            let request = BatchCreateEntryRequest { entries: some.to_vec(), output_mask: None };
            EntryClient::new(server.operator.clone()).batch_create_entry(request).await?;
        }
        Ok(Self { folder, token, process: None })
    }

    /// Starts the agent, which joins by its token the first time. Returns how long it took until
    /// this process had its SVID.
    pub(crate) async fn start(&mut self) -> Result<Duration> {
        let log = self.folder.path().join("agent.log");
        let file = self.folder.path().join("agent.conf").display().to_string();
        let program = binary("spire-agent")?;
        let arguments = ["run", "-config", &file, "-joinToken", &self.token];
        let count = if self.folder.path().join("data/agent-data.json").exists() { 3 } else { 5 };
        let begin = Instant::now();
        let mut process = Process::start(&program, &arguments[..count], &log)?;
        while UnixStream::connect(self.socket()).await.is_err() {
            process.check(&log)?;
            anyhow::ensure!(begin.elapsed() < PATIENCE, "the agent does not serve");
            tokio::time::sleep(LOOK).await;
        }
        self.stream().await?;
        let taken = begin.elapsed();
        self.process = Some(process);
        Ok(taken)
    }

    /// Stops the agent.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.stop().await
    }

    /// The socket of the Workload API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("public/api.sock")
    }

    /// A stream of X.509-SVIDs over a connection of its own, whose first answer has come.
    pub(crate) async fn stream(&self) -> Result<Streaming<X509svidResponse>> {
        fetch(&mut workload::client(unix_channel(self.socket()))).await
    }

    /// The agent's memory once it holds so many SVIDs and is at rest, in bytes.
    pub(crate) async fn resident_with(&self, svids: usize) -> Result<u64> {
        let admin = unix_channel(self.folder.path().join("private/admin.sock"));
        let begin = Instant::now();
        loop {
            let info = DebugClient::new(admin.clone()).get_info(GetInfoRequest {}).await?;
            let held = info.into_inner().cached_x509_svids_count;
            if usize::try_from(held)? == svids {
                break;
            }
            anyhow::ensure!(begin.elapsed() < PATIENCE, "it holds {held} SVIDs, not {svids}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(REST).await;
        self.process.as_ref().context("it does not run")?.resident()
    }
}

/// Calls `FetchX509SVID` and reads its first answer.
pub(crate) async fn fetch(client: &mut workload::Client) -> Result<Streaming<X509svidResponse>> {
    let mut answers = client.fetch_x509svid(X509svidRequest {}).await?.into_inner();
    let answer = answers.message().await?.context("the stream ended")?;
    anyhow::ensure!(answer.svids.len() == 1, "{} SVIDs", answer.svids.len());
    Ok(answers)
}

/// An entry of the agent that joins by `token`. The first is for the user of this process, the
/// others for users that do not exist.
fn entry(token: &str, number: usize) -> Entry {
    let id = |path: String| Some(Spiffeid { trust_domain: "example.org".to_owned(), path });
    let uid = match number {
        0 => rustix::process::geteuid().as_raw() as usize,
        number => 1_000_000 + number,
    };
    Entry {
        spiffe_id: id(format!("/ns/production/sa/service-{number}")),
        parent_id: id(format!("/spire/agent/join_token/{token}")),
        selectors: vec![Selector { r#type: "unix".to_owned(), value: format!("uid:{uid}") }],
        x509_svid_ttl: 3600,
        ..Entry::default()
    }
}
