//! A moto that runs: AWS Private CA as others have built it again.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::process::Process;
use crate::python;
use crate::user::User;

/// A moto with nothing in it. It is killed when this goes away.
#[derive(Debug)]
pub struct Moto {
    url: String,
    python: PathBuf,
    _process: Process,
}

impl Moto {
    /// Starts it on a port of its own and waits until it answers.
    ///
    /// # Errors
    /// When it does not start; the error shows its log.
    pub async fn start() -> anyhow::Result<Self> {
        let python = python::moto()?;
        let mut command = User::current().command(&python)?;
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
        command.env("PYTHONUNBUFFERED", "1");
        let process = Process::start("moto", &mut command)?;
        let line = process.logged("Running on http://").await?;
        let (_, address) = line.split_once("http://").context("the line has an address")?;
        let url = format!("http://{}", address.trim());
        Ok(Self { url, python, _process: process })
    }

    /// The URL of all its services.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs a Python program against it, as [`python::run`] does.
    ///
    /// # Errors
    /// When it fails; the error shows what it says.
    pub async fn run(&self, script: &Path) -> anyhow::Result<serde_json::Value> {
        python::run(&self.python, script, &self.url).await
    }
}
