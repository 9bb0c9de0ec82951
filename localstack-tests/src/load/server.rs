//! A server in a temporary folder, without limits, and its operator.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use hyper_util::rt::TokioIo;
use spire_agent::client::Server as Client;
use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_core::wire::agent::CreateJoinTokenRequest;
use spire_core::wire::agent::agent_client::AgentClient;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{Process, binary, free_port};

/// How long the server may take until it answers; a large datastore takes a while to be read.
const STARTED_WITHIN: Duration = Duration::from_secs(120);

/// A running server with keys in memory, whose rate limits are off.
#[derive(Debug)]
pub struct Server {
    /// The program.
    pub process: Process,
    /// Its admin socket.
    pub operator: Channel,
    /// The trust domain that it serves.
    pub trust_domain: TrustDomain,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its bundle when it had started.
    pub bundle: Bundle,
    folder: TempDir,
}

impl Server {
    /// Starts a server with an empty database.
    ///
    /// # Errors
    /// Where it does not start; the end of its log is in the error.
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// As [`start`](Self::start), with more `plugins`.
    ///
    /// # Errors
    /// See above.
    pub async fn start_with(plugins: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("datastore.sqlite3");
        let settings =
            format!("database_type = \"sqlite3\"\nconnection_string = \"{}\"", path.display());
        Self::start_in(folder, &settings, plugins).await
    }

    /// Starts a server on the database that `settings` of the store name.
    ///
    /// # Errors
    /// See above.
    pub async fn start_on(settings: &str) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, settings, "").await
    }

    async fn start_in(folder: TempDir, settings: &str, plugins: &str) -> Result<Self> {
        let port = free_port()?;
        let path = folder.path().display();
        let text = format!(
            r#"server {{
                trust_domain = "example.org"
                data_dir = "{path}/data"
                socket_path = "{path}/api.sock"
                bind_address = "127.0.0.1"
                bind_port = {port}
                ratelimit {{
                    attestation = false
                    signing = false
                }}
            }}
            plugins {{
                DataStore "sql" {{ plugin_data {{
                    {settings}
                }} }}
                KeyManager "memory" {{ plugin_data {{}} }}
                NodeAttestor "join_token" {{ plugin_data {{}} }}
                {plugins}
            }}"#
        );
        std::fs::write(folder.path().join("server.conf"), text)?;
        let operator = unix_channel(folder.path().join("api.sock"));
        let trust_domain = TrustDomain::parse("example.org")?;
        let (process, bundle) = run(&folder, &operator).await?;
        Ok(Self { process, operator, trust_domain, port, bundle, folder })
    }

    /// Stops the server and starts it again on what it has.
    ///
    /// # Errors
    /// Where it does not start; the end of its log is in the error.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.end().await?;
        (self.process, self.bundle) = run(&self.folder, &self.operator).await?;
        Ok(())
    }

    /// A token by which an agent may join.
    ///
    /// # Errors
    /// Where the server makes none.
    pub async fn join_token(&self) -> Result<String> {
        let request = CreateJoinTokenRequest { ttl: 600, ..CreateJoinTokenRequest::default() };
        let token = AgentClient::new(self.operator.clone()).create_join_token(request).await?;
        Ok(token.into_inner().value)
    }
}

/// Starts the program in `folder` and waits until it answers.
async fn run(folder: &TempDir, operator: &Channel) -> Result<(Process, Bundle)> {
    let log = folder.path().join("server.log");
    let file = folder.path().join("server.conf");
    let arguments = ["run".into(), "-config".into(), file.into_os_string()];
    let mut process = Process::start(&binary("spire-server")?, arguments, &log)?;
    let begin = tokio::time::Instant::now();
    loop {
        process.check(&log)?;
        let operator = operator.clone();
        match Client::new(move || operator.clone()).bundle().await {
            Ok(bundle) => return Ok((process, bundle)),
            Err(error) if begin.elapsed() > STARTED_WITHIN => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A channel to a Unix socket, which is dialled with the first call.
pub fn unix_channel(path: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let stream = UnixStream::connect(path.clone());
        async move { stream.await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://spire").connect_with_connector_lazy(connector)
}
