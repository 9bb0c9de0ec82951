//! Programs that the machine must have: where one is missing, the package that brings it is
//! installed, or named to whoever may install it.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::{say, target};

/// A command that runs `program`, which is in Debian's `package`.
///
/// # Errors
/// When it is missing and cannot be installed; names the package.
pub fn command(program: &str, package: &str) -> anyhow::Result<Command> {
    ensure(package, || is_on_path(program))?;
    // Servers are where a user's own path does not lead.
    Ok(Command::new(find(program).unwrap_or_else(|| program.into())))
}

/// Installs `package` unless `is_there`. Processes that do so at the same time wait for each other.
///
/// # Errors
/// When it cannot be installed; names the package.
pub fn ensure(package: &str, is_there: impl Fn() -> bool) -> anyhow::Result<()> {
    if is_there() {
        return Ok(());
    }
    let by_hand = format!("install the package {package} (apt-get install {package})");
    if !rustix::process::geteuid().is_root() || !is_on_path("apt-get") {
        bail!("{by_hand}; only root on Debian or Ubuntu has it installed by the tests");
    }
    let lock = File::create(target()?.join("spire-packages.lock"))?;
    lock.lock()?;
    if is_there() {
        return Ok(());
    }
    say(&format!("installing the package {package}"));
    apt_get(&["update"]).and_then(|()| apt_get(&["install", "--yes", package])).context(by_hand)?;
    ensure!(is_there(), "the package {package} does not bring what it is installed for");
    Ok(())
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    let output = command.env("DEBIAN_FRONTEND", "noninteractive").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "apt-get {} failed: {said}", arguments.join(" "));
    Ok(())
}

fn is_on_path(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}
