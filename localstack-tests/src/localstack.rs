//! A LocalStack that runs: EC2, IAM and STS as others have built them again.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::command;
use crate::folder::{Folder, own_address};
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
        let (folder, address) = (Folder::new()?, own_address());
        let mut command = User::current().command(&python)?;
        command.args(["-m", "localstack.runtime.main"]).current_dir(folder.path());
        command.env("GATEWAY_SERVER", "hypercorn").env("GATEWAY_LISTEN", address.to_string());
        command.env("SERVICES", "ec2,iam,sts").env("EAGER_SERVICE_LOADING", "0");
        command
            .env("OVERRIDE_IN_DOCKER", "0")
            .env("SKIP_SSL_CERT_DOWNLOAD", "1")
            .env("DISABLE_EVENTS", "1");
        for variable in ["FILESYSTEM_ROOT", "LOCALSTACK_VOLUME_DIR", "HOME", "TMPDIR"] {
            command.env(variable, folder.path());
        }
        let process = Process::start("localstack", &mut command)?;
        // Its first start compiles Python's files, which takes minutes on a busy machine.
        let mut ready = process.logged("Ready.").await;
        for _ in 0..3 {
            if ready.is_err() {
                ready = process.logged("Ready.").await;
            }
        }
        ready?;
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
        let mut command = User::current().command(&self.python)?;
        command.arg(script).arg(&self.url);
        let printed = command::run(command).await?.success()?;
        serde_json::from_str(&printed).with_context(|| format!("{printed:?} is not JSON"))
    }
}
