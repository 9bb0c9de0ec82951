//! `spire-server datastore copy` as a process.

use std::process::Stdio;

use spire_server::store::{DatabaseKind, Settings};
use tokio::process::Command;

/// The command that copies from one database to another; it does not outlive the test.
pub(crate) fn command(from: &Settings, to: &Settings) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spire-server"));
    add_words(&mut command, from, to);
    command
}

/// The same without the rights by which root may write everywhere.
pub(crate) fn command_without_rights(from: &Settings, to: &Settings) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
    command.arg(env!("CARGO_BIN_EXE_spire-server"));
    add_words(&mut command, from, to);
    command
}

fn add_words(command: &mut Command, from: &Settings, to: &Settings) {
    command.args(["datastore", "copy", "-from", &place(from), "-to", &place(to)]);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
}

/// As the command line names a database.
fn place(settings: &Settings) -> String {
    let kind = match settings.kind {
        DatabaseKind::Sqlite => "sqlite3",
        DatabaseKind::Postgres => "postgres",
        DatabaseKind::MySql => "mysql",
    };
    format!("{kind}:{}", settings.connection_string.as_str())
}
