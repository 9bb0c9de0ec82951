//! Pythons with packages that others wrote: a client of the Workload API, LocalStack, and moto.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use spire_test_databases::{packages, say, target};

use crate::command;
use crate::user::User;

/// Names a Python that has the package `spiffe`, for machines that may not fetch it.
pub const PYTHON: &str = "SPIRE_TEST_PYTHON";
/// Names a Python that has LocalStack, for machines that may not fetch it.
pub const LOCALSTACK: &str = "SPIRE_TEST_LOCALSTACK";

/// Names a Python that has moto's server, for machines that may not fetch it.
pub const MOTO: &str = "SPIRE_TEST_MOTO";

/// A Python with some packages.
struct Environment {
    /// The folder in the target folder, without the common beginning.
    name: &'static str,
    /// The variable that names a Python with the packages.
    variable: &'static str,
    /// What must be importable there.
    module: &'static str,
    /// The packages, one a line.
    requirements: &'static str,
}

/// A Python with the package `spiffe`: the one that `SPIRE_TEST_PYTHON` names, else one of an
/// environment in the target folder, which is made once.
///
/// # Errors
/// When it cannot be made; says what is missing.
pub fn python() -> anyhow::Result<PathBuf> {
    let requirements = include_str!("../data/python-requirements.txt");
    Environment { name: "python", variable: PYTHON, module: "spiffe", requirements }.find()
}

/// As [`python`], with LocalStack: the last one that the Python 3.11 of Debian 12 runs.
///
/// # Errors
/// When it cannot be made; says what is missing.
pub fn localstack() -> anyhow::Result<PathBuf> {
    let requirements = include_str!("../data/localstack-requirements.txt");
    let (variable, module) = (LOCALSTACK, "localstack.runtime.main");
    Environment { name: "localstack", variable, module, requirements }.find()
}

/// As [`python`], with moto and its server: an AWS that others have built again, Private CA too.
///
/// # Errors
/// When it cannot be made; says what is missing.
pub fn moto() -> anyhow::Result<PathBuf> {
    let requirements = include_str!("../data/moto-requirements.txt");
    Environment { name: "moto", variable: MOTO, module: "moto.server", requirements }.find()
}

/// Runs a Python program, which finds AWS's own library, with `url` as its argument; returns the
/// JSON that it prints.
///
/// # Errors
/// When it fails; the error shows what it says.
pub async fn run(python: &Path, script: &Path, url: &str) -> anyhow::Result<serde_json::Value> {
    let mut command = User::current().command(python)?;
    command.arg(script).arg(url);
    let printed = command::run(command).await?.success()?;
    serde_json::from_str(&printed).with_context(|| format!("{printed:?} is not JSON"))
}

impl Environment {
    /// Processes that look for the same at the same time wait for each other.
    fn find(&self) -> anyhow::Result<PathBuf> {
        let Self { name, variable, module, requirements } = self;
        if let Some(python) = std::env::var_os(variable) {
            let import = format!("import {module}");
            let has_package = succeeds(Command::new(&python).args(["-c", &import]));
            has_package
                .with_context(|| format!("{variable} names no Python with {requirements}"))?;
            return Ok(python.into());
        }
        let target = target()?;
        let lock = File::create(target.join(format!("spire-{name}.lock")))?;
        lock.lock()?;
        let folder = target.join(format!("spire-{name}"));
        let (python, finished) = (folder.join("bin/python3"), folder.join("requirements.txt"));
        let is_finished = fs::read_to_string(&finished).is_ok_and(|text| text == *requirements);
        if !is_finished || !python.exists() {
            say(&format!("making a Python environment with {}", requirements.trim_end()));
            make(&folder, requirements).with_context(|| {
                format!("no Python environment; {variable} may name a Python with {requirements}")
            })?;
            fs::write(finished, requirements)?;
        }
        Ok(python)
    }
}

fn make(folder: &Path, requirements: &str) -> anyhow::Result<()> {
    // What a Python that is gone since, or an attempt that failed, has left.
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    packages::ensure("python3-venv", || {
        succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
    })?;
    succeeds(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let mut install = Command::new(folder.join("bin/python3"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    succeeds(install.args(requirements.lines()))
}

fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(())
}
