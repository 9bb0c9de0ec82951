//! A `spire-agent` that runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::Binaries;
use crate::command::{self, Answer};
use crate::folder::Folder;
use crate::process::Process;
use crate::server::{Server, TRUST_DOMAIN};
use crate::user::User;

/// Where it keeps what it knows, and where it listens, in the folder of its test.
const DATA: &str = "agent/data";
const SOCKET: &str = "agent/public/api.sock";

const JOIN_TOKEN: &str = r#"NodeAttestor "join_token" { plugin_data {} }"#;

/// What a test adds to the agent's file; the rest is as in a first try, with the key on disk.
#[derive(Debug, Clone, Default)]
pub struct AgentFile {
    /// Lines in the block `agent`.
    pub agent: String,
    /// Lines in the block of the workload attestor `unix`.
    pub unix: String,
    /// The node attestor's block, where it is another than `join_token`.
    pub node_attestor: Option<String>,
    /// Where the server is reached, if not at its own address.
    pub server_address: Option<SocketAddr>,
}

/// An agent. It is killed when this goes away.
#[derive(Debug)]
pub struct Agent {
    data: PathBuf,
    file: PathBuf,
    socket: PathBuf,
    /// The program, where every user may run it.
    program: PathBuf,
    process: Process,
}

impl Agent {
    /// Starts an agent of `server` with its files in `folder`, attests with `token` unless that is
    /// empty, and waits until workloads can ask.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start(
        folder: &Folder,
        server: &Server,
        token: &str,
        added: &AgentFile,
    ) -> anyhow::Result<Self> {
        let file = Self::write_file(folder, server, added).await?;
        let flags = ["-joinToken", token];
        let process = run(&file, if token.is_empty() { &[] } else { &flags }, SERVES).await?;
        let (data, program) = (folder.join(DATA), folder.join("spire-agent"));
        Ok(Self { data, file, socket: folder.join(SOCKET), program, process })
    }

    /// Writes what an agent of `server` reads: its file, whose path is returned, and the bundle
    /// `bootstrap.pem`.
    ///
    /// # Errors
    /// When the server does not tell its bundle.
    pub async fn write_file(
        folder: &Folder,
        server: &Server,
        added: &AgentFile,
    ) -> anyhow::Result<PathBuf> {
        let bundle = folder.join("bootstrap.pem");
        fs::write(&bundle, server.bundle_pem().await?)?;
        let socket = folder.join(SOCKET);
        let file = folder.join("agent.conf");
        let AgentFile { agent, unix, node_attestor, server_address } = added;
        let address = server_address.unwrap_or_else(|| server.address());
        let (ip, port, data_dir) = (address.ip(), address.port(), folder.join(DATA));
        let data_dir = data_dir.display();
        let node_attestor = node_attestor.as_deref().unwrap_or(JOIN_TOKEN);
        let text = format!(
            r#"agent {{
    trust_domain = "{TRUST_DOMAIN}"
    server_address = "{ip}"
    server_port = {port}
    trust_bundle_path = "{}"
    socket_path = "{}"
    data_dir = "{data_dir}"
    {agent}
}}
plugins {{
    KeyManager "disk" {{
        plugin_data {{ directory = "{data_dir}" }}
    }}
    {node_attestor}
    WorkloadAttestor "unix" {{
        plugin_data {{ {unix} }}
    }}
}}
"#,
            bundle.display(),
            socket.display()
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    /// The socket of the Workload API.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The address of the Workload API, as client libraries take it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Where it keeps its SVID and its keys.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Gives a command to the agent as `user`, such as `["api", "fetch", "x509"]`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn command(&self, user: User, arguments: &[&str]) -> anyhow::Result<Answer> {
        let built = &Binaries::find()?.agent;
        let program = match user == User::current() {
            true => built,
            false => self.for_everyone(built).await?,
        };
        let mut command = user.command(program)?;
        command.args(arguments).arg("-socketPath").arg(&self.socket);
        command::run(command).await
    }

    /// A copy of the program `built` outside the folder where it was built, which other users may
    /// not enter.
    async fn for_everyone(&self, built: &Path) -> anyhow::Result<&Path> {
        if !self.program.exists() {
            // By a program of its own: what this process forks meanwhile would keep the copy open
            // for writing, and Linux runs no program that is.
            let mut copy = Command::new("install");
            copy.arg("--mode=755").arg(built).arg(&self.program);
            command::run(copy).await?.success()?;
        }
        Ok(&self.program)
    }

    /// Starts the agent again after [`Process::stop`] or [`Process::kill`], with the same files and
    /// no token.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.start_again_until(SERVES).await
    }

    /// As [`Agent::start_again`], but waits until its log says `text`.
    ///
    /// # Errors
    /// When the agent ends before; the error shows its log.
    pub async fn start_again_until(&mut self, text: &str) -> anyhow::Result<()> {
        self.process = run(&self.file, &[], text).await?;
        Ok(())
    }
}

/// What an agent says when workloads can ask.
const SERVES: &str = "Starting agent APIs";

async fn run(file: &Path, flags: &[&str], until: &str) -> anyhow::Result<Process> {
    let mut command = User::current().command(&Binaries::find()?.agent)?;
    command.args(["run", "-config"]).arg(file).args(flags);
    let process = Process::start("spire-agent", &mut command)?;
    process.logged(until).await?;
    Ok(process)
}
