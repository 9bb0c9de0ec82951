//! A `spire-agent` that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::Binaries;
use crate::command::{self, Answer};
use crate::folder::Folder;
use crate::process::Process;
use crate::server::{Server, TRUST_DOMAIN};
use crate::user::User;

/// What a test adds to the agent's file; the rest is as in a first try, with the key on disk.
#[derive(Debug, Clone, Default)]
pub struct AgentFile {
    /// Lines in the block `agent`.
    pub agent: String,
    /// Lines in the block of the workload attestor `unix`.
    pub unix: String,
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
    /// Starts an agent of `server` with its files in `folder`, attests with `token`, and waits until
    /// workloads can ask.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start(
        folder: &Folder,
        server: &Server,
        token: &str,
        added: &AgentFile,
    ) -> anyhow::Result<Self> {
        let bundle = folder.join("bootstrap.pem");
        fs::write(&bundle, server.bundle_pem().await?)?;
        let own = folder.join("agent");
        let socket = own.join("public/api.sock");
        let file = folder.join("agent.conf");
        let address = server.address();
        let (ip, port, data_dir) = (address.ip(), address.port(), own.join("data"));
        let data_dir = data_dir.display();
        let AgentFile { agent, unix } = added;
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
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
    WorkloadAttestor "unix" {{
        plugin_data {{ {unix} }}
    }}
}}
"#,
            bundle.display(),
            socket.display()
        );
        fs::write(&file, text)?;
        let process = run(&file, &["-joinToken", token]).await?;
        let program = folder.join("spire-agent");
        Ok(Self { data: own.join("data"), file, socket, program, process })
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
        self.process = run(&self.file, &[]).await?;
        Ok(())
    }
}

async fn run(file: &Path, flags: &[&str]) -> anyhow::Result<Process> {
    let mut command = User::current().command(&Binaries::find()?.agent)?;
    command.args(["run", "-config"]).arg(file).args(flags);
    let process = Process::start("spire-agent", &mut command)?;
    process.logged("Starting agent APIs").await?;
    Ok(process)
}
