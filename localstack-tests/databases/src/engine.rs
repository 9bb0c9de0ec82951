//! The two programs: where they are, how an empty data folder is made, how they are started.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::packages;
use crate::server::{PASSWORD, TlsFiles};
use crate::{MYSQL, POSTGRES};

/// A kind of database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MariaDB, which stands for MySQL too.
    MariaDb,
}

/// Where Debian has the programs of PostgreSQL, a folder for each version.
const POSTGRES_FOLDERS: &str = "/usr/lib/postgresql";

impl Engine {
    /// What the server's file calls it.
    pub fn database_type(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mysql",
        }
    }

    /// The variable that may name a server.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Postgres => POSTGRES,
            Self::MariaDb => MYSQL,
        }
    }

    /// The signal that stops it in order.
    pub(crate) fn stop_signal(self) -> &'static str {
        match self {
            Self::Postgres => "INT",
            Self::MariaDb => "TERM",
        }
    }

    /// The administrator of a private server.
    pub(crate) fn user(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "spire",
        }
    }

    /// Makes an empty data folder.
    ///
    /// # Errors
    /// When the programs are missing and cannot be installed, or fail.
    pub(crate) fn initialize(self, folder: &Path) -> anyhow::Result<()> {
        let data = folder.join("data");
        match self {
            Self::Postgres => {
                let password = folder.join("password");
                fs::write(&password, PASSWORD)?;
                give_to_postgres(folder)?;
                let mut command = as_postgres(&postgres_program("initdb")?);
                command.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password);
                // Without optimisation the rounds of SCRAM take a tenth of a second for each of very
                // many connections. The story of a copy over TLS asks for it.
                command.args(["--username", self.user(), "--auth", "password", "--no-sync"]);
                succeed(command.args(["--encoding", "UTF8", "--locale", "C"]))
            }
            Self::MariaDb => {
                let mut command = packages::command("mariadb-install-db", "mariadb-server")?;
                command.arg("--no-defaults").arg(argument("--datadir=", &data));
                // Servers that share a folder for temporary files delete those of each other.
                fs::create_dir(folder.join("tmp"))?;
                command.env("TMPDIR", folder.join("tmp"));
                command.args(["--skip-test-db", "--auth-root-authentication-method=normal"]);
                succeed(command.arg(format!("--user={}", mariadb_user())))?;
                let user = self.user();
                let first = format!(
                    "CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY '{PASSWORD}';\n\
                     GRANT ALL ON *.* TO {user}@'%' WITH GRANT OPTION;\n"
                );
                Ok(fs::write(folder.join("first.sql"), first)?)
            }
        }
    }

    /// The command that serves the data folder. What it acknowledges survives its own end, but not that of
    /// the machine.
    ///
    /// # Errors
    /// When the program is missing.
    pub(crate) fn serve(
        self,
        folder: &Path,
        address: SocketAddr,
        tls: &TlsFiles,
        connections: u32,
    ) -> anyhow::Result<Command> {
        let data = folder.join("data");
        let (ip, port) = (address.ip(), address.port());
        match self {
            Self::Postgres => {
                let mut command = as_postgres(&postgres_program("postgres")?);
                command.arg("-D").arg(data);
                for setting in [
                    format!("listen_addresses={ip}"),
                    format!("port={port}"),
                    "unix_socket_directories=".to_owned(),
                    format!("max_connections={connections}"),
                    "fsync=off".to_owned(),
                    "full_page_writes=off".to_owned(),
                    "ssl=on".to_owned(),
                    format!("ssl_cert_file={}", tls.certificate.display()),
                    format!("ssl_key_file={}", tls.key.display()),
                    format!("ssl_ca_file={}", tls.root.display()),
                ] {
                    command.args(["-c", &setting]);
                }
                Ok(command)
            }
            Self::MariaDb => {
                let mut command = packages::command("mariadbd", "mariadb-server")?;
                command.arg("--no-defaults").arg(argument("--datadir=", &data));
                command.env("TMPDIR", folder.join("tmp"));
                command.arg(argument("--socket=", &folder.join("socket")));
                command.arg(argument("--pid-file=", &folder.join("pid")));
                command.arg(argument("--init-file=", &folder.join("first.sql")));
                command.arg(argument("--ssl-ca=", &tls.root));
                command.arg(argument("--ssl-cert=", &tls.certificate));
                command.arg(argument("--ssl-key=", &tls.key));
                command.args([
                    format!("--bind-address={ip}").as_str(),
                    &format!("--port={port}"),
                    &format!("--user={}", mariadb_user()),
                    "--skip-name-resolve",
                    &format!("--max-connections={connections}"),
                    "--innodb-flush-log-at-trx-commit=2",
                    "--innodb-doublewrite=OFF",
                    "--skip-log-bin",
                ]);
                Ok(command)
            }
        }
    }
}

/// The newest installed version of a program of PostgreSQL.
fn postgres_program(name: &str) -> anyhow::Result<PathBuf> {
    let newest = || {
        let versions = fs::read_dir(POSTGRES_FOLDERS).into_iter().flatten().flatten();
        let versions = versions.filter_map(|version| {
            let number = version.file_name().to_str()?.parse::<u32>().ok()?;
            let program = version.path().join("bin").join(name);
            program.is_file().then_some((number, program))
        });
        versions.max().map(|(_, program)| program)
    };
    packages::ensure("postgresql", || newest().is_some())?;
    newest().context("the program was there a moment ago")
}

/// PostgreSQL refuses to run as root; its package brings a user.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]);
    command.arg(program);
    command
}

fn give_to_postgres(folder: &Path) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    postgres_program("initdb")?;
    let user = uzers::get_user_by_name("postgres").context("there is no user postgres")?;
    let (uid, gid) = (Some(user.uid()), Some(user.primary_group_id()));
    std::os::unix::fs::chown(folder, uid, gid)?;
    for file in fs::read_dir(folder)? {
        std::os::unix::fs::chown(file?.path(), uid, gid)?;
    }
    Ok(())
}

fn mariadb_user() -> String {
    let user = uzers::get_current_username().unwrap_or_else(|| "mysql".into());
    user.to_string_lossy().into_owned()
}

fn argument(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(name);
    argument.push(path);
    argument
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(())
}
