//! A LocalStack that runs: EC2, IAM, Secrets Manager and STS as others have built them again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::folder::Folder;
use crate::process::Process;
use crate::python;
use crate::user::User;

/// A LocalStack with nothing in it. It is killed when this goes away.
#[derive(Debug)]
pub struct LocalStack {
    url: String,
    python: PathBuf,
    process: Process,
    _folder: Folder,
}

impl LocalStack {
    /// Starts it and waits until it answers. Nothing but the addresses of this machine is used.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start() -> anyhow::Result<Self> {
        let python = python::localstack()?;
        let (folder, address) = (Folder::new()?, free_address()?);
        let mut command = User::current().command(&python)?;
        command.args(["-m", "localstack.runtime.main"]).current_dir(folder.path());
        command.env("FILESYSTEM_ROOT", folder.path()).env("HOME", folder.path());
        for (variable, value) in [
            ("GATEWAY_LISTEN", address.to_string().as_str()),
            ("GATEWAY_SERVER", "hypercorn"),
            ("SERVICES", "ec2,iam,secretsmanager,sts"),
            ("EAGER_SERVICE_LOADING", "0"),
            ("OVERRIDE_IN_DOCKER", "0"),
            ("SKIP_SSL_CERT_DOWNLOAD", "1"),
            ("DISABLE_EVENTS", "1"),
        ] {
            command.env(variable, value);
        }
        let process = Process::start("localstack", &mut command)?;
        process.logged("Ready.").await?;
        Ok(Self { url: format!("http://{address}"), python, process, _folder: folder })
    }

    /// The URL of all its services.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs a Python program, which finds AWS's own library, with the URL as its argument; returns
    /// the JSON that it prints.
    ///
    /// # Errors
    /// When it fails; the error shows what it says.
    pub async fn run(&self, script: &Path) -> anyhow::Result<serde_json::Value> {
        python::run(&self.python, script, &self.url).await
    }
}

/// An address whose port nobody had a moment ago. LocalStack looks for itself at 127.0.0.1 before it
/// is ready, so that it cannot have an IP address of its own, and it cannot say which port it got.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
