//! A `spire-server` that runs, and the commands that an operator gives it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use hyper_util::rt::TokioIo;
use spire_core::wire::entry::BatchCreateEntryRequest;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::types::{self, Selector, Spiffeid};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::binaries::Binaries;
use crate::command;
use crate::disk;
use crate::folder::{Folder, own_address};
use crate::process::Process;
use crate::user::User;

/// The trust domain of every server here.
pub const TRUST_DOMAIN: &str = "example.org";

/// What a test adds to the server's file; the rest is as in a first try, with the keys on disk.
#[derive(Debug, Clone, Default)]
pub struct ServerFile {
    /// Lines in the block `server`.
    pub server: String,
    /// Plugins besides the store, the key manager and `join_token`.
    pub plugins: String,
    /// The settings of the store; `None` is a file in the data folder.
    pub data_store: Option<String>,
    /// Where it is set, the data folder is a disk of its own of that size, such as `4m`. Only the
    /// server sees what is on it, and it is gone when the server ends.
    pub disk: Option<&'static str>,
}

/// A server. It is killed when this goes away.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    socket: PathBuf,
    file: PathBuf,
    data: PathBuf,
    process: Process,
}

impl Server {
    /// Starts a server with its files in `folder`, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start(folder: &Folder, added: &ServerFile) -> anyhow::Result<Self> {
        Self::start_in(folder.path(), added).await
    }

    /// As [`start`](Self::start), in a folder that is kept elsewhere.
    ///
    /// # Errors
    /// See above.
    pub async fn start_in(folder: &Path, added: &ServerFile) -> anyhow::Result<Self> {
        let address = own_address();
        let socket = folder.join("server.sock");
        let file = folder.join("server.conf");
        let data = folder.join("server");
        fs::create_dir_all(&data)?;
        let (ip, port, data_dir) = (address.ip(), address.port(), data.display());
        let ServerFile { server, plugins, data_store, disk } = added;
        let data_store = data_store.clone().unwrap_or_else(|| {
            format!(
                "database_type = \"sqlite3\"\n\
                 connection_string = \"{data_dir}/datastore.sqlite3\""
            )
        });
        let text = format!(
            r#"server {{
    trust_domain = "{TRUST_DOMAIN}"
    bind_address = "{ip}"
    bind_port = {port}
    socket_path = "{}"
    data_dir = "{data_dir}"
    {server}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            {data_store}
        }}
    }}
    KeyManager "disk" {{
        plugin_data {{ keys_path = "{data_dir}/keys.json" }}
    }}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
    {plugins}
}}
"#,
            socket.display()
        );
        fs::write(&file, text)?;
        let program = &Binaries::find()?.server;
        let mut command = match disk {
            Some(size) => disk::own(program, &data, &format!("size={size}"))?,
            None => User::current().command(program)?,
        };
        let process = run(command.args(["run", "-config"]).arg(&file)).await?;
        Ok(Self { address, socket, file, data, process })
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where it keeps its database and its keys.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until its log has a line with `text`, and returns that line.
    ///
    /// # Errors
    /// When the program ends before, or takes too long.
    pub async fn logged(&self, text: &str) -> anyhow::Result<String> {
        self.process.logged(text).await
    }

    /// Starts the server again after [`Process::stop`] or [`Process::kill`], with the same files.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = User::current().command(&Binaries::find()?.server)?;
        self.process = run(command.args(["run", "-config"]).arg(&self.file)).await?;
        Ok(())
    }

    /// Gives a command to the server, such as `["entry", "show"]`, and returns what it prints.
    ///
    /// # Errors
    /// When the command fails; the error shows what it says.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = User::current().command(&Binaries::find()?.server)?;
        command.args(arguments).arg("-socketPath").arg(&self.socket);
        command::run(command).await?.success()
    }

    /// A new connection to the admin socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        connect(&self.socket).await
    }

    /// The trust domain's CA certificates in PEM.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn bundle_pem(&self) -> anyhow::Result<String> {
        self.command(&["bundle", "show"]).await
    }

    /// A token for one agent, whose path in the trust domain is [`agent_path`].
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn join_token(&self) -> anyhow::Result<String> {
        token_in(&self.command(&["token", "generate"]).await?)
    }

    /// A token for one agent that entries shall know as `id` too, such as
    /// `spiffe://example.org/host`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn join_token_for(&self, id: &str) -> anyhow::Result<String> {
        token_in(&self.command(&["token", "generate", "-spiffeID", id]).await?)
    }

    /// Creates `entry` and returns it as the server keeps it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_entry(&self, entry: types::Entry) -> anyhow::Result<types::Entry> {
        let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
        let mut client = EntryClient::new(self.connect().await?);
        let mut results = client.batch_create_entry(request).await?.into_inner().results;
        let result = results.pop().context("an answer without a result")?;
        let status = result.status.unwrap_or_default();
        ensure!(status.code == 0, "cannot create the entry: {}", status.message);
        result.entry.context("a result without an entry")
    }
}

fn token_in(printed: &str) -> anyhow::Result<String> {
    let token = printed.lines().find_map(|line| line.strip_prefix("Token: "));
    Ok(token.with_context(|| format!("no token in {printed:?}"))?.to_owned())
}

/// The path of the agent that attests with `token`.
pub fn agent_path(token: &str) -> String {
    format!("/spire/agent/join_token/{token}")
}

async fn run(command: &mut Command) -> anyhow::Result<Process> {
    let process = Process::start("spire-server", command)?;
    process.logged("network=unix").await?;
    Ok(process)
}

/// A connection to the Unix socket at `path`.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(path: &Path) -> anyhow::Result<Channel> {
    let to = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let stream = UnixStream::connect(to.clone());
        async move { stream.await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.with_context(|| format!("cannot connect to {}", path.display()))
}

/// The ID of this trust domain with `path`.
pub fn member(path: &str) -> Spiffeid {
    Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: path.to_owned() }
}

/// An entry with one selector, such as `unix:uid:0`.
pub fn entry(parent: &str, path: &str, selector: &str) -> types::Entry {
    let (kind, value) = selector.split_once(':').unwrap_or((selector, ""));
    types::Entry {
        parent_id: Some(member(parent)),
        spiffe_id: Some(member(path)),
        selectors: vec![Selector { r#type: kind.to_owned(), value: value.to_owned() }],
        ..types::Entry::default()
    }
}
