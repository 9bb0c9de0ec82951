//! A Python with the package `spiffe`, a client of the Workload API that others wrote.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::binaries::{say, target};
use crate::packages;

/// Names a Python that has the package, for machines that may not fetch it.
pub const PYTHON: &str = "SPIRE_TEST_PYTHON";

const REQUIREMENTS: &str = include_str!("../data/python-requirements.txt");

/// The Python that `SPIRE_TEST_PYTHON` names, else one of an environment in the target folder,
/// which is made once. Processes that do so at the same time wait for each other.
///
/// # Errors
/// When it cannot be made; says what is missing.
pub fn python() -> anyhow::Result<PathBuf> {
    if let Some(python) = std::env::var_os(PYTHON) {
        let has_package = succeeds(Command::new(&python).args(["-c", "import spiffe"]));
        has_package.with_context(|| format!("{PYTHON} names no Python with {REQUIREMENTS}"))?;
        return Ok(python.into());
    }
    let target = target()?;
    let lock = File::create(target.join("spire-python.lock"))?;
    lock.lock()?;
    let folder = target.join("spire-python");
    let (python, finished) = (folder.join("bin/python3"), folder.join("requirements.txt"));
    let is_finished = fs::read_to_string(&finished).is_ok_and(|text| text == REQUIREMENTS);
    if !is_finished || !python.exists() {
        say(&format!("making a Python environment with {}", REQUIREMENTS.trim_end()));
        make(&folder).with_context(|| {
            format!("no Python environment; {PYTHON} may name a Python with {REQUIREMENTS}")
        })?;
        fs::write(finished, REQUIREMENTS)?;
    }
    Ok(python)
}

fn make(folder: &Path) -> anyhow::Result<()> {
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
    succeeds(install.args(REQUIREMENTS.lines()))
}

fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(())
}
