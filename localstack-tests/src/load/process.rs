//! A program under load.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running program, which is killed where it is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `program`; what it says goes to the file `log`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {program:?}"))?;
        Ok(Self(child))
    }

    /// The CPU time that it has used since it started, in steps of a clock tick (10 ms).
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The program's name is in parentheses and may hold anything; the state is field 3.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
        let fields: Vec<&str> = fields.split(' ').collect();
        let [user, system] = [11, 12].map(|at| fields.get(at).and_then(|one| one.parse().ok()));
        let (Some(user), Some(system)): (Option<u64>, Option<u64>) = (user, system) else {
            bail!("the kernel's line about the program cannot be read: {stat}");
        };
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos((user + system) * (1_000_000_000 / ticks_per_second)))
    }

    /// The memory that it holds, in bytes.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn resident(&self) -> Result<u64> {
        resident(self.0.id())
    }

    /// The most memory that it ever held, in bytes.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn peak(&self) -> Result<u64> {
        memory(self.0.id(), "VmHWM:")
    }

    /// Fails once the program has ended, with the end of its log.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self, log: &Path) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            let text = fs::read_to_string(log).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(10).collect();
            bail!("the program ended ({status}): {}", last.join("\n"));
        }
        Ok(())
    }

    /// Asks it to stop, and waits until it has. Its peers among the tasks of this runtime are told
    /// meanwhile.
    ///
    /// # Errors
    /// Where it was gone already.
    pub async fn stop(mut self) -> Result<()> {
        self.end().await
    }

    /// As [`stop`](Self::stop), for one that is to be replaced.
    ///
    /// # Errors
    /// Where it was gone already.
    pub async fn end(&mut self) -> Result<()> {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(id.context("the program has no id")?, Signal::TERM)?;
        while self.0.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The memory that the program with this process id holds, in bytes: `VmRSS`.
///
/// # Errors
/// Where it has ended.
pub fn resident(id: u32) -> Result<u64> {
    memory(id, "VmRSS:")
}

fn memory(id: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.context("the program has ended")? * 1024)
}

/// The program of that name: in the folder `SPIRE_BIN_DIR`, else beside this one.
///
/// # Errors
/// Where there is none.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("SPIRE_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{path:?} is not there; run `cargo build --release --bin {name}`, or name the folder \
             that has it in SPIRE_BIN_DIR"
        );
    }
    Ok(path)
}

/// A TCP port that was free a moment ago.
///
/// # Errors
/// Where the machine has none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
