//! The two programs under test: those that `SPIRE_BIN_DIR` names, else built on the spot.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};
use spire_test_databases::{say, target};

/// Names a folder with `spire-server` and `spire-agent` that are to be driven.
pub const BIN_DIR: &str = "SPIRE_BIN_DIR";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `spire-server`
    pub server: PathBuf,
    /// `spire-agent`
    pub agent: PathBuf,
}

impl Binaries {
    /// Finds them, the first time in a process by building them where need be. Processes that do so
    /// at the same time wait for each other.
    ///
    /// # Errors
    /// When the folder lacks one, or the build fails.
    pub fn find() -> anyhow::Result<&'static Self> {
        static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let found = match std::env::var_os(BIN_DIR) {
                Some(folder) => Self::in_folder(Path::new(&folder)).with_context(|| {
                    format!("{BIN_DIR} does not name a folder with both programs")
                }),
                None => build(),
            };
            found.map_err(|error| format!("{error:#}"))
        });
        found.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize()?;
        let found = Self { server: folder.join("spire-server"), agent: folder.join("spire-agent") };
        for program in [&found.server, &found.agent] {
            ensure!(program.is_file(), "{} is missing", program.display());
        }
        Ok(found)
    }
}

/// Builds both with the profile that built the running program, beside it.
fn build() -> anyhow::Result<Binaries> {
    let (folder, is_test) = profile_folder()?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => bail!("{} is no folder of a profile", folder.display()),
    };

    let lock = File::create(folder.join("spire-binaries.lock"))?;
    lock.lock()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--profile", profile]);
    command.args(["--bin", "spire-server", "--bin", "spire-agent"]);
    if is_test {
        // Dependencies of tests add features to shared crates: with them, what `cargo test` has
        // built already serves here too.
        command.arg("--tests");
    }
    command.arg("--target-dir").arg(target()?);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    say(&format!("building spire-server and spire-agent ({profile}); {BIN_DIR} names others"));
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Binaries::in_folder(&folder)
}

/// The folder of the profile that built the running program, and whether that is a test.
fn profile_folder() -> anyhow::Result<(PathBuf, bool)> {
    let program = std::env::current_exe()?.canonicalize()?;
    let folder = program.parent().context("a program lies in a folder")?;
    let is_test = folder.file_name().is_some_and(|name| name == "deps");
    let folder = if is_test { folder.parent() } else { Some(folder) };
    Ok((folder.context("a program lies in the folder of a profile")?.to_owned(), is_test))
}
