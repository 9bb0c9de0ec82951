//! Commands that are given at a shell, and what comes of them.

use std::process::Command;

use anyhow::ensure;

/// How a command ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What went to standard output.
    pub stdout: String,
    /// What went to standard error.
    pub stderr: String,
    /// The command, for messages.
    command: String,
}

impl Answer {
    /// What went to standard output, of a command that succeeded.
    ///
    /// # Errors
    /// When it failed; the error shows all that it said.
    pub fn success(self) -> anyhow::Result<String> {
        let Self { code, stdout, stderr, command } = self;
        ensure!(code == Some(0), "{command} ended with {code:?}: {stdout}{stderr}");
        Ok(stdout)
    }
}

/// Runs `command` until it ends.
///
/// # Errors
/// When it cannot be started.
pub async fn run(command: Command) -> anyhow::Result<Answer> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let output = tokio::process::Command::from(command).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        command: words.join(" "),
    })
}
