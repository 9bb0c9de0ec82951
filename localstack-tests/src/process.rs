//! A program that runs beside the test: its log is read as it is written, and it never outlives the
//! test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

/// How long the slowest machine may take for what usually takes a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program that runs. It is killed when this goes away; a test that fails prints its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: watch::Receiver<String>,
}

impl Process {
    /// Starts `command`, which is called `name` in messages.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let (sender, log) = watch::channel(String::new());
        let mut process = Self { name: name.to_owned(), child, log };
        if let Some(pipe) = process.child.stdout.take() {
            follow(pipe, sender.clone());
        }
        if let Some(pipe) = process.child.stderr.take() {
            follow(pipe, sender);
        }
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until its log has a line with `text`, and returns that line.
    ///
    /// # Errors
    /// When the program ends before, or takes longer than [`PATIENCE`].
    pub async fn logged(&self, text: &str) -> anyhow::Result<String> {
        self.logged_times(text, 1).await
    }

    /// Waits until its log has `times` lines with `text`, and returns the last of them.
    ///
    /// # Errors
    /// When the program ends before, or takes longer than [`PATIENCE`].
    pub async fn logged_times(&self, text: &str, times: usize) -> anyhow::Result<String> {
        let mut log = self.log.clone();
        let said = |log: &String| log.lines().filter(|line| line.contains(text)).count() >= times;
        let found = match tokio::time::timeout(PATIENCE, log.wait_for(said)).await {
            Ok(Ok(log)) => {
                log.lines().filter(|line| line.contains(text)).nth(times - 1).map(str::to_owned)
            }
            Ok(Err(_)) => bail!("{} ended before it said {text:?}:\n{}", self.name, self.log()),
            Err(_) => {
                bail!("{} did not say {text:?} within {PATIENCE:?}:\n{}", self.name, self.log())
            }
        };
        found.context("the line was there")
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.context("a process has an id")?;
        kill_process(id, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits until the program has ended and everything that it wrote has been read.
    ///
    /// # Errors
    /// When it takes longer than [`PATIENCE`].
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut log = self.log.clone();
        let closed = async { while log.changed().await.is_ok() {} };
        if tokio::time::timeout(PATIENCE, closed).await.is_err() {
            bail!("{} did not end within {PATIENCE:?}:\n{}", self.name, self.log());
        }
        Ok(self.child.wait()?)
    }

    /// Asks the program to stop and waits until it has.
    ///
    /// # Errors
    /// When it fails while it stops, or takes longer than [`PATIENCE`].
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended().await?;
        if !status.success() {
            bail!("{} stopped with {status}:\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// Ends the program as a crash does.
    ///
    /// # Errors
    /// When it cannot be killed, or has ended by itself.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        if status.signal() != Some(Signal::KILL.as_raw()) {
            bail!("{} had ended by itself with {status}:\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// Makes sure that the program still runs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended with {status}:\n{}", self.name, self.log()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill(); // fails only where it has ended already
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.name, self.log());
        }
    }
}

/// Reads lines as they come, so that the program never waits for us.
fn follow(pipe: impl Read + Send + 'static, log: watch::Sender<String>) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            log.send_modify(|log| log.push_str(&String::from_utf8_lossy(&line)));
            line.clear();
        }
    });
}
