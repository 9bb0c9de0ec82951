//! A program that goes away with the one that started it, even where that one is killed.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// Waits for an order. The name of a signal sends it to the program; that nobody is left to give
/// orders ends the program and removes its folder.
const SUPERVISOR: &str = r#"
trap '' INT TERM HUP
"$@" &
read -r order
kill -s "${order:-KILL}" $!
wait $!
[ -n "$order" ] || rm -rf "$FOLDER"
"#;

/// A running program and the shell that waits beside it.
#[derive(Debug)]
pub(crate) struct Supervised(Child);

impl Supervised {
    /// Starts `command`; what it says goes to the file `log` in `folder`.
    pub(crate) fn start(command: &Command, folder: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(folder.join("log"))?;
        let mut supervisor = Command::new("/bin/sh");
        supervisor.args(["-c", SUPERVISOR, "sh"]).arg(command.get_program());
        supervisor.args(command.get_args()).env("FOLDER", folder).current_dir("/");
        supervisor.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(supervisor.spawn().context("cannot start /bin/sh")?))
    }

    /// The process id of the program.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        let shell = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let first = children.split_whitespace().next().context("the program has ended")?;
        Ok(first.parse()?)
    }

    /// Sends a signal to the program and waits until it has ended.
    pub(crate) fn end(mut self, signal: &str) -> anyhow::Result<()> {
        if let Some(mut orders) = self.0.stdin.take() {
            writeln!(orders, "{signal}")?;
        }
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait(); // has ended where it was told to
    }
}
